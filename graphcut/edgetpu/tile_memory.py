"""Memory of the chip that activations need; the rest is the room for parameters.

1. The chip has 16 tiles of 512 KiB. A map is spread over 4 x 4 of them, so a tile holds a quarter of its rows and of
   its columns, rounded up, with all channels; a convolution or pool that reads it also needs its *halo*, the rows and
   columns of neighbouring tiles that its window reaches.
2. While an operator runs, the tile contains its inputs, with the halo, and its outputs. Additions and other elementwise
   operators overwrite their inputs, and paddings and concatenations work in place: only their output counts.
3. A dense layer has its input and output twice in every tile.
4. Where that exceeds about 1 MiB, the compiler spills activations rather than parameters: the memory that they need
   grows more slowly than their size (``_SPILLED``).
5. A convolution whose weights are at least a quarter of its maps is computed in slabs, together with the operator
   before it, and both need no more than ``SLAB_BYTES``. The segment's own input is kept whole.

Sources: statements 1 and 2 follow the "narrow memory" that compiled files state (MobileNet v1 at 224 and 160 pixels:
to the byte, where the halo that the next operator needs is added to the output; 5 % less without it, as here).
Statements 3 and 5 are read off the networks of edgetpu_ladders.json that do not fit; statement 4 off SPARTA's figures
for one network at 224, 512 and 768 pixels and off the first segment of DenseNet201. Skip connections that stay alive
    during an operator are not counted: published networks need less than that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import zip_longest
from math import prod

from graphcut.edgetpu.layers import CONV, DENSE, Layer
from graphcut.units import KIB, MIB

CHIP_BYTES = 8 * MIB
TILES = 16
SLAB_BYTES = 1 * MIB
_SIDE = 4
_DENSE_OVERHEAD = 512
_MAP_OVERHEAD = 2 * KIB
"""Bytes in a tile in addition to the activations. Dense: 8 KiB of the chip fit every row of the ladder; maps: a fit."""
_SOFTMAX_BYTES_A_CLASS = 18
"""In a tile; read off one network (the last segment of DenseNet201)."""
_SPILLED = ((0.9, 0.81), (1.15, 1.0), (6.0, 3.38), (13.5, 4.09), (54.0, 5.0))
"""MiB of inputs and outputs -> the most MiB that they need (statement 4). The last point bounds the extrapolation."""
_IN_PLACE = frozenset(
    {
        *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "QUANTIZE"),
        *("PAD", "PADV2", "CONCATENATION", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "HARD_SWISH", "LEAKY_RELU", "PRELU"),
    }
)


def reserved(layers: Sequence[Layer]) -> list[int]:
    """Bytes of the chip that activations need while each of these layers runs, in execution order; linear time."""
    slabs = [_in_slabs(layer) for layer in layers]
    either = [own or following for own, following in zip_longest(slabs, slabs[1:], fillvalue=False)]
    return [
        min(reserved_bytes(layer), SLAB_BYTES if slab else CHIP_BYTES)
        for layer, slab in zip(layers, either, strict=True)
    ]


def reserved_bytes(layer: Layer) -> int:
    """Bytes of the chip that a layer's activations need while it runs, not in slabs; constant time.

    >>> conv = Layer(name="pw", op=CONV, inputs=((1, 56, 56, 32),), outputs=((1, 56, 56, 64),), weights=(64, 1, 1, 32))
    >>> reserved_bytes(conv) / TILES  # 14 x 14 pixels of 96 channels, and 2 KiB
    20864.0
    """
    held = TILES * _tile_bytes(layer)
    whole = sum(map(prod, (*layer.inputs, *layer.outputs)))
    if whole >= _SPILLED[0][0] * MIB:
        held = min(held, _most(whole))
    return min(held, CHIP_BYTES)


def _in_slabs(layer: Layer) -> bool:
    """Statement 5."""
    return layer.op == CONV and 4 * layer.weight_bytes >= sum(map(prod, (*layer.inputs, *layer.outputs)))


def _tile_bytes(layer: Layer) -> int:
    if layer.op == "SOFTMAX" and layer.outputs and layer.outputs[0]:
        return _SOFTMAX_BYTES_A_CLASS * layer.outputs[0][-1] + _DENSE_OVERHEAD
    if layer.op == DENSE and layer.weights is not None:
        made, read = layer.weights
        return 2 * (read + -(-made // 64) * 64) + _DENSE_OVERHEAD
    written = sum(_spread(shape) for shape in layer.outputs)
    if layer.op in _IN_PLACE:
        return written + _MAP_OVERHEAD
    read = sum(_spread(shape, layer.outputs[0] if layer.outputs else (), layer.window) for shape in layer.inputs)
    return read + written + _MAP_OVERHEAD


def _spread(shape: tuple[int, ...], made: tuple[int, ...] = (), window: tuple[int, int] = (1, 1)) -> int:
    """Bytes of a map in one tile; with the halo, where ``made`` is computed from it through a window."""
    if len(shape) != 4:
        return -(-prod(shape) // TILES)
    sides = []
    for axis in (0, 1):
        size = shape[1 + axis]
        tile = -(-size // _SIDE)
        if len(made) == 4 and made[1 + axis] > 0:
            stride = max(round(size / made[1 + axis]), 1)
            tile = max(tile, (-(-made[1 + axis] // _SIDE) - 1) * stride + window[axis])
        sides.append(min(tile, size))
    return sides[0] * sides[1] * -(-shape[3] // 4) * 4


def _most(whole: int) -> int:
    """The most bytes that inputs and outputs of that many bytes need (statement 4)."""
    size = whole / MIB
    place = min(bisect_right(_SPILLED, (size, float("inf"))), len(_SPILLED) - 1)
    (low, low_held), (high, high_held) = _SPILLED[place - 1], _SPILLED[place]
    share = min((size - low) / (high - low), 1.0)
    return round((low_held + share * (high_held - low_held)) * MIB)
