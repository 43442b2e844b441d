"""Drop Expands that broadcasting makes unnecessary, and write Tile as Concat.

PyTorch's squeeze-and-excite is often written ``x * gate.expand_as(x)``. The converter writes an Expand as a product
with a map of ones, which adds as many bytes as the map has elements.
"""

from __future__ import annotations

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import constant_integers
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.steps import Steps
from graphcut.records import Node

MOST_COPIES = 16
"""A Tile that repeats more often stays one operator."""
BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})


def drop_expands(net: Net) -> int:
    """Drop an Expand if all of its readers broadcast to the same shape without it."""
    matches = 0
    for node in net.walk("Expand"):
        source, expanded = node.inputs[0], node.outputs[0]
        readers = [] if expanded in net.outputs else net.readers(expanded)
        needless = bool(readers) and all(_broadcasts(net, each, expanded, source) for each in readers)
        if needless and net.bypass(node, source):
            matches += 1
    return matches


def _broadcasts(net: Net, reader: Node, expanded: str, source: str) -> bool:
    """Whether a reader makes the same shape of what is not expanded."""
    if reader.op_type not in BROADCASTING:
        return False
    shapes = [net.shape(source if name == expanded else name) for name in reader.inputs]
    made = net.shape(reader.outputs[0])
    known = [shape for shape in shapes if shape is not None]
    return made is not None and len(known) == len(shapes) and np.broadcast_shapes(*known) == tuple(made)


def tiles_to_concats(net: Net) -> int:
    """Tile of an activation becomes a Concat of it with itself along each axis that it repeats."""
    matches = 0
    for node in net.walk("Tile"):
        shape, repeats = net.shape(node.inputs[0]), constant_integers(net, node, 1)
        is_float = net.dtype(node.inputs[0]) == "float32" and net.constant(node.inputs[0]) is None
        if shape is None or repeats is None or not is_float or not 1 < max(repeats) <= MOST_COPIES or repeats[0] != 1:
            continue
        steps = Steps(net, node, node.outputs[0])
        source, made = node.inputs[0], list(shape)
        for axis, count in enumerate(repeats):
            if count > 1:
                made[axis] *= count
                source = steps.add("Concat", (source,) * count, tuple(made), axis=axis)
        net.replace([node], steps.made())
        matches += 1
    return matches


DROP_EXPANDS = Pass(
    name="drop-expands",
    reason="arithmetic broadcasts by itself; the converter would store a map of ones to multiply with",
    apply=drop_expands,
)
TILES_TO_CONCATS = Pass(
    name="tiles-to-concats",
    reason="TILE stays in float; CONCATENATION becomes int8",
    apply=tiles_to_concats,
)
