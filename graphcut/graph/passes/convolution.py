"""Fold per-channel arithmetic into the convolution before it.

Exported batch normalisation comes as BatchNormalization, or as Mul and Add with per-channel constants (tf2onnx, which
folds it into ordinary convolutions but not into depthwise ones). The converter folds what it recognises; folding here
makes the sizes known before conversion and leaves one operator to quantise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import input_at, integer, integers
from graphcut.graph.passes.base import Pass
from graphcut.records import Node

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]


def conv_before(net: Net, tensor: str) -> Node | None:
    """The Conv or ConvTranspose with constant weights whose output is read once and is ``tensor``."""
    conv = net.producer(tensor)
    if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or net.only_reader(tensor) is None:
        return None
    if any(name and net.constant(name) is None for name in conv.inputs[1:]):
        return None
    return conv if net.dtype(conv.inputs[1]) == "float32" else None


def scaled_conv(net: Net, conv: Node, output: str, scale: Double, shift: Double, bias: str = "") -> Node:
    """The convolution whose output is ``scale * old + shift``, per output channel.

    Its bias is named after ``bias`` where that is given: layers that have no name of their own are called after it.
    """
    weight = net.weights[conv.inputs[1]].astype(np.float64)
    group = conv.attributes.get("group", 1)
    assert isinstance(group, int)
    if conv.op_type == "Conv":
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    else:
        # ConvTranspose weights are (C, M / group, ...): output channel g * (M / group) + m lies in row block g.
        rows = weight.shape[0] // group
        per_row = np.repeat(scale.reshape(group, -1), rows, axis=0)
        weight = weight * per_row.reshape(*per_row.shape, *(1,) * (weight.ndim - 2))
    old_bias: Double = np.zeros(scale.shape)
    if len(conv.inputs) > 2 and conv.inputs[2]:
        old_bias = net.weights[conv.inputs[2]].astype(np.float64)
    names = (
        net.add_weight(conv.inputs[1], weight.astype(np.float32)),
        net.add_weight(bias or bias_name(conv), (old_bias * scale + shift).astype(np.float32)),
    )
    return replace(conv, inputs=(conv.inputs[0], *names), outputs=(output,))


def depthwise(net: Net, name: str, source: str, output: str, scale: Double, shift: Double) -> Node:
    """A depthwise 1x1 Conv that computes ``scale * source + shift``, one number per channel each.

    The converter keeps it in NHWC and fuses the activation after it, which it does not do for Mul and Add.
    """
    channels = len(scale)
    weight = net.add_weight(f"{name}_scale", scale.astype(np.float32).reshape(channels, 1, 1, 1))
    inputs: tuple[str, ...] = (source, weight)
    if shift.any():
        inputs = (*inputs, net.add_weight(f"{name}_shift", shift.astype(np.float32)))
    attributes = {"group": channels, "kernel_shape": (1, 1)}
    return Node(name=name, op_type="Conv", inputs=inputs, outputs=(output,), attributes=attributes)


def bias_name(conv: Node) -> str:
    """A name for a convolution's new bias: like the old one's, else like the weight's."""
    return conv.inputs[2] if len(conv.inputs) > 2 and conv.inputs[2] else f"{conv.inputs[1]}_bias"


def out_channels(net: Net, conv: Node) -> int:
    """Output channels of a Conv or ConvTranspose with known weights."""
    shape = net.weights[conv.inputs[1]].shape
    if conv.op_type == "Conv":
        return int(shape[0])
    group = conv.attributes.get("group", 1)
    assert isinstance(group, int)
    return int(shape[1]) * group


def per_channel(net: Net, name: str, channels: int, rank: int) -> Double | None:
    """A constant as one number per channel, for a tensor (1, channels, ...) of that rank; None where it is not."""
    array = net.constant(name)
    if array is None or array.dtype != np.float32:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if len(shape) != rank or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    if shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,))


def batch_norm_factors(net: Net, node: Node) -> tuple[Double, Double] | None:
    """Scale and shift of an inference BatchNormalization; None where its parameters are not constants."""
    values = [net.constant(name) for name in node.inputs[1:5]]
    if len(values) != 4 or any(value is None for value in values) or node.attributes.get("training_mode", 0):
        return None
    scale, bias, mean, variance = (np.asarray(value, dtype=np.float64) for value in values)
    epsilon = node.attributes.get("epsilon", 1e-5)
    assert isinstance(epsilon, float)
    factor = scale / np.sqrt(variance + epsilon)
    return factor, bias - mean * factor


def fold_batch_norm(net: Net) -> int:
    """BatchNormalization after a convolution folded into it."""
    matches = 0
    for node in net.walk("BatchNormalization"):
        conv = conv_before(net, node.inputs[0])
        factors = batch_norm_factors(net, node)
        if conv is None or factors is None:
            continue
        net.replace([conv, node], [scaled_conv(net, conv, node.outputs[0], *factors, bias=node.inputs[2])])
        matches += 1
    return matches


def fold_arithmetic(net: Net) -> int:
    """Mul, Div, Add and Sub by a constant (one number per channel) after a convolution folded into it.

    BatchNormalization after them as well: Paddle exports the bias of a transposed convolution as an Add before it.
    """
    matches = 0
    for node in net.walk("Mul", "Div", "Add", "Sub", "BatchNormalization"):
        found = _arithmetic(net, node)
        if found is None:
            continue
        conv, scale, shift = found
        net.replace([conv, node], [scaled_conv(net, conv, node.outputs[0], scale, shift)])
        matches += 1
    return matches


def _arithmetic(net: Net, node: Node) -> tuple[Node, Double, Double] | None:
    """The convolution before a node, and the node as scale and shift of its channels."""
    data = node.inputs[1] if net.constant(node.inputs[0]) is not None else node.inputs[0]
    conv = conv_before(net, data)
    if conv is None:
        return None
    if node.op_type == "BatchNormalization":
        factors = batch_norm_factors(net, node)
    else:
        factors = factors_of(net, node, out_channels(net, conv))
    return None if factors is None else (conv, *factors)


def factors_of(net: Net, node: Node, channels: int) -> tuple[Double, Double] | None:
    """Scale and shift of each channel in a Mul, Div, Add or Sub of an activation and a constant.

    None where the constant differs within a channel, broadcasts the activation, or is divided by.
    """
    swapped = net.constant(node.inputs[0]) is not None
    data, constant = (node.inputs[1], node.inputs[0]) if swapped else (node.inputs[0], node.inputs[1])
    rank = net.rank(data)
    if rank is None or net.shape(node.outputs[0]) != net.shape(data):
        return None
    value = per_channel(net, constant, channels, rank)
    if value is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        return value, zero
    if node.op_type == "Add":
        return one, value
    if node.op_type == "Sub":
        return (-one, value) if swapped else (one, -value)
    if swapped or not value.all():
        return None
    return 1.0 / value, zero


def fold_depthwise(net: Net) -> int:
    """A depthwise 1x1 convolution after a convolution is arithmetic by one number per channel: folded."""
    matches = 0
    for node in net.walk("Conv"):
        conv = conv_before(net, node.inputs[0])
        weight = net.constant(node.inputs[1])
        if conv is None or weight is None or weight.shape[1:] != (1, 1, 1) or weight.dtype != np.float32:
            continue
        if len(weight) != out_channels(net, conv) or integer(node, "group", 1) != len(weight):
            continue
        if any(integers(node, "pads", ())) or any(stride != 1 for stride in integers(node, "strides", ())):
            continue
        shift = net.constant(input_at(node, 2))
        if input_at(node, 2) and shift is None:
            continue
        scale = weight.astype(np.float64).reshape(-1)
        moved = np.zeros(len(weight)) if shift is None else shift.astype(np.float64)
        net.replace([conv, node], [scaled_conv(net, conv, node.outputs[0], scale, moved)])
        matches += 1
    return matches


def split_batch_norm(net: Net) -> int:
    """BatchNormalization that stands alone written as Mul and Add, which is what converters make of it."""
    matches = 0
    for node in net.walk("BatchNormalization"):
        factors = batch_norm_factors(net, node)
        shape = net.shape(node.inputs[0])
        if factors is None or shape is None or any(node.outputs[1:]) or net.dtype(node.inputs[0]) != "float32":
            continue
        form = (-1, *(1,) * (len(shape) - 2))
        scale, shift = (factor.astype(np.float32).reshape(form) for factor in factors)
        middle = net.add_tensor(node.outputs[0], "scaled", shape)
        mul = Node(
            name=net.fresh(f"{node.name}_scale"),
            op_type="Mul",
            inputs=(node.inputs[0], net.add_weight(node.inputs[1], scale)),
            outputs=(middle,),
            attributes={},
        )
        add = Node(
            name=node.name,
            op_type="Add",
            inputs=(middle, net.add_weight(node.inputs[2], shift)),
            outputs=node.outputs[:1],
            attributes={},
        )
        net.replace([node], [mul, add])
        matches += 1
    return matches


FOLD_BATCH_NORM = Pass(
    name="fold-batch-norm",
    reason="batch normalisation after a convolution can be part of its weights",
    apply=fold_batch_norm,
)
FOLD_ARITHMETIC = Pass(
    name="fold-channel-arithmetic",
    reason="per-channel Mul and Add after a convolution (depthwise batch normalisation in Keras exports) cost two "
    "quantised operators each and blur the ranges",
    apply=fold_arithmetic,
)
FOLD_DEPTHWISE = Pass(
    name="fold-depthwise",
    reason="a depthwise 1x1 convolution after another convolution can be part of its weights",
    apply=fold_depthwise,
)
SPLIT_BATCH_NORM = Pass(
    name="split-batch-norm",
    reason="a batch normalisation without a convolution before it becomes Mul and Add, as in the converter",
    apply=split_batch_norm,
)
