"""x * relu6(x + 3) / 6 in all the forms in which it is exported.

1. First they all become HardSwish, which other passes can move as one activation.
2. Last it is written as Add with a relu6, and two Mul: the Edge TPU has no HARD_SWISH (graphcut.edgetpu.limits), it has
   ADD with a fused RELU6, and MUL.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.activations import RELU6
from graphcut.graph.passes.attributes import input_at, number
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.convolution import depthwise
from graphcut.graph.passes.steps import Steps
from graphcut.records import Node

SHIFT = 3.0


def hard_swish(net: Net) -> int:
    """A product of x with its hard sigmoid, scaled before or after, becomes HardSwish."""
    matches = 0
    for node in net.walk("Mul", "Div"):
        source = _swish_of(net, node)
        if source is None:
            continue
        net.replace([node], [replace(node, op_type="HardSwish", inputs=(source,), attributes={})])
        matches += 1
    if matches:
        net.sweep()
    return matches


def spell_hard_swish(net: Net) -> int:
    """HardSwish becomes x * relu6(x + 3) * (1 / 6) (statement 2)."""
    matches = 0
    for node in net.walk("HardSwish"):
        shape = net.shape(node.inputs[0])
        if shape is None or net.dtype(node.inputs[0]) != "float32":
            continue
        steps = Steps(net, node, node.outputs[0])
        shifted = steps.add("Add", (node.inputs[0], steps.constant("three", SHIFT, ())), shape)
        gate = steps.add("Clip", (shifted, steps.constant("low", 0.0, ()), steps.constant("six", RELU6, ())), shape)
        product = steps.add("Mul", (node.inputs[0], gate), shape)
        steps.add("Mul", (product, steps.constant("sixth", 1 / RELU6, ())), shape)
        net.replace([node], steps.made())
        matches += 1
    return matches


def scaled_relu6(net: Net) -> int:
    """A Mul or Div by one number after relu6 on a map becomes a depthwise 1x1 convolution."""
    matches = 0
    for node in net.walk("Mul", "Div"):
        split = _scaled(net, node)
        shape = net.shape(node.outputs[0])
        if split is None or shape is None or len(shape) != 4 or _relu6_source(net, split[0]) is None:
            continue
        source, factor = split
        scale = np.full(shape[1], factor)
        net.replace([node], [depthwise(net, node.name, source, node.outputs[0], scale, np.zeros(shape[1]))])
        matches += 1
    return matches


def _swish_of(net: Net, node: Node) -> str | None:
    """X where a node is x * hard_sigmoid(x); None where it is not."""
    if node.op_type == "Mul" and not any(name in net.weights for name in node.inputs):
        for source, gate in (node.inputs, node.inputs[::-1]):
            maker = net.producer(gate)
            if maker is not None and _is_hard_sigmoid(net, maker, source):
                return source
    scaled = _scaled(net, node)
    product = net.producer(scaled[0]) if scaled is not None and np.isclose(scaled[1], 1 / RELU6) else None
    if product is not None and product.op_type == "Mul":
        for source, clipped in (product.inputs, product.inputs[::-1]):
            if _relu6_source(net, clipped) is not None and _is_shifted(net, _relu6_source(net, clipped), source):
                return source
    return None


def _is_hard_sigmoid(net: Net, node: Node, source: str) -> bool:
    """Whether a node is relu6(source + 3) / 6."""
    if node.op_type == "HardSigmoid":
        slope, offset = number(node, "alpha", 0.2), number(node, "beta", 0.5)
        return node.inputs[0] == source and bool(np.isclose(slope, 1 / RELU6)) and offset == SHIFT / RELU6
    scaled = _scaled(net, node)
    if scaled is None or not np.isclose(scaled[1], 1 / RELU6):
        return False
    return _is_shifted(net, _relu6_source(net, scaled[0]), source)


def _scaled(net: Net, node: Node) -> tuple[str, float] | None:
    """The activation and the number it is multiplied by; None where a node does something else."""
    if node.op_type not in ("Mul", "Div"):
        return None
    order = node.inputs if node.op_type == "Div" or node.inputs[1] in net.weights else node.inputs[::-1]
    value = _number(net, order[1])
    if value is None or value == 0 or order[0] in net.weights:
        return None
    return order[0], value if node.op_type == "Mul" else 1 / value


def _relu6_source(net: Net, tensor: str) -> str | None:
    """What a tensor is the relu6 of; None where it is made otherwise."""
    node = net.producer(tensor)
    if node is None or node.op_type != "Clip":
        return None
    low, high = (_number(net, input_at(node, index)) for index in (1, 2))
    return node.inputs[0] if low == 0.0 and high == RELU6 else None


def _is_shifted(net: Net, tensor: str | None, source: str) -> bool:
    """Whether a tensor is ``source + 3``."""
    node = net.producer(tensor) if tensor is not None else None
    if node is None or node.op_type != "Add" or source not in node.inputs:
        return False
    other = node.inputs[1] if node.inputs[0] == source else node.inputs[0]
    return _number(net, other) == SHIFT


def _number(net: Net, name: str) -> float | None:
    value = net.constant(name)
    return float(np.asarray(value, dtype=np.float64).reshape(())) if value is not None and value.size == 1 else None


HARD_SWISH = Pass(
    name="hard-swish",
    reason="written out, hard swish is four operators, which other rewrites cannot move or fuse as one activation",
    apply=hard_swish,
)
SPELL_HARD_SWISH = Pass(
    name="spell-hard-swish",
    reason="the Edge TPU has no HARD_SWISH; ADD with RELU6 and two MUL run on it",
    apply=spell_hard_swish,
)
SCALED_RELU6 = Pass(
    name="scaled-relu6",
    reason="RELU6 before a Mul by a number stays unfused, and in float",
    apply=scaled_relu6,
)
