"""Read and write TFLite files; the only user of the flatbuffer schema.

The object API of the schema (``ModelT`` and friends) is used throughout. There are two differences from the generated
code:

1. Every buffer starts at a multiple of 16 bytes, as the schema's ``force_align`` requires and old parsers need; the
   generated Python writer ignores it.
2. Number lists become numpy arrays before packing, which makes writing a file of 45 MB take a tenth of a second.

The same objects always give the same bytes.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite.schema_types import ModelT, OperatorT, QuantizationParametersT, TensorT

ALIGNMENT = 16
IDENTIFIER = b"TFL3"
WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
"""Operators that read an input, weights and a bias, in this order."""
REARRANGING = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"})
"""Operators that hand every value on as it is."""
BYTE_TYPES = frozenset({"INT8", "UINT8"})
"""Types of quantised activations."""

#: Built-in operator code -> its name ("CONV_2D").
OP_NAMES: dict[int, str] = {code: name for name, code in vars(fb.BuiltinOperator).items() if isinstance(code, int)}
#: Tensor type code -> its name ("INT8").
TYPE_NAMES: dict[int, str] = {code: name for name, code in vars(fb.TensorType).items() if isinstance(code, int)}
_ACTIVATION_NAMES: dict[int, str] = {
    code: name for name, code in vars(fb.ActivationFunctionType).items() if isinstance(code, int)
}

_NUMPY_TYPES: dict[str, type[np.generic]] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class _AlignedBuffer(fb.BufferT):  # type: ignore[misc]  # the schema module is untyped
    """A buffer whose data starts at a multiple of 16 bytes in the file."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        data = None
        if self.data is not None and len(self.data):
            payload = np.ascontiguousarray(self.data).view(np.uint8).reshape(-1)
            builder.StartVector(1, payload.size, ALIGNMENT)
            head = builder.Head() - payload.size
            builder.head = head
            builder.Bytes[head : head + payload.size] = payload.tobytes()
            data = builder.EndVector()
        fb.BufferStart(builder)
        if data is not None:
            fb.BufferAddData(builder, data)
        return int(fb.BufferEnd(builder))


def read(data: bytes) -> ModelT:
    """The ``ModelT`` of a TFLite file.

    Raises:
        ValueError: the bytes are not a TFLite file.
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ValueError("not a TFLite file")
    model: ModelT = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(data, 0))
    return model


def write(model: ModelT) -> bytes:
    """The bytes of a TFLite file with 16-byte aligned buffers; the model is prepared for packing in place."""
    size = 1 << 16
    for position, buffer in enumerate(model.buffers):
        aligned = _AlignedBuffer()
        aligned.data = buffer.data
        model.buffers[position] = aligned
        size += 0 if buffer.data is None else len(buffer.data) + 64
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            size += 256
            quantization = tensor.quantization
            if quantization is None:
                continue
            for field, dtype in (
                ("scale", np.float32),
                ("zeroPoint", np.int64),
                ("min", np.float32),
                ("max", np.float32),
            ):
                values = getattr(quantization, field)
                if values is not None:
                    array = np.asarray(values, dtype)
                    setattr(quantization, field, array)
                    size += array.nbytes
    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def op_name(model: ModelT, operator: OperatorT) -> str:
    """The name of an operator ("CONV_2D"; a custom operator's own name)."""
    code = model.operatorCodes[operator.opcodeIndex]
    name = OP_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return bytes(code.customCode).decode() if name == "CUSTOM" and code.customCode else name


def fused_activation(operator: OperatorT) -> str:
    """The activation fused into an operator ("RELU6"), "NONE" where there is none or its kind has none."""
    return _ACTIVATION_NAMES[getattr(operator.builtinOptions, "fusedActivationFunction", 0)]


def is_open(tensor: TensorT) -> bool:
    """Whether a tensor declares an open dimension; if the inputs of a file are static, so are all shapes."""
    return tensor.shapeSignature is not None and any(int(size) < 0 for size in tensor.shapeSignature)


def tensor_name(tensor: TensorT) -> str:
    """The name of a tensor as text."""
    return tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)


def quantization(tensor: TensorT) -> QuantizationParametersT:
    """Scales and zero points of a quantised tensor.

    Raises:
        ValueError: it is not quantised.
    """
    if tensor.quantization is None:
        raise ValueError(f"tensor {tensor_name(tensor)} is not quantised")
    return tensor.quantization


def constant(model: ModelT, tensor: TensorT) -> np.ndarray[Any, np.dtype[Any]] | None:
    """The values of a constant tensor in its shape and dtype; None for an activation.

    Raises:
        ValueError: the tensor's type has no numpy counterpart.
    """
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0:
        return None
    name = TYPE_NAMES[tensor.type]
    if name not in _NUMPY_TYPES:
        raise ValueError(f"tensor {tensor_name(tensor)} has type {name}, which is not supported")
    shape = [] if tensor.shape is None else list(tensor.shape)
    return np.ascontiguousarray(data).view(np.uint8).view(_NUMPY_TYPES[name]).reshape(shape)


def stored(model: ModelT, tensor: TensorT) -> np.ndarray[Any, np.dtype[Any]]:
    """The values in a constant's buffer, in one dimension; of a sparse tensor fewer than its shape has.

    Raises:
        ValueError: the tensor's type has no numpy counterpart.
    """
    name = TYPE_NAMES[tensor.type]
    if name not in _NUMPY_TYPES:
        raise ValueError(f"tensor {tensor_name(tensor)} has type {name}, which is not supported")
    data = model.buffers[tensor.buffer].data
    return np.ascontiguousarray([] if data is None else data).astype(np.uint8, copy=False).view(_NUMPY_TYPES[name])


def set_constant(model: ModelT, tensor: TensorT, values: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Replace the values of a constant tensor (same shape and dtype), in a separate buffer."""
    buffer = fb.BufferT()
    buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
