"""The NCHW form of one operator on rank-4 NHWC activations."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import axes, constant_integers, input_at, integer, number
from graphcut.graph.passes.steps import Steps
from graphcut.graph.protobuf import NumpyArray
from graphcut.records import Node

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)
RANK = 4
NEW_AXIS = (0, 2, 3, 1)
"""The place of each NHWC axis in NCHW: N stays, H becomes 2, W becomes 3, C becomes 1."""

# fmt: off
UNARY = frozenset({
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
    "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu", "Dropout",
})
# fmt: on
BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Mean", "PRelu"})
REDUCING = frozenset({"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceSumSquare"})
MOVING = frozenset({"Pad", "Slice", "Resize"})
ON_AXIS = frozenset({"Concat", "Softmax", "LogSoftmax"})


def activations_of(net: Net, node: Node) -> list[str] | None:
    """The rank-4 activations that an operator ties together in one layout; None where it cannot be turned."""
    data = [name for name in node.inputs if name and net.constant(name) is None]
    if any(net.rank(name) != RANK for name in data) or not data:
        return None
    constants = [name for name in node.inputs if name and net.constant(name) is not None]
    made = [node.outputs[0]]
    others = [name for name in node.outputs[1:] if name and (net.readers(name) or name in net.outputs)]
    if others and node.op_type != "Split":
        return None
    if node.op_type in UNARY:
        fits = len(data) == 1
    elif node.op_type in BROADCAST:
        fits = all((net.rank(name) or 0) <= RANK for name in constants)
    elif node.op_type == "Split":
        fits, made = data == [node.inputs[0]], [name for name in node.outputs if name]
    elif node.op_type in ON_AXIS:
        fits = not constants
    elif node.op_type == "MatMul":
        weight = net.constant(node.inputs[1])
        fits = node.inputs[0] in data and weight is not None and weight.ndim == 2 and weight.dtype == np.float32
    elif node.op_type == "LayerNormalization":
        fits = integer(node, "axis", -1) in (-1, RANK - 1) and node.inputs[0] in data and len(data) == 1
    elif node.op_type in MOVING:
        fits = data == [node.inputs[0]] and _moved_input(net, node) is not None
    elif node.op_type in REDUCING:
        reduced = axes(net, node, RANK)
        fits = reduced is not None
        if reduced is not None and not integer(node, "keepdims", 1):
            # The result has a lower rank. It is the same in both layouts only if height and width are reduced.
            fits = reduced == (1, 2)
            made = []
    else:
        fits = False
    if not fits or any(net.rank(name) != RANK for name in made):
        return None
    return [*data, *made]


def turn(net: Net, node: Node, island: Container[str]) -> None:
    """Replace an operator by its NCHW form; the tensors keep their names."""
    if node.op_type == "MatMul":
        net.replace([node], [_as_conv(net, node)])
    elif node.op_type == "LayerNormalization":
        net.replace([node], _as_channel_norm(net, node))
    elif node.op_type in REDUCING:
        net.replace([node], [_turned_reduction(net, node)])
    elif node.op_type in MOVING:
        net.replace([node], [_moved(net, node)])
    elif node.op_type in ON_AXIS or node.op_type == "Split":
        axis = NEW_AXIS[integer(node, "axis", 0 if node.op_type == "Split" else -1) % RANK]
        net.replace([node], [replace(node, attributes={**node.attributes, "axis": axis})])
    elif node.op_type in BROADCAST:
        inputs = tuple(name if name in island else turned_constant(net, name) for name in node.inputs)
        net.replace([node], [replace(node, inputs=inputs)])


def turned_constant(net: Net, name: str) -> str:
    """A constant that broadcasts against NHWC, turned to broadcast against NCHW."""
    value = net.constant(name)
    if value is None or value.size == 1:
        return name
    full = value.reshape((1,) * (RANK - value.ndim) + value.shape)
    return net.add_weight(name, np.ascontiguousarray(full.transpose(TO_NCHW)))


def _moved_input(net: Net, node: Node) -> tuple[int, NumpyArray] | None:
    """The constant input of a Pad, Slice or Resize that lists axes, and its value in NCHW; None if there is none."""
    if node.op_type == "Pad":
        pads = constant_integers(net, node, 1)
        if pads is None or len(pads) != 2 * RANK or input_at(node, 3):
            return None
        return 1, np.array([pads[axis + half] for half in (0, RANK) for axis in TO_NCHW], dtype=np.int64)
    if node.op_type == "Slice":
        starts = constant_integers(net, node, 1)
        along = constant_integers(net, node, 3) if input_at(node, 3) else tuple(range(len(starts or ())))
        if starts is None or along is None:
            return None
        return 3, np.array([NEW_AXIS[axis % RANK] for axis in along], dtype=np.int64)
    region = net.constant(input_at(node, 1))
    if "axes" in node.attributes or (input_at(node, 1) and (region is None or region.size)):
        return None
    for index in (2, 3):
        value = net.constant(input_at(node, index))
        if value is not None and value.size == RANK:
            return index, value[list(TO_NCHW)]
    return None


def _moved(net: Net, node: Node) -> Node:
    """A Pad, Slice or Resize with its axes in NCHW order."""
    found = _moved_input(net, node)
    assert found is not None
    index, value = found
    inputs = [*node.inputs, *[""] * (index + 1 - len(node.inputs))]
    inputs[index] = net.add_weight(f"{node.name}_nchw", value)
    return replace(node, inputs=tuple(inputs))


def _as_conv(net: Net, node: Node) -> Node:
    """MatMul over the channels as a 1x1 Conv: (K, N) becomes (N, K, 1, 1)."""
    weight = net.weights[node.inputs[1]]
    kernel = np.ascontiguousarray(weight.T).reshape(weight.shape[1], weight.shape[0], 1, 1)
    attributes = {"kernel_shape": (1, 1)}
    inputs = (node.inputs[0], net.add_weight(node.inputs[1], kernel))
    return replace(node, op_type="Conv", inputs=inputs, attributes=attributes)


def _turned_reduction(net: Net, node: Node) -> Node:
    reduced = axes(net, node, RANK)
    assert reduced is not None
    turned = tuple(sorted(NEW_AXIS[axis] for axis in reduced))
    if input_at(node, 1):
        name = net.add_weight(f"{node.name}_axes", np.array(turned, dtype=np.int64))
        return replace(node, inputs=(node.inputs[0], name))
    return replace(node, attributes={**node.attributes, "axes": turned})


def _as_channel_norm(net: Net, node: Node) -> list[Node]:
    """LayerNormalization over the channels, spelled out for NCHW, where they are not the last axis.

    mean = mean(x); centred = x - mean; variance = mean(centred^2);
    result = centred * (1 / sqrt(variance + epsilon)) * scale + bias. Only the small tensor is divided: the Edge TPU has
    no division, and a tensor of one channel costs the host little.
    """
    shape = net.shape(node.inputs[0])
    assert shape is not None
    turned = tuple(shape[axis] for axis in TO_NCHW)
    single = (turned[0], 1, *turned[2:])
    steps = Steps(net, node, node.outputs[0])
    mean = steps.mean(node.inputs[0], (1,), single)
    centred = steps.add("Sub", (node.inputs[0], mean), turned)
    variance = steps.mean(steps.add("Mul", (centred, centred), turned), (1,), single)
    epsilon = steps.constant("epsilon", number(node, "epsilon", 1e-5), ())
    deviation = steps.add("Sqrt", (steps.add("Add", (variance, epsilon), single),), single)
    gain = steps.add("Div", (steps.constant("one", 1.0, ()), deviation), single)
    normal = steps.add("Mul", (centred, gain), turned)
    scaled = steps.add("Mul", (normal, turned_constant(net, node.inputs[1])), turned)
    if input_at(node, 2):
        steps.add("Add", (scaled, turned_constant(net, node.inputs[2])), turned)
    return steps.made()
