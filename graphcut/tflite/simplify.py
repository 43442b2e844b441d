"""Remove operators of the converter that the next operator can do by itself.

1. *PAD before a convolution.* onnx2tf writes every strided SAME convolution as PAD and a VALID convolution. Where the
   padding is what SAME means for the unpadded input, the convolution pads by itself and the PAD is removed.
2. *An activation after an operator that can apply it.* After FULLY_CONNECTED onnx2tf leaves every RELU and RELU6 a
   separate operator; the quantiser does not support RELU6, which would then run in float.
3. **A number next to an activation.* The quantiser gives the constant of MAXIMUM, PADV2 and SELECT_V2 the activation's
   scale, and does so only where it is a scalar, not an array of one number (Clip to -1 .. 1, Pad with a value).
4. *A logarithm of a softmax.* onnx2tf writes LogSoftmax as SOFTMAX and LOG. In int8 one operator is precise where the
   two are not.
5. *A vector divided by its length.* onnx2tf writes F.normalize and LpNormalization as MUL, SUM, SQRT, MAXIMUM and DIV.
   Where the vector is the last axis, that is L2_NORMALIZATION, whose int8 form is precise; a length near 0 is not 0
   there, by which the interpreter refuses to divide.
6. **A shape that is known.* onnx2tf computes the target shape of a Squeeze of rank 5 or more (SHAPE, GATHER) and
   reshapes constants. Shapes are static, and in int8 a SHAPE reads a DEQUANTIZE.

Works on a float model in place, before it is calibrated and quantised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT, OperatorT, SubGraphT

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_TAKE_ACTIVATIONS = (*_CONVOLUTIONS, "FULLY_CONNECTED", "ADD", "SUB", "MUL")
_BESIDE_A_NUMBER = ("MAXIMUM", "MINIMUM", "PADV2", "SELECT_V2")
_LEAST_LENGTH = 1e-5
"""L2_NORMALIZATION divides by 1e-6 where a vector is shorter; bounds up to this are for vectors of zeros too."""
_ACTIVATIONS = {
    "RELU": fb.ActivationFunctionType.RELU,
    "RELU6": fb.ActivationFunctionType.RELU6,
    "RELU_N1_TO_1": fb.ActivationFunctionType.RELU_N1_TO_1,
}


def fuse_padding(model: ModelT) -> int:
    """Let convolutions pad by themselves where they can (statement 1); returns the number of removed PAD operators."""
    graph = edit.graph_of(model)
    makers = edit.producers(model)
    readers = _readers(graph)
    fused = []
    for operator in graph.operators:
        pad = makers.get(int(operator.inputs[0]))
        if schema.op_name(model, operator) not in _CONVOLUTIONS or pad is None or schema.op_name(model, pad) != "PAD":
            continue
        padded = int(pad.outputs[0])
        if readers[padded] > 1 or not _is_same(model, pad, operator):
            continue
        operator.inputs = np.array([pad.inputs[0], *operator.inputs[1:]], np.int32)
        operator.builtinOptions.padding = fb.Padding.SAME
        fused.append(pad)
    _drop(graph, fused)
    return len(fused)


def fuse_activations(model: ModelT) -> int:
    """Fuse an activation that is the only reader of an operator (statement 2); returns the number of fused ones."""
    graph = edit.graph_of(model)
    makers = edit.producers(model)
    readers = _readers(graph)
    fused = []
    for operator in graph.operators:
        function = _ACTIVATIONS.get(schema.op_name(model, operator))
        maker = None if function is None else makers.get(int(operator.inputs[0]))
        if maker is None or schema.op_name(model, maker) not in _TAKE_ACTIVATIONS:
            continue
        options = maker.builtinOptions
        if readers[int(operator.inputs[0])] > 1 or options.fusedActivationFunction != fb.ActivationFunctionType.NONE:
            continue
        options.fusedActivationFunction = function
        maker.outputs = operator.outputs
        makers[int(operator.outputs[0])] = maker
        fused.append(operator)
    _drop(graph, fused)
    return len(fused)


def settle_scalars(model: ModelT) -> int:
    """Make constants of one number scalars where the quantiser needs that (statement 3); returns their number."""
    graph = edit.graph_of(model)
    settled = 0
    for operator in graph.operators:
        if schema.op_name(model, operator) not in _BESIDE_A_NUMBER:
            continue
        for index in (int(i) for i in operator.inputs):
            tensor = graph.tensors[index]
            values = schema.constant(model, tensor)
            if values is not None and values.size == 1 and values.ndim and values.dtype == np.float32:
                tensor.shape = np.zeros(0, np.int32)
                settled += 1
    return settled


def fuse_log_softmax(model: ModelT) -> int:
    """Fuse a SOFTMAX and a LOG, its only reader, also with rearrangements in between; returns their number.

    Converters write LogSoftmax this way. In int8 the probabilities have steps of 1/256, so most logarithms would be
    those of 0 (statement 4).
    """
    graph = edit.graph_of(model)
    readers, makers = _readers(graph), edit.producers(model)
    gone = []
    for log in [operator for operator in graph.operators if schema.op_name(model, operator) == "LOG"]:
        chain: list[OperatorT] = []
        softmax = makers.get(int(log.inputs[0]))
        while softmax is not None and schema.op_name(model, softmax) in schema.REARRANGING:
            chain.append(softmax)
            softmax = makers.get(int(softmax.inputs[0]))
        if softmax is None or schema.op_name(model, softmax) != "SOFTMAX" or softmax.builtinOptions.beta != 1.0:
            continue
        chain.append(softmax)
        if any(readers[int(each.outputs[0])] > 1 for each in chain):
            continue
        softmax.opcodeIndex = edit.code_index(model, fb.BuiltinOperator.LOG_SOFTMAX)
        softmax.builtinOptions = fb.LogSoftmaxOptionsT()
        softmax.builtinOptionsType = fb.BuiltinOptions.LogSoftmaxOptions
        chain[0].outputs = log.outputs
        gone.append(log)
    _drop(graph, gone)
    return len(gone)


def fuse_l2_normalization(model: ModelT) -> int:
    """Fuse a division by the length of the last axis (statement 5); returns the number of fused ones."""
    graph = edit.graph_of(model)
    makers = edit.producers(model)
    fused = 0
    for operator in graph.operators:
        if schema.op_name(model, operator) != "DIV" or operator.builtinOptions.fusedActivationFunction:
            continue
        source = int(operator.inputs[0])
        if _length_of(model, int(operator.inputs[1]), makers) != source:
            continue
        operator.inputs = np.array([source], np.int32)
        operator.opcodeIndex = edit.code_index(model, fb.BuiltinOperator.L2_NORMALIZATION)
        operator.builtinOptions = fb.L2NormOptionsT()
        operator.builtinOptionsType = fb.BuiltinOptions.L2NormOptions
        fused += 1
    if fused:
        edit.drop_unread(model)
    return fused


def _length_of(model: ModelT, index: int, makers: dict[int, OperatorT]) -> int | None:
    """The tensor whose length along the last axis, bounded by a tiny number or by 0, a tensor is; None for others."""
    graph = edit.graph_of(model)

    def made_by(index: int, *kinds: str) -> OperatorT | None:
        maker = makers.get(index)
        return maker if maker is not None and schema.op_name(model, maker) in kinds else None

    bound = made_by(index, "MAXIMUM", "RELU", "BROADCAST_TO")
    while bound is not None:
        if schema.op_name(model, bound) == "MAXIMUM":
            least = schema.constant(model, graph.tensors[int(bound.inputs[1])])
            if least is None or not (np.abs(least) <= _LEAST_LENGTH).all():
                return None
        index = int(bound.inputs[0])
        bound = made_by(index, "MAXIMUM", "RELU", "BROADCAST_TO")
    root = made_by(index, "SQRT")
    total = None if root is None else made_by(int(root.inputs[0]), "SUM")
    if total is None or not total.builtinOptions.keepDims:
        return None
    axes = schema.constant(model, graph.tensors[int(total.inputs[1])])
    rank = len(graph.tensors[int(total.inputs[0])].shape)
    square = made_by(int(total.inputs[0]), "MUL", "SQUARE")
    if square is None or axes is None or [int(axis) % rank for axis in axes.reshape(-1)] != [rank - 1]:
        return None
    if schema.op_name(model, square) == "MUL" and square.builtinOptions.fusedActivationFunction:
        return None
    read = {int(each) for each in square.inputs}
    return read.pop() if len(read) == 1 else None


def settle_shapes(model: ModelT) -> int:
    """Fold operators that depend on shapes only (statement 6); returns the number of removed operators."""
    graph = edit.graph_of(model)
    settled = []
    for operator in graph.operators:
        values = _known(model, operator)
        if values is None:
            continue
        tensor = graph.tensors[int(operator.outputs[0])]
        tensor.shape = np.array(values.shape, np.int32)
        schema.set_constant(model, tensor, values)
        settled.append(operator)
    _drop(graph, settled)
    return len(settled)


def _known(model: ModelT, operator: OperatorT) -> npt.NDArray[Any] | None:
    """The result of a RESHAPE of a constant, a SHAPE, or a GATHER of single numbers from a constant; else None."""
    graph = edit.graph_of(model)
    tensors = [graph.tensors[int(index)] for index in operator.inputs]
    made = graph.tensors[int(operator.outputs[0])]
    if schema.op_name(model, operator) == "RESHAPE":
        values = schema.constant(model, tensors[0])
        return None if values is None else values.reshape([int(size) for size in made.shape])
    if schema.TYPE_NAMES[made.type] != "INT32":
        return None
    match schema.op_name(model, operator):
        case "SHAPE":
            return np.array([] if tensors[0].shape is None else tensors[0].shape, np.int32)
        case "GATHER":
            values, places = (schema.constant(model, tensor) for tensor in tensors)
            if values is None or places is None or values.ndim != 1 or not places.size:
                return None
            return np.asarray(values[places], np.int32)
    return None


def _readers(graph: SubGraphT) -> dict[int, int]:
    """How often each tensor is read; an output of the file counts as read."""
    readers: dict[int, int] = {}
    for indices in (*(operator.inputs for operator in graph.operators), graph.outputs):
        for index in indices:
            readers[int(index)] = readers.get(int(index), 0) + 1
    return readers


def _drop(graph: SubGraphT, operators: list[OperatorT]) -> None:
    gone = {id(operator) for operator in operators}
    graph.operators = [operator for operator in graph.operators if id(operator) not in gone]


def _is_same(model: ModelT, pad: OperatorT, convolution: OperatorT) -> bool:
    """Whether the PAD equals SAME padding; shapes are NHWC, weights [O or 1, H, W, I]."""
    graph, options = edit.graph_of(model), convolution.builtinOptions
    amounts = schema.constant(model, graph.tensors[int(pad.inputs[1])])
    if amounts is None or amounts.shape != (4, 2) or amounts[0].any() or amounts[3].any():
        return False
    if options.padding != fb.Padding.VALID:
        return False
    sizes = graph.tensors[int(pad.inputs[0])].shape[1:3]
    kernel = graph.tensors[int(convolution.inputs[1])].shape[1:3]
    strides = (options.strideH, options.strideW)
    dilations = (options.dilationHFactor, options.dilationWFactor)
    for axis in range(2):
        reach = (int(kernel[axis]) - 1) * int(dilations[axis]) + 1
        size, stride = int(sizes[axis]), int(strides[axis])
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        if tuple(int(n) for n in amounts[1 + axis]) != (total // 2, total - total // 2):
            return False
    return True
