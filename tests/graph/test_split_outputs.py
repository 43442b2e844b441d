"""What an output joins, as outputs of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphcut import flow
from graphcut.errors import UsageError
from graphcut.graph.load import load
from graphcut.planning import plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.samples import load_samples
from tests.support.graph_nets import ints, model, node, random_inputs, run, weights
from tests.support.nets import saved

DATA = Path(__file__).resolve().parents[1] / "data"


def detector() -> object:
    """Two maps, of each boxes and the sigmoids of scores joined over channels, as rows joined and turned."""
    nodes = []
    for level, source in (("p", "x"), ("q", "z")):
        nodes += [node("Conv", f"{source} b", f"{level}box"), node("Conv", f"{source} s", f"{level}raw")]
        nodes += [node("Sigmoid", f"{level}raw", f"{level}score")]
        nodes += [node("Concat", f"{level}box {level}score", f"{level}both", axis=1)]
        nodes += [node("Reshape", f"{level}both r", f"{level}rows")]
    nodes += [node("Concat", "prows qrows", "rows", axis=2), node("Transpose", "rows", "y", perm=(0, 2, 1))]
    constants = {**weights(b=(4, 3, 1, 1), s=(2, 3, 1, 1)), "r": ints(1, 6, -1)}
    return model(nodes, {"x": (1, 3, 8, 8), "z": (1, 3, 4, 4)}, ["y"], constants)


def test_parts_of_parts_are_outputs_and_compute_what_was_joined(tmp_path: Path) -> None:
    proto = detector()
    found = load(saved(proto, tmp_path), parts_as_outputs=True)  # type: ignore[arg-type]
    assert found.graph.outputs == ("pbox", "pscore", "qbox", "qscore")
    assert [item.op_type for item in found.graph.nodes].count("Concat") == 0
    assert any("split into the 4 parts" in note for note in found.notes)
    inputs = random_inputs(found)
    (joined,) = run(proto, inputs)  # type: ignore[arg-type]
    parts = [value.reshape(1, value.shape[1], -1).transpose(0, 2, 1) for value in run(found.proto, inputs)]
    again = np.concatenate([np.concatenate(parts[:2], axis=2), np.concatenate(parts[2:], axis=2)], axis=1)
    np.testing.assert_allclose(again, joined, atol=1e-5)


def test_an_output_that_nothing_joins_is_refused(tmp_path: Path) -> None:
    path = saved(model([node("Relu", "x", "y")], {"x": (1, 3, 4, 4)}, ["y"]), tmp_path)
    with pytest.raises(UsageError, match="no output of the model is joined by a Concat"):
        load(path, parts_as_outputs=True)


def test_scores_beside_boxes_in_pixels_have_their_own_scale(tmp_path: Path) -> None:
    """Joined, boxes of hundreds of pixels leave the scores no step at all."""
    found = flow.prepare(str(DATA / "Softmax_concat.onnx"), split_outputs=True)
    options = plan_options.SplitOptions(plan=PlanOptions(strategy="balanced", segments=2), jobs=1)
    result = flow.split(found, load_samples("random", found.inputs, None, limit=8), options, tmp_path / "out")
    assert result.verification.passed
    scales = {each.layer: each.scale for each in result.tails[0].outputs}
    assert scales["score"] == 1 / 256
    assert scales["boxp"] > 1
    assert result.verification.sqnr_db["score"] > 30
    assert result.verification.sqnr_db["boxp"] > 30
