"""Ranges, corrections and int8 numbers on real TFLite files converted from small nets."""

from __future__ import annotations

import numpy as np
import pytest

from graphcut.measurement.metrics import relative_error, sqnr_db, to_nchw, to_nhwc
from graphcut.quant import correct
from graphcut.quant.ranges import Observed, meaningful, rounded
from graphcut.runtime import litert


def test_quantise_and_back_is_within_half_a_step():
    values = np.linspace(-1, 1, 1001, dtype=np.float32)
    scale, zero_point = 2 / 255, 0
    back = litert.dequantise(litert.quantise(values, scale, zero_point), scale, zero_point)
    inside = values <= 127 * scale
    assert np.abs(back - values)[inside].max() <= scale / 2 + 1e-6


def test_quantise_clips_to_int8():
    assert litert.quantise(np.array([-1e9, 1e9], np.float32), 0.1, 3).tolist() == [-128, 127]


def test_sqnr_of_known_noise():
    wanted = np.ones(1000, np.float32)
    assert sqnr_db(wanted, wanted + np.float32(0.1)) == pytest.approx(20.0, abs=1e-4)
    assert sqnr_db(wanted, wanted) == float("inf")
    assert sqnr_db(np.zeros(3, np.float32), np.ones(3, np.float32)) == float("-inf")


def test_relative_error_calls_nan_wrong():
    wanted = np.ones(3, np.float32)
    assert relative_error(wanted, np.array([1, np.nan, 1], np.float32)) == float("inf")


def test_layouts_are_inverse():
    values = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert to_nhwc(values).shape == (1, 3, 4, 2)
    assert np.array_equal(to_nchw(to_nhwc(values)), values)


def test_a_dead_channel_gets_one_weight_with_which_its_bias_fits():
    columns = np.ones((2, 1, 4), np.float32)
    columns[1] = 0
    bias = np.array([0.5, 0.5], np.float32)
    revived, count = correct._revive(columns, bias, input_scale=0.02)
    assert count == 1
    assert np.array_equal(revived[0], columns[0])
    scale = np.abs(revived[1]).max() / 127
    assert abs(bias[1] / (0.02 * scale)) <= 2**29 * 1.001
    assert columns[1].max() == 0, "the caller's weights are untouched"


@pytest.mark.parametrize("name", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_mean_shift_is_what_rounding_does_to_the_mean(name: str):
    rng = np.random.default_rng(1)
    mean = rng.uniform(0, 2, 6)
    columns = rng.standard_normal((6, 9, 1) if name == "DEPTHWISE_CONV_2D" else (5, 1, 6)).astype(np.float32)
    seen = Observed(minimum=0.0, maximum=2.0, channel_mean=mean)
    shift = correct._mean_shift(name, columns, seen, per_channel=True)
    scale = np.abs(columns).max(axis=(1, 2), keepdims=True) / np.float32(127)
    rounded = np.rint(columns / scale) * scale
    if name == "DEPTHWISE_CONV_2D":
        expected = ((rounded - columns).sum(axis=(1, 2))) * mean
    else:
        expected = (rounded - columns)[:, 0] @ mean
    assert shift is not None
    np.testing.assert_allclose(shift, expected, atol=1e-6)


def test_mean_shift_of_a_grouped_convolution_uses_its_own_group():
    columns = np.zeros((4, 1, 2), np.float32)
    columns[:, 0] = [[1.0, 0.503], [1.0, 0.503], [1.0, 0.503], [1.0, 0.503]]
    mean = np.array([0.0, 1.0, 0.0, 10.0])
    seen = Observed(minimum=0.0, maximum=10.0, channel_mean=mean)
    shift = correct._mean_shift("CONV_2D", columns, seen, per_channel=True)
    assert shift is not None
    assert shift[2] == pytest.approx(10 * shift[0])


def test_scale_of_a_range_includes_zero():
    seen = Observed(minimum=2.0, maximum=4.0, channel_mean=np.ones(1))
    scale, zero_point = seen.scale_and_zero_point
    assert scale == pytest.approx(4 / 255)
    assert zero_point == -128


def test_pixels_half_way_between_steps_all_round_the_same_way():
    pixels = np.arange(256, dtype=np.float32)
    for values in (pixels / np.float32(127.5) - 1, (pixels - np.float32(127.5)) / np.float32(127.5)):
        assert np.array_equal(litert.quantise(values, 2 / 255, -1), np.arange(-128, 128))


def test_the_mean_of_rounded_pixels_is_what_int8_gives():
    pixels = (np.arange(256, dtype=np.float32) / np.float32(127.5) - 1).reshape(1, 256, 1)
    seen = Observed(minimum=-1.0, maximum=1.0, channel_mean=np.zeros(1))
    back = rounded(seen, [pixels]).rounded_mean
    assert back is not None
    assert abs(back[0]) == pytest.approx(0.5 / 127.5, rel=0.02)


def test_an_activation_that_is_always_zero_gets_a_range_in_which_zero_is_exact():
    low, high = meaningful(0.0, 0.0)
    seen = Observed(minimum=low, maximum=high, channel_mean=np.zeros(3))
    scale, zero_point = seen.scale_and_zero_point
    assert scale == pytest.approx(1 / 255)
    assert litert.dequantise(np.array([zero_point], np.int8), scale, zero_point).tolist() == [0.0]
    assert meaningful(0.0, 1e-6) == (0.0, 1e-6)
    assert meaningful(-2.0, 0.0) == (-2.0, 0.0)
