"""Weights fitted to int8 inputs: by themselves, and as a chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphcut import flow
from graphcut.conversion.workers import converters
from graphcut.planning.plan_options import PlanOptions, SplitOptions
from graphcut.quant.fit import _fit_dense, _fit_depthwise
from graphcut.samples import load_samples
from tests.support import nets


def test_a_fit_relies_less_on_a_channel_that_is_noise():
    chance = np.random.default_rng(0)
    exact = chance.standard_normal((4000, 3)).astype(np.float32)
    exact[:, 2] = exact[:, 0] + 0.1 * exact[:, 2]  # nearly the same as the first
    got = exact.copy()
    got[:, 0] += chance.standard_normal(4000).astype(np.float32)
    taps, guard = np.array([[1.0, 2.0, 0.0]]), np.arange(4000) % 4 == 3
    fitted, _ = _fit_dense(taps, got, exact, guard)
    before, after = (np.square(got @ each.T - exact @ taps.T)[guard].mean() for each in (taps, fitted))
    assert after < 0.1 * before
    assert fitted[0, 1] == pytest.approx(2, abs=0.1)


def test_a_shift_is_taken_away_and_chance_is_not_learnt():
    chance = np.random.default_rng(1)
    exact = chance.standard_normal((8, 3)).astype(np.float32)
    taps, guard = np.array([[1.0, 2.0, 3.0]]), np.arange(8) % 4 == 3
    fitted, added = _fit_dense(taps, exact + 0.5, exact, guard)
    assert np.array_equal(fitted, taps)
    assert added == pytest.approx([-3.0])
    fitted, added = _fit_dense(taps, exact, exact, guard)
    assert np.array_equal(fitted, taps)
    assert added == pytest.approx([0.0])


def test_depthwise_channels_are_fitted_by_themselves():
    chance = np.random.default_rng(2)
    exact = chance.standard_normal((2, 4000, 9))
    got = exact.copy()
    got[1] *= 0.8
    taps, guard = chance.standard_normal((2, 9)), np.arange(4000) % 4 == 3
    fitted, added = _fit_depthwise(taps, got, exact, guard)
    assert np.array_equal(fitted[0], taps[0])
    assert fitted[1] == pytest.approx(taps[1] / 0.8, rel=0.01)
    assert added == pytest.approx([0, 0], abs=0.01)


def test_a_chain_gains_by_it_and_all_ways_through_agree(tmp_path: Path):
    model = flow.prepare(str(nets.saved(nets.uneven(seed=6), tmp_path)))
    samples = load_samples("random", model.inputs, None, limit=16)
    plan = PlanOptions(strategy="balanced", segments=2)
    with converters(1) as pool:
        plain = flow.split(model, samples, SplitOptions(plan=plan, effort="fast"), tmp_path / "plain", pool=pool)
        options = SplitOptions(plan=plan, independent=True, without=("equalise", "ranges"))
        result = flow.split(model, samples, options, tmp_path / "out", pool=pool)
    assert any("operators fitted to int8 inputs" in note for part in result.segments for note in part.notes)
    assert result.verification.sqnr_db["logits"] > plain.verification.sqnr_db["logits"] + 0.5
    assert result.verification.exact
    assert result.verification.independent is not None
    assert result.verification.independent.largest_step <= 1
    for old, new in zip(plain.segments, result.segments, strict=True):
        assert new.tflite_path.stat().st_size == old.tflite_path.stat().st_size
