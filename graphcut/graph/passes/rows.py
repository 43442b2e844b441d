"""Write dense layers over the channels of every pixel, as exported by TensorFlow, as 1x1 convolutions.

Dense on a channels-last map is Reshape [1, H, W, C] -> [H W, C], MatMul and Reshape back. That is a 1x1 convolution
between two transpositions, which leave the graph with the others (:mod:`graphcut.graph.passes.transposes`); as
rows the map is no map, so that nothing around it could be turned (Keras ConvNeXt did not convert).
"""

from __future__ import annotations

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.steps import Steps
from graphcut.graph.passes.turning import RANK, TO_NCHW, TO_NHWC
from graphcut.records import Node, Shape


def rows_to_convs(net: Net) -> int:
    """MatMul by a constant over rows of pixels, between two Reshapes, becomes a 1x1 Conv between two Transposes."""
    matches = 0
    for node in net.walk("MatMul"):
        before, after = net.producer(node.inputs[0]), net.only_reader(node.outputs[0])
        weight = net.constant(node.inputs[1])
        if before is None or after is None or weight is None or weight.ndim != 2 or weight.dtype != np.float32:
            continue
        shapes = _of_pixels(net, before, node, after)
        if shapes is None:
            continue
        source, made = shapes
        steps = Steps(net, node, after.outputs[0])
        turned = steps.add("Transpose", (before.inputs[0],), _channels_first(source), perm=TO_NCHW)
        kernel = net.add_weight(node.inputs[1], np.ascontiguousarray(weight.T)[:, :, np.newaxis, np.newaxis])
        conv = steps.add("Conv", (turned, kernel), _channels_first(made), kernel_shape=(1, 1))
        steps.add("Transpose", (conv,), made, perm=TO_NHWC)
        net.replace([node, after], steps.made())
        matches += 1
    if matches:
        net.sweep()
    return matches


def _of_pixels(net: Net, before: Node, node: Node, after: Node) -> tuple[Shape, Shape] | None:
    """The shapes of the maps [1, H, W, C] before and after, if the rows are the pixels of the one and of the other."""
    if before.op_type != "Reshape" or after.op_type != "Reshape" or after.inputs[0] != node.outputs[0]:
        return None
    source, rows = net.shape(before.inputs[0]), net.shape(node.inputs[0])
    product, made = net.shape(node.outputs[0]), net.shape(after.outputs[0])
    if source is None or rows is None or product is None or made is None or net.dtype(node.outputs[0]) != "float32":
        return None
    if len(source) != RANK or source[0] != 1 or len(rows) != 2 or len(product) != 2:
        return None
    return (source, made) if source[-1] == rows[1] and made == (*source[:-1], product[1]) else None


def _channels_first(shape: Shape) -> Shape:
    return tuple(shape[axis] for axis in TO_NCHW)


ROWS_TO_CONVS = Pass(
    name="rows-to-convs",
    reason="TensorFlow's dense layer over a map reshapes it to rows of pixels, which have no layout; it is a 1x1 Conv",
    apply=rows_to_convs,
)
