"""Edit one TFLite graph: drop throw-away endings, name, order and compact.

A model here is the ``ModelT`` of :mod:`graphcut.tflite.schema` with exactly one subgraph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import schema
from graphcut.tflite.schema_types import BufferT, ModelT, OperatorT, SubGraphT

SIGNATURE = "serving_default"
MAP_ENDING = "_output_nhwc"
"""What the converter adds to the name of a map inside a file."""


def graph_of(model: ModelT) -> SubGraphT:
    """The model's one subgraph.

    Raises:
        ValueError: there are several.
    """
    if len(model.subgraphs) != 1:
        raise ValueError(f"expected one subgraph, found {len(model.subgraphs)}")
    return model.subgraphs[0]


def find(model: ModelT, name: str) -> int:
    """Index of the tensor with that name.

    Raises:
        KeyError: there is none.
    """
    for index, tensor in enumerate(graph_of(model).tensors):
        if schema.tensor_name(tensor) == name:
            return index
    raise KeyError(name)


def producers(model: ModelT) -> dict[int, OperatorT]:
    """Tensor index -> the operator that computes it."""
    return {int(out): op for op in graph_of(model).operators for out in op.outputs}


def drop_ending(model: ModelT, ending: str) -> int:
    """Remove the throw-away consumer whose output is ``ending`` and return the seam it read.

    Converters leave a rank-4 graph output in NCHW after a TRANSPOSE; with one more 1x1 convolution of ones after it
    the seam is an ordinary NHWC tensor with its activation fused. That last operator is removed here, and with it any
    TRANSPOSE or RESHAPE of its output.

    Raises:
        ValueError: the ending is not a separate convolution of ones, so the seam before it cannot be trusted.
    """
    graph = graph_of(model)
    index = find(model, ending)
    makers = producers(model)
    operator = makers.get(index)
    turned = None
    if operator is not None and schema.op_name(model, operator) in ("TRANSPOSE", "RESHAPE"):
        turned, operator = operator, makers.get(int(operator.inputs[0]))
    if operator is None or schema.op_name(model, operator) not in ("DEPTHWISE_CONV_2D", "CONV_2D"):
        raise ValueError(f"the ending {ending} was not kept as a separate convolution")
    weights = schema.constant(model, graph.tensors[operator.inputs[1]])
    if weights is None or not np.all(weights == 1):
        raise ValueError(f"the ending {ending} was merged with another operator")
    seam = int(operator.inputs[0])
    graph.operators.remove(operator)
    if turned is not None:
        graph.operators.remove(turned)
    graph.outputs = np.array([seam if int(out) == index else int(out) for out in graph.outputs], np.int32)
    return seam


def drop_beginning(model: ModelT, source: int) -> None:
    """Remove the throw-away convolution of ones that reads input ``source``, if there is one.

    An activation that was fused into it stays, as a separate operator.

    Raises:
        ValueError: it was merged with something else.
    """
    graph = graph_of(model)
    readers = [operator for operator in graph.operators if source in {int(i) for i in operator.inputs}]
    if len(readers) != 1 or schema.op_name(model, readers[0]) not in ("DEPTHWISE_CONV_2D", "CONV_2D"):
        return
    operator = readers[0]
    weights = schema.constant(model, graph.tensors[operator.inputs[1]])
    if not schema.tensor_name(graph.tensors[operator.inputs[1]]).count("/beginning"):
        return
    if weights is None or not np.all(weights == 1):
        raise ValueError("the beginning was merged with another operator")
    target = int(operator.outputs[0])
    fused = int(operator.builtinOptions.fusedActivationFunction)
    kinds = {
        fb.ActivationFunctionType.RELU: fb.BuiltinOperator.RELU,
        fb.ActivationFunctionType.RELU6: fb.BuiltinOperator.RELU6,
    }
    if fused in kinds:
        operator.inputs = np.array([source], np.int32)
        operator.opcodeIndex = code_index(model, kinds[fused])
        operator.builtinOptions, operator.builtinOptionsType = None, fb.BuiltinOptions.NONE
        return
    if fused != fb.ActivationFunctionType.NONE:
        raise ValueError("an activation without an operator of its own was fused into the beginning")
    graph.operators.remove(operator)
    for other in graph.operators:
        other.inputs = np.array([source if int(i) == target else int(i) for i in other.inputs], np.int32)
    graph.outputs = np.array([source if int(i) == target else int(i) for i in graph.outputs], np.int32)


def code_index(model: ModelT, builtin: int) -> int:
    """Index of a built-in operator's code, which is added if necessary."""
    for number, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return number
    code = fb.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 1
    model.operatorCodes = [*model.operatorCodes, code]
    return len(model.operatorCodes) - 1


def add_int8(model: ModelT, like: int, name: str, scale: float, zero_point: int) -> int:
    """Add an int8 activation with the shape of another one; returns its index."""
    graph = graph_of(model)
    tensor = fb.TensorT()
    tensor.shape, tensor.shapeSignature = graph.tensors[like].shape, graph.tensors[like].shapeSignature
    tensor.type, tensor.buffer, tensor.name = fb.TensorType.INT8, 0, name.encode()
    tensor.quantization = fb.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([zero_point], np.int64)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def conversion(model: ModelT, source: int, made: int) -> OperatorT:
    """The operator, not yet in the graph, that converts one tensor to the type and scale of another.

    QUANTIZE to int8, from float or another scale; DEQUANTIZE to float.
    """
    to_float = graph_of(model).tensors[made].type == fb.TensorType.FLOAT32
    operator: OperatorT = fb.OperatorT()
    operator.opcodeIndex = code_index(model, fb.BuiltinOperator.DEQUANTIZE if to_float else fb.BuiltinOperator.QUANTIZE)
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([made], np.int32)
    return operator


def rename(model: ModelT, names: Mapping[int, str]) -> None:
    """Name tensors by index; a name that is already used gets ``/2``, ``/3`` ..., so that all stay unique."""
    graph = graph_of(model)
    taken: set[str] = set(names.values())
    if len(taken) != len(names):
        raise ValueError("the new names are not unique")
    for index, tensor in enumerate(graph.tensors):
        if index in names:
            tensor.name = names[index].encode()
            continue
        name = schema.tensor_name(tensor)
        unique, count = name, 1
        while unique in taken:
            count += 1
            unique = f"{name}/{count}"
        taken.add(unique)
        tensor.name = unique.encode()


def set_interface(model: ModelT, inputs: Sequence[int], outputs: Sequence[int]) -> None:
    """Set the order of inputs and outputs, and a signature with the names of the tensors."""
    graph = graph_of(model)
    graph.inputs = np.array(inputs, np.int32)
    graph.outputs = np.array(outputs, np.int32)
    signature = fb.SignatureDefT()
    signature.signatureKey = SIGNATURE.encode()
    signature.subgraphIndex = 0
    signature.inputs = [_tensor_map(graph, index) for index in inputs]
    signature.outputs = [_tensor_map(graph, index) for index in outputs]
    model.signatureDefs = [signature]


def drop_unread(model: ModelT) -> None:
    """Drop operators of which nothing is read, and then those that only they read."""
    graph = graph_of(model)
    while True:
        read = {int(i) for i in graph.outputs} | {int(i) for each in graph.operators for i in each.inputs}
        kept = [each for each in graph.operators if not read.isdisjoint(int(i) for i in each.outputs)]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept


def compact(model: ModelT) -> None:
    """Drop unused tensors, buffers and operator codes, and number the rest in a fixed order.

    Tensors: inputs, then the inputs and outputs of each operator in order. Buffers: the empty one, then those of
    constants, each once. Two graphs with the same operators and names give the same bytes.
    """
    graph = graph_of(model)
    order = _in_order([graph.inputs, *(list(op.inputs) + list(op.outputs) for op in graph.operators), graph.outputs])
    new_index = {old: new for new, old in enumerate(order)}
    graph.tensors = [graph.tensors[old] for old in order]
    graph.inputs = np.array([new_index[int(i)] for i in graph.inputs], np.int32)
    graph.outputs = np.array([new_index[int(i)] for i in graph.outputs], np.int32)
    codes: dict[int, int] = {}
    for op in graph.operators:
        op.inputs = np.array([new_index.get(int(i), -1) for i in op.inputs], np.int32)
        op.outputs = np.array([new_index[int(i)] for i in op.outputs], np.int32)
        op.intermediates = None
        op.opcodeIndex = codes.setdefault(int(op.opcodeIndex), len(codes))
    model.operatorCodes = [model.operatorCodes[old] for old in codes]
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = new_index[int(entry.tensorIndex)]
    empty = fb.BufferT()
    buffers: list[BufferT] = [empty]
    moved: dict[int, int] = {}
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            tensor.buffer = 0
            continue
        if tensor.buffer not in moved:
            moved[tensor.buffer] = len(buffers)
            buffers.append(model.buffers[tensor.buffer])
        tensor.buffer = moved[tensor.buffer]
    model.buffers = buffers
    model.metadata = None
    model.metadataBuffer = None


def _in_order(groups: Iterable[Iterable[int]]) -> list[int]:
    seen: dict[int, None] = {}
    for group in groups:
        for index in group:
            if int(index) >= 0:
                seen.setdefault(int(index))
    return list(seen)


def _tensor_map(graph: SubGraphT, index: int) -> Any:
    entry = fb.TensorMapT()
    entry.name = schema.tensor_name(graph.tensors[index]).encode()
    entry.tensorIndex = index
    return entry


def scale_of(model: ModelT, index: int) -> tuple[float, int]:
    """Scale and zero point of an int8 tensor with one scale.

    Raises:
        ValueError: it has none, or one per channel.
    """
    tensor = graph_of(model).tensors[index]
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        raise ValueError(f"tensor {schema.tensor_name(tensor)} has no single scale")
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])


def alone(
    model: ModelT, operator: OperatorT, shapes: Mapping[int, tuple[int, ...]] | None = None
) -> tuple[bytes, list[int]]:
    """A file of one operator, and the activations of the model that it reads, in the order of the file's inputs.

    Its inputs are activations, each once; its constants are included. Its outputs are those of the operator.

    Args:
        model: the operator's.
        operator: one of its operators.
        shapes: index of an activation -> the shape that it has in place of its own.
    """
    graph = graph_of(model)
    single = fb.ModelT()
    single.version = 3  # of the schema
    single.operatorCodes = [model.operatorCodes[operator.opcodeIndex]]
    single.buffers = [fb.BufferT()]
    own = fb.SubGraphT()
    own.tensors = []
    single.subgraphs = [own]
    places: dict[int, int] = {-1: -1}  # an omitted optional input
    read = []
    for index in dict.fromkeys(int(i) for i in (*operator.inputs, *operator.outputs)):
        if index < 0:
            continue
        tensor = copy(graph.tensors[index])
        data = model.buffers[tensor.buffer].data
        is_constant = data is not None and len(data) > 0
        tensor.buffer = len(single.buffers) if is_constant else 0
        if shapes and index in shapes:
            tensor.shape, tensor.shapeSignature = np.array(shapes[index], np.int32), None
        if is_constant:
            single.buffers.append(model.buffers[graph.tensors[index].buffer])
        elif index in {int(i) for i in operator.inputs}:
            read.append(index)
        places[index] = len(own.tensors)
        own.tensors.append(tensor)
    lone = copy(operator)
    lone.opcodeIndex = 0
    lone.inputs, lone.outputs = (
        np.array([places[int(i)] for i in indices], np.int32) for indices in (operator.inputs, operator.outputs)
    )
    own.operators = [lone]
    set_interface(single, [places[index] for index in read], [int(index) for index in lone.outputs])
    return schema.write(single), read


def expose(data: bytes, names: Sequence[str]) -> bytes:
    """The same file with additional outputs: the named inner tensors, after the existing outputs.

    Raises:
        KeyError: a tensor does not exist.
    """
    model = schema.read(data)
    graph = graph_of(model)
    further = [find(model, name) for name in names]
    set_interface(model, [int(i) for i in graph.inputs], [*(int(i) for i in graph.outputs), *further])
    return schema.write(model)
