"""Convert half and double precision, and byte images, to float32, the only precision of the later stages.

The model computes the same up to rounding; segments are quantised from float32 anyway.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper

from graphcut.graph.wellformed import array_of, shown

OTHER_FLOATS = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
BYTES = frozenset({TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64})
FLOATS = frozenset({TensorProto.FLOAT, *OTHER_FLOATS})
NAMES: dict[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}


def make_float32(proto: ModelProto) -> list[str]:
    """Convert every float tensor of another precision to float32, in place; returns notes for the user.

    An integer input that is only read by casts to float becomes float32 too; the casts then do nothing.

    Raises:
        ModelError: a tensor has more or fewer values than its dimensions say.
    """
    graph = proto.graph
    notes = [
        f"input {value.name!r} takes float32 (the file declares integers)"
        for value in graph.input
        if _is_cast_only(graph, value)
    ]
    for value in graph.input:
        if _is_cast_only(graph, value):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    found = sorted({NAMES[tensor.data_type] for tensor in _tensors(graph) if tensor.data_type in OTHER_FLOATS})
    for tensor in _tensors(graph):
        if tensor.data_type in OTHER_FLOATS:
            values = array_of(tensor, f"weight {shown(tensor.name)}").astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in OTHER_FLOATS:
            found.append(NAMES[value.type.tensor_type.elem_type])
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for attribute in _type_attributes(graph):
        if attribute.i in OTHER_FLOATS:
            attribute.i = TensorProto.FLOAT
    notes += [f"{name} weights and activations converted to float32" for name in dict.fromkeys(found)]
    return notes


def _is_cast_only(graph: GraphProto, value: ValueInfoProto) -> bool:
    if value.type.tensor_type.elem_type not in BYTES:
        return False
    readers = [node for node in graph.node if value.name in node.input]
    targets = [
        attribute.i
        for node in readers
        for attribute in node.attribute
        if node.op_type == "Cast" and attribute.name == "to"
    ]
    return bool(readers) and len(targets) == len(readers) and all(target in FLOATS for target in targets)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Weights and the values inside nodes."""
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == AttributeProto.TENSOR)


def _type_attributes(graph: GraphProto) -> Iterator[AttributeProto]:
    """The attributes that name a result's type: ``to`` of Cast, ``dtype`` of RandomNormal and the like."""
    for node in graph.node:
        if node.op_type in (
            "Cast",
            "EyeLike",
            "RandomNormal",
            "RandomUniform",
            "RandomNormalLike",
            "RandomUniformLike",
        ):
            yield from (attribute for attribute in node.attribute if attribute.name in ("to", "dtype"))
