"""What is drawn onto a picture, looked at pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphcut.errors import CalibrationError, UsageError
from graphcut.evaluation.draw import draw
from graphcut.evaluation.measure import EvaluateOptions
from graphcut.records import Array

SIZE = (64, 64)


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    Image.new("RGB", (200, 100), (128, 128, 128)).save(tmp_path / "grey.png")
    return tmp_path / "grey.png"


def changed(grey: Path, *outputs: Array, **options: object) -> Array:
    """Which pixels (height, width) are no longer grey."""
    drawn = draw(grey, outputs, SIZE, EvaluateOptions(**options))  # type: ignore[arg-type]
    assert drawn.size == (200, 100)
    return np.asarray((np.asarray(drawn) != 128).any(axis=-1))


def test_a_box_is_drawn_in_the_picture_s_own_size(grey: Path) -> None:
    values = np.zeros((1, 84, 7), np.float32)
    values[0, 3] = (32, 48, 32, 16, 1.0, 0.9, 0.1)  # the middle half of the width, 5/8 to 7/8 of the height
    seen = changed(grey, values, head="yolox-decoded", labels=["weed", "crop"])
    assert seen[75, 50]
    assert seen[75, 150]
    assert seen[87, 100]
    assert not seen[75, 100], "the inside stays"
    assert not seen[95:].any()
    assert not seen[:, 155:].any()


def test_a_mask_is_laid_over(grey: Path) -> None:
    scores = np.zeros((1, 64, 64, 1), np.float32)
    scores[0, :32] = 0.9
    seen = changed(grey, scores)
    assert seen[:50].all()
    assert not seen[50:].any()


def test_classes_are_written_at_the_top(grey: Path) -> None:
    seen = changed(grey, np.eye(10, dtype=np.float32)[[3]], labels=[f"name {number}" for number in range(10)])
    assert seen[:20].any()
    assert not seen[:, 150:].any()


def test_what_cannot_be_drawn_is_said(grey: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be drawn"):
        draw(grey, [np.zeros((1, 5, 7), np.float32)], SIZE, EvaluateOptions())
    (tmp_path / "no.png").write_text("no")
    with pytest.raises(CalibrationError, match="cannot be read as a picture"):
        draw(tmp_path / "no.png", [np.eye(10, dtype=np.float32)[[3]]], SIZE, EvaluateOptions())
