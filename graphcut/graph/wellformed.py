"""Validate an ONNX message before anything else reads it: every field that later code relies on.

1. Strings are UTF-8 (protobuf does not check that for ONNX and returns bytes), without control characters and not
   longer than ``LONGEST_TEXT``.
2. Tensors have a known type, dimensions that are not negative, a number of elements within the budget, and as many
   values as they declare. Attributes have a type that is allowed in a main graph, and that their operator takes.
3. Versions of operator sets are known to the installed onnx. No name is declared twice.
4. Local functions and inner graphs are checked too.
5. Only Python reads the message here, before any native library does.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from math import prod
from typing import Any

import onnx.defs
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from graphcut.errors import ModelError
from graphcut.graph.budget import MOST_RANK, MOST_TENSOR_ELEMENTS
from graphcut.graph.protobuf import NumpyArray

LONGEST_TEXT = 4096
"""The most characters of one name: scopes of deep modules have a few hundred."""
_AGAIN = "the file is damaged or not valid ONNX; export it again"
_TYPES = frozenset(helper.get_all_tensor_dtypes())
_LONGEST_SHOWN = 80


def refuse_malformed(proto: ModelProto) -> None:
    """Refuse a message that breaks a rule of the module docstring.

    Args:
        proto: as parsed; external data may still be declared.

    Raises:
        ModelError: names the first violation.
    """
    _versions(proto.opset_import)
    _graph(proto.graph, inner=False)
    for function in proto.functions:
        _function(function)
    for value in (*proto.graph.input, *proto.graph.output):
        _value_type(value)
    names = [value.name for value in proto.graph.input]
    _unique(names, "input")
    _unique((tensor.name for tensor in proto.graph.initializer), "weight")


def tensors(proto: ModelProto, *, weights: bool = True) -> Iterator[TensorProto]:
    """Every tensor in a model.

    Args:
        proto: the model; its inner graphs and local functions are included.
        weights: begin with the main graph's weights; False omits them.
    """
    if weights:
        yield from proto.graph.initializer
    waiting: list[GraphProto | FunctionProto] = [proto.graph, *proto.functions]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, GraphProto):
            yield from () if part is proto.graph else part.initializer
            for sparse in part.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        defaults = part.attribute_proto if isinstance(part, FunctionProto) else ()
        for attribute in chain(defaults, (each for node in part.node for each in node.attribute)):
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            waiting += [attribute.g] if attribute.HasField("g") else []
            waiting += attribute.graphs


def array_of(tensor: TensorProto, what: str) -> NumpyArray:
    """The values of a tensor whose data is inside.

    Raises:
        ModelError: their number does not match the dimensions; the error calls the tensor ``what``.
    """
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        raise ModelError(f"{what} does not contain the {_dims(tensor)} numbers that it declares", _AGAIN) from error


def shown(text: str | bytes) -> str:
    """A string from the file for an error: quoted, escaped, and truncated if it is long."""
    if len(text) > _LONGEST_SHOWN:
        return f"{text[:_LONGEST_SHOWN]!r}... ({len(text)} characters)"
    return repr(text)


def _function(function: FunctionProto) -> None:
    _text(function.name, "the name of a local function")
    _text(function.domain, f"the domain of function {shown(function.name)}")
    _versions(function.opset_import)
    for name in chain(function.input, function.output, function.attribute):
        _text(name, f"a name in function {shown(function.name)}")
    for node in function.node:
        _node(node, inner=True)
    for attribute in function.attribute_proto:
        _attribute(attribute, f"function {shown(function.name)}", inner=True)


def _graph(graph: GraphProto, *, inner: bool) -> None:
    _text(graph.name, "the graph's name")
    for value in (*graph.input, *graph.output):
        _text(value.name, "the name of an input or output")
        for dim in value.type.tensor_type.shape.dim:
            _text(dim.dim_param, f"a dimension of {shown(value.name)}")
    for tensor in graph.initializer:
        _text(tensor.name, "the name of a weight")
        _tensor(tensor, f"weight {shown(tensor.name)}")
    for sparse in graph.sparse_initializer:
        _text(sparse.values.name, "the name of a weight")
    for node in graph.node:
        _node(node, inner=inner)


def _node(node: NodeProto, *, inner: bool) -> None:
    _text(node.op_type, "the operator of a node")
    _text(node.name, f"the name of a node ({shown(node.op_type)})")
    what = f"node {shown(node.name or (node.output[0] if node.output else ''))} ({shown(node.op_type)[1:-1]})"
    _text(node.domain, f"the domain of {what}")
    for name in chain(node.input, node.output):
        _text(name, f"an input or output of {what}")
    domain = "" if node.domain == "ai.onnx" else node.domain
    for attribute in node.attribute:
        _text(attribute.name, f"an attribute of {what}")
        _attribute(attribute, what, inner=inner)
        allowed = _attribute_types().get((domain, node.op_type, attribute.name))
        if allowed is not None and attribute.type not in allowed:
            raise ModelError(f"attribute {shown(attribute.name)} of {what} is not of the operator's type", _AGAIN)
    _unique((attribute.name for attribute in node.attribute), f"{what}: attribute")
    for entry in node.metadata_props:
        if isinstance(entry.key, bytes) or isinstance(entry.value, bytes):
            raise ModelError(f"the metadata of {what} is not UTF-8 text", _AGAIN)


@cache
def _attribute_types() -> Mapping[tuple[str, str, str], frozenset[int]]:
    """Domain, operator, attribute -> the types that it has in any version of the operator."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        for name, attribute in schema.attributes.items():
            kind: Any = attribute.type  # an enumeration, which the stubs do not call one
            found.setdefault((schema.domain, schema.name, name), set()).add(int(kind))
    return {key: frozenset(types) for key, types in found.items()}


def _attribute(attribute: AttributeProto, what: str, *, inner: bool) -> None:
    where = f"attribute {shown(attribute.name)} of {what}"
    if attribute.ref_attr_name and not inner:
        raise ModelError(f"{where} refers to an attribute of a function, outside a function", _AGAIN)
    if attribute.type == AttributeProto.UNDEFINED and not attribute.ref_attr_name:
        raise ModelError(f"{where} has no type", _AGAIN)
    if attribute.type == AttributeProto.TENSOR:
        _tensor(attribute.t, where)
    for tensor in attribute.tensors:
        _tensor(tensor, where)
    for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
        _graph(graph, inner=True)


def _tensor(tensor: TensorProto, what: str) -> None:
    if tensor.data_type not in _TYPES:
        raise ModelError(f"{what} has an unknown type ({tensor.data_type})", _AGAIN)
    if len(tensor.dims) > MOST_RANK or any(size < 0 for size in tensor.dims):
        raise ModelError(f"{what} has impossible dimensions ({_dims(tensor)})", _AGAIN)
    if prod(tensor.dims) > MOST_TENSOR_ELEMENTS * 4:
        raise ModelError(f"{what} declares {_dims(tensor)} numbers, more than fit into a file", _AGAIN)
    if tensor.HasField("segment"):
        raise ModelError(f"{what} is stored in segments, which is not supported", "export the model again")
    for entry in tensor.external_data:
        _text(entry.key, f"the external data of {what}")
        _text(entry.value, f"the external data of {what}")


def _value_type(value: ValueInfoProto) -> None:
    if value.type.WhichOneof("value") != "tensor_type":
        return  # sequences and the like are refused by name later; an output need not declare its type
    kind = value.type.tensor_type
    if kind.elem_type not in _TYPES:
        raise ModelError(f"{shown(value.name)} has an unknown type ({kind.elem_type})", _AGAIN)
    if len(kind.shape.dim) > MOST_RANK:
        raise ModelError(f"{shown(value.name)} has {len(kind.shape.dim)} dimensions; the limit is {MOST_RANK}", "")


def _versions(imports: Iterable[onnx.OperatorSetIdProto]) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in imports:
        _text(entry.domain, "the domain of an operator set")
        if entry.domain in ("", "ai.onnx") and entry.version > newest:
            raise ModelError(
                f"the model uses opset {entry.version}; the newest that is supported is {newest}",
                "export it with an older opset",
            )
        if not 1 <= entry.version < 2**31:
            raise ModelError(f"operator set {shown(entry.domain)} has the impossible version {entry.version}", _AGAIN)


def _unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelError(f"{what} {shown(name)} is declared twice", _AGAIN)
        seen.add(name)


def _text(value: str | bytes, what: str) -> None:
    if isinstance(value, bytes):
        raise ModelError(f"{what} is not UTF-8 text ({shown(value)})", _AGAIN)
    if not value.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ModelError(f"{what} contains control characters ({shown(value)})", "rename it in the model")
    if len(value) > LONGEST_TEXT:
        raise ModelError(f"{what} has {len(value)} characters; the limit is {LONGEST_TEXT}", "rename it in the model")


def _dims(tensor: TensorProto) -> str:
    return "x".join(map(str, tensor.dims[:MOST_RANK])) or "1"
