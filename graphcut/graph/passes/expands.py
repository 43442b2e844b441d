"""Expands that arithmetic makes unnecessary.

PyTorch's squeeze-and-excite is often written ``x * gate.expand_as(x)``. The converter writes an Expand as a product
with a map of ones, which takes as many bytes as the map has elements, in a file that was planned without them.
"""

from __future__ import annotations

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.records import Node

BROADCASTING = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})


def drop_expands(net: Net) -> int:
    """An Expand goes where all that read it are arithmetic that broadcasts to the same shape without it."""
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


DROP_EXPANDS = Pass(
    name="drop-expands",
    reason="arithmetic broadcasts by itself; the converter would store a map of ones to multiply with",
    apply=drop_expands,
)
