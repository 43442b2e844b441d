"""Read attributes and constant inputs, with their defaults and their changes between opsets."""

from __future__ import annotations

import numpy as np

from graphcut.graph.net import Net
from graphcut.records import Node

Ints = tuple[int, ...]


def integer(node: Node, name: str, default: int) -> int:
    """An integer attribute."""
    value = node.attributes.get(name, default)
    assert isinstance(value, int)
    return value


def number(node: Node, name: str, default: float) -> float:
    """A float attribute."""
    value = node.attributes.get(name, default)
    assert isinstance(value, float)
    return value


def text(node: Node, name: str, default: str) -> str:
    """A string attribute."""
    value = node.attributes.get(name, default)
    assert isinstance(value, str)
    return value


def integers(node: Node, name: str, default: Ints) -> Ints:
    """A list-of-integers attribute."""
    value = node.attributes.get(name, default)
    assert isinstance(value, tuple)
    return value


def input_at(node: Node, index: int) -> str:
    """The name of an input, "" where it is omitted."""
    return node.inputs[index] if index < len(node.inputs) else ""


def constant_integers(net: Net, node: Node, index: int) -> Ints | None:
    """A constant integer input as a tuple; None where it is omitted or not constant."""
    value = net.constant(input_at(node, index))
    if value is None or value.ndim > 1:
        return None
    return tuple(int(item) for item in np.atleast_1d(value).astype(np.int64))


def axes(net: Net, node: Node, rank: int, index: int = 1) -> Ints | None:
    """The axes of a Reduce, Squeeze or Unsqueeze, not negative, sorted; None where they are not constant.

    They are an attribute up to opset 12 (17 for most reductions) and input ``index`` from then on; without any, a
    reduction means all axes.
    """
    name = input_at(node, index)
    if "axes" in node.attributes:
        found: Ints | None = integers(node, "axes", ())
    elif name:
        found = constant_integers(net, node, index)
    else:
        found = tuple(range(rank))
    if found is None:
        return None
    return tuple(sorted(axis % rank for axis in found))


def zero_padding(net: Net, node: Node) -> tuple[Ints, Ints] | None:
    """The begins and ends of a Pad with zeros; None for any other kind of Pad, or where it is not constant."""
    rank = net.rank(node.inputs[0])
    if rank is None or text(node, "mode", "constant") != "constant":
        return None
    name = input_at(node, 2)
    if name:
        value = net.constant(name)
        if value is None or np.asarray(value).any():
            return None
    pads = constant_integers(net, node, 1)
    if pads is None:
        return None
    if input_at(node, 3):
        given = constant_integers(net, node, 3)
        if given is None:
            return None
        full = [0] * (2 * rank)
        for position, axis in enumerate(given):
            full[axis % rank] = pads[position]
            full[axis % rank + rank] = pads[position + len(given)]
        pads = tuple(full)
    if any(pad < 0 for pad in pads) or len(pads) != 2 * rank:
        return None
    return pads[:rank], pads[rank:]
