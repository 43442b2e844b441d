"""Refuse what cannot be split before anything else is done; one line names the node or tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import numpy as np
import numpy.typing as npt
import onnx
import onnx.defs
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from graphcut.errors import ModelError
from graphcut.graph.protobuf import every_node
from graphcut.records import Node

CONTROL_FLOW = frozenset({"Loop", "Scan", "SequenceMap"})
CONDITIONAL = "If"
RECURRENT = frozenset({"RNN", "LSTM", "GRU"})
DYNAMIC = frozenset({"DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"})
QUANTISED = DYNAMIC | {"QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger"}
"""What is left of these after :mod:`graphcut.graph.qdq` and constant folding computes on integers."""
_MULTIPLYING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"})
DEFAULT_DOMAINS = ("", "ai.onnx")


def refuse_unsplittable(proto: ModelProto) -> None:
    """Raise ModelError for loops, custom operators, strings, sequences and sparse weights.

    ``If`` nodes pass: those whose condition is known are resolved later (:mod:`graphcut.graph.branches`).
    """
    functions = {(function.domain, function.name) for function in proto.functions}
    for node in proto.graph.node:
        name = node.name or (node.output[0] if node.output else "")
        if node.op_type == CONDITIONAL and node.domain in DEFAULT_DOMAINS:
            continue
        if node.op_type in CONTROL_FLOW or any(_is_graph(attribute) for attribute in node.attribute):
            raise ModelError(
                f"node {name!r} ({node.op_type}) is control flow, which is not supported",
                "export the model by tracing, with fixed shapes and without conditions or loops",
            )
        if (node.domain, node.op_type) not in functions:
            refuse_foreign(node)
        if node.op_type in DYNAMIC:
            refuse_quantised({name: node.op_type})
        if node.op_type in RECURRENT:
            raise ModelError(
                f"node {name!r} ({node.op_type}) is recurrent",
                "graphcut splits feed-forward networks; unroll the layer, or split the part before it",
            )
    if proto.graph.sparse_initializer:
        raise ModelError(
            f"weight {proto.graph.sparse_initializer[0].values.name!r} is sparse", "export the model with dense weights"
        )
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.STRING:
            raise ModelError(f"weight {tensor.name!r} is a string tensor", "export the model without string tensors")
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.WhichOneof("value") not in ("tensor_type", None):
            raise ModelError(
                f"{value.name!r} is a {value.type.WhichOneof('value').removesuffix('_type')}, not a tensor",
                "export the model with tensors only",
            )
        if value.type.tensor_type.elem_type == TensorProto.STRING:
            raise ModelError(f"tensor {value.name!r} is a string tensor", "export the model without string tensors")
    if not proto.graph.output:
        raise ModelError("the model has no outputs", "export it again with outputs")
    weights = {tensor.name for tensor in proto.graph.initializer}
    if all(value.name in weights for value in proto.graph.input):
        raise ModelError("the model has no inputs, so its result is constant", "export it again with inputs")


def refuse_foreign(node: NodeProto) -> None:
    """Raise ModelError for an operator of a domain other than ONNX's own."""
    if node.domain not in DEFAULT_DOMAINS:
        name = node.name or (node.output[0] if node.output else "")
        raise ModelError(
            f"node {name!r} ({node.op_type}) comes from the custom domain {node.domain!r}",
            "export the model with standard ONNX operators only",
        )


def refuse_recursive(proto: ModelProto) -> None:
    """Raise ModelError for recursive local functions: inlining them would never end."""
    calls = {
        (function.domain, function.name): {(node.domain, node.op_type) for node in every_node(function.node)}
        for function in proto.functions
    }
    try:
        TopologicalSorter({function: called & calls.keys() for function, called in calls.items()}).prepare()
    except CycleError as error:
        names = ", ".join(sorted({name for _, name in error.args[1]}))
        raise ModelError(
            f"local functions call each other recursively ({names})", "the file is not valid ONNX; export it again"
        ) from error


def refuse_unknown(nodes: Iterable[NodeProto], opset: int) -> None:
    """Raise ModelError where the opset does not have an operator."""
    known: dict[str, bool] = {}
    for node in nodes:
        if node.op_type not in known:
            try:
                onnx.defs.get_schema(node.op_type, opset)
                known[node.op_type] = True
            except onnx.defs.SchemaError:
                known[node.op_type] = False
        if not known[node.op_type]:
            raise ModelError(
                f"node {node.name!r}: ONNX opset {opset} has no operator {node.op_type!r}",
                "export the model with standard ONNX operators only",
            )


def refuse_broken_weights(nodes: Iterable[Node], weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Raise ModelError where a layer multiplies by NaN or infinity; in masks and limits they are allowed."""
    for node in nodes:
        if node.op_type not in _MULTIPLYING:
            continue
        for name in node.inputs[1:]:
            values = weights.get(name)
            if values is not None and values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ModelError(
                    f"weight {name!r} of node {node.name!r} ({node.op_type}) contains NaN or infinity",
                    "export the model again from an intact checkpoint",
                )


def refuse_quantised(op_types: dict[str, str]) -> None:
    """Raise ModelError where one of the nodes (name -> operator) is quantised."""
    for name, op_type in op_types.items():
        if op_type in QUANTISED:
            raise ModelError(
                f"node {name!r} ({op_type}) belongs to a model that is already quantised",
                "use the float model; graphcut quantises every segment itself",
            )


def _is_graph(attribute: AttributeProto) -> bool:
    return attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
