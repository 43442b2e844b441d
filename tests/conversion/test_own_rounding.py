"""What a float file may differ by follows from the model where that magnifies rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphcut.conversion.convert_segment import FLOAT_TOLERANCE, MOST_TOLERANCE, own_rounding
from graphcut.conversion.job import ConversionJob, EdgeActivation
from tests.support.graph_nets import model, node


def job(folder: Path, factor: float, values: np.ndarray) -> ConversionJob:
    constants = {"factor": np.array(factor, np.float32)}
    path = folder / "convert1.onnx"
    onnx.save(model([node("Mul", "x factor", "z"), node("Sin", "z", "y")], {"x": (1, 64)}, ["y"], constants), path)
    return ConversionJob(
        subject="segment 1 (x .. y)",
        onnx_path=path,
        target=folder / "seg1.tflite",
        scratch=folder,
        inputs=(EdgeActivation(tensor="x", layer="x", values=values),),
        outputs=(),
        logits={},
        samples=len(values),
        endings={},
        readers={},
        ranges={},
        per_channel=True,
    )


@pytest.mark.parametrize(("factor", "low", "high"), [(1.0, 0, 0), (3e3, 3e-3, 0.04), (1e7, 0.05, 0.05)])
def test_the_limit_follows_from_the_model_within_bounds(factor: float, low: float, high: float, tmp_path: Path) -> None:
    values = np.random.default_rng(1).uniform(-2, 2, (3, 64)).astype(np.float32)
    wanted = np.sin(values * np.float32(factor))
    limit = own_rounding(job(tmp_path, factor, values), "y", wanted, wanted + np.float32(0.01))
    assert max(low, FLOAT_TOLERANCE) <= limit <= max(high, FLOAT_TOLERANCE)
    assert limit <= MOST_TOLERANCE


def test_values_that_are_not_finite_are_never_rounding(tmp_path: Path) -> None:
    values = np.ones((3, 64), np.float32)
    wanted = np.sin(values * np.float32(3e4))
    assert own_rounding(job(tmp_path, 3e4, values), "y", wanted, wanted * np.nan) == FLOAT_TOLERANCE
