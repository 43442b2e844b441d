"""Restore the Softmax of old models without the reshapes around it.

Before opset 13, Softmax flattened its input to two dimensions; raising the opset writes that out as
Flatten -> Softmax -> Reshape. Where the flattened second dimension is the input's last one (and the others are in
front), that is an ordinary softmax over the last axis.

Exporters of that time transposed the axis to the end and back: Transpose -> Softmax -> Transpose is a softmax over that
    axis.
"""

from __future__ import annotations

from dataclasses import replace

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer, integers
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.reshape import RESHAPING


def plain_softmax(net: Net) -> int:
    """Flatten or Reshape to (rows, classes) -> Softmax -> Reshape back becomes one Softmax over the last axis."""
    matches = 0
    for node in net.walk("Softmax"):
        before, after = net.producer(node.inputs[0]), net.only_reader(node.outputs[0])
        if before is None or after is None or before.op_type not in RESHAPING or after.op_type not in RESHAPING:
            continue
        whole, flat = net.shape(before.inputs[0]), net.shape(node.inputs[0])
        if whole is None or flat is None or len(flat) != 2 or not whole or whole[-1] != flat[1]:
            continue
        if node.attributes.get("axis", -1) not in (-1, 1) or net.shape(after.outputs[0]) != whole:
            continue
        plain = replace(node, inputs=before.inputs[:1], outputs=after.outputs, attributes={"axis": -1})
        net.replace([node, after], [plain])
        matches += 1
    if matches:
        net.sweep()
    return matches


def turned_softmax(net: Net) -> int:
    """Transpose -> Softmax -> Transpose back becomes one Softmax over the axis that the transposition moved."""
    matches = 0
    for node in net.walk("Softmax"):
        before, after = net.producer(node.inputs[0]), net.only_reader(node.outputs[0])
        if before is None or after is None or before.op_type != "Transpose" or after.op_type != "Transpose":
            continue
        there, back = integers(before, "perm", ()), integers(after, "perm", ())
        if not there or len(there) != len(back) or any(there[place] != axis for axis, place in enumerate(back)):
            continue
        axis = there[integer(node, "axis", -1) % len(there)]
        plain = replace(node, inputs=before.inputs[:1], outputs=after.outputs, attributes={"axis": axis})
        net.replace([node, after], [plain])
        matches += 1
    if matches:
        net.sweep()
    return matches


PLAIN_SOFTMAX = Pass(
    name="plain-softmax",
    reason="raising the opset writes an old Softmax as Flatten, Softmax, Reshape: two stray operators, and logits with "
    "another batch",
    apply=plain_softmax,
)
TURNED_SOFTMAX = Pass(
    name="turned-softmax",
    reason="exports before opset 13 transpose the channels to the end and back around Softmax: the logits then have a "
    "layout of their own, and two TRANSPOSE remain",
    apply=turned_softmax,
)
