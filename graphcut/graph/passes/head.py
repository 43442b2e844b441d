"""Write classifier heads after a global pool in the form that leaves no stray operators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer, integers
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.gates import POINTWISE, is_vector
from graphcut.records import Node


def flatten_early(net: Net) -> int:
    """Flatten of a (1, C, 1, 1) tensor moves up through 1x1 convolutions, which become Gemm, and activations."""
    matches = 0
    for found in net.walk("Flatten"):
        flatten, moved = found, _moved_up(net, found)
        while moved is not None:
            matches += 1
            flatten = moved
            moved = _moved_up(net, flatten)
    return matches


def _moved_up(net: Net, flatten: Node) -> Node | None:
    """Swap a Flatten with the node above it; the Flatten in its new place, None where that is impossible."""
    above = net.producer(flatten.inputs[0])
    if above is None or net.only_reader(above.outputs[0]) is not flatten or not is_vector(net, above.inputs[0], 4):
        return None
    if above.op_type == "Conv":
        dense = _as_gemm(net, above)
        if dense is None:
            return None
        op_type, rest = "Gemm", dense
        attributes: Mapping[str, object] = {"transB": 1}
    elif above.op_type in POINTWISE:
        op_type, rest, attributes = above.op_type, above.inputs[1:], above.attributes
    else:
        return None
    shape = net.shape(above.inputs[0])
    assert shape is not None
    flat = net.add_tensor(above.inputs[0], "flat", shape[:2])
    early = Node(name=flatten.name, op_type="Flatten", inputs=above.inputs[:1], outputs=(flat,), attributes={"axis": 1})
    node = Node(name=above.name, op_type=op_type, inputs=(flat, *rest), outputs=flatten.outputs, attributes=attributes)
    net.replace([above, flatten], [early, node])
    return net.node(early.name)


def _as_gemm(net: Net, conv: Node) -> tuple[str, ...] | None:
    """Weight and bias names of the Gemm that a 1x1 Conv on a 1x1 map is; None where it is something else."""
    weights = net.constant(conv.inputs[1])
    if weights is None or weights.dtype != np.float32 or weights.shape[2:] != (1, 1):
        return None
    if integer(conv, "group", 1) != 1 or any(integers(conv, "pads", ())):
        return None
    matrix = net.add_weight(conv.inputs[1], weights.reshape(weights.shape[:2]))
    return (matrix, *conv.inputs[2:])


FLATTEN_EARLY = Pass(
    name="flatten-early",
    reason="a 1x1 Conv between a global pool and Flatten leaves a TRANSPOSE and an unfused RELU, which stays in float",
    apply=flatten_early,
)
