"""Preprocessing inside the model, (x * a - b) / c per channel, as one depthwise 1x1 convolution.

Each of its operators would be quantised by itself. A depthwise convolution costs 29 bytes per channel in the file
(weight, bias, scale and zero point of both), two constants 2 bytes. So this is only for tensors of few channels, the
model's inputs. Batch normalisations between Concat and Relu (DenseNet) stay Mul and Add, except for a target on which a
depthwise convolution costs less. :func:`pairs_to_depthwise` is not in the catalogue; it is added when a model is loaded
for such a target.
"""

from __future__ import annotations

from collections.abc import Callable

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.convolution import Double, conv_before, depthwise, factors_of, scaled_conv
from graphcut.records import Node

FEW_CHANNELS = 8
OPERATORS = ("Mul", "Add", "Sub", "Div")


def affine_to_depthwise(net: Net) -> int:
    """A chain of Mul, Add, Sub, Div by one constant per channel, on few channels, becomes one depthwise 1x1 Conv."""
    matches = 0
    for node in net.walk(*OPERATORS):
        factors = _affine(net, node)
        if factors is None:
            continue
        data = _data(net, node)
        before = conv_before(net, data)
        if before is not None:
            net.replace([before, node], [scaled_conv(net, before, node.outputs[0], *factors)])
        elif _continues(net, node):
            net.replace([node], [depthwise(net, node.name, data, node.outputs[0], *factors)])
        else:
            continue
        matches += 1
    return matches


def _data(net: Net, node: Node) -> str:
    return node.inputs[1] if net.constant(node.inputs[0]) is not None else node.inputs[0]


def _affine(net: Net, node: Node) -> tuple[Double, Double] | None:
    """Scale and shift of each channel; None for any other node, or where there are many channels."""
    shape = net.shape(_data(net, node))
    if shape is None or len(shape) != 4 or shape[1] > FEW_CHANNELS or all(name in net.weights for name in node.inputs):
        return None
    return factors_of(net, node, shape[1])


def _continues(net: Net, node: Node) -> bool:
    """Whether the only reader continues the chain."""
    reader = net.only_reader(node.outputs[0])
    return reader is not None and reader.op_type in OPERATORS and _affine(net, reader) is not None


AFFINE_TO_DEPTHWISE = Pass(
    name="affine-to-depthwise",
    reason="preprocessing inside the model, (x * a - b) / c, would be quantised step by step; as a depthwise "
    "convolution it is one operator",
    apply=affine_to_depthwise,
)


def pairs_to_depthwise(pays: Callable[[int, int, int], bool]) -> Pass:
    """A pass that makes one depthwise 1x1 Conv of a Mul and the Add after it, each by one constant per channel.

    Args:
        pays: whether that costs less on the target, given channels, height and width of the map.
    """

    def apply(net: Net) -> int:
        matches = 0
        for node in net.walk("Mul"):
            data = _data(net, node)
            shape, adds = net.shape(data), net.only_reader(node.outputs[0])
            if shape is None or len(shape) != 4 or adds is None or adds.op_type != "Add":
                continue
            if data in net.weights or not pays(shape[1], shape[2], shape[3]):
                continue
            scale, shift = factors_of(net, node, shape[1]), factors_of(net, adds, shape[1])
            if scale is None or shift is None:
                continue
            net.replace([node, adds], [depthwise(net, adds.name, data, adds.outputs[0], scale[0], shift[1])])
            matches += 1
        return matches

    return Pass(
        name="pairs-to-depthwise",
        reason="the Edge TPU streams the constants of a Mul and an Add at every inference; the weights of a depthwise "
        "convolution stay on the chip",
        apply=apply,
    )
