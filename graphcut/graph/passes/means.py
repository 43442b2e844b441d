"""Compute means and sums over long axes over maps instead.

XNNPACK's int8 MEAN and SUM over the last axes of a tensor are right up to 8192 elements and wrong from 8320 on (LiteRT
2.1.2; the built-in kernels are right at any length): ``x.flatten(2).mean(-1)`` of 160x160 maps came out with 8 dB, and
InstanceNorm and GroupNorm have such means inside (:mod:`graphcut.graph.passes.norms`). The mean over height and width
of a map is right at any size.

1. A mean over all pixels of a map that was laid out as lines is GlobalAveragePool of that map.
2. A mean over pixels and channels is GlobalAveragePool, then a 1x1 convolution whose weights are 1 / C.
3. Any other mean over the last axes is GlobalAveragePool of maps of height 1.
4. A sum is the mean times the number of elements; ReduceL2 is the root of the sum of squares.
"""

from __future__ import annotations

from math import prod

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import axes
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.steps import Steps
from graphcut.graph.passes.turning import RANK
from graphcut.records import Node, Shape

LONGEST = 8192
"""The most elements over which MEAN and SUM were seen to be right."""
LAYING_OUT = frozenset({"Reshape", "Flatten", "Squeeze"})


def long_means(net: Net) -> int:
    """ReduceMean, ReduceSum and ReduceL2 over more than :data:`LONGEST` elements at a tensor's end become pools."""
    matches = 0
    for node in net.walk("ReduceMean", "ReduceSum", "ReduceL2"):
        shape, made = net.shape(node.inputs[0]), net.shape(node.outputs[0])
        if shape is None or made is None or net.dtype(node.inputs[0]) != "float32" or len(shape) < 2 or shape[0] != 1:
            continue
        over = axes(net, node, len(shape))
        if not over or over[0] == 0 or over != tuple(range(over[0], len(shape))):
            continue
        lines, length = prod(shape[1 : over[0]]), prod(shape[over[0] :])
        if length <= LONGEST:
            continue
        steps = Steps(net, node, node.outputs[0])
        result = _spelled(net, steps, node, lines, length)
        if made != (1, lines, 1, 1):
            steps.reshape(result, made)
        net.replace([node], steps.made())
        matches += 1
    return matches


def _spelled(net: Net, steps: Steps, node: Node, lines: int, length: int) -> str:
    """The steps of a reduction of some lines of a length; what they make, [1, lines, 1, 1]."""
    vector = (1, lines, 1, 1)
    found = _map_of(net, node, lines)
    if found is None:
        line = (1, lines, 1, length)
        found = steps.reshape(node.inputs[0], line), line
    source, shape = found
    if node.op_type == "ReduceL2":
        source = steps.add("Mul", (source, source), shape)
    result = steps.add("GlobalAveragePool", (source,), (1, shape[1], 1, 1))
    if lines < shape[1]:
        weights = steps.constant("share", np.full(shape[1], 1 / shape[1]), (1, shape[1], 1, 1))
        result = steps.add("Conv", (result, weights), vector, kernel_shape=(1, 1))
    if node.op_type == "ReduceMean":
        return result
    total = steps.add("Mul", (result, steps.constant("count", length, ())), vector)
    return steps.add("Sqrt", (total,), vector) if node.op_type == "ReduceL2" else total


def _map_of(net: Net, node: Node, lines: int) -> tuple[str, Shape] | None:
    """The map whose pixels, or pixels and channels, a reduction goes over, and its shape; None where it is none."""
    source = node.inputs[0]
    while (producer := net.producer(source)) is not None and producer.op_type in LAYING_OUT:
        source = producer.inputs[0]
    shape = net.shape(source)
    if shape is None or len(shape) != RANK or shape[0] != 1 or lines not in (1, shape[1]):
        return None
    return source, shape


LONG_MEANS = Pass(
    name="long-means",
    reason=f"XNNPACK's int8 MEAN and SUM over the last axes are wrong above {LONGEST} elements; over maps they are "
    f"right",
    apply=long_means,
)
