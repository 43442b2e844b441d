"""Write convolutions over a line as convolutions over a map of height 1.

TFLite has no convolution of rank 3. Channel attention (ECA) and audio networks use them.
"""

from __future__ import annotations

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integers
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.steps import Steps
from graphcut.records import Node

RANK = 3


def lines_to_maps(net: Net) -> int:
    """Conv on [N, C, L] becomes Reshape to [N, C, 1, L], Conv with a kernel of height 1, and Reshape back."""
    matches = 0
    for node in net.walk("Conv"):
        source, made = net.shape(node.inputs[0]), net.shape(node.outputs[0])
        weight = net.constant(node.inputs[1])
        if source is None or made is None or weight is None or len(source) != RANK or len(made) != RANK:
            continue
        if net.dtype(node.inputs[0]) != "float32":
            continue
        before, after = (*source[:2], 1, source[2]), (*made[:2], 1, made[2])
        steps = Steps(net, node, node.outputs[0])
        raised = steps.reshape(node.inputs[0], before)
        kernel = net.add_weight(node.inputs[1], np.ascontiguousarray(weight[:, :, np.newaxis, :]))
        attributes = {**node.attributes, **_on_map(node, weight.shape[2])}
        convolved = steps.add("Conv", (raised, kernel, *node.inputs[2:]), after, **attributes)
        steps.reshape(convolved, made)
        net.replace([node], steps.made())
        matches += 1
    return matches


def _on_map(node: Node, width: int) -> dict[str, object]:
    """The attributes of a window of height 1."""
    raised: dict[str, object] = {
        "kernel_shape": (1, width),
        "strides": (1, *integers(node, "strides", (1,))),
        "dilations": (1, *integers(node, "dilations", (1,))),
    }
    if "pads" in node.attributes:
        begin, end = integers(node, "pads", (0, 0))
        raised["pads"] = (0, begin, 0, end)
    return raised


LINES_TO_MAPS = Pass(
    name="lines-to-maps",
    reason="TFLite has no convolution of rank 3 (ECA attention, audio); over a map of height 1 it is CONV_2D",
    apply=lines_to_maps,
)
