"""What can be proved about an activation's values from the graph alone."""

from __future__ import annotations

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import input_at
from graphcut.records import Node

# fmt: off
ALWAYS = frozenset({
    "Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs", "Sqrt", "Softplus",
})
# fmt: on
"""Operators whose result is never negative."""
# fmt: off
KEEPING = frozenset({
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceMin",
    "ReduceSum", "Concat", "Add", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Reshape", "Transpose", "Flatten",
    "Squeeze", "Unsqueeze", "Slice", "Split", "Expand", "Tile", "Identity", "Dropout", "DepthToSpace",
    "SpaceToDepth", "Gather",
})
# fmt: on
"""Operators whose result is not negative where no float operand is."""


def nonnegative(net: Net) -> set[str]:
    """The activations that are at least 0 for every input; one pass in topological order, linear."""
    proved: set[str] = set()
    for node in net.nodes:
        if _is_nonnegative(net, node, proved):
            proved.update(output for output in node.outputs if output)
    return proved


def _is_nonnegative(net: Net, node: Node, proved: set[str]) -> bool:
    if node.op_type in ALWAYS:
        return True
    if node.op_type == "Clip":
        low = net.constant(input_at(node, 1))
        return (low is not None and bool(np.asarray(low, dtype=np.float64).min() >= 0)) or node.inputs[0] in proved
    if node.op_type == "Pad":
        value = net.constant(input_at(node, 2))
        filled = not input_at(node, 2) or (value is not None and bool(np.asarray(value, dtype=np.float64).min() >= 0))
        return filled and node.inputs[0] in proved
    if node.op_type == "Resize":
        return node.attributes.get("mode", "nearest") != "cubic" and node.inputs[0] in proved
    if node.op_type in KEEPING:
        return all(name in proved or _constant_nonnegative(net, name) for name in node.inputs if name)
    return False


def _constant_nonnegative(net: Net, name: str) -> bool:
    value = net.constant(name)
    if value is None or value.size == 0:
        return value is not None
    if not np.issubdtype(value.dtype, np.floating):
        # Shapes, axes and indices affect the place of elements, not their values.
        return True
    return bool(np.asarray(value, dtype=np.float64).min() >= 0)
