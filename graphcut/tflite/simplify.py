"""Operators a converter leaves behind that the next one can do by itself.

1. *PAD before a convolution.* onnx2tf writes every strided SAME convolution as PAD and a VALID convolution. Where the
   padding is what SAME means for the unpadded input, the convolution pads by itself and the PAD goes.

Works on a float model in place, before it is calibrated and quantised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import edit, schema

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def fuse_padding(model: Any) -> int:
    """Let convolutions pad by themselves where they can (statement 1); returns how many PAD operators went."""
    graph = edit.graph_of(model)
    makers = edit.producers(model)
    readers: dict[int, int] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            readers[int(index)] = readers.get(int(index), 0) + 1
    kept_alive = {int(index) for index in graph.outputs}
    fused = []
    for operator in graph.operators:
        pad = makers.get(int(operator.inputs[0]))
        if schema.op_name(model, operator) not in _CONVOLUTIONS or pad is None or schema.op_name(model, pad) != "PAD":
            continue
        padded = int(pad.outputs[0])
        if readers[padded] > 1 or padded in kept_alive or not _is_same(model, pad, operator):
            continue
        operator.inputs = np.array([pad.inputs[0], *operator.inputs[1:]], np.int32)
        operator.builtinOptions.padding = fb.Padding.SAME
        fused.append(pad)
    gone = {id(pad) for pad in fused}
    graph.operators = [operator for operator in graph.operators if id(operator) not in gone]
    return len(fused)


def _is_same(model: Any, pad: Any, convolution: Any) -> bool:
    """Whether the PAD is what SAME would do; shapes are NHWC, weights [O or 1, H, W, I]."""
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
