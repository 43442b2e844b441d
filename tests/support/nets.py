"""Small ONNX models with seeded weights, made in the test that uses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Adds nodes with seeded weights; every method returns the name of the tensor it makes."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self, x: str, name: str, channels: tuple[int, int], *, kernel: int = 3, stride: int = 1, group: int = 1
    ) -> str:
        fan_in = channels[0] // group * kernel * kernel
        shape = (channels[1], channels[0] // group, kernel, kernel)
        weights = self.weight(f"{name}/w", self.rng.standard_normal(shape) * (2 / fan_in) ** 0.5)
        bias = self.weight(f"{name}/b", self.rng.standard_normal(channels[1]) * 0.1)
        pad = kernel // 2
        return self.node(
            "Conv",
            [x, weights, bias],
            name,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[pad] * 4,
            group=group,
        )

    def dense(self, x: str, name: str, features: tuple[int, int]) -> str:
        weights = self.weight(f"{name}/w", self.rng.standard_normal((features[1], features[0])) * features[0] ** -0.5)
        bias = self.weight(f"{name}/b", self.rng.standard_normal(features[1]) * 0.1)
        return self.node("Gemm", [x, weights, bias], name, transB=1)

    def model(self, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def residual(
    blocks: int = 4, width: int = 16, classes: int = 10, *, softmax: bool = False, seed: int = 0
) -> onnx.ModelProto:
    """Stem, residual blocks (``block1_out`` ..), global pool and a dense head; input ``image`` (1, 3, 32, 32)."""
    b = Builder(seed)
    x = b.node("Relu", [b.conv("image", "stem", (3, width), stride=2)], "stem_out")
    for number in range(1, blocks + 1):
        name = f"block{number}"
        y = b.node("Relu", [b.conv(x, f"{name}_conv1", (width, width))], f"{name}_relu1")
        y = b.conv(y, f"{name}_conv2", (width, width))
        x = b.node("Relu", [b.node("Add", [x, y], f"{name}_add")], f"{name}_out")
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "pool")], "flat")
    x = b.dense(x, "logits", (width, classes))
    if softmax:
        x = b.node("Softmax", [x], "probabilities", axis=1)
    return b.model({"image": (1, 3, 32, 32)}, {x: (1, classes)})


def two_heads(seed: int = 0) -> onnx.ModelProto:
    """A stem, then a rank-4 head and a dense head; input ``image`` (1, 3, 16, 16), outputs ``map`` and ``score``."""
    b = Builder(seed)
    x = b.node("Relu", [b.conv("image", "c1", (3, 8))], "c1_out")
    x = b.node("Relu", [b.conv(x, "c2", (8, 12), stride=2)], "c2_out")
    x = b.node("Relu", [b.conv(x, "c3", (12, 12))], "c3_out")
    b.conv(x, "map", (12, 5), kernel=1)
    flat = b.node("Flatten", [b.node("GlobalAveragePool", [x], "pool")], "flat")
    b.dense(flat, "score", (12, 4))
    return b.model({"image": (1, 3, 16, 16)}, {"map": (1, 5, 8, 8), "score": (1, 4)})


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Write a model and return its path."""
    path = folder / name
    onnx.save(model, path)
    return path


def layer_norm(width: int = 16, classes: int = 5, seed: int = 0) -> onnx.ModelProto:
    """Two ConvNeXt blocks (depthwise, LayerNorm over channels last, dense layers, residual); input (1, 3, 32, 32)."""
    b = Builder(seed)
    x = b.conv("image", "stem", (3, width), stride=2)
    for number in (1, 2):
        name = f"block{number}"
        y = b.conv(x, f"{name}_dw", (width, width), kernel=7, group=width)
        y = b.node("Transpose", [y], f"{name}_last", perm=[0, 2, 3, 1])
        scale = b.weight(f"{name}_g", b.rng.uniform(0.5, 1.5, width))
        shift = b.weight(f"{name}_s", b.rng.standard_normal(width) * 0.1)
        y = b.node("LayerNormalization", [y, scale, shift], f"{name}_norm", axis=-1, epsilon=1e-6)
        wide = b.weight(f"{name}_w1", b.rng.standard_normal((width, 4 * width)) * width**-0.5)
        y = b.node("Relu", [b.node("MatMul", [y, wide], f"{name}_up")], f"{name}_relu")
        narrow = b.weight(f"{name}_w2", b.rng.standard_normal((4 * width, width)) * (4 * width) ** -0.5)
        y = b.node("Transpose", [b.node("MatMul", [y, narrow], f"{name}_down")], f"{name}_first", perm=[0, 3, 1, 2])
        x = b.node("Add", [x, y], f"{name}_out")
    flat = b.node("Flatten", [b.node("GlobalAveragePool", [x], "pool")], "flat")
    b.dense(flat, "logits", (width, classes))
    return b.model({"image": (1, 3, 32, 32)}, {"logits": (1, classes)})


def uneven(blocks: int = 6, width: int = 12, seed: int = 0) -> onnx.ModelProto:
    """A chain of depthwise and 1x1 convolutions (``block1_out`` ..) whose channels are of very different sizes.

    In int8 the small channels are noise, and every layer hands it on. Input ``image`` (1, 3, 24, 24), output ``map``.
    """
    b = Builder(seed)
    x = b.node("Relu", [b.conv("image", "stem", (3, width), stride=2)], "stem_out")
    for number in range(1, blocks + 1):
        name = f"block{number}"
        size = np.exp(b.rng.standard_normal((1, width, 1, 1)) * 1.5)
        y = b.conv(x, f"{name}_deep", (width, width), group=width)
        y = b.node("Mul", [y, b.weight(f"{name}_size", size)], f"{name}_uneven")
        y = b.node("Relu", [y], f"{name}_relu")
        z = b.conv(y, f"{name}_point", (width, width), kernel=1)
        x = b.node("Relu", [z], f"{name}_out")
    b.conv(x, "map", (width, 4), kernel=1)
    return b.model({"image": (1, 3, 24, 24)}, {"map": (1, 4, 12, 12)})
