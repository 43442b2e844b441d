"""One number for outputs of different size."""

from __future__ import annotations

import numpy as np
import pytest

from graphcut.measurement.loss import loss


def test_ten_decibels_less_noise_are_one():
    wanted = np.random.default_rng(0).standard_normal((8, 100)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((8, 100)).astype(np.float32)
    near, far = (loss([wanted], [wanted + size * noise]) for size in (1e-2, 1e-2 * np.sqrt(10)))
    assert far - near == pytest.approx(1, abs=0.01)
    assert near == pytest.approx(-4, abs=0.1)


def test_small_parts_of_an_output_count_as_much_as_large_ones():
    chance = np.random.default_rng(2)
    wanted = (chance.standard_normal((4, 500, 2)) * [20, 1]).astype(np.float32)
    large, small = wanted.copy(), wanted.copy()
    large[..., 0] += chance.standard_normal((4, 500)).astype(np.float32) * 2
    small[..., 1] += chance.standard_normal((4, 500)).astype(np.float32) * 0.1
    assert loss([wanted], [large]) == pytest.approx(loss([wanted], [small]), abs=0.3)


def test_outputs_count_alike():
    wanted = np.random.default_rng(3).standard_normal((4, 50)).astype(np.float32)
    both = loss([wanted, 1000 * wanted], [wanted * 1.1, 1000 * wanted * 1.01])
    assert both == pytest.approx((loss([wanted], [wanted * 1.1]) + loss([wanted], [wanted * 1.01])) / 2)
