"""Activations written with operators that the quantiser can put into int8.

ai-edge-quantizer 0.5.1 leaves LEAKY_RELU, PRELU, RELU_0_TO_1, NEG, ABS, EXP and LOG in float: each would be computed on
the host between a DEQUANTIZE and a QUANTIZE. It supports MAXIMUM, ADD, RELU, and RELU6 fused into a convolution. On a
map, a factor per channel is written as a depthwise 1x1 convolution: after a Mul the converter leaves the Relu unfused.
After a dense layer it is a Mul.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import input_at, number
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.convolution import Double, depthwise, per_channel
from graphcut.graph.passes.steps import Steps
from graphcut.records import Node, Shape

RELU6 = 6.0
MAP_RANK = 4
LARGEST_BOUND = 1e9
"""Bounds of a Clip beyond this have no effect: exporters write the largest float32 for "no bound"."""


class _Alike(Steps):
    """Steps that all have the shape of the activation that they replace.

    Args:
        net: the graph.
        node: the activation.
        shape: of its first input, and so of its output.
    """

    def __init__(self, net: Net, node: Node, shape: Shape) -> None:
        super().__init__(net, node, node.outputs[0])
        self.shape = shape

    def op(self, op_type: str, *inputs: str) -> str:
        """Add an operator without attributes; its output."""
        return self.add(op_type, inputs, self.shape)

    def scaled(self, source: str, scale: Double | float, shift: float = 0.0) -> str:
        """Add ``scale * source + shift``, one scale or, on a map, one per channel; its output."""
        if len(self.shape) != MAP_RANK and np.all(np.equal(scale, -1.0)):
            # The converter merges two Mul by constants although there is a Relu between them.
            return self.op("Sub", self.constant("shift", shift, ()), source)
        if len(self.shape) != MAP_RANK:
            product = self.op("Mul", source, self.constant("scale", scale, np.shape(scale)))
            return self.op("Add", product, self.constant("shift", shift, ())) if shift else product
        channels = self.shape[1]
        scales = np.broadcast_to(np.asarray(scale, dtype=np.float64), (channels,))
        output, name = self.fresh("scaled", self.shape)
        self.nodes.append(depthwise(self.net, name, source, output, scales, np.full(channels, shift)))
        return output

    def relu6(self, source: str) -> str:
        """Add a clip to 0 .. 6; its output."""
        return self.op("Clip", source, self.constant("low", 0.0, ()), self.constant("high", RELU6, ()))


def _rewriting(op_type: str, spell: Callable[[Node, _Alike], bool]) -> Callable[[Net], int]:
    """A pass function that replaces every ``op_type`` by several operators; ``spell`` returns whether it did."""

    def apply(net: Net) -> int:
        matches = 0
        for node in net.walk(op_type):
            source = node.inputs[0]
            shape = net.shape(source)
            if shape is None or not shape or net.dtype(source) != "float32" or source in net.weights:
                continue
            steps = _Alike(net, node, shape)
            if spell(node, steps):
                net.replace([node], steps.made())
                matches += 1
        return matches

    return apply


def _abs(node: Node, steps: _Alike) -> bool:
    """|x| = relu(x) + relu(-x)."""
    up = steps.op("Relu", node.inputs[0])
    down = steps.op("Relu", steps.scaled(node.inputs[0], -1.0))
    steps.op("Add", up, down)
    return True


def _neg(node: Node, steps: _Alike) -> bool:
    steps.scaled(node.inputs[0], -1.0)
    return True


def _hard_sigmoid(node: Node, steps: _Alike) -> bool:
    """clip(a x + b, 0, 1) = relu6(6 a x + 6 b) / 6."""
    slope, offset = number(node, "alpha", 0.2), number(node, "beta", 0.5)
    steps.scaled(steps.relu6(steps.scaled(node.inputs[0], RELU6 * slope, RELU6 * offset)), 1 / RELU6)
    return True


def _clip(node: Node, steps: _Alike) -> bool:
    """clip(x, l, h) = relu6(6 (x - l) / (h - l)) (h - l) / 6 + l, unless it is relu6 already.

    Without l it is h - relu(h - x); without h it is a Max, which needs no rewrite.
    """
    low, high = (_bound(steps.net, input_at(node, index)) for index in (1, 2))
    if high is None or (low is not None and high <= low):
        return False
    if low is None:
        room = steps.op("Relu", steps.scaled(node.inputs[0], -1.0, high))
        steps.scaled(room, -1.0, high)
        return True
    if (low, high) == (0.0, RELU6):
        return False
    slope = RELU6 / (high - low)
    steps.scaled(steps.relu6(steps.scaled(node.inputs[0], slope, -low * slope)), 1 / slope, low)
    return True


def _bound(net: Net, name: str) -> float | None:
    """A bound of a Clip; None where it is omitted, not constant, or too large to have an effect."""
    value = net.constant(name)
    bound = None if value is None else float(np.asarray(value, dtype=np.float64).reshape(()))
    return bound if bound is not None and abs(bound) < LARGEST_BOUND else None


def _prelu(node: Node, steps: _Alike) -> bool:
    """max(x, s x) where every slope is between 0 and 1, else relu(x) - s relu(-x).

    Slopes that differ within a channel of a map are a Mul, which no converter has to know as PRELU.
    """
    slopes = _slopes(steps, node.inputs[1])
    each = steps.net.constant(node.inputs[1])
    if slopes is None and (each is None or each.dtype != np.float32):
        return False

    def sloped(source: str, sign: float) -> str:
        if slopes is not None:
            return steps.scaled(source, sign * slopes)
        assert each is not None
        return steps.op("Mul", source, steps.constant("slope", sign * each.astype(np.float64), each.shape))

    known = np.asarray(each if slopes is None else slopes, dtype=np.float64)
    if bool(((known >= 0) & (known <= 1)).all()):
        steps.op("Max", node.inputs[0], sloped(node.inputs[0], 1.0))
        return True
    up = steps.op("Relu", node.inputs[0])
    down = steps.op("Relu", steps.scaled(node.inputs[0], -1.0))
    steps.op("Add", up, sloped(down, -1.0))
    return True


def _slopes(steps: _Alike, name: str) -> Double | None:
    """The slopes of a PRelu, one per channel on a map; None where they are not constant."""
    if len(steps.shape) == MAP_RANK:
        return per_channel(steps.net, name, steps.shape[1], MAP_RANK)
    slopes = steps.net.constant(name)
    if slopes is None or slopes.dtype != np.float32 or slopes.ndim > len(steps.shape):
        return None
    return np.asarray(slopes, dtype=np.float64)


def _softplus(node: Node, steps: _Alike) -> bool:
    """log(1 + exp(x)) = relu(x) + log(1 + exp(-|x|)), in which no number is larger than x."""
    up = steps.op("Relu", node.inputs[0])
    down = steps.op("Relu", steps.scaled(node.inputs[0], -1.0))
    power = steps.op("Exp", steps.scaled(steps.op("Add", up, down), -1.0))
    rest = steps.op("Log", steps.op("Add", power, steps.constant("one", 1.0, ())))
    steps.op("Add", up, rest)
    return True


def leaky_relus(net: Net) -> int:
    """LeakyRelu becomes max(x, slope * x) where the slope is from 0 to 1, else relu(x) - slope * relu(-x)."""
    matches = 0
    for node in net.walk("LeakyRelu"):
        slope, shape = number(node, "alpha", 0.01), net.shape(node.inputs[0])
        if shape is None or net.dtype(node.inputs[0]) != "float32":
            continue
        steps = _Alike(net, node, shape)
        if 0 <= slope <= 1:
            steps.op("Max", node.inputs[0], steps.op("Mul", node.inputs[0], steps.constant("slope", slope, ())))
        else:
            up = steps.op("Relu", node.inputs[0])
            down = steps.op("Relu", steps.scaled(node.inputs[0], -1.0))
            steps.op("Add", up, steps.scaled(down, -slope))
        net.replace([node], steps.made())
        matches += 1
    return matches


def mish_to_tanh(net: Net) -> int:
    """Mish becomes x * tanh(softplus(x)), its definition."""
    matches = 0
    for node in net.walk("Mish"):
        shape = net.shape(node.inputs[0])
        if shape is None:
            continue
        steps = _Alike(net, node, shape)
        steps.op("Mul", node.inputs[0], steps.op("Tanh", steps.op("Softplus", node.inputs[0])))
        net.replace([node], steps.made())
        matches += 1
    return matches


LEAKY_RELUS = Pass(
    name="leaky-relu",
    reason="LEAKY_RELU stays in float; MUL and MAXIMUM become int8",
    apply=leaky_relus,
)
PRELUS = Pass(
    name="prelu",
    reason="PRELU stays in float; MAXIMUM, or two RELU and an ADD, become int8",
    apply=_rewriting("PRelu", _prelu),
)
HARD_SIGMOIDS = Pass(
    name="hard-sigmoid",
    reason="RELU_0_TO_1 stays in float; RELU6 fuses into the convolution before it",
    apply=_rewriting("HardSigmoid", _hard_sigmoid),
)
CLIPS = Pass(
    name="clip-to-relu6",
    reason="clips to a range other than 0 to 6 stay in float; scaled to that range they are RELU6",
    apply=_rewriting("Clip", _clip),
)
ABS_TO_RELUS = Pass(
    name="abs-to-relus",
    reason="ABS stays in float; two RELU and an ADD become int8",
    apply=_rewriting("Abs", _abs),
)
NEG_TO_CONV = Pass(
    name="neg-to-conv",
    reason="NEG stays in float; a depthwise convolution becomes int8",
    apply=_rewriting("Neg", _neg),
)
MISH = Pass(
    name="mish-to-tanh",
    reason="the converter writes Mish with exp(x), whose range is too large for int8",
    apply=mish_to_tanh,
)
SOFTPLUS = Pass(
    name="stable-softplus",
    reason="log(1 + exp(x)) has an intermediate value far larger than its result: 0.3 dB in int8 against 33 dB",
    apply=_rewriting("Softplus", _softplus),
)
