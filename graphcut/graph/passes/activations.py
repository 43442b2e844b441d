"""Activations written with operators that the quantiser can put into int8.

ai-edge-quantizer 0.5.1 leaves LEAKY_RELU, PRELU, RELU_0_TO_1, NEG, ABS, EXP and LOG in float: each would be computed on
the host between a DEQUANTIZE and a QUANTIZE. MAXIMUM, RELU, RELU6 fused into a convolution, and ADD it knows.
A factor a channel is a depthwise 1x1 convolution here: with Mul the converter leaves the Relu behind it unfused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import input_at, number
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.convolution import Double, depthwise, per_channel
from graphcut.records import Node, Shape

RELU6 = 6.0


class Steps:
    """The operators that take the place of an activation on a map, one after the other.

    Args:
        net: the graph.
        node: the activation; its first input is a rank-4 float32 activation.
    """

    def __init__(self, net: Net, node: Node, shape: Shape) -> None:
        self.nodes: list[Node] = []
        self.net = net
        self._node = node
        self.shape = shape

    def op(self, op_type: str, *inputs: str, what: str = "", last: bool = False) -> str:
        """Add an operator without attributes; returns its output, which is the activation's own for the last one."""
        output = self._output(what or op_type.lower(), last)
        name = self._node.name if last else self.net.fresh(f"{self._node.name}_{what or op_type.lower()}")
        self.nodes.append(Node(name=name, op_type=op_type, inputs=inputs, outputs=(output,), attributes={}))
        return output

    def scaled(self, source: str, scale: Double | float, shift: float = 0.0, *, last: bool = False) -> str:
        """Add ``scale * source + shift``; returns its output."""
        channels = self.shape[1]
        output = self._output("scaled", last)
        name = self._node.name if last else self.net.fresh(f"{self._node.name}_scaled")
        scales = np.broadcast_to(np.asarray(scale, dtype=np.float64), (channels,))
        self.nodes.append(depthwise(self.net, name, source, output, scales, np.full(channels, shift)))
        return output

    def relu6(self, source: str) -> str:
        """Add a clip to 0 .. 6; returns its output."""
        low = self.net.add_weight(f"{self._node.name}_low", np.array(0.0, dtype=np.float32))
        high = self.net.add_weight(f"{self._node.name}_high", np.array(RELU6, dtype=np.float32))
        return self.op("Clip", source, low, high, what="relu6")

    def constant(self, value: float) -> str:
        """A scalar constant."""
        return self.net.add_weight(f"{self._node.name}_constant", np.array(value, dtype=np.float32))

    def _output(self, what: str, last: bool) -> str:
        return self._node.outputs[0] if last else self.net.add_tensor(self._node.outputs[0], what, self.shape)


def _rewriting(op_type: str, spell: Callable[[Node, Steps], bool]) -> Callable[[Net], int]:
    """A pass function that spells out every ``op_type`` on a map; ``spell`` says whether it did."""

    def apply(net: Net) -> int:
        matches = 0
        for node in net.walk(op_type):
            source = node.inputs[0]
            shape = net.shape(source)
            if shape is None or len(shape) != 4 or net.dtype(source) != "float32" or source in net.weights:
                continue
            steps = Steps(net, node, shape)
            if spell(node, steps):
                net.replace([node], steps.nodes)
                matches += 1
        return matches

    return apply


def _abs(node: Node, steps: Steps) -> bool:
    """|x| = relu(x) + relu(-x)."""
    up = steps.op("Relu", node.inputs[0], what="up")
    down = steps.op("Relu", steps.scaled(node.inputs[0], -1.0), what="down")
    steps.op("Add", up, down, last=True)
    return True


def _neg(node: Node, steps: Steps) -> bool:
    steps.scaled(node.inputs[0], -1.0, last=True)
    return True


def _hard_sigmoid(node: Node, steps: Steps) -> bool:
    """clip(a x + b, 0, 1) = relu6(6 a x + 6 b) / 6."""
    slope, offset = number(node, "alpha", 0.2), number(node, "beta", 0.5)
    steps.scaled(steps.relu6(steps.scaled(node.inputs[0], RELU6 * slope, RELU6 * offset)), 1 / RELU6, last=True)
    return True


def _clip(node: Node, steps: Steps) -> bool:
    """clip(x, 0, t) = relu6(6 x / t) * t / 6, unless it is relu6 already."""
    low, high = (steps.net.constant(input_at(node, index)) for index in (1, 2))
    if low is None or high is None or float(np.asarray(low, dtype=np.float64)) != 0.0:
        return False
    top = float(np.asarray(high, dtype=np.float64))
    if top in (0.0, RELU6) or not np.isfinite(top) or top > np.finfo(np.float32).max / 2 or top < 0:
        return False
    steps.scaled(steps.relu6(steps.scaled(node.inputs[0], RELU6 / top)), top / RELU6, last=True)
    return True


def _prelu(node: Node, steps: Steps) -> bool:
    """max(x, s x) where every slope is between 0 and 1, else relu(x) - s relu(-x)."""
    slopes = per_channel(steps.net, node.inputs[1], steps.shape[1], 4)
    if slopes is None:
        return False
    if bool(((slopes >= 0) & (slopes <= 1)).all()):
        steps.op("Max", node.inputs[0], steps.scaled(node.inputs[0], slopes), last=True)
        return True
    up = steps.op("Relu", node.inputs[0], what="up")
    down = steps.op("Relu", steps.scaled(node.inputs[0], -1.0), what="down")
    steps.op("Add", up, steps.scaled(down, -slopes), last=True)
    return True


def _softplus(node: Node, steps: Steps) -> bool:
    """log(1 + exp(x)) = relu(x) + log(1 + exp(-|x|)), in which no number is larger than x."""
    up = steps.op("Relu", node.inputs[0], what="up")
    down = steps.op("Relu", steps.scaled(node.inputs[0], -1.0), what="down")
    power = steps.op("Exp", steps.scaled(steps.op("Add", up, down, what="size"), -1.0))
    rest = steps.op("Log", steps.op("Add", power, steps.constant(1.0), what="plus"))
    steps.op("Add", up, rest, last=True)
    return True


def leaky_relus(net: Net) -> int:
    """LeakyRelu with a slope from 0 to 1 becomes max(x, slope * x), for any rank."""
    matches = 0
    for node in net.walk("LeakyRelu"):
        slope, shape = number(node, "alpha", 0.01), net.shape(node.inputs[0])
        if not 0 <= slope <= 1 or shape is None or net.dtype(node.inputs[0]) != "float32":
            continue
        low = net.add_tensor(node.outputs[0], "low", shape)
        factor = net.add_weight(f"{node.name}_slope", np.array(slope, dtype=np.float32))
        mul = Node(
            name=net.fresh(f"{node.name}_low"),
            op_type="Mul",
            inputs=(node.inputs[0], factor),
            outputs=(low,),
            attributes={},
        )
        net.replace([node], [mul, replace(node, op_type="Max", inputs=(node.inputs[0], low), attributes={})])
        matches += 1
    return matches


def mish_to_tanh(net: Net) -> int:
    """Mish becomes x * tanh(softplus(x)), which is what it is."""
    matches = 0
    for node in net.walk("Mish"):
        shape = net.shape(node.inputs[0])
        if shape is None:
            continue
        steps = Steps(net, node, shape)
        steps.op("Mul", node.inputs[0], steps.op("Tanh", steps.op("Softplus", node.inputs[0])), last=True)
        net.replace([node], steps.nodes)
        matches += 1
    return matches


LEAKY_RELUS = Pass(
    name="leaky-relu",
    reason="LEAKY_RELU stays in float; MUL and MAXIMUM do not",
    apply=leaky_relus,
)
PRELUS = Pass(
    name="prelu",
    reason="PRELU stays in float; MAXIMUM, or two RELU and an ADD, do not",
    apply=_rewriting("PRelu", _prelu),
)
HARD_SIGMOIDS = Pass(
    name="hard-sigmoid",
    reason="RELU_0_TO_1 stays in float; RELU6 fuses into the convolution before it",
    apply=_rewriting("HardSigmoid", _hard_sigmoid),
)
CLIPS = Pass(
    name="clip-to-relu6",
    reason="clips to another range than RELU6's stay in float",
    apply=_rewriting("Clip", _clip),
)
ABS_TO_RELUS = Pass(
    name="abs-to-relus",
    reason="ABS stays in float; two RELU and an ADD do not",
    apply=_rewriting("Abs", _abs),
)
NEG_TO_CONV = Pass(
    name="neg-to-conv",
    reason="NEG stays in float; a depthwise convolution does not",
    apply=_rewriting("Neg", _neg),
)
MISH = Pass(
    name="mish-to-tanh",
    reason="the converter spells Mish with exp(x), which int8 cannot hold",
    apply=mish_to_tanh,
)
SOFTPLUS = Pass(
    name="stable-softplus",
    reason="log(1 + exp(x)) has an intermediate value far larger than its result: 0.3 dB in int8 against 33 dB",
    apply=_rewriting("Softplus", _softplus),
)
