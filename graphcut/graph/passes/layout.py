"""Channels-last models made channels-first, which is ONNX's own layout and what the converter starts from.

tf2onnx puts a Transpose (0, 3, 1, 2) behind an NHWC input, sometimes behind elementwise preprocessing in NHWC. The
converter makes every rank-4 input NHWC by itself, so the transpose would be undone by a second one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.records import Node

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)
ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Exp", "Clip", "Relu", "Sigmoid", "Tanh", "Cast", "Identity"}
)


def nchw_inputs(net: Net) -> int:
    """Every rank-4 input that is only read through transposes to NCHW becomes NCHW itself."""
    return sum(_turn_input(net, name) for name in list(net.inputs) if net.rank(name) == 4)


def _turn_input(net: Net, name: str) -> int:
    region = _region(net, name)
    if region is None:
        return 0
    inner, transposes = region
    turned = {name, *(node.outputs[0] for node in inner)}
    for node in inner:
        inputs = tuple(source if source in turned else _turned_constant(net, source) for source in node.inputs)
        net.replace([node], [replace(node, inputs=inputs)])
    for tensor in turned:
        shape = net.shape(tensor)
        assert shape is not None
        net.set_shape(tensor, tuple(shape[axis] for axis in TO_NCHW))
    for node in transposes:
        net.bypass(node, node.inputs[0])
    net.nhwc_inputs.add(name)
    return len(transposes)


def _region(net: Net, name: str) -> tuple[list[Node], list[Node]] | None:
    """The elementwise nodes behind an input and the transposes that end them; None where something else reads it."""
    inner: dict[str, Node] = {}
    transposes: dict[str, Node] = {}
    waiting = [name]
    reached = {name}
    while waiting:
        tensor = waiting.pop()
        readers = net.readers(tensor)
        if tensor in net.outputs or not readers or net.rank(tensor) != 4:
            return None
        for node in readers:
            if node.op_type == "Transpose" and node.attributes.get("perm") == TO_NCHW:
                if node.outputs[0] in net.outputs:
                    return None
                transposes[node.name] = node
            elif node.op_type in ELEMENTWISE:
                inner[node.name] = node
                if node.outputs[0] not in reached:
                    reached.add(node.outputs[0])
                    waiting.append(node.outputs[0])
            else:
                return None
    for node in inner.values():
        if any(source not in reached and not _turnable(net, source) for source in node.inputs):
            return None
    return list(inner.values()), list(transposes.values())


def _turnable(net: Net, name: str) -> bool:
    value = net.constant(name)
    return not name or (value is not None and value.ndim <= 4)


def _turned_constant(net: Net, name: str) -> str:
    """A constant that broadcasts against NHWC, turned to broadcast against NCHW."""
    value = net.constant(name)
    if value is None or value.size == 1:
        return name
    full = value.reshape((1,) * (4 - value.ndim) + value.shape)
    return net.add_weight(name, np.ascontiguousarray(full.transpose(TO_NCHW)))


def nchw_outputs(net: Net) -> int:
    """An output that is the transposition to NHWC of an activation is delivered in NCHW, under its own name."""
    matches = 0
    for name in net.outputs:
        node = net.producer(name)
        if node is None or node.op_type != "Transpose" or node.attributes.get("perm") != TO_NHWC:
            continue
        source = node.inputs[0]
        if net.readers(name) or net.producer(source) is None or source in net.outputs:
            continue
        shape = net.shape(source)
        if shape is None or not net.bypass(node, source):
            continue
        net.set_shape(name, shape)
        net.nhwc_outputs.add(name)
        matches += 1
    return matches


NCHW_INPUTS = Pass(
    name="nchw-inputs",
    reason="an NHWC input costs a Transpose that the converter undoes by another",
    apply=nchw_inputs,
)
NCHW_OUTPUTS = Pass(
    name="nchw-outputs",
    reason="TFLite delivers rank-4 outputs NHWC anyway; a Transpose to NHWC would be done twice",
    apply=nchw_outputs,
)
