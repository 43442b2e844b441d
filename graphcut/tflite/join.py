"""Join int8 segments into one TFLite file.

1. A joined file has the operators of its parts in order; an input of a later part is the tensor with the same name that
   an earlier part produces, or an input of the joined file.
2. Nothing is computed or converted again: constants, scales and operators are copied, so the joined file computes
   exactly what the chain of its parts computes.
3. Where two sides of a seam have different scales, a part's input gets its producer's scale and a QUANTIZE operator
   after it (:func:`rescale_input`) before parts are joined; joining itself raises an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import BufferT, OperatorCodeT, TensorT


def join(parts: Sequence[bytes], outputs: Sequence[str], description: str) -> bytes:
    """One file from the files of consecutive segments.

    Args:
        parts: the segments' bytes, in order.
        outputs: names of the outputs of the joined file, in order.
        description: the file's description.

    Raises:
        ValueError: two parts disagree about a shared tensor, or no part produces an output.
    """
    joined = schema.read(parts[0])
    joined.subgraphs[0].name = b"main"
    graph = joined.subgraphs[0]
    made = {schema.tensor_name(tensor): index for index, tensor in enumerate(graph.tensors)}
    interface = {schema.tensor_name(graph.tensors[int(i)]): int(i) for i in (*graph.inputs, *graph.outputs)}
    inputs = [int(index) for index in graph.inputs]
    operators, tensors, buffers, codes = (
        list(graph.operators),
        list(graph.tensors),
        list(joined.buffers),
        list(joined.operatorCodes),
    )
    for number, data in enumerate(parts[1:], start=2):
        part = schema.read(data)
        own = edit.graph_of(part)
        moved: dict[int, int] = {}
        for index in (int(i) for i in own.inputs):
            name = schema.tensor_name(own.tensors[index])
            if name in interface:
                _same(tensors[interface[name]], own.tensors[index], number)
                moved[index] = interface[name]
        for index, tensor in enumerate(own.tensors):
            if index in moved:
                continue
            tensor.buffer = _append(buffers, part.buffers[tensor.buffer])
            tensor.name = _unique(schema.tensor_name(tensor), made, number).encode()
            moved[index] = len(tensors)
            made[schema.tensor_name(tensor)] = len(tensors)
            tensors.append(tensor)
        inputs += [moved[int(i)] for i in own.inputs if schema.tensor_name(own.tensors[int(i)]) not in interface]
        for index in (*own.inputs, *own.outputs):
            interface[schema.tensor_name(own.tensors[int(index)])] = moved[int(index)]
        for operator in own.operators:
            operator.inputs = np.array([moved.get(int(i), -1) for i in operator.inputs], np.int32)
            operator.outputs = np.array([moved[int(i)] for i in operator.outputs], np.int32)
            operator.opcodeIndex = _code(codes, part.operatorCodes[operator.opcodeIndex])
            operators.append(operator)
    missing = [name for name in outputs if name not in interface]
    if missing:
        raise ValueError(f"no segment produces {', '.join(missing)}")
    graph.operators, graph.tensors, joined.buffers, joined.operatorCodes = operators, tensors, buffers, codes
    edit.set_interface(joined, inputs, [interface[name] for name in outputs])
    edit.compact(joined)
    joined.description = description.encode()
    return schema.write(joined)


def rescale_input(data: bytes, name: str, scale: float, zero_point: int) -> bytes:
    """The same segment, reading input ``name`` with another scale through one QUANTIZE operator.

    Raises:
        ValueError: the segment has no such input.
    """
    model = schema.read(data)
    graph = edit.graph_of(model)
    index = next((int(i) for i in graph.inputs if schema.tensor_name(graph.tensors[int(i)]) == name), None)
    if index is None:
        raise ValueError(f"no input {name}")
    old = graph.tensors[index]
    old.name = f"{name}/rescaled".encode()
    fresh = edit.add_int8(model, index, name, scale, zero_point)
    graph.tensors[fresh].hasRank = old.hasRank
    operator = fb.OperatorT()
    code = fb.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = fb.BuiltinOperator.QUANTIZE
    code.version = 2
    model.operatorCodes = list(model.operatorCodes)
    operator.opcodeIndex = _code(model.operatorCodes, code)
    operator.inputs, operator.outputs = np.array([fresh], np.int32), np.array([index], np.int32)
    graph.operators = [operator, *graph.operators]
    outputs = [fresh if int(i) == index else int(i) for i in graph.outputs]
    edit.set_interface(model, [fresh if int(i) == index else int(i) for i in graph.inputs], outputs)
    edit.compact(model)
    return schema.write(model)


def _same(made: TensorT, read: TensorT, number: int) -> None:
    ours, theirs = _facts(made), _facts(read)
    if ours != theirs:
        raise ValueError(f"segment {number} reads {schema.tensor_name(read)} as {theirs}, but it is produced as {ours}")


def _facts(tensor: TensorT) -> tuple[object, ...]:
    quantization = tensor.quantization
    scale = None if quantization is None or quantization.scale is None else float(quantization.scale[0])
    zero = None if quantization is None or quantization.zeroPoint is None else int(quantization.zeroPoint[0])
    return tuple(int(n) for n in tensor.shape), schema.TYPE_NAMES[tensor.type], scale, zero


def _append(buffers: list[BufferT], buffer: BufferT) -> int:
    if buffer.data is None or len(buffer.data) == 0:
        return 0
    buffers.append(buffer)
    return len(buffers) - 1


def _unique(name: str, taken: dict[str, int], number: int) -> str:
    return name if name not in taken else f"{name}/seg{number}"


def _code(codes: list[OperatorCodeT], code: OperatorCodeT) -> int:
    wanted = (code.builtinCode, code.deprecatedBuiltinCode, code.version, code.customCode)
    for index, known in enumerate(codes):
        if (known.builtinCode, known.deprecatedBuiltinCode, known.version, known.customCode) == wanted:
            return index
    codes.append(code)
    return len(codes) - 1
