"""Parameter bytes of a compiled file, layer by layer, before anything is compiled.

The chip keeps weights in tiles of up to 64 output channels by 4 input columns; with ``up(a, b)`` for a rounded up to
a multiple of b:

1. The *words* of an output channel: its zero point where the weight scales are per channel, its scale where those are
   not all equal, its bias where any bias of the layer is not zero.
2. ``rows(O)``: O up to a multiple of 64 above 64, of 16 otherwise; 4 for a convolution of one output channel.
3. CONV_2D takes ``up(rows(O) * (taps * up(I, 4) + 4 * words), 64)``; FULLY_CONNECTED the same with one tap, and where
   its input is still a map [1, H, W, C] with H * W * up(C, 4) columns.
4. DEPTHWISE_CONV_2D takes ``up(up(C, 4) * (4 * taps + 4 * words), 64)``, four times its weights (tiles are diagonals);
   with one input channel it is a CONV_2D with I = 1.
5. SOFTMAX over N has tables of ``3 * 64 * ceil(N / 4) + 64`` bytes. They are in the file; the compiler does not count
   them as cached parameters.
6. A MUL or ADD with per-channel constants takes 16 bytes per channel and streams them at every inference, regardless of
   the room. (The pair that a batch normalisation leaves was measured: 32 bytes per channel. Half for each is an
   assumption.)
7. Operators that only move or combine activations take nothing. Operators in no list are *uncovered*: named, and not
   counted (a TRANSPOSE_CONV is counted as the convolution of its shape, and named).
8. ``on_chip_bytes``, what a cached layer occupies, is more than its bytes in the file: each of the 16 tiles of the chip
   reserves 4 rows, so the rows of any layer are rounded up to 64. This is the figure that the compiler prints as
   "On-chip memory used for caching", and what counts against the room (graphcut.edgetpu.caching).

Sources: parameter blobs of real compiled files, rebuilt from their uncompiled twins byte for byte; for statement 6 the
published segments of DenseNet201; for statement 8 the printed sizes of 959 compiled networks (edgetpu_ladders.json),
where a layer of 10 outputs takes 64 rows when it is cached and 16 when it is streamed. Compilers for runtime
10 store zero biases, too (:func:`graphcut.edgetpu.layers_of_file.layers` counts them on request), and some older ones
store no SOFTMAX table, which only a compiled file shows (graphcut.edgetpu.compare_compiled). Known exceptions:
unaligned CONCATENATION and RESHAPE took 64 bytes a piece in a few files; one small model of 5 to 16 channels on maps up
to 10 x 10 took 32 rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from graphcut.edgetpu.layers import CONV, DENSE, DEPTHWISE, Layer
from graphcut.record_types import FLAT, OMITTED

FREE = frozenset(
    {
        *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "PAD", "PADV2", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"),
        *("MAX_POOL_2D", "AVERAGE_POOL_2D", "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
        *("CONCATENATION", "SPLIT", "SLICE", "STRIDED_SLICE", "PACK", "SPACE_TO_DEPTH"),
        *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1"),
    }
)
"""Operators without parameters, unless one of their inputs is a constant vector."""

_CONSTANTS_COUNT = frozenset({"ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"})
_AFFINE = frozenset({"MUL", "ADD"})
AFFINE_BYTES_A_CHANNEL = 16
"""Of a MUL or an ADD with a constant for each channel (statement 6)."""
CHIP_ROWS = 64
"""Rows per group: 4 in each of the 16 tiles of the chip (statement 8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The size of one layer on the chip.

    Attributes:
        layer: the layer.
        parameter_bytes: in the file, by the formula; a guess, usually 0, where it is not covered.
        on_chip_bytes: what it occupies when it is cached (statement 8); 0 where it is never cached.
        always_streams: it is streamed at every inference, regardless of the room (statement 6).
        uncovered: why the formula does not cover it, "" if it does.
    """

    layer: Annotated[Layer, FLAT]
    parameter_bytes: int
    on_chip_bytes: Annotated[int, OMITTED] = 0
    always_streams: Annotated[bool, OMITTED] = False
    uncovered: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """The size of a run of layers on the chip."""

    layers: tuple[Packed, ...]

    @property
    def parameter_bytes(self) -> int:
        """The parameter bytes of all covered layers."""
        return sum(packed.parameter_bytes for packed in self.layers)

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Names of the operators that the formula does not cover, sorted; empty where the bytes are exact."""
        return tuple(sorted({packed.uncovered for packed in self.layers if packed.uncovered}))


def pack(layers: Iterable[Layer]) -> Packing:
    """The size of these layers on the chip."""
    return Packing(layers=tuple(pack_layer(layer) for layer in layers))


def pack_layer(layer: Layer) -> Packed:
    """The size of one layer on the chip."""
    if layer.weights is not None and layer.op in (CONV, DENSE, DEPTHWISE):
        shape = _shape(layer)
        if shape is None:
            return Packed(layer=layer, parameter_bytes=0, uncovered=f"{layer.op} with a channel multiplier")
        return _packed(layer, *shape)
    if layer.op == "TRANSPOSE_CONV" and layer.weights is not None:
        channels_out, height, width, channels_in = layer.weights
        shape = channels_out, rows(channels_out), height * width * up(channels_in, 4) + 4 * layer.words
        return _packed(layer, *shape, uncovered=layer.op)
    if layer.op == "SOFTMAX" and layer.outputs:
        return Packed(layer=layer, parameter_bytes=softmax_bytes(layer.outputs[0][-1] if layer.outputs[0] else 1))
    if layer.op in _CONSTANTS_COUNT and layer.constants > 1:
        if layer.op in _AFFINE and layer.outputs and layer.outputs[0] and layer.constants == layer.outputs[0][-1]:
            size = AFFINE_BYTES_A_CHANNEL * layer.constants
            return Packed(layer=layer, parameter_bytes=size, always_streams=True)
        return Packed(layer=layer, parameter_bytes=0, uncovered=f"{layer.op} with a constant vector")
    return Packed(layer=layer, parameter_bytes=0, uncovered="" if layer.op in FREE else layer.op)


def softmax_bytes(classes: int) -> int:
    """Bytes of the tables of a SOFTMAX over that many values.

    >>> softmax_bytes(1001)
    48256
    """
    return 3 * 64 * -(-classes // 4) + 64


def rows(channels: int, *, dense: bool = False) -> int:
    """Rows kept for that many output channels.

    >>> rows(12), rows(65), rows(1), rows(1, dense=True)
    (16, 128, 4, 16)
    """
    if channels > 64:
        return up(channels, 64)
    return 4 if channels == 1 and not dense else up(channels, 16)


def up(size: int, step: int) -> int:
    """``size`` rounded up to a multiple of ``step``."""
    return -(-size // step) * step


def _packed(layer: Layer, channels: int, kept: int, columns: int, uncovered: str = "") -> Packed:
    """A layer with ``kept`` rows of ``columns`` bytes in the file and whole groups of rows on the chip."""
    size, occupied = up(kept * columns, 64), up(channels, CHIP_ROWS) * columns
    return Packed(layer=layer, parameter_bytes=size, on_chip_bytes=occupied, uncovered=uncovered)


def _shape(layer: Layer) -> tuple[int, int, int] | None:
    """Channels, rows in the file and bytes per row; None where the formula does not cover the layer."""
    assert layer.weights is not None
    beside = 4 * layer.words
    if layer.op == DEPTHWISE:
        channels_in, channels_out = layer.inputs[0][-1], layer.weights[-1]
        if channels_in == channels_out:
            return channels_out, up(channels_out, 4), 4 * layer.taps + beside
        if channels_in != 1:
            return None
        return channels_out, rows(channels_out), layer.taps * 4 + beside
    if layer.op == CONV:
        channels_out, channels_in = layer.weights[0], layer.weights[-1]
        return channels_out, rows(channels_out), layer.taps * up(channels_in, 4) + beside
    channels_out, columns = layer.weights
    fed = layer.inputs[0]
    if len(fed) == 4 and fed[0] == 1 and fed[1] * fed[2] * fed[3] == columns:
        columns = fed[1] * fed[2] * up(fed[3], 4)
    return channels_out, rows(channels_out, dense=True), up(columns, 4) + beside
