"""Nearest resizing: TFLite's where it has the form, picks of rows and columns elsewhere; the same as onnxruntime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.graph_nets import assert_same, model, node, normal, ops, split_in_two, weights

COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("scale", [2.0, 1.5, 0.5, 2.4])
def test_rows_and_columns_are_those_of_onnx(coordinates: str, rounding: str, scale: float) -> None:
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    constants = {"scales": np.array([1, 1, scale, 1.5], np.float32)}
    proto = model([node("Resize", "x - scales", "y", **attributes)], {"x": (1, 3, 10, 8)}, ["y"], constants)
    normalised = normal(proto)
    assert set(ops(normalised)) <= {"Resize", "Gather"}
    assert_same(proto, normalised, tolerance=0)


@pytest.mark.parametrize(
    ("coordinates", "rounding"),
    [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("pytorch_half_pixel", "round_prefer_floor")],
)
def test_whole_multiples_stay_one_operator(coordinates: str, rounding: str) -> None:
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    constants = {"scales": np.array([1, 1, 2, 3], np.float32)}
    proto = model([node("Resize", "x - scales", "y", **attributes)], {"x": (1, 3, 10, 8)}, ["y"], constants)
    assert ops(normal(proto)) == ["Resize"]


def test_halves_that_are_rounded_down_are_the_other_form() -> None:
    constants = {"scales": np.array([1, 1, 0.5, 0.5], np.float32)}
    proto = model([node("Resize", "x - scales", "y", mode="nearest")], {"x": (1, 3, 10, 8)}, ["y"], constants)
    normalised = normal(proto)
    (made,) = normalised.graph.nodes
    assert (made.op_type, made.attributes["coordinate_transformation_mode"]) == ("Resize", "asymmetric")
    assert_same(proto, normalised, tolerance=0)


def test_it_is_split(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w1", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Resize", "r - scales", "n", mode="nearest"),
        node("Conv", "n w2", "y"),
    ]
    constants = {**weights(w1=(8, 3, 3, 3), w2=(4, 8, 1, 1)), "scales": np.array([1, 1, 1.5, 2], np.float32)}
    result = split_in_two(model(nodes, {"x": (1, 3, 16, 16)}, ["y"], constants), tmp_path)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 28
