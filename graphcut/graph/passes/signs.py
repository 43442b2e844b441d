"""Abs as what every accelerator has: |x| = relu(x) + relu(-x)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.records import Node


def abs_to_relus(net: Net) -> int:
    """Abs of a map becomes the sum of two Relu, one behind a depthwise 1x1 convolution by -1, which fuses with it."""
    matches = 0
    for node in net.walk("Abs"):
        source = node.inputs[0]
        shape = net.shape(source)
        if shape is None or len(shape) != 4 or net.dtype(source) != "float32" or source in net.weights:
            continue
        positive, negated, negative = (net.add_tensor(node.outputs[0], what, shape) for what in ("up", "minus", "down"))
        minus = net.add_weight(f"{node.name}_minus", np.full((shape[1], 1, 1, 1), -1.0, dtype=np.float32))
        conv = Node(
            name=net.fresh(f"{node.name}_minus"),
            op_type="Conv",
            inputs=(source, minus),
            outputs=(negated,),
            attributes={"group": shape[1], "kernel_shape": (1, 1)},
        )
        up = Node(
            name=net.fresh(f"{node.name}_up"), op_type="Relu", inputs=(source,), outputs=(positive,), attributes={}
        )
        down = replace(up, name=net.fresh(f"{node.name}_down"), inputs=(negated,), outputs=(negative,))
        total = replace(node, op_type="Add", inputs=(positive, negative), attributes={})
        net.replace([node], [up, conv, down, total])
        matches += 1
    return matches


ABS_TO_RELUS = Pass(
    name="abs-to-relus",
    reason="ABS is not an int8 operator of the accelerator; two RELU and an ADD are",
    apply=abs_to_relus,
)
