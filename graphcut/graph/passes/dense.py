"""Write dense layers in the form that converts best.

A MatMul with a constant becomes BATCH_MATMUL in TFLite, which refuses per-channel weights (the output is exactly zero,
without an error); Gemm becomes FULLY_CONNECTED.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.turning import TO_NHWC
from graphcut.records import Node


def matmul_to_gemm(net: Net) -> int:
    """MatMul of a rank-2 activation with a constant matrix, and the Add of a bias after it, becomes Gemm."""
    matches = 0
    for node in net.walk("MatMul"):
        weight = net.constant(node.inputs[1])
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or net.rank(node.inputs[0]) != 2:
            continue
        gemm = Node(name=node.name, op_type="Gemm", inputs=node.inputs, outputs=node.outputs, attributes={"transB": 0})
        add = net.only_reader(node.outputs[0])
        bias = None if add is None else _bias(net, add, node.outputs[0], weight.shape[1])
        if add is None or bias is None:
            net.replace([node], [gemm])
        else:
            net.replace([node, add], [replace(gemm, inputs=(*node.inputs, bias), outputs=add.outputs)])
        matches += 1
    return matches


def gemm_bias(net: Net) -> int:
    """An Add of a constant after a Gemm without bias becomes its bias."""
    matches = 0
    for node in net.walk("Gemm"):
        add = net.only_reader(node.outputs[0])
        weight = net.constant(node.inputs[1])
        if add is None or weight is None or (len(node.inputs) > 2 and node.inputs[2]) or weight.ndim != 2:
            continue
        width = weight.shape[0] if node.attributes.get("transB", 0) else weight.shape[1]
        bias = _bias(net, add, node.outputs[0], width)
        if bias is None:
            continue
        attributes = {name: value for name, value in node.attributes.items() if name != "beta"}
        gemm = replace(node, inputs=(*node.inputs[:2], bias), outputs=add.outputs, attributes=attributes)
        net.replace([node, add], [gemm])
        matches += 1
    return matches


def factor_into_dense(net: Net) -> int:
    """A Mul by one number before Flatten and Gemm goes into the Gemm's weights."""
    matches = 0
    for node in net.walk("Mul"):
        flatten = net.only_reader(node.outputs[0])
        gemm = None if flatten is None or flatten.op_type != "Flatten" else net.only_reader(flatten.outputs[0])
        factor = next((net.weights[name] for name in node.inputs if name in net.weights), None)
        if flatten is None or gemm is None or gemm.op_type != "Gemm" or factor is None or factor.size != 1:
            continue
        weight, shape = net.constant(gemm.inputs[1]), net.shape(flatten.outputs[0])
        if weight is None or weight.dtype != np.float32 or shape is None or gemm.inputs[0] != flatten.outputs[0]:
            continue
        source = next(name for name in node.inputs if name not in net.weights)
        flat = net.add_tensor(source, "flat", shape)
        scaled = net.add_weight(gemm.inputs[1], (weight.astype(np.float64) * float(factor.item())).astype(np.float32))
        early = replace(flatten, inputs=(source,), outputs=(flat,))
        net.replace([node, flatten, gemm], [early, replace(gemm, inputs=(flat, scaled, *gemm.inputs[2:]))])
        matches += 1
    return matches


def flatten_channels_last(net: Net) -> int:
    """Flatten of a map (1, C, H, W) before a Gemm reads it channels-last, and the rows of the Gemm are permuted."""
    matches = 0
    for node in net.walk("Flatten", "Reshape"):
        before, after = net.shape(node.inputs[0]), net.shape(node.outputs[0])
        gemm = net.only_reader(node.outputs[0])
        if before is None or gemm is None or len(before) != 4 or after != (1, prod(before)) or before[1] == 1:
            continue
        maker = net.producer(node.inputs[0])
        if maker is not None and maker.op_type == "Transpose":
            # It already has an order of its own: channels-last, where the model comes from Keras.
            continue
        if before[2:] == (1, 1) or gemm.op_type != "Gemm" or gemm.inputs[0] != node.outputs[0]:
            continue
        weight = net.constant(gemm.inputs[1])
        if weight is None or integer(gemm, "transA", 0) or weight.dtype != np.float32:
            continue
        turned = net.add_tensor(node.inputs[0], "channels_last", tuple(before[axis] for axis in TO_NHWC))
        rows = np.arange(prod(before)).reshape(before[1:]).transpose(1, 2, 0).reshape(-1)
        moved = weight[:, rows] if integer(gemm, "transB", 0) else weight[rows]
        inputs = (gemm.inputs[0], net.add_weight(gemm.inputs[1], np.ascontiguousarray(moved)), *gemm.inputs[2:])
        transpose = Node(
            name=net.fresh(f"{node.name}_channels_last"),
            op_type="Transpose",
            inputs=node.inputs[:1],
            outputs=(turned,),
            attributes={"perm": TO_NHWC},
        )
        flatten = Node(
            name=node.name, op_type="Flatten", inputs=(turned,), outputs=node.outputs, attributes={"axis": 1}
        )
        net.replace([node], [transpose, flatten])
        net.replace([gemm], [replace(gemm, inputs=inputs)])
        matches += 1
    return matches


def _bias(net: Net, add: Node, data: str, width: int) -> str | None:
    """The name of the bias vector (width,) that an Add adds to ``data``; None where it is something else."""
    if add.op_type != "Add" or len(set(add.inputs)) != 2:
        return None
    other = next(name for name in add.inputs if name != data)
    value = net.constant(other)
    if value is None or value.dtype != np.float32 or value.size not in (1, width) or value.ndim > 2:
        return None
    if value.shape == (width,):
        return other
    if value.size == width and value.shape[-1] != width:
        return None
    return net.add_weight(other, np.broadcast_to(value.reshape(-1), (width,)).copy())


MATMUL_TO_GEMM = Pass(
    name="matmul-to-gemm",
    reason="MatMul becomes BATCH_MATMUL, whose int8 output is exactly 0 with per-channel weights; Gemm becomes "
    "FULLY_CONNECTED",
    apply=matmul_to_gemm,
)
FLATTEN_CHANNELS_LAST = Pass(
    name="flatten-channels-last",
    reason="Flatten of a map in NCHW order needs a TRANSPOSE in a channels-last model",
    apply=flatten_channels_last,
)
GEMM_BIAS = Pass(
    name="gemm-bias",
    reason="an Add of constants after a dense layer can be its bias",
    apply=gemm_bias,
)
FACTOR_INTO_DENSE = Pass(
    name="factor-into-dense",
    reason="a factor before a dense layer can be part of its weights; a tiny one leaves int8 no usable scale",
    apply=factor_into_dense,
)
