"""Reshapes around global pooling in the forms that convert without stray operators."""

from __future__ import annotations

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.records import Node

RESHAPING = ("Squeeze", "Reshape", "Flatten", "Unsqueeze")
"""Operators that keep the values and their order and change the shape."""


def flatten_to_dense(net: Net) -> int:
    """Squeeze or Reshape of (1, C, 1, 1) to (1, C) becomes Flatten."""
    matches = 0
    for node in net.walk("Squeeze", "Reshape"):
        before, after = net.shape(node.inputs[0]), net.shape(node.outputs[0])
        if before is None or after is None or len(before) != 4 or len(after) != 2:
            continue
        if before[0] != 1 or after[0] != 1 or before[1] != after[1]:
            continue
        flatten = Node(
            name=node.name,
            op_type="Flatten",
            inputs=node.inputs[:1],
            outputs=node.outputs,
            attributes={"axis": 1},
        )
        net.replace([node], [flatten])
        matches += 1
    return matches


def merge_reshapes(net: Net) -> int:
    """Two reshapes in a row become one, or none where the shape is the first one's again."""
    matches = 0
    for node in net.walk(*RESHAPING):
        first = net.producer(node.inputs[0])
        if first is None or first.op_type not in RESHAPING or net.shape(first.inputs[0]) is None:
            continue
        if net.shape(node.outputs[0]) != net.shape(first.inputs[0]):
            continue
        if net.bypass(node, first.inputs[0]):
            matches += 1
    if matches:
        net.sweep()
    return matches


FLATTEN_TO_DENSE = Pass(
    name="flatten-to-dense",
    reason="Squeeze after a global pool leaves a stray TRANSPOSE and an unfused RELU; Flatten does not",
    apply=flatten_to_dense,
)
MERGE_RESHAPES = Pass(
    name="merge-reshapes",
    reason="in squeeze-and-excite, a pool, a squeeze and a reshape back equal the pool alone",
    apply=merge_reshapes,
)
