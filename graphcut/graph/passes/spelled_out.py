"""Write operators that the converter does not support with ones that it supports.

1. Swish (opset 24) is x * sigmoid(alpha * x).
2. LpNormalization is x / max(norm, ``TINY``), the norm being the root of the sum of squares (p = 2) or the sum of
   absolute values (p = 1) along one axis. Where the norm is 0 the result is 0, as in onnxruntime.
3. MeanVarianceNormalization is (x - mean) / sqrt(variance + ``VARIANCE_FLOOR``) over its axes. ONNX defines the divisor
   as sqrt(variance) + 1e-9, which is the same to float32 wherever the variance is not 0.
4. RMSNormalization (opset 23) is x / sqrt(mean of squares + epsilon) * scale over the axes from ``axis`` on.
5. A bound from below that is positive but less than ``TINY`` (the 1e-12 that F.normalize clips a norm to) is ``TINY``
   where it is only divided by: it is there so that a vector of zeros is not divided by zero.

The batch size is 1, so a mean over the batch is omitted.
"""

from __future__ import annotations

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import input_at, integer, integers, number
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.steps import Steps
from graphcut.records import Node, Shape

TINY = 2e-6
"""Norms below this count as 0. onnx2tf 2.6.9 takes a bound up to 1e-6 for 0 (a RELU) and then divides by 0."""
VARIANCE_FLOOR = 1e-9


def spell_out(net: Net) -> int:
    """Rewrite the operators of the module docstring."""
    matches = 0
    for node in net.walk(*_SPELLINGS):
        shape = net.shape(node.inputs[0])
        if shape is None or net.dtype(node.inputs[0]) != "float32":
            continue
        steps = Steps(net, node, node.outputs[0])
        if _SPELLINGS[node.op_type](steps, node, shape):
            net.replace([node], steps.made())
            matches += 1
    return matches


def _swish(steps: Steps, node: Node, shape: Shape) -> bool:
    source, alpha = node.inputs[0], number(node, "alpha", 1.0)
    inner = source if alpha == 1 else steps.add("Mul", (source, steps.constant("alpha", alpha, ())), shape)
    steps.add("Mul", (source, steps.add("Sigmoid", (inner,), shape)), shape)
    return True


def _lp_normalization(steps: Steps, node: Node, shape: Shape) -> bool:
    source, p = node.inputs[0], integer(node, "p", 2)
    axis = integer(node, "axis", -1) % len(shape) if shape else 0
    if not shape or p not in (1, 2):
        return False
    one = _without((axis,), shape)
    if p == 2:
        total = steps.sum(steps.add("Mul", (source, source), shape), (axis,), one)
        norm = steps.add("Sqrt", (total,), one)
    else:
        norm = steps.sum(steps.add("Abs", (source,), shape), (axis,), one)
    floored = steps.add("Max", (norm, steps.constant("tiny", TINY, ())), one)
    steps.add("Div", (source, floored), shape)
    return True


def _mean_variance(steps: Steps, node: Node, shape: Shape) -> bool:
    given = integers(node, "axes", (0, 2, 3))
    axes = tuple(sorted({axis % len(shape) for axis in given})) if shape else ()
    axes = axes[1:] if axes[:1] == (0,) and shape[0] == 1 and len(axes) > 1 else axes
    if not axes:
        return False
    source, one = node.inputs[0], _without(axes, shape)
    centred = steps.add("Sub", (source, steps.mean(source, axes, one)), shape)
    variance = steps.mean(steps.add("Mul", (centred, centred), shape), axes, one)
    shifted = steps.add("Add", (variance, steps.constant("floor", VARIANCE_FLOOR, ())), one)
    gain = steps.add("Div", (steps.constant("one", 1.0, ()), steps.add("Sqrt", (shifted,), one)), one)
    steps.add("Mul", (centred, gain), shape)
    return True


def _rms_normalization(steps: Steps, node: Node, shape: Shape) -> bool:
    scale = steps.net.constant(input_at(node, 1))
    if not shape or scale is None:
        return False
    axes = tuple(range(integer(node, "axis", -1) % len(shape), len(shape)))
    source, one = node.inputs[0], _without(axes, shape)
    squares = steps.mean(steps.add("Mul", (source, source), shape), axes, one)
    shifted = steps.add("Add", (squares, steps.constant("epsilon", number(node, "epsilon", 1e-5), ())), one)
    gain = steps.add("Div", (steps.constant("one", 1.0, ()), steps.add("Sqrt", (shifted,), one)), one)
    normal = steps.add("Mul", (source, gain), shape)
    steps.add("Mul", (normal, steps.constant("scale", scale.astype(np.float64), scale.shape)), shape)
    return True


def _tiny_bound(steps: Steps, node: Node, shape: Shape) -> bool:
    readers = steps.net.readers(node.outputs[0])
    if (
        node.outputs[0] in steps.net.outputs
        or not readers
        or not all(_divides_by(steps.net, each, node.outputs[0]) for each in readers)
    ):
        return False
    source = node.inputs[0]
    if node.op_type == "Clip":
        least, most = (steps.net.constant(input_at(node, place)) for place in (1, 2))
        if most is not None and not (most.astype(np.float64) >= np.finfo(np.float32).max).all():
            return False
    else:
        if len(node.inputs) != 2:
            return False
        constants = [steps.net.constant(name) for name in node.inputs]
        place = next((number for number, value in enumerate(constants) if value is not None), None)
        if place is None:
            return False
        least, source = constants[place], node.inputs[1 - place]
    if least is None or least.size != 1 or not 0 < float(least.reshape(-1)[0]) < TINY:
        return False
    steps.add("Max", (source, steps.constant("tiny", TINY, ())), shape)
    return True


def _divides_by(net: Net, node: Node, name: str) -> bool:
    """Whether an operator divides by a tensor, repeated or not."""
    if node.op_type == "Expand":
        return all(_divides_by(net, each, node.outputs[0]) for each in net.readers(node.outputs[0]))
    return node.op_type == "Div" and node.inputs[1] == name and node.inputs[0] != name


def _without(axes: tuple[int, ...], shape: Shape) -> Shape:
    """The shape with 1 at these axes."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


_SPELLINGS = {
    "Swish": _swish,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_normalization,
    "Clip": _tiny_bound,
    "Max": _tiny_bound,
}

SPELL_OUT = Pass(
    name="spell-out",
    reason="the converter does not support Swish, LpNormalization, MeanVarianceNormalization and RMSNormalization, and "
    "takes a tiny bound for 0",
    apply=spell_out,
)
