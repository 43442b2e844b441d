"""Fold arithmetic by constants into the convolutions after it.

1. A Mul or Div by one number per channel, whose result only convolutions read, becomes part of their weights: in
   ``W (s * x)``, every weight is multiplied by the factor of its input channel.
2. An Add or Sub becomes part of their biases if no convolution pads: a padded zero stands for 0 after the Add, which
   the bias cannot express.
3. Where a convolution pads, ``s * x + b`` with one number ``s`` for all channels becomes ``x + b / s``, and ``s`` part
   of the weights.

What is folded costs no rounding to int8, no operator and no parameters. It is exact but for the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import input_at, integer, integers, text
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.convolution import Double, bias_name, factors_of
from graphcut.records import Node

OPERATORS = ("Mul", "Div", "Add", "Sub")


def fold_forward(net: Net) -> int:
    """Mul, Div, Add and Sub by a constant before convolutions folded into them, the last ones first."""
    matches = 0
    folded: set[str] = set()
    for node in reversed([*net.walk(*OPERATORS)]):
        if node.name in folded:
            continue
        gone = _fold(net, node) or _reorder(net, node)
        if gone:
            folded.add(gone)
            matches += 1
    return matches


def _fold(net: Net, node: Node) -> str:
    """Fold a node into all convolutions that read it (statements 1 and 2); its name, "" where it stays."""
    convolutions = _readers(net, node.outputs[0])
    factors = _factors(net, node)
    if not convolutions or factors is None or (factors[1].any() and any(map(_pads, convolutions))):
        return ""
    data = _data(net, node)
    for conv in convolutions:
        net.replace([conv], [_folded(net, conv, data, *factors)])
    net.replace([node], [])
    return node.name


def _reorder(net: Net, node: Node) -> str:
    """Fold the Mul before an Add that stays (statement 3); the name of the Mul, "" where it stays too."""
    convolutions = _readers(net, node.outputs[0])
    before = net.producer(_data(net, node))
    if not convolutions or before is None or net.only_reader(before.outputs[0]) is None:
        return ""
    shift, scale = _factors(net, node), _factors(net, before)
    if shift is None or scale is None or (shift[0] != 1).any() or scale[1].any() or len({*scale[0]}) != 1:
        return ""
    factor = float(scale[0][0])
    if not np.isfinite(shift[1] / factor).all():
        return ""
    constant = next(name for name in node.inputs if net.constant(name) is not None)
    moved = (shift[1] / factor).astype(np.float32)
    count = 1 if len({*moved}) == 1 else len(moved)
    added = replace(
        node,
        op_type="Add",
        inputs=(_data(net, before), net.add_weight(constant, moved[:count].reshape(1, count, 1, 1))),
    )
    none = np.zeros(len(scale[0]))
    for conv in convolutions:
        net.replace([conv], [_folded(net, conv, node.outputs[0], scale[0], none)])
    net.replace([node], [added])
    net.replace([before], [])
    return before.name


def _readers(net: Net, tensor: str) -> Sequence[Node]:
    """The convolutions that read a tensor; none where something else does as well, or it leaves the graph."""
    readers = net.readers(tensor)
    if tensor in net.outputs or not all(_is_foldable(net, reader, tensor) for reader in readers):
        return ()
    return readers


def _is_foldable(net: Net, reader: Node, tensor: str) -> bool:
    if reader.op_type != "Conv" or reader.inputs.count(tensor) != 1:
        return False
    constants = [net.constant(name) for name in reader.inputs[1:] if name]
    return all(each is not None and each.dtype == np.float32 for each in constants)


def _pads(conv: Node) -> bool:
    return any(integers(conv, "pads", ())) or text(conv, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _data(net: Net, node: Node) -> str:
    return node.inputs[1] if net.constant(node.inputs[0]) is not None else node.inputs[0]


def _factors(net: Net, node: Node) -> tuple[Double, Double] | None:
    """Scale and shift of each channel of a map; None for other nodes."""
    if node.op_type not in OPERATORS or all(name in net.weights for name in node.inputs):
        return None
    shape = net.shape(_data(net, node))
    return None if shape is None or len(shape) != 4 else factors_of(net, node, shape[1])


def _folded(net: Net, conv: Node, data: str, scale: Double, shift: Double) -> Node:
    """The convolution that computes of ``data`` what ``conv`` computes of ``scale * data + shift``."""
    weight = net.weights[conv.inputs[1]].astype(np.float64)
    group = integer(conv, "group", 1)
    outputs, inputs = weight.shape[:2]
    per_input, per_shift = (
        np.repeat(each.reshape(group, inputs), outputs // group, axis=0).reshape(outputs, inputs, 1, 1)
        for each in (scale, shift)
    )
    names = [net.add_weight(conv.inputs[1], (weight * per_input).astype(np.float32))]
    if shift.any():
        old = net.weights[conv.inputs[2]].astype(np.float64) if input_at(conv, 2) else 0.0
        moved = old + (weight * per_shift).sum(axis=(1, 2, 3))
        names.append(net.add_weight(bias_name(conv), moved.astype(np.float32)))
    else:
        names += conv.inputs[2:]
    return replace(conv, inputs=(data, *names))


FOLD_FORWARD = Pass(
    name="fold-forward",
    reason="a Mul or Add by a constant before a convolution is an int8 operator of its own, with its own rounding; it "
    "can be part of the convolution's weights",
    apply=fold_forward,
)
