"""Remove nodes that compute nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.records import Node


def _is_nothing(net: Net, node: Node) -> bool:
    """Whether a node's first output always equals its first input, in elements and shape."""
    if node.op_type in ("Identity", "Dropout"):
        return all(not net.readers(name) and name not in net.outputs for name in node.outputs[1:] if name)
    shape, before = net.shape(node.outputs[0]), net.shape(node.inputs[0]) if node.inputs else None
    if shape is None or shape != before:
        return False
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Slice", "Pad", "Tile", "DepthToSpace"):
        return net.dtype(node.outputs[0]) == net.dtype(node.inputs[0]) and _keeps_order(net, node)
    if node.op_type == "Cast":
        return net.dtype(node.outputs[0]) == net.dtype(node.inputs[0])
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        return isinstance(perm, tuple) and perm == tuple(range(len(perm)))
    if node.op_type in ("Concat", "Sum", "Max", "Min", "Mean"):
        return len(node.inputs) == 1
    return False


def _keeps_order(net: Net, node: Node) -> bool:
    if node.op_type == "Slice":
        steps = net.constant(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] else None
        return (
            len(node.inputs) <= 4
            or not node.inputs[4]
            or (steps is not None and bool((np.asarray(steps, dtype=np.int64) > 0).all()))
        )
    if node.op_type == "Pad":
        pads = net.constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return pads is not None and not pads.any()
    return True


def drop_nothing(net: Net) -> int:
    """Drop the nodes whose output is their input, and the steps of slices that take every element."""
    matches = 0
    for node in net.walk("Slice"):
        steps = net.constant(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] else None
        if steps is not None and (np.asarray(steps, dtype=np.int64) == 1).all():
            net.replace([node], [replace(node, inputs=node.inputs[:4])])
            matches += 1
    for node in net.walk():
        if _is_nothing(net, node) and net.bypass(node, node.inputs[0]):
            matches += 1
    return matches


def sweep(net: Net) -> int:
    """Drop what no output depends on; returns the number of dropped nodes and weights."""
    before = len(net.weights)
    return net.sweep() + before - len(net.weights)


DROP_NOTHING = Pass(
    name="drop-identities",
    reason="Identity, Dropout and reshapes to the same shape compute nothing, but separate nodes that could fuse",
    apply=drop_nothing,
)

SWEEP = Pass(
    name="drop-dead",
    reason="nodes and weights that no output depends on would count towards the sizes",
    apply=sweep,
)
