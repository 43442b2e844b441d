"""The input of a weighted operator for each position of its output, as rows of a matrix ("im2col").

Arrays are NHWC with batch 1. A row has the taps of the kernel in the order of the weights (height, width, channel).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import schema
from graphcut.tflite.schema_types import ModelT, OperatorT

Floats = npt.NDArray[np.float32]


def rows(model: ModelT, operator: OperatorT, values: Floats, kernel: tuple[int, int], most: int) -> Floats:
    """Rows (positions, kernel height, kernel width, channels) of one sample.

    Args:
        model: the ``ModelT`` of the operator.
        operator: CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED.
        values: its input, (1, H, W, C), or (.., C) for FULLY_CONNECTED.
        kernel: height and width of its weights; (1, 1) for FULLY_CONNECTED.
        most: the most positions to take, evenly spaced.
    """
    if schema.op_name(model, operator) == "FULLY_CONNECTED":
        flat = values.reshape(-1, 1, 1, values.shape[-1])
        return flat[_spaced(len(flat), most)]
    options = operator.builtinOptions
    picture = values[0]
    height, width, channels = picture.shape
    strides = options.strideH, options.strideW
    dilations = options.dilationHFactor, options.dilationWFactor
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    if options.padding == fb.Padding.SAME:
        out = [-(-size // stride) for size, stride in zip((height, width), strides, strict=True)]
        missing = [
            max((made - 1) * stride + far - size, 0)
            for made, stride, far, size in zip(out, strides, reach, (height, width), strict=True)
        ]
        before = [each // 2 for each in missing]
        pads = [(first, each - first) for first, each in zip(before, missing, strict=True)]
        picture = np.pad(picture, (*pads, (0, 0)))
    else:
        out = [(size - far) // stride + 1 for size, far, stride in zip((height, width), reach, strides, strict=True)]
    positions = _spaced(out[0] * out[1], most)
    tops, lefts = positions // out[1] * strides[0], positions % out[1] * strides[1]
    made = np.empty((len(positions), *kernel, channels), np.float32)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            made[:, row, column] = picture[tops + row * dilations[0], lefts + column * dilations[1]]
    return made


def _spaced(count: int, most: int) -> npt.NDArray[np.int64]:
    taken = min(count, most)
    return np.arange(taken, dtype=np.int64) * count // max(taken, 1)
