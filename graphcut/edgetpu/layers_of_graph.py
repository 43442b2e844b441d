"""The layers of a graph as the converter will write them: costs before anything is converted.

1. A Conv becomes CONV_2D or DEPTHWISE_CONV_2D, with a PAD before it where its padding is not TFLite's SAME; a Gemm
   becomes FULLY_CONNECTED; an activation that fuses into its producer adds nothing.
2. Weights are not read; ``Assumed`` gives the assumptions. The defaults match per-channel int8 files of trained
   networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphcut.edgetpu.layers import CONV, DENSE, DEPTHWISE, Layer, byte_activations, dilated, live_taps, same_padding
from graphcut.records import Graph, Node, Shape

_FUSES = frozenset({"Relu", "Clip"})
_FUSES_INTO = frozenset({"Conv", "Gemm", "Add", "Sub", "Mul", "ConvTranspose"})
_NOTHING = frozenset({"Identity", "Dropout", "Cast"})
_NAMES = {
    **{"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Max": "MAXIMUM", "Min": "MINIMUM", "Concat": "CONCATENATION"},
    **{"MaxPool": "MAX_POOL_2D", "AveragePool": "AVERAGE_POOL_2D", "GlobalAveragePool": "MEAN", "ReduceMean": "MEAN"},
    **{"GlobalMaxPool": "REDUCE_MAX", "ReduceMax": "REDUCE_MAX", "Softmax": "SOFTMAX", "Pad": "PAD", "Relu": "RELU"},
    **{"Clip": "RELU6", "Sigmoid": "LOGISTIC", "Tanh": "TANH", "Flatten": "RESHAPE", "Reshape": "RESHAPE"},
    **{"Squeeze": "SQUEEZE", "Unsqueeze": "EXPAND_DIMS", "Transpose": "TRANSPOSE", "PRelu": "PRELU"},
    **{"LeakyRelu": "LEAKY_RELU", "HardSwish": "HARD_SWISH", "Split": "SPLIT", "Slice": "STRIDED_SLICE"},
    **{"DepthToSpace": "DEPTH_TO_SPACE", "SpaceToDepth": "SPACE_TO_DEPTH", "LpNormalization": "L2_NORMALIZATION"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """Assumptions about weights, which are not read.

    Attributes:
        per_channel: convolutions have a scale per output channel (and no two of a layer's are all equal).
        per_channel_dense: dense layers too. TensorFlow's converter long kept them per tensor.
        biases: biases that the graph has are not zero.
        absent_biases: layers without a bias get one that is not zero, because an export may omit biases that are zero.
            False for a graph that is complete.
    """

    per_channel: bool = True
    per_channel_dense: bool = True
    biases: bool = True
    absent_biases: bool = True


def layers_of(graph: Graph, assumed: Assumed | None = None) -> tuple[tuple[Layer, ...], ...]:
    """The layers that each node of a graph becomes, in the order of ``graph.nodes``; linear in the graph."""
    given = assumed or Assumed()
    fused = _fused(graph)
    return tuple(() if node.outputs[0] in fused else _node_layers(graph, node, given) for node in graph.nodes)


def _fused(graph: Graph) -> frozenset[str]:
    readers: dict[str, int] = {}
    makers: dict[str, Node] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
        for name in node.outputs:
            makers[name] = node
    return frozenset(
        node.outputs[0]
        for node in graph.nodes
        if node.op_type in _FUSES
        and readers.get(node.inputs[0]) == 1
        and node.inputs[0] in makers
        and makers[node.inputs[0]].op_type in _FUSES_INTO
        and node.inputs[0] not in graph.outputs
    )


def _node_layers(graph: Graph, node: Node, assumed: Assumed) -> tuple[Layer, ...]:
    if node.op_type in _NOTHING:
        return ()
    name = graph.layers.get(node.outputs[0], node.outputs[0])
    fed = tuple(_nhwc(graph.tensors[each].shape) for each in node.inputs if each in graph.tensors)
    made = tuple(_nhwc(graph.tensors[each].shape) for each in node.outputs if each in graph.tensors)
    constants = [graph.weights[each] for each in node.inputs if each in graph.weights]
    rank = len(graph.weights[node.inputs[1]].shape) if len(node.inputs) > 1 and node.inputs[1] in graph.weights else 0
    if node.op_type == "Conv" and rank == 4:
        return _conv(node, name, fed[0], made, graph.weights[node.inputs[1]].shape, assumed)
    if node.op_type == "ConvTranspose" and rank == 4:
        channels_in, channels_out, height, width = graph.weights[node.inputs[1]].shape
        weights = (channels_out, height, width, channels_in)
        words = _words(node, assumed.per_channel, assumed)
        return (_layer(name, "TRANSPOSE_CONV", fed[:1], made, weights=weights, words=words),)
    if node.op_type == "Gemm" and rank == 2:
        shape = graph.weights[node.inputs[1]].shape
        shape = shape if node.attributes.get("transB") else shape[::-1]
        words = _words(node, assumed.per_channel_dense, assumed)
        return (_layer(name, DENSE, fed[:1], made, weights=shape, taps=1, words=words),)
    op = _NAMES.get(node.op_type, node.op_type.upper())
    if node.op_type in ("Resize", "Upsample"):
        op = "RESIZE_BILINEAR" if node.attributes.get("mode") == "linear" else "RESIZE_NEAREST_NEIGHBOR"
    vector = sum(each.elements for each in constants if each.dtype.startswith("float"))
    kernel = _pair(node.attributes, "kernel_shape") if op.endswith("_POOL_2D") else (1, 1)
    return (_layer(name, op, fed, made, constants=vector, window=kernel),)


def _layer(
    name: str,
    op: str,
    inputs: tuple[Shape, ...],
    outputs: tuple[Shape, ...],
    *,
    weights: Shape | None = None,
    taps: int = 0,
    words: int = 0,
    constants: int = 0,
    window: tuple[int, int] = (1, 1),
) -> Layer:
    return Layer(
        name=name,
        op=op,
        inputs=inputs,
        outputs=outputs,
        activation_bytes=byte_activations(*inputs, *outputs),
        weights=weights,
        taps=taps,
        words=words,
        constants=constants,
        window=window,
    )


def _conv(
    node: Node, name: str, fed: Shape, made: tuple[Shape, ...], weights: Shape, assumed: Assumed
) -> tuple[Layer, ...]:
    channels_out, depth, *kernel = weights
    attributes = node.attributes
    strides, dilations = _pair(attributes, "strides"), _pair(attributes, "dilations")
    pads = tuple(int(pad) for pad in _sequence(attributes, "pads")) or (0, 0, 0, 0)
    same = tuple(same_padding(kernel[a], strides[a], dilations[a], fed[1 + a]) for a in (0, 1))
    result = tuple(-(-fed[1 + a] // strides[a]) for a in (0, 1))
    is_same = pads[:2] == same and made[0][1:3] == result
    words = _words(node, assumed.per_channel, assumed)
    # Depthwise: as many groups as input channels. Other groups are written as one convolution with their depth.
    grouped = int(str(attributes.get("group", 1)))
    is_depthwise = depth == 1 and grouped == fed[3] and grouped > 1
    taps = kernel[0] * kernel[1]
    if is_same and not is_depthwise:
        rows, columns = (live_taps(kernel[a], strides[a], dilations[a], fed[1 + a], pads[a], result[a]) for a in (0, 1))
        taps = rows * columns
    layer = _layer(
        name,
        DEPTHWISE if is_depthwise else CONV,
        (fed,),
        made,
        weights=(1, *kernel, channels_out) if is_depthwise else (channels_out, *kernel, depth),
        taps=taps,
        words=words,
        window=(dilated(kernel[0], dilations[0]), dilated(kernel[1], dilations[1])),
    )
    if is_same or not any(pads):
        return (layer,)
    padded = (fed[0], fed[1] + pads[0] + pads[2], fed[2] + pads[1] + pads[3], fed[3])
    return (_layer(f"{name}/pad", "PAD", (fed,), (padded,)), layer)


def _words(node: Node, per_channel: bool, assumed: Assumed) -> int:
    """Words per channel; a bias of zeros, with which a layer without bias is written, needs none."""
    has_bias = assumed.absent_biases or len(node.inputs) > 2
    return (2 if per_channel else 0) + int(assumed.biases and has_bias)


def _nhwc(shape: Shape) -> Shape:
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def _sequence(attributes: Mapping[str, object], name: str) -> tuple[int, ...]:
    value = attributes.get(name)
    return tuple(int(each) for each in value) if isinstance(value, tuple | list) else ()


def _pair(attributes: Mapping[str, object], name: str) -> tuple[int, int]:
    found = _sequence(attributes, name)
    return (found[0], found[1]) if len(found) == 2 else (1, 1)
