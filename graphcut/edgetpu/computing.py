"""The work of the chip for a layer: the multiplications of whole tiles, including wasted ones.

1. A convolution computes groups of 64 output channels and tiles of 4 input channels, whether or not they are full.
2. A depthwise convolution uses one of the four columns of its tiles.
3. A dense layer reads every weight for a single multiplication, and sends every input value to all tiles. That takes as
   long as ``DENSE_WORK`` multiplications for each byte of weights and ``COLUMN_WORK`` for each value.
4. Other operators are not counted; there are no measurements of them.
5. A convolution that streams and whose maps do not fit on the chip is computed in *slabs* of its map, and every slab
   sends the weights again. ``passes`` is the number of slabs.

The unit is a multiplication that a well-filled convolution does; graphcut.prediction.latency has the time it takes.
Sources: statement 3 from the dense networks of edgetpu_ladders.json, ``_PASSES`` from its convolutions, both from the
fitting half (docs/explanation/numbers.md).
Why larger maps need 3, then 5, then 7 or 8 passes is unknown. Layers with maps of up to 2 MiB are sent once, as in
published networks whose time grows only with the streamed bytes.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

from graphcut.edgetpu.layers import CONV, DENSE, DEPTHWISE, Layer
from graphcut.edgetpu.packing import CHIP_ROWS, up
from graphcut.units import MIB

DENSE_WORK, COLUMN_WORK = 6, 18_900
_PASSES = ((2.0, 1.0), (3.5, 3.0), (5.0, 3.0), (5.5, 4.95), (6.0, 7.6))
"""MiB of inputs and outputs, whole groups of 64 channels -> passes; beyond the last point the line goes on."""


def work(layer: Layer) -> int:
    """Multiplications that the chip does for a layer, in constant time; 0 for a layer without weights.

    >>> work(Layer(name="c", op=CONV, inputs=((1, 8, 8, 3),), outputs=((1, 8, 8, 10),), weights=(10, 3, 3, 3), taps=9))
    147456
    """
    if layer.weights is None or not layer.outputs:
        return 0
    if layer.op == DENSE:
        made, read = layer.weights
        once = DENSE_WORK * up(made, CHIP_ROWS) * up(read, 4) + COLUMN_WORK * up(read, 4)
        return once * prod(layer.outputs[0][:-1])
    if layer.op == DEPTHWISE:
        return prod(layer.outputs[0][:-1]) * up(layer.outputs[0][-1], CHIP_ROWS) * 4 * layer.taps
    if layer.op == CONV:
        return prod(layer.outputs[0][:-1]) * up(layer.weights[0], CHIP_ROWS) * up(layer.weights[-1], 4) * layer.taps
    return layer.macs


def passes(layer: Layer) -> float:
    """The number of times that a layer's parameters are sent in one inference if they stream (statement 5)."""
    if layer.op != CONV or not layer.inputs or not layer.outputs:
        return 1.0
    size = sum(prod(shape[:-1]) * up(shape[-1], CHIP_ROWS) for shape in (layer.inputs[0], layer.outputs[0])) / MIB
    if size <= _PASSES[0][0]:
        return 1.0
    spans = list(pairwise(_PASSES))
    (low, few), (high, many) = next((span for span in spans if size <= span[1][0]), spans[-1])
    return few + (many - few) * (size - low) / (high - low)
