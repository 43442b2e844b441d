"""Parts of outputs: told apart by their ranges, measured by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.measurement.output_parts import output_parts
from graphcut.verification.verdict import judge, part_faults

BOXES, CLASSES = 4, 80


def detections(rng: np.random.Generator, anchors: int = 200) -> np.ndarray:
    """Boxes in pixels and scores of which most classes are absent, as (2, 84, anchors)."""
    boxes = rng.uniform(0, 640, (2, BOXES, anchors))
    scores = rng.random((2, CLASSES, anchors)) ** 12
    scores[:, 7:] *= 1e-4
    return np.concatenate([boxes, scores], axis=1).astype(np.float32)


def under_one_scale(values: np.ndarray) -> np.ndarray:
    scale = float(np.abs(values).max()) / 127
    return (np.round(values / scale) * scale).astype(np.float32)


@pytest.mark.parametrize("last", [False, True])
def test_scores_beside_boxes_are_a_part_of_their_own(last: bool) -> None:
    wanted = detections(np.random.default_rng(0))
    wanted = wanted.transpose(0, 2, 1) if last else wanted
    parts = output_parts("output0", wanted, under_one_scale(wanted))
    assert {part.name for part in parts} == {"channels 0..3 of output0", "scores (channels 4..83 of output0)"}
    (lost,) = part_faults(parts)
    assert lost == "scores (channels 4..83 of output0): 0.0 dB, every value is 0"


def test_one_small_channel_is_named() -> None:
    rng = np.random.default_rng(1)
    wanted = rng.standard_normal((3, 5, 8, 8)).astype(np.float32)
    wanted[:, 4] *= 1e-3
    (lost,) = part_faults(output_parts("head", wanted, under_one_scale(wanted)))
    assert lost.startswith("channel 4 of head: 0.0 dB")


def test_flat_outputs_joined_of_two_kinds_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    wanted = np.concatenate([rng.uniform(50, 300, (4, 60)), rng.random((4, 20))], axis=1).astype(np.float32)
    assert [part.channels for part in output_parts("x", wanted, wanted)] == [((60, 80),), ((0, 60),)]


def test_a_map_of_one_channel_is_one_part_whatever_its_margins_hold() -> None:
    wanted = np.random.default_rng(4).random((2, 32, 40, 1), np.float32) * 9
    wanted[:, :, :3] *= 1e-4
    (part,) = output_parts("depth", wanted, under_one_scale(wanted))
    assert (part.name, part.axis) == ("depth", None)


def test_scores_that_pass_one_by_float32_rounding_are_scores() -> None:
    wanted = np.random.default_rng(5).random((2, 30, 7), np.float32)
    wanted[:, :10] *= 1e-3
    wanted[0, 20, 0] = np.nextafter(np.float32(1), np.float32(2))
    (part,) = output_parts("y", wanted, wanted)
    assert part.name == "y"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(3, 10), (2, 16, 7, 7), (2, 40, 6)]))
def test_an_output_of_one_kind_is_one_part(seed: int, shape: tuple[int, ...]) -> None:
    wanted = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    (part,) = output_parts("x", wanted, wanted)
    assert part.axis is None
    assert part.name == "x"


def test_scores_alone_and_masks_are_one_part() -> None:
    rng = np.random.default_rng(3)
    for wanted in (rng.random((2, 1, 16, 16)) ** 20, rng.random((2, 90)) ** 20):
        assert len(output_parts("x", wanted.astype(np.float32), wanted.astype(np.float32))) == 1


def test_a_channel_without_signal_is_not_judged() -> None:
    wanted = np.zeros((2, 4, 50), np.float32)
    wanted[:, :3] = np.random.default_rng(4).standard_normal((2, 3, 50))
    wanted[:, 3] = -1e-9
    assert part_faults(output_parts("x", wanted, under_one_scale(wanted))) == []


def verdict(db: float, **changed: object) -> tuple[str, str]:
    wanted = np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32)
    noise = np.random.default_rng(6).standard_normal((4, 64)).astype(np.float32)
    noise *= float(np.linalg.norm(wanted) / np.linalg.norm(noise)) * 10 ** (-db / 20)
    given_options = {"top1_agreement": None, "samples": 12, "synthetic": False, "held_out": True} | changed
    return judge([], output_parts("x", wanted, wanted + noise), **given_options)  # type: ignore[arg-type]


def test_bars() -> None:
    assert verdict(9.5) == ("FAILED", "x: 9.5 dB, below 10 dB, on 12 samples not used for calibration")
    assert verdict(9.5, min_sqnr_db=0)[0] == "WEAK"
    assert verdict(15)[0] == "WEAK"
    assert verdict(15, min_sqnr_db=16)[0] == "FAILED"
    assert verdict(25)[0] == "PASSED"
    assert verdict(25, top1_agreement=0.83) == (
        "WEAK",
        "int8 gives float's class for 10 of 12 samples, on 12 samples not used for calibration",
    )
    assert verdict(25, top1_agreement=0.83, samples=9)[0] == "PASSED"
    assert verdict(25, top1_agreement=0.5, synthetic=True)[0] == "PASSED"
    assert "say nothing about accuracy" in verdict(25, synthetic=True)[1]
    assert verdict(25, held_out=False)[1].endswith("on the 12 samples used for calibration")
    assert verdict(25, remarks=["the built-in kernels differ"]) == ("WEAK", "the built-in kernels differ")
