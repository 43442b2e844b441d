"""Mean average precision on answers whose value is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from graphcut.evaluation.average_precision import average_precision
from graphcut.evaluation.boxes import Boxes


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    return Boxes(
        corners=np.array([row[:4] for row in rows], np.float32).reshape(-1, 4),
        scores=np.array([row[4] for row in rows], np.float32),
        classes=np.array([row[5] for row in rows], np.int64),
    )


TRUTH = [boxes((0.1, 0.1, 0.4, 0.4, 1, 0), (0.5, 0.5, 0.9, 0.9, 1, 1)), boxes((0.2, 0.2, 0.6, 0.6, 1, 0))]
CROWDS = [(False, False), (False,)]


def test_right_boxes_have_1_and_no_boxes_0() -> None:
    at_half, mean = average_precision(TRUTH, CROWDS, {"float": TRUTH, "int8": [boxes(), boxes()]})
    assert at_half.values == {"float": pytest.approx(1.0), "int8": pytest.approx(0.0)}
    assert mean.values["float"] == pytest.approx(1.0)
    assert at_half.intervals["float"] == (pytest.approx(1.0), pytest.approx(1.0))


def test_a_class_that_is_missed_costs_its_share() -> None:
    found = [boxes((0.1, 0.1, 0.4, 0.4, 0.9, 0)), boxes((0.2, 0.2, 0.6, 0.6, 0.8, 0))]
    at_half, _ = average_precision(TRUTH, CROWDS, {"int8": found})
    assert at_half.values["int8"] == pytest.approx(0.5)


def test_a_shifted_box_counts_at_low_overlaps_only() -> None:
    """An overlap of 0.6: right at 0.5, 0.55 and 0.6, wrong at the seven thresholds above."""
    truth = [boxes((0.0, 0.0, 0.8, 0.5, 1, 0))]
    found = [boxes((0.2, 0.0, 1.0, 0.5, 0.9, 0))]
    at_half, mean = average_precision(truth, [(False,)], {"int8": found})
    assert at_half.values["int8"] == pytest.approx(1.0)
    assert mean.values["int8"] == pytest.approx(0.2, abs=0.11)


def test_a_crowd_is_no_miss() -> None:
    at_half, _ = average_precision(TRUTH, [(False, True), (False,)], {"int8": [TRUTH[0], TRUTH[1]]})
    assert at_half.values["int8"] == pytest.approx(1.0)
