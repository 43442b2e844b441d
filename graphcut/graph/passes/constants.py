"""Constant folding: everything that does not depend on an input becomes a weight.

PyTorch exports compute shapes, pads and slices by chains of Shape, Gather, Unsqueeze, Concat, ... Converters fail on
them; with static shapes every such chain is a constant.
"""

from __future__ import annotations

from math import prod

import numpy as np

from graphcut.errors import ModelError, first_line
from graphcut.graph import protobuf
from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.graph.protobuf import NumpyArray
from graphcut.graph.session import ORT_ERRORS, session
from graphcut.records import Node

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
LARGEST_ELEMENTS = 2**27
"""A constant of more elements than this (512 MiB of float32) is not folded: it would be larger than any CNN."""


def fold(net: Net) -> int:
    """Fold constants until nothing changes; shapes are inferred again in between."""
    total = 0
    while True:
        folded = _fold_once(net)
        total += folded
        if folded == 0:
            return total
        unknown = net.unknown() is not None
        net.infer()
        if not unknown:
            # Every shape was known already, so a second round cannot find more.
            return total


def _fold_once(net: Net) -> int:
    matches = 0
    pending: list[Node] = []
    marked: set[str] = set()
    for node in net.walk():
        value = _immediate(net, node)
        if value is not None:
            _become_weight(net, node, value)
            matches += 1
        elif node.op_type == "Identity" and node.inputs[0] in net.weights and net.bypass(node, node.inputs[0]):
            matches += 1
        elif _is_constant(net, node, marked):
            pending.append(node)
            marked.update(output for output in node.outputs if output)
    if pending:
        _evaluate(net, pending, marked)
        matches += len(pending)
    return matches


def _immediate(net: Net, node: Node) -> NumpyArray | None:
    """The value of a node that needs no computing: Constant, and Shape or Size of something static."""
    if node.op_type == "Constant":
        return _constant_value(node)
    if node.op_type == "Shape":
        shape = net.shape(node.inputs[0])
        if shape is None:
            return None
        start, end = node.attributes.get("start", 0), node.attributes.get("end")
        assert isinstance(start, int)
        assert end is None or isinstance(end, int)
        return np.array(shape[start:end], dtype=np.int64)
    if node.op_type == "Size":
        shape = net.shape(node.inputs[0])
        return None if shape is None else np.array(prod(shape), dtype=np.int64)
    return None


def _constant_value(node: Node) -> NumpyArray:
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in node.attributes:
            return np.array(node.attributes[name], dtype=dtype)
    value = node.attributes.get("value")
    if not isinstance(value, np.ndarray):
        raise ModelError(
            f"node {node.name!r} (Constant) has a value that is not a dense numeric tensor",
            "export the model without it",
        )
    return value


def _become_weight(net: Net, node: Node, value: NumpyArray) -> None:
    value.setflags(write=False)
    net.replace([node], [])
    net.tensors.pop(node.outputs[0], None)
    net.weights[node.outputs[0]] = value


def _is_constant(net: Net, node: Node, marked: set[str]) -> bool:
    inputs = [name for name in node.inputs if name]
    if not inputs or node.op_type in RANDOM or any(name in net.outputs for name in node.outputs):
        return False
    if not all(name in net.weights or name in marked for name in inputs):
        return False
    return all(prod(net.shape(name) or ()) <= LARGEST_ELEMENTS for name in node.outputs)


def _evaluate(net: Net, nodes: list[Node], marked: set[str]) -> None:
    inside = {node.name for node in nodes}
    wanted = sorted(name for name in marked if any(reader.name not in inside for reader in net.readers(name)))
    used = {name for node in nodes for name in node.inputs}
    weights = {name: array for name, array in net.weights.items() if name in used}
    if wanted:
        model = protobuf.build(
            "constants",
            net.opset,
            [protobuf.node_proto(node) for node in nodes],
            [],
            [protobuf.untyped(name) for name in wanted],
            weights,
        )
        try:
            values = session(model.SerializeToString(), threads=1).run(wanted, {})
        except ORT_ERRORS as error:
            raise ModelError(
                f"constants cannot be computed: {first_line(error)}", "simplify the model's export"
            ) from error
    net.replace(nodes, [])
    for name, value in zip(wanted, values if wanted else (), strict=True):
        array = np.asarray(value)
        array.setflags(write=False)
        net.tensors.pop(name, None)
        net.weights[name] = array


FOLD = Pass(
    name="fold-constants",
    reason="converters fail on chains of Shape, Gather, Concat, ... and on computed weights, which are constants",
    apply=fold,
)
