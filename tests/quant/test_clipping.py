"""Candidates for ranges, and the counts that they come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphcut.quant.clipping import LEVELS, ranges_by_level, scale_of, seen_by_readers
from graphcut.quant.ranges import COUNTED, CUT_SHARES, Histogram, Observed
from graphcut.tflite.scales import Group
from tests.support.made_tflite import Made


def counted(values: np.ndarray) -> Observed:
    histogram = Histogram()
    histogram.add(values)
    return Observed(
        minimum=float(values.min()), maximum=float(values.max()), channel_mean=np.zeros(1), cuts=histogram.cuts()
    )


def test_counts_give_quantiles_to_a_hundredth():
    values = np.random.default_rng(0).standard_normal(COUNTED).astype(np.float32)
    seen = counted(values)
    ordered = np.sort(values)
    for share, (low, high) in zip(CUT_SHARES, seen.cuts, strict=True):
        left_out = int(share * COUNTED)
        assert low == pytest.approx(ordered[left_out], rel=0.009)
        assert high == pytest.approx(ordered[-1 - left_out], rel=0.009)


def test_large_activations_are_counted_in_part_and_every_channel_of_them():
    values = np.zeros((1, 512, 512, 2), np.float32)
    values[..., 1] = 1
    assert counted(values).cuts[-1] == pytest.approx([0, 1], rel=0.01)
    assert counted(1 - values).cuts[-1] == pytest.approx([0, 1], rel=0.01)


def test_a_level_leaves_out_more_than_the_one_before_and_never_zero():
    values = np.random.default_rng(1).exponential(size=100_000).astype(np.float32) + 1
    values[0] = 1000
    seen = counted(values)
    scale, zero_point = scale_of((0.0, 1000.0))
    levels = ranges_by_level(Group(names=("x",), scale=(scale, zero_point), free=True), {"x": [seen]}, {})
    assert len(levels) == LEVELS
    assert levels[0] == levels[1] == (pytest.approx(0.0), pytest.approx(1000.0))
    assert all(low == 0.0 for low, _ in levels[2:])
    tops = [high for _, high in levels]
    assert tops == sorted(tops, reverse=True)
    assert tops[2] < 15
    assert tops[-1] == pytest.approx(1 - np.log(CUT_SHARES[-1]), rel=0.03)


def test_values_that_a_reader_does_not_see_need_no_range():
    made = Made()
    one, two, three = (made.tensor((1, 4), scale=0.1, zero_point=0, name=name) for name in ("one", "two", "three"))
    outs = [made.tensor((1, 4), scale=0.1, name=f"out{number}") for number in range(4)]
    gate = made.tensor((1, 4), scale=1 / 256, zero_point=-128, name="gate")
    made.op("HARD_SWISH", [one], [outs[0]])
    made.op("RELU", [two], [outs[1]])
    made.op("ADD", [two, two], [outs[2]], fusedActivationFunction=0)
    made.op("LOGISTIC", [three], [gate])
    made.op("MUL", [three, gate], [outs[3]], fusedActivationFunction=0)
    seen = seen_by_readers(made.done([one, two, three], outs))
    assert seen["one"] == (-3.0, np.inf)
    assert "two" not in seen, "ADD sees all of it"
    assert seen["three"] == (-8.0, np.inf)
    group = Group(names=("one",), scale=scale_of((-10.0, 5.0)), free=True)
    level = ranges_by_level(group, {}, seen)
    assert level[0] == (pytest.approx(-10, abs=0.05), pytest.approx(5, abs=0.05))
    assert level[1] == (-3.0, level[0][1])
    assert level[-1] == level[1], "nothing was counted"


@pytest.mark.parametrize(
    ("fused", "offset", "expected"), [(3, 30, (-3.0, np.inf)), (3, 15, (-1.5, np.inf)), (0, 30, None)]
)
def test_hard_swish_written_as_three_operators_is_known(fused: int, offset: int, expected: object):
    made = Made()
    x, gate, out = (made.tensor((1, 4), scale=0.1, name=name) for name in ("x", "gate", "out"))
    constant = made.tensor((1,), scale=0.1, zero_point=0, data=np.array([offset], np.int8), name="c")
    made.op("ADD", [x, constant], [gate], fusedActivationFunction=fused)
    made.op("MUL", [x, gate], [out], fusedActivationFunction=0)
    seen = seen_by_readers(made.done([x], [out]))
    assert seen.get("x") == (expected if expected is None else pytest.approx(expected))


def test_scales_are_the_quantisers():
    seen = replace(counted(np.array([-1.0, 3.0], np.float32)), minimum=-1.3, maximum=2.9)
    assert scale_of((seen.minimum, seen.maximum)) == (
        pytest.approx(seen.scale_and_zero_point[0], rel=1e-6),
        seen.scale_and_zero_point[1],
    )
