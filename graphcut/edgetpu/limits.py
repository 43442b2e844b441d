"""Limits of the Edge TPU by operator: the vendor's table, and what compiled files and logs showed in addition.

1. An operator runs on the Edge TPU when it is in ``NEWEST_VERSION``, its version is not newer than the compiler's
   parser supports, its activations are int8 or uint8, only the three innermost dimensions are larger than one, and its
   own limit (``own_limit``) holds.
2. The result is the status line that the compiler prints, and a reason with the number and its limit.

Sources: the operation table of coral.ai/docs/edgetpu/models-intro (runtime 14); operator versions of TensorFlow
2.6, which compiler 16.0.384591198 was built beside (tensorflow/lite/kernels/register.cc); statuses of published logs.
Constants known only from logs say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphcut.records import Shape
from graphcut.tflite import schema
from graphcut.tflite.schema_types import ModelT, OperatorT, TensorT

MAPPED = "Mapped to Edge TPU"
NOT_SUPPORTED = "Operation not supported"
DATA_TYPE = "Operation is working on an unsupported data type"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
VERSION = "Operation version not supported"
UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
NOT_CONSTANT = "Filter, bias, or other param is not constant at compile-time"
SECOND_SUBGRAPH = "More than one subgraph is not supported"

NEWEST_VERSION: dict[str, int] = {
    **{"ADD": 4, "AVERAGE_POOL_2D": 3, "CONCATENATION": 3, "CONV_2D": 6, "DEPTHWISE_CONV_2D": 6, "EXPAND_DIMS": 1},
    **{"FULLY_CONNECTED": 9, "L2_NORMALIZATION": 2, "LOGISTIC": 3, "LSTM": 4, "MAXIMUM": 4, "MAX_POOL_2D": 3},
    **{"MEAN": 3, "MINIMUM": 4, "MUL": 5, "PACK": 3, "PAD": 4, "PRELU": 1, "QUANTIZE": 3, "REDUCE_MAX": 3},
    **{"REDUCE_MIN": 3, "RELU": 3, "RELU6": 3, "RELU_N1_TO_1": 1, "RESHAPE": 1, "RESIZE_BILINEAR": 4, "RSQRT": 2},
    **{"RESIZE_NEAREST_NEIGHBOR": 4, "SLICE": 5, "SOFTMAX": 3, "SPACE_TO_DEPTH": 2, "SPLIT": 4, "SQUEEZE": 2},
    **{"SQUARED_DIFFERENCE": 2, "STRIDED_SLICE": 6, "SUB": 5, "SUM": 2, "TANH": 3, "TRANSPOSE": 5},
    **{"TRANSPOSE_CONV": 3, "UNIDIRECTIONAL_SEQUENCE_LSTM": 3},
}
"""Operators that the Edge TPU runs -> the newest version that the compiler's parser supports."""

MOST_SOFTMAX_ELEMENTS = 16_000
LARGEST_RESIZED = 4 * 2**20
"""Bytes of a RESIZE_BILINEAR output above which logs show it left on the CPU (5.5 MB and 8.4 MB were, 1 MB was not)."""
LARGEST_FACTOR = 8
"""Scaling of a RESIZE_BILINEAR above which real pairs have it on the CPU (1 -> 33 and 33 -> 513 are)."""
_STATES = frozenset({"LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """One tensor of an operator: shape, type name, its values where it is a constant."""

    name: str
    shape: Shape
    type: str
    values: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operator with everything that its limits depend on; ``None`` inputs are omitted optional ones."""

    op: str
    version: int
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand, ...]
    options: Any

    def option(self, name: str) -> int:
        """A field of its options; 0, the schema's default, where it has none."""
        return int(getattr(self.options, name, 0) or 0)

    @property
    def activations(self) -> tuple[Operand, ...]:
        """Inputs and outputs that are not constants."""
        fed = (operand for operand in self.inputs if operand is not None and operand.values is None)
        return (*fed, *self.outputs)


def limit(operation: Operation) -> tuple[str, str] | None:
    """The compiler's status and the reason why the Edge TPU does not run an operator; None where it does."""
    newest = NEWEST_VERSION.get(operation.op)
    if newest is None:
        return NOT_SUPPORTED, f"the Edge TPU does not support {operation.op}"
    if operation.version > newest:
        return VERSION, f"version {operation.version}; the compiler supports up to {newest}"
    wrong = next((each for each in operation.activations if not _type_fits(operation, each)), None)
    if wrong is not None:
        status = UNSPECIFIED if operation.op == "QUANTIZE" else DATA_TYPE
        return status, f"{wrong.name} is {wrong.type.lower()}, not int8"
    deep = next((each for each in operation.activations if prod(each.shape[:-3]) > 1), None)
    if deep is not None:
        return RANK, f"{deep.name} has the shape {_shown(deep.shape)}: only the last three dimensions may be above 1"
    if operation.op in schema.WEIGHTED and any(
        each is not None and each.values is None for each in operation.inputs[1:]
    ):
        return NOT_CONSTANT, "its weights or bias are computed"
    own = OWN_LIMITS.get(operation.op)
    reason = own(operation) if own is not None else None
    return None if reason is None else (UNSPECIFIED, reason)


def _type_fits(operation: Operation, operand: Operand) -> bool:
    if operation.op in _STATES and operand.type == "INT16":
        return True
    return operand.type in schema.BYTE_TYPES


def _shown(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def _no_fused_activation(operation: Operation) -> str | None:
    fused = operation.option("fusedActivationFunction")
    return "it has a fused activation" if fused else None


def _same_dilation(operation: Operation) -> str | None:
    height, width = operation.option("dilationHFactor"), operation.option("dilationWFactor")
    return f"its dilation is {height} x {width}, not the same in x and y" if height != width else None


def _concatenation(operation: Operation) -> str | None:
    constants = [operand for operand in operation.inputs if operand is not None and operand.values is not None]
    if constants and len(operation.inputs) != 2:
        return f"a constant among {len(operation.inputs)} inputs: with a constant only two inputs are supported"
    if constants and np.any(constants[0].values != 0):
        return f"its constant {constants[0].name} is not all zeros"
    return _no_fused_activation(operation)


def _fully_connected(operation: Operation) -> str | None:
    if operation.option("weightsFormat"):
        return "its weights are shuffled, not in the default format"
    made = operation.outputs[0].shape
    return f"its output {_shown(made)} is not one-dimensional" if prod(made[:-1]) > 1 else None


def _axes(operation: Operation, place: int = 1) -> set[int]:
    """Axes of a constant input, counted from the front."""
    if len(operation.inputs) <= place or operation.inputs[place] is None:
        return set()
    operand, fed = operation.inputs[place], operation.inputs[0]
    if operand is None or operand.values is None or fed is None:
        return set()
    rank = len(fed.shape)
    return {int(axis) % rank if rank else 0 for axis in np.atleast_1d(operand.values)}


def _not_the_batch(operation: Operation) -> str | None:
    fed = operation.inputs[0]
    if fed is not None and len(fed.shape) == 4 and 0 in _axes(operation):
        return "it reduces the batch axis"
    return None


def _mean(operation: Operation) -> str | None:
    fed = operation.inputs[0]
    if fed is not None and len(fed.shape) == 4 and 3 in _axes(operation) and fed.shape[3] % 4:
        return f"it reduces {fed.shape[3]} channels, which is not a multiple of 4"
    return _not_the_batch(operation)


def _pack(operation: Operation) -> str | None:
    made = operation.outputs[0].shape
    return "it packs along the batch axis" if operation.option("axis") == 0 and prod(made[:-3]) > 1 else None


def _pad(operation: Operation) -> str | None:
    pads = operation.inputs[1] if len(operation.inputs) > 1 else None
    if pads is None or pads.values is None:
        return "its padding is not constant"
    rows = np.asarray(pads.values).reshape(-1, 2)
    return "it pads the batch axis" if len(rows) == 4 and np.any(rows[0] != 0) else None


def _prelu(operation: Operation) -> str | None:
    alpha = operation.inputs[1] if len(operation.inputs) > 1 else None
    if alpha is None or alpha.values is None:
        return "its alpha is not constant"
    return f"its alpha {_shown(alpha.shape)} is not one-dimensional" if prod(alpha.shape[:-1]) > 1 else None


def _resize_bilinear(operation: Operation) -> str | None:
    fed, made = operation.activations[0].shape, operation.outputs[0].shape
    if len(fed) != 4 or len(made) != 4:
        return "its input is not a map"
    factor = max(made[1] / max(fed[1], 1), made[2] / max(fed[2], 1))
    if factor > LARGEST_FACTOR:
        return (
            f"it scales by {factor:.1f}; above {LARGEST_FACTOR} it loses precision, and the compiler left it on the CPU"
        )
    if prod(made) > LARGEST_RESIZED:
        return f"its output has {prod(made)} bytes; above {LARGEST_RESIZED} the compiler left it on the CPU"
    return None


def _softmax(operation: Operation) -> str | None:
    fed = operation.activations[0].shape
    if prod(fed[:-1]) > 1:
        return f"its input {_shown(fed)} is not one-dimensional"
    elements = prod(fed)
    return (
        f"it has {elements} values; the limit is {MOST_SOFTMAX_ELEMENTS}" if elements > MOST_SOFTMAX_ELEMENTS else None
    )


def _split(operation: Operation) -> str | None:
    axis = operation.inputs[0]
    fed = operation.inputs[1] if len(operation.inputs) > 1 else None
    if axis is None or axis.values is None or fed is None:
        return "its axis is not constant"
    return "it splits the batch axis" if int(np.ravel(axis.values)[0]) % max(len(fed.shape), 1) == 0 else None


def _strided_slice(operation: Operation) -> str | None:
    if operation.option("ellipsisMask") or operation.option("newAxisMask"):
        return "it has an ellipsis or a new axis"
    strides = operation.inputs[3] if len(operation.inputs) > 3 else None
    if strides is None or strides.values is None:
        return "its strides are not constant"
    shown = _shown([int(stride) for stride in np.ravel(strides.values)])
    return f"its strides are {shown}, not all 1" if np.any(strides.values != 1) else None


OWN_LIMITS: dict[str, Callable[[Operation], str | None]] = {
    "AVERAGE_POOL_2D": _no_fused_activation,
    "MAX_POOL_2D": _no_fused_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _same_dilation,
    "DEPTHWISE_CONV_2D": _same_dilation,
    "FULLY_CONNECTED": _fully_connected,
    "MEAN": _mean,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "REDUCE_MAX": _not_the_batch,
    "REDUCE_MIN": _not_the_batch,
    "RESIZE_BILINEAR": _resize_bilinear,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _not_the_batch,
}


def operation(model: ModelT, operator: OperatorT) -> Operation:
    """The record of one operator of a ``ModelT``.

    Raises:
        ValueError: a constant's bytes do not fit its shape.
    """
    tensors = model.subgraphs[0].tensors

    def operand(index: int) -> Operand | None:
        if index < 0:
            return None
        tensor = tensors[index]
        shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
        return Operand(
            name=schema.tensor_name(tensor),
            shape=shape,
            type=schema.TYPE_NAMES[tensor.type],
            values=schema.constant(model, tensor) if _readable(tensor) else None,
        )

    outputs = (operand(int(index)) for index in operator.outputs)
    return Operation(
        op=schema.op_name(model, operator),
        version=int(model.operatorCodes[operator.opcodeIndex].version),
        inputs=tuple(operand(int(index)) for index in operator.inputs),
        outputs=tuple(made for made in outputs if made is not None),
        options=operator.builtinOptions,
    )


def _readable(tensor: TensorT) -> bool:
    return schema.TYPE_NAMES[tensor.type] in {"INT8", "UINT8", "INT16", "INT32", "INT64", "FLOAT32", "FLOAT16", "BOOL"}
