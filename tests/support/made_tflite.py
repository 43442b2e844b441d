"""TFLite files made operator by operator, for tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import schema

TYPES = {np.dtype(np.int8): 9, np.dtype(np.uint8): 3, np.dtype(np.int32): 2, np.dtype(np.float32): 0}
TYPES |= {np.dtype(np.int16): 7, np.dtype(np.int64): 4}


class Made:
    """A TFLite model under construction; tensors are known by number."""

    def __init__(self) -> None:
        self.model: Any = fb.ModelT()
        self.model.version = 3
        self.model.description = b"made for a test"
        self.model.buffers = [fb.BufferT()]
        self.model.operatorCodes = []
        self.graph: Any = fb.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs = self.graph.outputs = np.zeros(0, np.int32)
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: Sequence[int],
        *,
        dtype: Any = np.int8,
        scale: float | Sequence[float] | None = 0.1,
        zero_point: int | Sequence[int] = 0,
        axis: int = 0,
        data: Any = None,
        name: str = "",
    ) -> int:
        tensor: Any = fb.TensorT()
        tensor.name = (name or f"t{len(self.graph.tensors)}").encode()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = TYPES[np.dtype(dtype)]
        tensor.buffer = 0
        tensor.hasRank = True
        if scale is not None:
            quantization: Any = fb.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.array(scale, np.float32))
            quantization.zeroPoint = np.broadcast_to(np.array(zero_point, np.int64), quantization.scale.shape).copy()
            quantization.quantizedDimension = axis
            tensor.quantization = quantization
        if data is not None:
            buffer: Any = fb.BufferT()
            buffer.data = np.ascontiguousarray(np.broadcast_to(np.array(data, dtype), shape)).reshape(-1).view(np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        version: int = 1,
        custom: bytes | None = None,
        **options: Any,
    ) -> None:
        code: Any = fb.OperatorCodeT()
        code.builtinCode = getattr(fb.BuiltinOperator, kind) if custom is None else fb.BuiltinOperator.CUSTOM
        code.deprecatedBuiltinCode, code.version, code.customCode = min(code.builtinCode, 127), version, custom
        codes = self.model.operatorCodes
        same = [n for n, other in enumerate(codes) if vars(other) == vars(code)]
        if not same:
            codes.append(code)
        operator: Any = fb.OperatorT()
        operator.opcodeIndex = same[0] if same else len(codes) - 1
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        table = OPTIONS.get(kind)
        if table is not None and custom is None:
            made = getattr(fb, f"{table}T")()
            for field, value in options.items():
                assert hasattr(made, field), field
                setattr(made, field, value)
            operator.builtinOptions = made
            operator.builtinOptionsType = getattr(fb.BuiltinOptions, table)
        self.graph.operators.append(operator)

    def done(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        return schema.write(self.model)

    def conv(self, fed: int, channels: int, kernel: int = 1, stride: int = 1, *, version: int = 3, **more: Any) -> int:
        """A per-channel int8 CONV_2D with SAME padding, ReLU and a bias that is not zero; the number of its output."""
        _, height, width, depth = (int(n) for n in self.graph.tensors[fed].shape)
        chance = np.random.default_rng(len(self.graph.tensors))
        scales = chance.uniform(0.001, 0.01, channels)
        weights = self.tensor(
            (channels, kernel, kernel, depth),
            scale=scales,
            data=chance.integers(-127, 128, (channels, kernel, kernel, depth)),
        )
        bias = self.tensor((channels,), dtype=np.int32, scale=scales * 0.1, data=chance.integers(-99, 99, channels) | 1)
        out = self.tensor((1, -(-height // stride), -(-width // stride), channels), scale=0.1, zero_point=-128)
        options = {"strideH": stride, "strideW": stride, "padding": 0, "fusedActivationFunction": 1}
        options |= {"dilationHFactor": 1, "dilationWFactor": 1}
        self.op("CONV_2D", [fed, weights, bias], [out], version=version, **(options | more))
        return out


OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "SOFTMAX": "SoftmaxOptions",
    "RESHAPE": "ReshapeOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "DIV": "DivOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "SPLIT": "SplitOptions",
}
