"""Rewrite operators that onnx or onnxruntime cannot handle, before the model is checked.

1. GroupNormalization of opset 18 to 20 has a scale and bias for each group. ONNX 1.15 deprecated this form, so neither
   its checker nor onnxruntime accepts it. It is InstanceNormalization of [N, groups, rest] between two Reshapes.
2. MeanVarianceNormalization without ``axes`` means (0, 2, 3). onnx's shape inference does not insert that default into
   the function that defines the operator, so it is written out.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from graphcut.graph import protobuf

DEPRECATED_GROUP_NORM = range(18, 21)
"""The opsets whose GroupNormalization has a scale for each group (onnx/docs/Changelog.md, version 18 and 21)."""
DEFAULT_AXES = (0, 2, 3)


def restate(proto: ModelProto) -> None:
    """Rewrite the operators of the module docstring, in place."""
    grouped = protobuf.opset_of(proto) in DEPRECATED_GROUP_NORM
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        if node.op_type == "GroupNormalization" and grouped and len(node.input) == 3 and len(node.output) == 1:
            nodes += _group_norm(proto, node)
            continue
        if node.op_type == "MeanVarianceNormalization" and not any(each.name == "axes" for each in node.attribute):
            node.attribute.append(helper.make_attribute("axes", DEFAULT_AXES))
        nodes.append(node)
    if len(nodes) > len(proto.graph.node):
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        proto.graph.ClearField("node")
        proto.graph.node.extend(copies)


def _group_norm(proto: ModelProto, node: NodeProto) -> list[NodeProto]:
    """The nodes that replace a GroupNormalization with a scale for each group (statement 1)."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    source, scale, bias = node.input
    target = node.output[0]
    lines, normal, shape, sizes = (f"{target}~{what}" for what in ("lines", "normal", "shape", "sizes"))
    groups = np.array([0, int(values.get("num_groups", 1)), -1], dtype=np.int64)
    proto.graph.initializer.append(numpy_helper.from_array(groups, sizes))
    name = node.name or target
    return [
        helper.make_node("Reshape", [source, sizes], [lines], name=f"{name}~lines"),
        helper.make_node(
            "InstanceNormalization",
            [lines, scale, bias],
            [normal],
            name=f"{name}~normal",
            epsilon=float(values.get("epsilon", 1e-5)),
        ),
        helper.make_node("Shape", [source], [shape], name=f"{name}~shape"),
        helper.make_node("Reshape", [normal, shape], [target], name=name),
    ]
