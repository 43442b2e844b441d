"""Build the graph of DenseNet201: costs depend on shapes, not on weights, and there is no structure-only file of it."""

from __future__ import annotations

from collections.abc import Sequence

from graphcut.records import Graph, Node, Shape, Tensor

BLOCKS = (6, 12, 48, 32)
GROWTH = 32


class _Nodes:
    def __init__(self, shape: Shape, *, depthwise: bool) -> None:
        self.depthwise = depthwise
        self.nodes: list[Node] = []
        self.tensors = {"input": Tensor(name="input", shape=shape, dtype="float32")}
        self.weights: dict[str, Tensor] = {}

    def add(
        self,
        op_type: str,
        name: str,
        reads: Sequence[str],
        shape: Shape,
        weights: Sequence[Shape] = (),
        **given: object,
    ) -> str:
        """Add a node whose output has the node's name."""
        own = [f"{name}/{index}" for index in range(len(weights))]
        self.weights |= {
            each: Tensor(name=each, shape=size, dtype="float32") for each, size in zip(own, weights, strict=True)
        }
        self.nodes.append(
            Node(name=name, op_type=op_type, inputs=(*reads, *own), outputs=(name,), attributes=dict(given))
        )
        self.tensors[name] = Tensor(name=name, shape=shape, dtype="float32")
        return name

    def normalised(self, fed: str, name: str, relu: str) -> str:
        """Add a batch normalisation that cannot be folded, and its ReLU."""
        shape = self.tensors[fed].shape
        if self.depthwise:
            channels = shape[1]
            made = self.add("Conv", name, [fed], shape, [(channels, 1, 1, 1), (channels,)], group=channels)
            return self.add("Relu", relu, [made], shape)
        vector = (1, shape[1], 1, 1)
        scaled = self.add("Mul", f"{name}/scale", [fed], shape, [vector])
        return self.add("Relu", relu, [self.add("Add", name, [scaled], shape, [vector])], shape)

    def convolved(self, fed: str, name: str, channels: int, kernel: int, *, bias: bool, stride: int = 1) -> str:
        """Add a convolution that keeps or halves the size."""
        _, depth, height, width = self.tensors[fed].shape
        weights: list[Shape] = [(channels, depth, kernel, kernel), *([(channels,)] if bias else [])]
        shape = (1, channels, height // stride, width // stride)
        pads = (kernel // 2,) * 4
        return self.add("Conv", name, [fed], shape, weights, pads=pads, strides=(stride, stride))

    def halved(self, op_type: str, name: str, fed: str, kernel: int, channels: int) -> str:
        """Add a pool of stride 2."""
        side = (self.tensors[fed].shape[2] - kernel) // 2 + 1
        return self.add(op_type, name, [fed], (1, channels, side, side), kernel_shape=(kernel, kernel), strides=(2, 2))


def densenet201(size: int = 224, *, depthwise: bool = False) -> Graph:
    """Return DenseNet201 like the normalised Keras application, with its layer names.

    Args:
        size: of its input.
        depthwise: as loaded with ``--target edgetpu``: scale and shift of each channel are a depthwise convolution.
    """
    grow = _Nodes((1, 3, size, size), depthwise=depthwise)
    last = grow.convolved("input", "conv1/conv", 64, 7, bias=True, stride=2)
    last = grow.add("Relu", "conv1/relu", [last], grow.tensors[last].shape)
    side = grow.tensors[last].shape[2] + 2
    last = grow.add("Pad", "pool1_pad", [last], (1, 64, side, side))
    last = grow.halved("MaxPool", "pool1", last, 3, 64)
    for stage, count in enumerate(BLOCKS, start=2):
        for number in range(1, count + 1):
            name = f"conv{stage}_block{number}"
            made = grow.normalised(last, f"{name}_0_bn", f"{name}_0_relu")
            made = grow.convolved(made, f"{name}_1_conv", 4 * GROWTH, 1, bias=True)
            made = grow.add("Relu", f"{name}_1_relu", [made], grow.tensors[made].shape)
            made = grow.convolved(made, f"{name}_2_conv", GROWTH, 3, bias=False)
            _, depth, *sides = grow.tensors[last].shape
            last = grow.add("Concat", f"{name}_concat", [last, made], (1, depth + GROWTH, *sides), axis=1)
        if stage < 1 + len(BLOCKS):
            made = grow.normalised(last, f"pool{stage}_bn", f"pool{stage}_relu")
            channels = grow.tensors[made].shape[1] // 2
            made = grow.convolved(made, f"pool{stage}_conv", channels, 1, bias=False)
            last = grow.halved("AveragePool", f"pool{stage}_pool", made, 2, channels)
    last = grow.normalised(last, "bn", "relu")
    channels = grow.tensors[last].shape[1]
    last = grow.add("GlobalAveragePool", "global_pool", [last], (1, channels, 1, 1))
    last = grow.add("Flatten", "avg_pool", [last], (1, channels))
    last = grow.add("Gemm", "logits", [last], (1, 1000), [(1000, channels), (1000,)], transB=1)
    last = grow.add("Softmax", "predictions", [last], (1, 1000))
    return Graph(
        nodes=tuple(grow.nodes),
        inputs=("input",),
        outputs=(last,),
        tensors=grow.tensors,
        weights=grow.weights,
        layers={name: name for name in grow.tensors},
    )
