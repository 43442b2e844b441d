"""Transpose rows of detections before they are joined, not after.

Detectors end in Reshape (1, C, H W) of every map, Concat over axis 2 and Transpose (0, 2, 1). The converter keeps maps
channels-last, so that a Reshape to (1, H W, C) is free, but it loses the Transpose (onnx2tf 2.6.9 drops it after a
Concat). Moved before the Concat and the activations between, the Transpose becomes part of each Reshape.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.turning import TO_NHWC, UNARY
from graphcut.records import Node

TURN = (0, 2, 1)


def turn_rows_early(net: Net) -> int:
    """Transpose (0, 2, 1) moves up through activations and Concat, and into Reshape of maps."""
    matches = 0
    for node in net.walk("Transpose"):
        waiting = [node] if _leads_to_rows(net, node) else []
        matches += len(waiting)
        while waiting:
            waiting += _moved_up(net, waiting.pop())
    return matches


def _leads_to_rows(net: Net, node: Node) -> bool:
    """Whether a Transpose (0, 2, 1) has a Concat above it, past activations, of which some inputs are maps as rows."""
    if node.attributes.get("perm") != TURN:
        return False
    tensor = node.inputs[0]
    while (maker := net.producer(tensor)) is not None and net.only_reader(tensor) is not None:
        if maker.op_type == "Concat":
            return any(_map_as_rows(net, name) is not None for name in maker.inputs)
        if maker.op_type not in UNARY:
            return False
        tensor = maker.inputs[0]
    return False


def _map_as_rows(net: Net, tensor: str) -> Node | None:
    """The Reshape of a map (1, C, H, W) to (1, C, H W) that alone makes what alone reads; None where it is not one."""
    node = net.producer(tensor)
    if node is None or node.op_type != "Reshape" or net.only_reader(tensor) is None:
        return None
    before, after = net.shape(node.inputs[0]), net.shape(tensor)
    if before is None or len(before) != 4 or before[0] != 1:
        return None
    return node if after == (1, before[1], prod(before[2:])) else None


def _moved_up(net: Net, node: Node) -> list[Node]:
    """Move a Transpose (0, 2, 1) above what makes its input, where that is possible; the ones there are then."""
    tensor, shape = node.inputs[0], net.shape(node.outputs[0])
    maker = net.producer(tensor)
    if maker is None or shape is None or net.only_reader(tensor) is not node:
        return []
    rows = _map_as_rows(net, tensor)
    if rows is not None:
        _through_reshape(net, node, rows)
        return []
    if maker.op_type not in UNARY | {"Concat"} or (maker.op_type == "Concat" and integer(maker, "axis", 0) % 3 == 0):
        return []
    turned, inputs = [], []
    for name in maker.inputs:
        fed = net.shape(name)
        if net.constant(name) is not None and maker.op_type != "Concat":
            inputs.append(name)
            continue
        assert fed is not None
        made = net.add_tensor(name, "turned", tuple(fed[axis] for axis in TURN))
        turned.append(replace(node, name=net.fresh(f"{node.name}_early"), inputs=(name,), outputs=(made,)))
        inputs.append(made)
    attributes = dict(maker.attributes)
    if maker.op_type == "Concat":
        attributes["axis"] = TURN[integer(maker, "axis", 0) % 3]
    moved = replace(maker, inputs=tuple(inputs), outputs=node.outputs, attributes=attributes)
    net.replace([maker, node], [*turned, moved])
    return turned


def _through_reshape(net: Net, node: Node, rows: Node) -> None:
    """Reshape (1, C, H W) and Transpose become Transpose to channels-last and Reshape (1, H W, C)."""
    before, after = net.shape(rows.inputs[0]), net.shape(node.outputs[0])
    assert before is not None
    assert after is not None
    turned = net.add_tensor(rows.inputs[0], "channels_last", tuple(before[axis] for axis in TO_NHWC))
    shape = net.add_weight(rows.inputs[1], np.array(after, dtype=np.int64))
    transpose = replace(node, name=net.fresh(f"{node.name}_map"), inputs=rows.inputs[:1], outputs=(turned,))
    net.replace(
        [rows, node],
        [
            replace(transpose, attributes={"perm": TO_NHWC}),
            replace(rows, inputs=(turned, shape), outputs=node.outputs, attributes={}),
        ],
    )


TURN_ROWS_EARLY = Pass(
    name="turn-rows-early",
    reason="the converter loses a Transpose after a Concat of rows; before the Concat, the Transpose costs nothing",
    apply=turn_rows_early,
)
