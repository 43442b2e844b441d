"""Write squeeze-and-excite gates made of dense layers as 1x1 convolutions.

Pool -> Flatten -> Gemm -> Relu -> Gemm -> Sigmoid -> Reshape to (1, C, 1, 1) -> Mul leaves a TRANSPOSE on either side
and the Relu before the block unfused.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer, number
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.reshape import RESHAPING
from graphcut.records import Node

POINTWISE = frozenset({"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "LeakyRelu"})
LONGEST_GATE = 8


def dense_gates(net: Net) -> int:
    """Dense layers between a flattened (1, C, 1, 1) and a Reshape back to that rank become 1x1 convolutions."""
    matches = 0
    for node in net.walk("Reshape", "Unsqueeze"):
        chain = _gate(net, node)
        if chain is None:
            continue
        first, *inner = chain
        source = first.inputs[0]
        new: list[Node] = []
        for item in inner:
            flat = net.shape(item.outputs[0])
            assert flat is not None
            last = item is inner[-1]
            output = node.outputs[0] if last else net.add_tensor(item.outputs[0], "map", (*flat, 1, 1))
            new.append(_on_map(net, item, source, output))
            source = output
        net.replace([*chain, node], new)
        matches += 1
    return matches


def _gate(net: Net, node: Node) -> list[Node] | None:
    """The Flatten, the dense layers and activations that end at a reshape to (1, C, 1, 1); None where it is no gate."""
    if not is_vector(net, node.outputs[0], 4) or not is_vector(net, node.inputs[0], 2):
        return None
    chain: list[Node] = []
    current = node.inputs[0]
    while len(chain) < LONGEST_GATE:
        maker = net.producer(current)
        if maker is None or net.only_reader(current) is None:
            return None
        chain.insert(0, maker)
        current = maker.inputs[0]
        if maker.op_type in RESHAPING:
            fits = is_vector(net, current, 4) and any(item.op_type == "Gemm" for item in chain)
            return chain if fits else None
        if maker.op_type not in POINTWISE and not _is_dense(net, maker):
            return None
    return None


def is_vector(net: Net, tensor: str, rank: int) -> bool:
    """Whether a tensor is (1, C) or, of rank 4, (1, C, 1, 1)."""
    shape = net.shape(tensor)
    return shape is not None and len(shape) == rank and shape[0] == 1 and shape[2:] == (1, 1)[: rank - 2]


def _is_dense(net: Net, node: Node) -> bool:
    if node.op_type != "Gemm" or integer(node, "transA", 0) or net.dtype(node.inputs[1]) != "float32":
        return False
    plain = number(node, "alpha", 1.0) == 1.0 and number(node, "beta", 1.0) == 1.0
    constant = all(net.constant(name) is not None for name in node.inputs[1:] if name)
    bias = net.shape(node.inputs[2]) if len(node.inputs) > 2 else None
    return plain and constant and (bias is None or len(bias) == 1)


def _on_map(net: Net, node: Node, source: str, output: str) -> Node:
    """A dense layer or activation on (1, C) as the same on (1, C, 1, 1)."""
    if node.op_type != "Gemm":
        return replace(node, inputs=(source, *node.inputs[1:]), outputs=(output,))
    weight = net.weights[node.inputs[1]]
    rows = weight if integer(node, "transB", 0) else np.ascontiguousarray(weight.T)
    kernel = net.add_weight(node.inputs[1], rows.reshape(*rows.shape, 1, 1))
    return Node(
        name=node.name,
        op_type="Conv",
        inputs=(source, kernel, *(name for name in node.inputs[2:] if name)),
        outputs=(output,),
        attributes={"kernel_shape": (1, 1)},
    )


DENSE_GATES = Pass(
    name="dense-gates",
    reason="squeeze-and-excite with dense layers needs two TRANSPOSE and RESHAPE; with 1x1 convolutions it needs none",
    apply=dense_gates,
)
