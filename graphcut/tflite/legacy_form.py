"""Write a file in the form that old TFLite parsers expect, among them that of the Edge TPU compiler of 2021.

1. Every operator has the version that its types and options require, and operators that require different versions do
   not share an operator code. (Converters that write flatbuffers themselves leave version 1, which old parsers read as
   the float or uint8 form.) Source of the rules: TensorFlow, lite/tools/versioning/op_version.cc.
2. Operator codes up to 127 are also in the old one-byte field; higher ones have 127 there.
3. A PADV2 whose constant is its output's zero point is a PAD.
4. Quantisation has as many zero points as scales, one scale where all scales of a tensor are equal, and nothing that
   only new parsers know. Where the inputs are static, so is every shape, and shape signatures with open dimensions are
   omitted.

The result of a file does not change; description, metadata and signatures stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import schema
from graphcut.tflite.schema_types import ModelT, OperatorCodeT, OperatorT, SubGraphT, TensorT

_LAST_OLD_CODE = 127


def acceptable(model: ModelT) -> None:
    """Write a ``ModelT`` in the form that old parsers expect, in place; idempotent."""
    model.version = 3
    for graph in model.subgraphs:
        static = not any(schema.is_open(graph.tensors[int(index)]) for index in graph.inputs)
        for tensor in graph.tensors:
            _plain_tensor(tensor, static=static)
        for operator in graph.operators:
            _plain_pad(model, graph, operator)
            operator.debugMetadataIndex = -1
    _versions(model)


def version_of(model: ModelT, graph: SubGraphT, operator: OperatorT) -> int:
    """The version that an operator requires (statement 1); the present one if there is no rule for it."""
    present = int(model.operatorCodes[operator.opcodeIndex].version)
    rule = _RULES.get(schema.op_name(model, operator))
    if rule is None:
        return max(present, 1)
    return rule(_Seen.of(graph, operator)) or max(present, 1)


def _versions(model: ModelT) -> None:
    """Give each operator a code with its version; codes are in the order of their first use."""
    codes: dict[tuple[int, bytes, int], int] = {}
    made: list[OperatorCodeT] = []
    for graph in model.subgraphs:
        needed = [version_of(model, graph, operator) for operator in graph.operators]
        for operator, version in zip(graph.operators, needed, strict=True):
            old = model.operatorCodes[operator.opcodeIndex]
            builtin = max(int(old.builtinCode), int(old.deprecatedBuiltinCode))
            key = (builtin, bytes(old.customCode or b""), version)
            if key not in codes:
                code: OperatorCodeT = fb.OperatorCodeT()
                code.builtinCode, code.customCode, code.version = builtin, old.customCode, version
                code.deprecatedBuiltinCode = min(builtin, _LAST_OLD_CODE)
                codes[key] = len(made)
                made.append(code)
            operator.opcodeIndex = codes[key]
    model.operatorCodes = made


def _plain_pad(model: ModelT, graph: SubGraphT, operator: OperatorT) -> None:
    if schema.op_name(model, operator) != "PADV2" or len(operator.inputs) != 3:
        return
    value = schema.constant(model, graph.tensors[int(operator.inputs[2])])
    if value is None or value.size != 1:
        return
    made = graph.tensors[int(operator.outputs[0])].quantization
    nothing = 0 if made is None or made.zeroPoint is None or len(made.zeroPoint) != 1 else int(made.zeroPoint[0])
    if value.reshape(-1)[0] != nothing:
        return
    code: OperatorCodeT = fb.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = fb.BuiltinOperator.PAD
    code.version = 1
    model.operatorCodes.append(code)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs = np.array(operator.inputs[:2], np.int32)
    operator.builtinOptionsType, operator.builtinOptions = fb.BuiltinOptions.PadOptions, fb.PadOptionsT()


def _plain_tensor(tensor: TensorT, *, static: bool) -> None:
    shape = None if tensor.shape is None else [int(size) for size in tensor.shape]
    signature = None if tensor.shapeSignature is None else [int(size) for size in tensor.shapeSignature]
    if signature == shape or (static and shape is not None and all(size > 0 for size in shape)):
        tensor.shapeSignature = None
    quantization = tensor.quantization
    if quantization is None:
        return
    scale = None if quantization.scale is None else np.atleast_1d(np.asarray(quantization.scale, np.float32))
    if scale is None or scale.size == 0:
        tensor.quantization = None
        return
    points = np.zeros(0, np.int64) if quantization.zeroPoint is None else np.atleast_1d(quantization.zeroPoint)
    if points.size != scale.size:
        points = np.full(scale.size, points[0] if points.size else 0)
    quantization.scale, quantization.zeroPoint = scale, np.asarray(points, np.int64)
    if scale.size == 1:
        quantization.quantizedDimension = 0
    # Ranges recorded by converters add nothing to scale and zero point.
    quantization.min = quantization.max = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the rules depend on: types and shapes of inputs and outputs, options, scales."""

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    options: Any

    @classmethod
    def of(cls, graph: SubGraphT, operator: OperatorT) -> _Seen:
        fed = (graph.tensors[int(index)] if int(index) >= 0 else None for index in operator.inputs)
        made = (graph.tensors[int(index)] for index in operator.outputs)
        return cls(tuple(fed), tuple(made), operator.builtinOptions)

    def type(self, place: int = 0) -> str:
        """The type of an input, "" where there is none."""
        if place >= len(self.inputs) or self.inputs[place] is None:
            return ""
        return schema.TYPE_NAMES[self.inputs[place].type]

    def made(self) -> str:
        """The type of the first output."""
        return schema.TYPE_NAMES[self.outputs[0].type] if self.outputs else ""

    def rank(self, place: int = 0) -> int:
        """The rank of an input."""
        tensor = self.inputs[place] if place < len(self.inputs) else None
        return 0 if tensor is None or tensor.shape is None else len(tensor.shape)

    def option(self, name: str) -> int:
        """A field of the options, 0 where there are none."""
        return int(getattr(self.options, name, 0) or 0)

    def scale(self, place: int) -> float:
        """The one scale of an input (or of the output, at -1), 0 where it has none."""
        tensor = self.outputs[0] if place < 0 else self.inputs[place]
        quantization = None if tensor is None else tensor.quantization
        if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
            return 0.0
        return float(quantization.scale[0])


_Rule = Callable[[_Seen], int]
"""A rule returns the version, or 0 where it does not cover these types."""


def _by_type(byte: int, other: int = 1, place: int = 0) -> _Rule:
    """``byte`` for int8, ``other`` for float32 and uint8, unknown for the rest."""

    def rule(seen: _Seen) -> int:
        return byte if seen.type(place) == "INT8" else other if seen.type(place) in ("FLOAT32", "UINT8") else 0

    return rule


def _either(byte: int) -> _Rule:
    """``byte`` for int8 and uint8, 1 for float32."""

    def rule(seen: _Seen) -> int:
        return byte if seen.type() in schema.BYTE_TYPES else 1 if seen.type() == "FLOAT32" else 0

    return rule


def _conv_2d(seen: _Seen) -> int:
    depth, width = (int(seen.inputs[place].shape[-1]) for place in (0, 1))
    if depth != width:
        return 6  # grouped
    if seen.type(0) == seen.type(1) == "INT8":
        return 3
    return 1 if seen.type(0) == seen.type(1) and seen.type(0) in ("FLOAT32", "UINT8") else 0


def _depthwise(seen: _Seen) -> int:
    if seen.type(0) == seen.type(1) == "INT8":
        return 3
    if seen.type(0) != seen.type(1) or seen.type(0) not in ("FLOAT32", "UINT8"):
        return 0
    return 2 if max(seen.option("dilationWFactor"), seen.option("dilationHFactor")) > 1 else 1


def _fully_connected(seen: _Seen) -> int:
    if seen.type(0) != seen.type(1) or seen.type(0) not in ("INT8", "FLOAT32", "UINT8"):
        return 0
    if len(seen.inputs) == 2:
        return 6
    if seen.option("keepNumDims"):
        return 5
    if seen.type() == "INT8":
        return 4
    return 2 if seen.option("weightsFormat") else 1


def _mul(seen: _Seen) -> int:
    if seen.type() not in ("INT8", "FLOAT32", "UINT8"):
        return 0
    scales = (seen.scale(0), seen.scale(1), seen.scale(-1))
    if all(scales) and scales[0] * scales[1] / scales[2] >= 1:
        return 3
    return 2 if seen.type() == "INT8" else 1


def _transpose(seen: _Seen) -> int:
    if seen.rank() > 5:
        return 6
    return 4 if seen.rank() > 4 else _by_type(2)(seen)


def _transpose_conv(seen: _Seen) -> int:
    if seen.option("fusedActivationFunction"):
        return 4
    if len(seen.inputs) == 4 and seen.type(3):
        return 3
    return _by_type(2, place=1)(seen)


def _strided_slice(seen: _Seen) -> int:
    if seen.option("ellipsisMask") or seen.option("newAxisMask"):
        return 6
    return 4 if seen.rank() > 4 else _by_type(2)(seen)


def _resize_nearest(seen: _Seen) -> int:
    return 3 if seen.option("halfPixelCenters") or seen.option("alignCorners") else _by_type(2)(seen)


def _dequantize(seen: _Seen) -> int:
    tensor = seen.inputs[0]
    scales = 0 if tensor.quantization is None or tensor.quantization.scale is None else len(tensor.quantization.scale)
    if seen.type() == "INT8":
        return 5 if scales > 1 else 2
    return 3 if seen.type() in ("INT16", "FLOAT16") else 1 if seen.type() == "UINT8" else 0


def _above_rank(rank: int, version: int) -> _Rule:
    def rule(seen: _Seen) -> int:
        return version if seen.rank() > rank else _by_type(2)(seen)

    return rule


_SECOND_FOR_INT8 = (
    *("ADD", "SUB", "MAX_POOL_2D", "AVERAGE_POOL_2D", "CONCATENATION", "SOFTMAX", "MEAN", "MIRROR_PAD", "REDUCE_MAX"),
    *("REDUCE_MIN", "RELU6", "RSQRT", "TANH", "LOGISTIC", "MAXIMUM", "MINIMUM", "PACK", "SPACE_TO_DEPTH"),
    *("DEPTH_TO_SPACE", "SPLIT_V", "SUM", "LOG_SOFTMAX", "SQUARED_DIFFERENCE", "ARG_MAX", "ARG_MIN", "BATCH_MATMUL"),
)
_ALWAYS_FIRST = ("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "RELU_N1_TO_1", "PRELU", "HARD_SWISH", "ELU")
_RULES: dict[str, _Rule] = {
    **{name: _by_type(2) for name in _SECOND_FOR_INT8},
    **{name: _by_type(1) for name in _ALWAYS_FIRST},
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "MUL": _mul,
    "TRANSPOSE": _transpose,
    "TRANSPOSE_CONV": _transpose_conv,
    "STRIDED_SLICE": _strided_slice,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "RESIZE_BILINEAR": lambda seen: 3 if seen.option("halfPixelCenters") else _by_type(2)(seen),
    "QUANTIZE": lambda seen: 2 if seen.made() == "INT16" else 1,
    "DEQUANTIZE": _dequantize,
    "SPLIT": _by_type(2, place=1),
    "SLICE": _above_rank(4, 5),
    "PAD": _above_rank(4, 4),
    "PADV2": _above_rank(4, 4),
    "GATHER": lambda seen: 5 if seen.option("batchDims") else _by_type(2)(seen),
    "L2_NORMALIZATION": lambda seen: 2 if seen.made() == "INT8" else 1,
    "RELU": _either(2),
    "ABS": _either(2),
    "UNPACK": _either(2),
    "GELU": _either(2),
    "TILE": _by_type(3),
    "REVERSE_V2": _by_type(3),
    "LEAKY_RELU": _by_type(1),
}
