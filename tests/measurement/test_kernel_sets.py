"""Which operator two kernel sets compute differently, on files that are made so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphcut.measurement.kernel_sets import explanation
from tests.support.made_tflite import Made


@pytest.mark.parametrize("zero_point", [-128, 0])
def test_the_operator_is_named_where_one_differs_by_itself(zero_point: int, tmp_path: Path) -> None:
    """XNNPACK ignores the zero point of a computed right operand; with zero point 0 nothing differs by itself."""
    made = Made()
    x = made.tensor((1, 4, 4, 8), scale=0.02, name="x")
    left, right = (made.tensor((1, 16, 8), scale=0.02, name=name) for name in ("left", "right"))
    made.graph.tensors[right].quantization.zeroPoint = np.array([zero_point], np.int64)
    shape = made.tensor((3,), dtype=np.int32, scale=None, data=[1, 16, 8])
    wide = made.tensor((1, 16, 8), scale=0.02, name="wide")
    y = made.tensor((1, 16, 16), scale=0.05, name="y")
    made.op("RESHAPE", [x, shape], [left], newShape=np.array([1, 16, 8], np.int32))
    made.op("QUANTIZE", [left], [right])
    made.op("ADD", [left, left], [wide], fusedActivationFunction=0)
    made.op("BATCH_MATMUL", [wide, right], [y], adjY=True)
    path = tmp_path / "made.tflite"
    path.write_bytes(made.done([x], [y]))
    fed = np.random.default_rng(0).integers(-100, 100, (1, 4, 4, 8)).astype(np.int8)
    said = explanation(path, [fed])
    if zero_point:
        assert said.startswith("BATCH_MATMUL y differs by itself (")
    else:
        assert said == "no operator differs by itself, single steps of rounding add up"
