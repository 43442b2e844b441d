"""Convert ONNX messages to plain values and back, without copying weights more than once.

1. An attribute is an int, float, str, a tuple of those, or a numpy array (tensor attributes). Anything else (graphs,
   sparse tensors, types) stays an AttributeProto.
2. A *skeleton* is a model whose large weights are only declared. It is enough for shape inference, the checker and the
   version converter, and small whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import prod

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from graphcut.records import Node, Shape, Tensor

NumpyArray = npt.NDArray[np.generic]

SMALL_ELEMENTS = 1024
"""A skeleton contains weights of at most this many elements: shapes, axes, pads and scales are all far smaller."""


def every_node(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs inside them; in no order."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting += attribute.g.node if attribute.HasField("g") else ()
            for graph in attribute.graphs:
                waiting += graph.node


def attribute_value(attribute: AttributeProto) -> object:
    """The value of one attribute (module, statement 1)."""
    kind = attribute.type
    if kind == AttributeProto.INT:
        return int(attribute.i)
    if kind == AttributeProto.INTS:
        return tuple(attribute.ints)
    if kind == AttributeProto.FLOAT:
        return float(attribute.f)
    if kind == AttributeProto.STRING:
        return attribute.s.decode("utf-8", "replace")
    if kind == AttributeProto.FLOATS:
        return tuple(attribute.floats)
    if kind == AttributeProto.STRINGS:
        return tuple(text.decode("utf-8", "replace") for text in attribute.strings)
    if kind == AttributeProto.TENSOR:
        return numpy_helper.to_array(attribute.t)
    return attribute


def attribute_proto(name: str, value: object) -> AttributeProto:
    """The message of one attribute; the inverse of :func:`attribute_value`.

    Raises:
        TypeError: no attribute can have this value.
    """
    if isinstance(value, AttributeProto):
        return value
    if isinstance(value, bool | int):
        return AttributeProto(name=name, type=AttributeProto.INT, i=int(value))
    if isinstance(value, float):
        return AttributeProto(name=name, type=AttributeProto.FLOAT, f=value)
    if isinstance(value, str):
        return AttributeProto(name=name, type=AttributeProto.STRING, s=value.encode())
    if isinstance(value, np.ndarray):
        return AttributeProto(name=name, type=AttributeProto.TENSOR, t=numpy_helper.from_array(value))
    if isinstance(value, tuple):
        if all(isinstance(item, int) for item in value):
            return AttributeProto(name=name, type=AttributeProto.INTS, ints=value)
        if all(isinstance(item, float) for item in value):
            return AttributeProto(name=name, type=AttributeProto.FLOATS, floats=value)
        if all(isinstance(item, str) for item in value):
            return AttributeProto(name=name, type=AttributeProto.STRINGS, strings=[item.encode() for item in value])
    raise TypeError(f"attribute {name!r} cannot hold a {type(value).__name__}")


def node_record(proto: NodeProto) -> Node:
    """A node as a record; its name may still be empty."""
    return Node(
        name=proto.name,
        op_type=proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={attribute.name: attribute_value(attribute) for attribute in proto.attribute},
    )


def node_proto(node: Node) -> NodeProto:
    """A record as a node of the default domain."""
    return NodeProto(
        name=node.name,
        op_type=node.op_type,
        input=node.inputs,
        output=node.outputs,
        attribute=[attribute_proto(name, value) for name, value in node.attributes.items()],
    )


@cache
def dtype_name(elem_type: int) -> str:
    """The numpy dtype name of an ONNX element type ("float32")."""
    return str(helper.tensor_dtype_to_np_dtype(elem_type))


def value_info(tensor: Tensor) -> ValueInfoProto:
    """The declaration of an activation with a static shape."""
    return helper.make_tensor_value_info(
        tensor.name, helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), tensor.shape
    )


def static_shape(value: ValueInfoProto) -> Shape | None:
    """The shape of a declaration, None unless every dimension is a number."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tuple(int(dim.dim_value) for dim in dims)


def empty_model(name: str, opset: int, producer: str = "graphcut") -> ModelProto:
    """A model without nodes, with the oldest IR version that its opset allows (at least 8)."""
    imports = [helper.make_opsetid("", opset)]
    model = ModelProto(
        ir_version=max(8, helper.find_min_ir_version_for(imports, ignore_unknown=True)),
        producer_name=producer,
        opset_import=imports,
    )
    model.graph.name = name
    return model


def opset_of(model: ModelProto) -> int:
    """The version of the default operator set; 1 where the model imports none, as the format specifies."""
    versions = [int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=1)


def build(
    name: str,
    opset: int,
    nodes: Iterable[NodeProto],
    inputs: Sequence[Tensor],
    outputs: Sequence[ValueInfoProto],
    weights: Mapping[str, NumpyArray],
    *,
    weights_as_inputs_above: int | None = None,
    external_above: int | None = None,
) -> ModelProto:
    """A model from its parts.

    Args:
        name: of the graph.
        opset: of the default domain.
        nodes: in topological order.
        inputs: the graph's inputs with static shapes.
        outputs: declarations of the outputs.
        weights: initialisers by name.
        weights_as_inputs_above: weights of more elements become inputs without a value (statement 2); None: none do.
        external_above: weights of more elements are declared as external data, whose values a session is given
            apart; None: none are.
    """
    model = empty_model(name, opset)
    graph = model.graph
    graph.node.extend(nodes)
    graph.input.extend(value_info(tensor) for tensor in inputs)
    graph.output.extend(outputs)
    for weight, array in weights.items():
        if weights_as_inputs_above is not None and array.size > weights_as_inputs_above:
            graph.input.append(value_info(Tensor(name=weight, shape=array.shape, dtype=str(array.dtype))))
        elif external_above is not None and array.size > external_above:
            graph.initializer.append(external(weight, array))
        else:
            graph.initializer.append(numpy_helper.from_array(array, weight))
    return model


def rebuilt(
    model: ModelProto,
    name: str,
    opset: int,
    nodes: Iterable[NodeProto],
    inputs: Sequence[Tensor],
    outputs: Sequence[ValueInfoProto],
    weights: Mapping[str, NumpyArray | None],
) -> ModelProto:
    """Write another model into the same message; weights with the value None stay in it, uncopied.

    Args:
        model: modified.
        name, opset, nodes, inputs, outputs: as for :func:`build`; ``nodes`` may be those of ``model``.
        weights: all weights; None where ``model`` has the value.
    """
    new = empty_model(name, opset)
    new.graph.node.extend(nodes)
    new.graph.input.extend(value_info(tensor) for tensor in inputs)
    new.graph.output.extend(outputs)
    kept = {weight for weight, array in weights.items() if array is None}
    initializers = model.graph.initializer
    for index in reversed(range(len(initializers))):
        if initializers[index].name in kept:
            kept.discard(initializers[index].name)
        else:
            del initializers[index]
    initializers.extend(numpy_helper.from_array(array, key) for key, array in weights.items() if array is not None)
    for field in ("functions", "training_info", "metadata_props", "domain", "model_version", "doc_string"):
        model.ClearField(field)
    for field in ("node", "input", "output", "value_info", "doc_string", "quantization_annotation", "metadata_props"):
        model.graph.ClearField(field)
    del model.opset_import[:]
    model.MergeFrom(new)
    return model


def skeleton_of(model: ModelProto, *, outputs: bool = True) -> ModelProto:
    """A model as :mod:`onnx.checker` takes it without its large weights, which become inputs (statement 2).

    Args:
        model: weights inside or declared as external data.
        outputs: keep the graph's outputs; the checker refuses outputs without a type.
    """
    graph = model.graph
    other = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    other.graph.name = graph.name
    other.graph.node.extend(graph.node)
    other.graph.input.extend(graph.input)
    other.graph.value_info.extend(graph.value_info)
    if outputs:
        other.graph.output.extend(graph.output)
    for tensor in graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and prod(tensor.dims) <= SMALL_ELEMENTS:
            other.graph.initializer.append(tensor)
            continue
        declared = Tensor(name=tensor.name, shape=tuple(tensor.dims), dtype=dtype_name(tensor.data_type))
        other.graph.input.append(value_info(declared))
    return other


def untyped(name: str) -> ValueInfoProto:
    """The declaration of an output without a type, which onnxruntime then infers."""
    return ValueInfoProto(name=name)


def external(name: str, array: NumpyArray) -> TensorProto:
    """The declaration of a weight whose value is elsewhere."""
    tensor = TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value="apart")
    return tensor
