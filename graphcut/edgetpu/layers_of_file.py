"""The layers of a TFLite file."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.edgetpu.compiled import CUSTOM_OP, is_compiled
from graphcut.edgetpu.layers import CONV, DENSE, Layer, dilated, live_taps, same_padding
from graphcut.errors import ModelError
from graphcut.records import Shape
from graphcut.tflite import checked, schema
from graphcut.tflite.schema_types import ModelT, OperatorT, TensorT

_SAME = 0  # Padding in the schema
_BYTES = {
    "INT8": 1,
    "UINT8": 1,
    "INT16": 2,
    "FLOAT16": 2,
    "INT32": 4,
    "FLOAT32": 4,
    "INT64": 8,
    "FLOAT64": 8,
    "BOOL": 1,
}


def uncompiled(path: Path) -> ModelT:
    """The ``ModelT`` of the TFLite file at ``path``, which must not be compiled.

    Raises:
        ModelError: the file does not exist, is damaged, or is already compiled for the Edge TPU.
    """
    model = checked.read(checked.read_bytes(path), str(path))
    if is_compiled(model):
        raise ModelError(
            f"{path} is already compiled for the Edge TPU (it contains an {CUSTOM_OP})",
            "pass the file it was compiled from, or use graphcut inspect on this one",
        )
    return model


def layers(model: ModelT, subject: str, *, zero_biases: bool = False) -> tuple[Layer, ...]:
    """The layers of a ``ModelT``'s first graph, in execution order.

    Args:
        model: as read by :func:`graphcut.tflite.checked.read`.
        subject: what to call it in errors.
        zero_biases: biases that are all zero need a word too, as with compilers for runtime 10.

    Raises:
        ModelError: an operator's weights or options contradict each other.
    """
    found = []
    for number, operator in enumerate(model.subgraphs[0].operators):
        try:
            found.append(_layer(model, operator, zero_biases))
        except (ValueError, IndexError, AttributeError, TypeError, ZeroDivisionError, OverflowError) as error:
            name = schema.op_name(model, operator)
            raise ModelError(
                f"{subject} is damaged: operator {number} ({name}) contradicts its own shapes or options",
                "write or download the file again",
            ) from error
    return tuple(found)


def shape_of(tensor: TensorT) -> Shape:
    """A tensor's shape; () for a scalar."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def tensor_name(tensor: TensorT) -> str:
    """A tensor's name."""
    return schema.tensor_name(tensor)


def bytes_of(tensor: TensorT) -> int:
    """Bytes of an activation's values."""
    return prod(shape_of(tensor)) * _BYTES.get(schema.TYPE_NAMES[tensor.type], 1)


def is_constant(model: ModelT, tensor: TensorT) -> bool:
    """Whether a tensor has its values in the file."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _layer(model: ModelT, operator: OperatorT, zero_biases: bool) -> Layer:
    tensors = model.subgraphs[0].tensors
    op = schema.op_name(model, operator)
    fed = [tensors[int(i)] for i in operator.inputs if int(i) >= 0]
    outputs = [tensors[int(i)] for i in operator.outputs]
    activations = [tensor for tensor in fed if not is_constant(model, tensor)]
    inputs = tuple(shape_of(tensor) for tensor in activations)
    shapes = tuple(shape_of(tensor) for tensor in outputs)
    layer = Layer(
        name=schema.tensor_name(outputs[0]) if outputs else op,
        op=op,
        inputs=inputs,
        outputs=shapes,
        activation_bytes=sum(map(bytes_of, (*activations, *outputs))),
    )
    if op in schema.WEIGHTED and len(fed) > 1 and is_constant(model, fed[1]) and inputs:
        weights = shape_of(fed[1])
        _check_weights(op, weights, inputs[0], shapes[0])
        return replace(
            layer,
            weights=weights,
            taps=_taps(op, operator.builtinOptions, weights, inputs[0], shapes[0]),
            words=_words(model, fed, zero_biases),
            window=_window(op, operator.builtinOptions, weights),
        )
    if op == "TRANSPOSE_CONV" and len(fed) > 2 and is_constant(model, fed[1]) and len(shape_of(fed[1])) == 4:
        words = _words(model, [fed[2], fed[1], *fed[3:]], zero_biases)
        return replace(layer, weights=shape_of(fed[1]), taps=prod(shape_of(fed[1])[1:3]), words=words)
    constants = sum(prod(shape_of(tensor)) for tensor in fed if is_constant(model, tensor))
    return replace(layer, constants=constants, window=_window(op, operator.builtinOptions))


def _window(op: str, options: Any, weights: Shape | None = None) -> tuple[int, int]:
    """Rows and columns that one output element needs."""
    if weights is not None and len(weights) == 4:
        return dilated(weights[1], options.dilationHFactor), dilated(weights[2], options.dilationWFactor)
    if op.endswith("_POOL_2D"):
        return int(options.filterHeight), int(options.filterWidth)
    return 1, 1


def _check_weights(op: str, weights: Shape, fed: Shape, made: Shape) -> None:
    if min((*weights, *fed, *made), default=0) < 0 or len(weights) != (2 if op == DENSE else 4):
        raise ValueError(f"weights of shape {weights}")
    if op != DENSE and (len(fed) != 4 or len(made) != 4):
        raise ValueError(f"maps of shape {fed} and {made}")
    # Larger kernels and maps are not possible; they would only make the loop over taps long.
    if op != DENSE and (max(weights[1:3]) > 4096 or max(*fed[1:3], *made[1:3]) > 2**16):
        raise ValueError(f"a kernel of {weights[1:3]} on a map of {fed[1:3]}")


def _taps(op: str, options: Any, weights: Shape, fed: Shape, made: Shape) -> int:
    if op == DENSE:
        return 1
    total = 1
    for axis, (stride, dilation) in enumerate(
        ((options.strideH, options.dilationHFactor), (options.strideW, options.dilationWFactor)), start=1
    ):
        kernel = weights[axis]
        before = same_padding(kernel, stride, dilation, fed[axis]) if options.padding == _SAME else 0
        # Only convolutions were seen to drop taps; depthwise ones keep their tiles.
        total *= live_taps(kernel, stride, dilation, fed[axis], before, made[axis]) if op == CONV else kernel
    return total


def _words(model: ModelT, fed: list[TensorT], zero_biases: bool) -> int:
    quantization = fed[1].quantization
    scales = np.zeros(0) if quantization is None or quantization.scale is None else np.asarray(quantization.scale)
    words = 0
    if scales.size > 1:
        words += 1 + int(bool(np.any(scales != scales[0])))
    if len(fed) > 2:
        bias = schema.constant(model, fed[2])
        words += int(bias is not None and (zero_biases or bool(np.any(bias != 0))))
    return words
