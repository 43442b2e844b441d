"""Predicted size of the int8 TFLite file of any run of nodes, before anything is converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from graphcut.records import Graph, Node, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes as prefix sums: any segment's bytes in constant time.

    Attributes:
        prefix_bytes: prefix_bytes[p] is what nodes[:p] add to a file; len(nodes) + 1 entries, rising, from 0.
        base_bytes: what every file has (header, signature, operator codes).
        prefix_weights: the same for weight bytes alone (one byte an element, each weight counted at every node that
            reads it).
    """

    prefix_bytes: tuple[int, ...]
    base_bytes: int
    prefix_weights: tuple[int, ...]

    def segment_bytes(self, start: int, stop: int) -> int:
        """Bytes of the int8 file of nodes[start:stop]."""
        return self.base_bytes + self.prefix_bytes[stop] - self.prefix_bytes[start]

    def weight_bytes(self, start: int, stop: int) -> int:
        """Weight bytes of nodes[start:stop], one byte an element."""
        return self.prefix_weights[stop] - self.prefix_weights[start]


def from_nodes(node_bytes: Sequence[int], node_weights: Sequence[int], base_bytes: int) -> Sizes:
    """Sizes from the bytes and weight bytes each node adds."""
    return Sizes(
        prefix_bytes=(0, *accumulate(node_bytes)),
        base_bytes=base_bytes,
        prefix_weights=(0, *accumulate(node_weights)),
    )


SCALE_BYTES = 12
"""A float32 scale and an int64 zero point."""
WEIGHTED_NODE_BYTES = 374
"""Tables of a weighted operator and its output, weights and bias, without names, data and scales."""
NODE_BYTES = 135
"""Tables of any other operator and its output."""
CONSTANT_BYTES = 113
"""Tables of a constant that such an operator reads. All three from a least-squares fit to 137 written files, largest
error 156 bytes in 4 MB."""
PAD_BYTES = 300
"""A PAD operator with its paddings and output."""
BASE_BYTES = 720
"""Header, description, signature, operator codes and the input tensor."""

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_FUSES = frozenset({"Relu", "Clip"})
_FUSES_INTO = frozenset({"Conv", "Gemm", "Add", "Sub", "Mul", "ConvTranspose"})
_NOTHING = frozenset({"Identity", "Dropout"})


def predict(graph: Graph, *, per_channel: bool = True) -> Sizes:
    """Predict what every node adds to the int8 TFLite file it will stand in; linear in the graph.

    A weighted node (Conv, Gemm) adds its weights (a byte each), a bias (4 bytes a channel, written even where ONNX
    has none), scales for both (12 bytes a channel, or one a tensor) and three tensors; any other adds its
    constants and one tensor; an activation that fuses into its producer adds nothing.

    Args:
        graph: normalised.
        per_channel: weights get one scale an output channel.
    """
    readers: dict[str, int] = {}
    makers: dict[str, Node] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
        for name in node.outputs:
            makers[name] = node
    fused = {
        node.outputs[0]
        for node in graph.nodes
        if node.op_type in _FUSES
        and readers.get(node.inputs[0]) == 1
        and node.inputs[0] in makers
        and makers[node.inputs[0]].op_type in _FUSES_INTO
        and node.inputs[0] not in graph.outputs
    }
    node_bytes, node_weights = [], []
    for node in graph.nodes:
        constants = [graph.weights[name] for name in node.inputs if name in graph.weights]
        node_weights.append(sum(constant.elements for constant in constants))
        node_bytes.append(0 if node.outputs[0] in fused else _node_bytes(graph, node, constants, per_channel))
    return from_nodes(node_bytes, node_weights, BASE_BYTES)


def _node_bytes(graph: Graph, node: Node, constants: Sequence[Tensor], per_channel: bool) -> int:
    name = _padded(len(graph.layers.get(node.outputs[0], node.outputs[0])))
    if node.op_type in _NOTHING:
        return 0
    if node.op_type in WEIGHTED and constants:
        shape = graph.tensors[node.outputs[0]].shape
        channels = shape[1] if len(shape) > 1 else 1
        scales = 2 * SCALE_BYTES * (channels if per_channel else 1)
        names = 3 * name + _padded(len("_conv_filter")) + _padded(len("_conv_bias"))
        pad = PAD_BYTES + 2 * name if node.op_type == "Conv" and _needs_pad(graph, node) else 0
        return constants[0].elements + 4 * channels + scales + WEIGHTED_NODE_BYTES + names + pad
    data = sum(constant.elements + CONSTANT_BYTES + name for constant in constants)
    return data + (NODE_BYTES + name) * len(node.outputs)


def _needs_pad(graph: Graph, node: Node) -> bool:
    """Whether a Conv's padding is neither none nor TFLite's SAME, so that a PAD operator comes before it."""
    shape, weights = graph.tensors[node.inputs[0]].shape, graph.weights[node.inputs[1]].shape
    axes = len(shape) - 2
    pads = _integers(node, "pads", 2 * axes, 0)
    strides, dilations = _integers(node, "strides", axes, 1), _integers(node, "dilations", axes, 1)
    if not any(pads):
        return False
    for axis in range(axes):
        size, stride = shape[2 + axis], strides[axis]
        reach = (weights[2 + axis] - 1) * dilations[axis] + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        if (pads[axis], pads[axes + axis]) != (total // 2, total - total // 2):
            return True
    return False


def _integers(node: Node, name: str, count: int, default: int) -> tuple[int, ...]:
    values = node.attributes.get(name)
    return tuple(int(value) for value in values) if isinstance(values, tuple) else (default,) * count


def _padded(length: int) -> int:
    """Bytes of a string of that length in a flatbuffer, without its length field."""
    return 4 * (length // 4 + 1)
