"""Reorder normalisations that multiply before they subtract.

TensorFlow computes x * gain - mean * gain, PyTorch (x - mean) * gain. In float both are the same; in int8 the first
rounds two large maps and leaves their small difference. The difference x - mean already exists, for the variance.
"""

from __future__ import annotations

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.steps import Steps
from graphcut.records import Node


def centre_first(net: Net) -> int:
    """X * g - m * g, in any form and with any addend, becomes (x - m) * g where x - m exists."""
    matches = 0
    for node in net.walk("Add"):
        for kept, other in (node.inputs, node.inputs[::-1]):
            if _rewrite(net, node, kept, other):
                matches += 1
                break
    if matches:
        net.sweep()
    return matches


def _rewrite(net: Net, node: Node, kept: str, other: str) -> bool:
    """Rewrite kept + other, where kept is x * g and other is -m * g or bias - m * g."""
    scaled = _only(net, kept, "Mul")
    taken = None if scaled is None else _taken(net, other)
    if scaled is None or taken is None:
        return False
    mean, gain, bias = taken
    if gain not in scaled.inputs:
        return False
    source = scaled.inputs[0] if scaled.inputs[1] == gain else scaled.inputs[1]
    centred = _difference(net, source, mean)
    shape = net.shape(node.outputs[0])
    if centred is None or shape is None or net.shape(source) != shape:
        return False
    steps = Steps(net, node, node.outputs[0])
    result = centred
    for factor in _factors(net, gain):
        result = steps.add("Mul", (result, factor), shape)
    if bias is not None:
        steps.add("Add", (result, bias), shape)
    net.replace([node], steps.made())
    return True


def _only(net: Net, name: str, op_type: str) -> Node | None:
    """What makes a tensor that is read once, if it is of a kind."""
    node = net.producer(name)
    return node if node is not None and node.op_type == op_type and net.only_reader(name) is not None else None


def _taken(net: Net, name: str) -> tuple[str, str, str | None] | None:
    """The mean, gain and bias of bias - mean * gain in one of three forms; None where it is something else."""
    if (product := _negative_product(net, name)) is not None:
        return *product, None
    if (add := _only(net, name, "Add")) is not None:
        for inner, bias in (add.inputs, add.inputs[::-1]):
            if (product := _negative_product(net, inner)) is not None:
                return *product, bias
    sub = _only(net, name, "Sub")
    subtracted = None if sub is None else _only(net, sub.inputs[1], "Mul")
    if sub is None or subtracted is None:
        return None
    for mean, gain in (subtracted.inputs, subtracted.inputs[::-1]):
        if _reduced(net, mean):
            return mean, gain, sub.inputs[0]
    return None


def _negative_product(net: Net, name: str) -> tuple[str, str] | None:
    """The mean and gain of -mean * gain."""
    product = _only(net, name, "Mul")
    if product is None:
        return None
    for negative, gain in (product.inputs, product.inputs[::-1]):
        neg = net.producer(negative)
        if neg is not None and neg.op_type == "Neg" and _reduced(net, neg.inputs[0]):
            return neg.inputs[0], gain
    return None


def _reduced(net: Net, name: str) -> bool:
    node = net.producer(name)
    return node is not None and node.op_type in ("ReduceMean", "GlobalAveragePool")


def _difference(net: Net, source: str, mean: str) -> str | None:
    """The tensor that is source - mean already."""
    for reader in net.readers(source):
        if reader.op_type == "Sub" and reader.inputs == (source, mean):
            return reader.outputs[0]
    return None


def _factors(net: Net, gain: str) -> tuple[str, ...]:
    """The gain, or the one it has a pixel and its constant factor per channel: two small tensors for a large one."""
    product, shape = net.producer(gain), net.shape(gain)
    if product is not None and product.op_type == "Mul" and shape is not None:
        for inner, constant in (product.inputs, product.inputs[::-1]):
            if net.constant(constant) is not None and net.shape(inner) not in (None, shape):
                return inner, constant
    return (gain,)


CENTRE_FIRST = Pass(
    name="centre-first",
    reason="x * gain - mean * gain is a small difference of two large numbers, each rounded to int8",
    apply=centre_first,
)
