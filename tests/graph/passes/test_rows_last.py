"""The tails of detectors: maps as rows, joined and turned."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.support.graph_nets import assert_same, ints, model, node, normal, ops, report_of, split_in_two

DATA = Path(__file__).resolve().parents[2] / "data"
MAPS = {"p": (1, 8, 6, 5), "q": (1, 8, 3, 2)}
ROWS = [node("Reshape", "p s", "a"), node("Reshape", "q s", "b")]
TURNED = ["Transpose", "Reshape", "Transpose", "Reshape", "Concat"]


@pytest.mark.parametrize("axis", [2, -1])
def test_rows_are_turned_before_they_are_joined(axis: int) -> None:
    nodes = [*ROWS, node("Concat", "a b", "c", axis=axis), node("Transpose", "c", "y", perm=(0, 2, 1))]
    proto = model(nodes, MAPS, ["y"], {"s": ints(1, 8, -1)})
    normalised = normal(proto)
    assert ops(normalised) == TURNED
    assert_same(proto, normalised, tolerance=0)


def test_activations_between_move_along() -> None:
    nodes = [*ROWS, node("Concat", "a b", "c", axis=2), node("Sigmoid", "c", "d")]
    nodes.append(node("Transpose", "d", "y", perm=(0, 2, 1)))
    proto = model(nodes, MAPS, ["y"], {"s": ints(1, 8, -1)})
    normalised = normal(proto)
    assert ops(normalised) == [*TURNED, "Sigmoid"]
    assert_same(proto, normalised)


def test_what_else_is_joined_is_turned_by_itself() -> None:
    nodes = [*ROWS, node("Concat", "a b r", "c", axis=2), node("Transpose", "c", "y", perm=(0, 2, 1))]
    proto = model(nodes, {**MAPS, "r": (1, 8, 7)}, ["y"], {"s": ints(1, 8, -1)})
    normalised = normal(proto)
    assert sorted(ops(normalised)) == sorted([*TURNED, "Transpose"])
    assert_same(proto, normalised, tolerance=0)


def test_rows_that_others_read_stay() -> None:
    nodes = [*ROWS, node("Concat", "a b", "c", axis=2), node("Transpose", "c", "y", perm=(0, 2, 1))]
    normalised = normal(model(nodes, MAPS, ["y", "c"], {"s": ints(1, 8, -1)}))
    assert report_of(normalised, "turn-rows-early").matches == 0


def test_the_tail_of_yolox_is_split(tmp_path: Path) -> None:
    result = split_in_two(onnx.load(DATA / "A2_conv8.onnx"), tmp_path)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 38
    assert result.tails[0].outputs[0].shape == (1, 320, 8)
