"""Ranges chosen by what reads an activation."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphcut.quant.clipping import scale_of
from graphcut.quant.reader_ranges import TILE, TILES, FloatFile, choose
from tests.support.made_tflite import Made

CUTS = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
"""Candidates, as shares of the range there is."""


def floats(made: Made, shape: tuple[int, ...], **further: Any) -> int:
    return made.tensor(shape, dtype=np.float32, scale=None, **further)


def silu_and_weights(used: np.ndarray) -> bytes:
    """A map, its SILU, and a 1x1 convolution that uses some channels of it."""
    made = Made()
    size = TILES * TILE * 2
    shape = (1, size, size, len(used))
    source, gate, product, out = (floats(made, shape, name=name) for name in ("x", "gate", "y", "out"))
    weights = floats(made, (len(used), 1, 1, len(used)), data=np.diag(used).reshape(-1, 1, 1, len(used)))
    bias = floats(made, (len(used),), data=np.zeros(len(used)))
    made.op("LOGISTIC", [source], [gate])
    made.op("MUL", [source, gate], [product], fusedActivationFunction=0)
    made.op("CONV_2D", [product, weights, bias], [out], strideH=1, strideW=1)
    return made.done([source], [out])


def given(low: float, high: float, last: float) -> list[list[np.ndarray]]:
    """Two samples: values between low and high, and a last channel as far as ``last``."""
    chance = np.random.default_rng(0)
    size = TILES * TILE * 2
    values = chance.uniform(low, high, (2, 1, size, size, 3)).astype(np.float32)
    values[..., 2] *= last / high
    return [[each] for each in values]


def file_of(used: np.ndarray, feeds: list[list[np.ndarray]]) -> FloatFile:
    scales = {"gate": (1 / 256, -128), "y": scale_of((-0.3, 50.0))}
    return FloatFile(silu_and_weights(used), feeds, scales)


def test_what_silu_maps_to_nothing_needs_no_range():
    file = file_of(np.ones(3), given(-40, 4, 4))
    file.scales[file.indices["y"]] = scale_of((-0.3, 4.0))
    found = choose([file], [(0, "x")], (-40.0, 4.0), [-40 * cut for cut in CUTS], [4 * cut for cut in CUTS])
    assert -9 < found.range[0] < -1.5
    assert found.range[1] == 4
    assert found.gain_db > 6
    assert file.scales[file.indices["x"]] == scale_of(found.range)


def test_a_channel_that_no_weight_uses_needs_no_range():
    feeds = given(-4, 4, 40)
    cuts = [40 * cut for cut in CUTS]
    unused = choose([file_of(np.array([1.0, 1, 0]), feeds)], [(0, "y")], (-0.3, 40.0), [-0.3] * len(cuts), cuts)
    assert unused.range == (-0.3, 4.0)
    used = choose([file_of(np.ones(3), feeds)], [(0, "y")], (-0.3, 40.0), [-0.3] * len(cuts), cuts)
    assert used.range == (-0.3, 40.0)
    assert used.gain_db == 0


def test_values_that_are_clipped_later_need_no_range():
    feeds = given(-4, 40, 40)
    file = file_of(np.ones(3), feeds)
    cuts = [40 * cut for cut in CUTS]
    file.scales[file.indices["y"]] = scale_of((-0.3, 12.0))
    found = choose([file], [(0, "x")], (-4.0, 40.0), [-4.0] * len(cuts), cuts)
    assert found.range[1] <= 20

    file.scales[file.indices["y"]] = scale_of((-0.3, 40.0))
    assert choose([file], [(0, "x")], (-4.0, 40.0), [-4.0] * len(cuts), cuts).range == (-4.0, 40.0)


def test_a_group_without_readers_keeps_its_range():
    file = file_of(np.ones(3), given(-4, 4, 4))
    found = choose([file], [(0, "not there")], (-4.0, 4.0), [-1.0], [1.0])
    assert (found.range, found.gain_db) == ((-4.0, 4.0), 0.0)
