"""The expected bytes of a layer's parameters in a compiled file.

1. Layers are stored in execution order. A layer is written in groups of 64 output channels, a depthwise convolution in
   groups of 4. A group of R rows is ``[scale x R][bias x R][zero point x R]``, each a word of 4 bytes, omitted where
   the layer has none (graphcut.edgetpu.packing, statement 1), then its weights. The layer is padded to 64 bytes with
   zeros.
2. Weights go tap by tap, in a tap by 4 input channels, in these row by row: R rows of 4 bytes. A depthwise convolution
   has a tile of 4 x 4 for each tap, with the weights of its 4 channels on the diagonal.
3. A byte is the weight of a uint8 model as it is, and ``weight xor 0x80`` of an int8 model. Unused bytes of a row, and
   unused rows up to a multiple of 4, have the value of the zero point in the same form; further rows are zero.
4. A scale is the float ``weight scale * input scale / output scale``; a bias is the model's int32.
5. SOFTMAX over N has two tables of zeros and one of the input's scale, in blocks of 64 bytes of which 4 words are used,
   then (uint8 only) a block with 1.0. Unused words of the 4 are -0.0, and the scale times the largest float.

Source: blobs of real compiled files, byte for byte: three MobileNet v1, DeepLab with MobileNetV2, the dense layer and
SOFTMAX of an int8 LSTM. Per-channel scales and zero points follow the formula found with other pairs; no pair here has
them, so scales are compared to 2 units in the last place, and zero points only have to be equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.edgetpu.layers import CONV, DENSE, DEPTHWISE, Layer, same_padding, taps_alive
from graphcut.edgetpu.packing import rows, up
from graphcut.tflite import schema
from graphcut.tflite.schema_types import ModelT, OperatorT, TensorT

Bytes = npt.NDArray[np.uint8]
SCALE, BIAS, ZERO_POINT, WEIGHT, FILL, TABLE = "scale", "bias", "zero point", "weight", "filling", "table"
_INT8 = 0x80
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Field:
    """A stretch of a layer's bytes.

    Attributes:
        kind: SCALE, BIAS, ZERO_POINT, WEIGHT, FILL or TABLE.
        channel: its first output channel.
        data: the expected bytes.
    """

    kind: str
    channel: int
    data: Bytes


def image(model: ModelT, operator: OperatorT, layer: Layer) -> tuple[Field, ...] | None:
    """The bytes of a layer in order; None where the layout is not known.

    Args:
        model: the uncompiled ``ModelT``.
        operator: of its first graph.
        layer: the same as a layer.
    """
    tensors = model.subgraphs[0].tensors
    fed = [tensors[int(index)] for index in operator.inputs if int(index) >= 0]
    made = tensors[int(operator.outputs[0])]
    if layer.op == "SOFTMAX":
        return tuple(_softmax(fed[0], layer))
    if layer.weights is None or layer.op not in (CONV, DENSE, DEPTHWISE):
        return None
    weights = schema.constant(model, fed[1])
    bias = schema.constant(model, fed[2]) if len(fed) > 2 else None
    if weights is None or weights.dtype not in (np.dtype(np.int8), np.dtype(np.uint8)):
        return None
    if layer.op == DEPTHWISE and layer.inputs[0][-1] != layer.weights[-1]:
        return None
    return tuple(_fields(_Parameters(operator, layer, fed, made, weights, bias)))


@dataclass(frozen=True, slots=True)
class _Parameters:
    operator: OperatorT
    layer: Layer
    fed: list[TensorT]
    made: TensorT
    weights: npt.NDArray[Any]
    bias: npt.NDArray[Any] | None


def _fields(given: _Parameters) -> Iterator[Field]:
    layer, scales = given.layer, _floats(schema.quantization(given.fed[1]).scale)
    channels, kept, tiles = _tiles(given)
    per_channel = scales.size > 1
    has_scales = per_channel and bool(np.any(scales != scales[0]))
    # The layer's words say whether a bias of zeros is written (compilers for runtime 10).
    has_bias = layer.words > int(per_channel) + int(has_scales)
    step = 4 if layer.op == DEPTHWISE else 64
    total = 0
    for first in range(0, kept, step):
        count = min(step, kept - first)
        found: list[Field] = []
        if has_scales:
            ratio = (
                _floats(schema.quantization(given.fed[0]).scale)[0] / _floats(schema.quantization(given.made).scale)[0]
            )
            found.append(Field(SCALE, first, _words(scales * ratio, first, count, np.dtype("<f4"))))
        if has_bias:
            assert given.bias is not None
            found.append(Field(BIAS, first, _words(given.bias, first, count, np.dtype("<i4"))))
        if per_channel:
            found.append(Field(ZERO_POINT, first, np.full(4 * count, 0, np.uint8)))
        found.append(Field(WEIGHT, first, tiles[:, first : first + count].reshape(-1)))
        total += sum(each.data.size for each in found)
        yield from found
    yield Field(FILL, channels, np.zeros(up(total, 64) - total, np.uint8))


def _tiles(given: _Parameters) -> tuple[int, int, Bytes]:
    """Output channels, rows, and the weights as [tap and input channels, row, 4]."""
    layer = given.layer
    flip = _INT8 if given.weights.dtype == np.int8 else 0
    zero_points = schema.quantization(given.fed[1]).zeroPoint
    zero = ((int(zero_points[0]) if zero_points is not None and len(zero_points) else 0) & 0xFF) ^ flip
    weights: Bytes = given.weights.view(np.uint8) ^ np.uint8(flip)
    if layer.op == DEPTHWISE:
        channels = weights.shape[3]
        taps = weights.reshape(-1, channels)
        kept = up(channels, 4)
        tiles = np.full((len(taps), kept, 4), zero, np.uint8)
        each = np.arange(channels)
        tiles[:, each, each % 4] = taps
        return channels, kept, tiles
    if layer.op == DENSE:
        channels, columns = weights.shape
        shape = layer.inputs[0]
        a_map = len(shape) == 4 and shape[0] == 1 and shape[1] * shape[2] * shape[3] == columns
        weights = weights.reshape(channels, -1, shape[3] if a_map else columns)
    else:
        alive = _alive(given)
        weights = weights[:, alive[0]][:, :, alive[1]]
        weights = weights.reshape(weights.shape[0], -1, weights.shape[3])
    channels, taps_count, depth = weights.shape
    kept, groups = rows(channels, dense=layer.op == DENSE), up(depth, 4) // 4
    padded = np.full((channels, taps_count, 4 * groups), zero, np.uint8)
    padded[:, :, :depth] = weights
    tiles = np.full((taps_count * groups, kept, 4), zero, np.uint8)
    tiles[:, up(channels, 4) :] = 0
    tiles[:, :channels] = padded.reshape(channels, taps_count * groups, 4).transpose(1, 0, 2)
    return channels, kept, tiles


def _alive(given: _Parameters) -> tuple[list[int], list[int]]:
    """Rows and columns of the kernel that meet anything but padding."""
    options, layer = given.operator.builtinOptions, given.layer
    found = []
    for axis, (stride, dilation) in enumerate(
        ((options.strideH, options.dilationHFactor), (options.strideW, options.dilationWFactor)), start=1
    ):
        kernel, size, result = given.weights.shape[axis], layer.inputs[0][axis], layer.outputs[0][axis]
        before = same_padding(kernel, stride, dilation, size) if options.padding == 0 else 0
        found.append(taps_alive(kernel, stride, dilation, size, before, result))
    return found[0], found[1]


def _softmax(fed: TensorT, layer: Layer) -> Iterator[Field]:
    """Statement 5."""
    count = layer.outputs[0][-1]
    scale = _floats(schema.quantization(fed).scale)[0]
    blocks = np.zeros((3, -(-count // 4), _BLOCK // 4), np.float32)
    blocks[2, :, :4] = scale
    unused = -count % 4
    if unused:
        blocks[:2, -1, 4 - unused : 4] = -0.0
        blocks[2, -1, 4 - unused : 4] = scale * np.finfo(np.float32).max
    yield Field(TABLE, 0, _raw(blocks, np.dtype("<f4")))
    if schema.TYPE_NAMES[fed.type] == "UINT8":
        last = np.zeros(_BLOCK // 4, np.float32)
        last[0] = 1.0
        yield Field(TABLE, count, _raw(last, np.dtype("<f4")))


def _words(values: npt.NDArray[Any], first: int, count: int, form: np.dtype[Any]) -> Bytes:
    """``count`` words from the value of channel ``first`` on, zeros after the last channel."""
    found = np.zeros(count, form)
    given = values[first : first + count]
    found[: len(given)] = given
    return _raw(found, form)


def _raw(values: npt.NDArray[Any], form: np.dtype[Any]) -> Bytes:
    return np.frombuffer(np.ascontiguousarray(values, form).tobytes(), np.uint8)


def _floats(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray([] if values is None else values, np.float32).reshape(-1)
