"""Ranges chosen by their effect on the outputs of a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphcut import flow
from graphcut.conversion import range_search
from graphcut.conversion.judge import ELEMENT_COST, Judge, Losses, work
from graphcut.errors import UsageError
from graphcut.measurement.float_reference import float_values, whole_of
from graphcut.planning.plan_options import PlanOptions, SplitOptions
from graphcut.records import Samples
from graphcut.result import manifest
from graphcut.samples import make_samples
from graphcut.tflite.scales import groups
from tests.support import nets


def spiked(seed: int = 0) -> onnx.ModelProto:
    """Convolutions, one channel of which is far larger than all others where a pixel is pure red."""
    chance = np.random.default_rng(seed)
    nodes, weights, last, channels = [], [], "image", 3
    for number in range(4):
        weight = chance.standard_normal((8, channels, 3, 3)).astype(np.float32) * np.sqrt(2 / (9 * channels))
        bias = np.zeros(8, np.float32)
        if number == 0:
            weight[7], bias[7] = 0, -360
            weight[7, 0, 1, 1] = 400
        if number == 1:
            weight[:, 7] *= 0.02
        weights += [numpy_helper.from_array(weight, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        made = f"conv{number}" if number < 3 else "map"
        nodes.append(helper.make_node("Conv", [last, f"w{number}", f"b{number}"], [made], name=made, pads=[1, 1, 1, 1]))
        if number < 3:
            nodes.append(helper.make_node("Relu", [made], [f"relu{number}"], name=f"relu{number}"))
        last, channels = f"relu{number}", 8
    graph = helper.make_graph(
        nodes,
        "spiked",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 24, 24))],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, (1, 8, 24, 24))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def pictures(count: int, seed: int) -> Samples:
    chance = np.random.default_rng(seed)
    values = chance.uniform(-0.8, 0.8, (count, 3, 24, 24)).astype(np.float32)
    for number in range(count):
        row, column = chance.integers(2, 22, 2)
        values[number, 0, row, column] = 1
    return make_samples({"image": values}, [f"{n}" for n in range(count)], "made", synthetic=True)


def split(model: Any, out: Path, **options: Any) -> flow.SplitResult:
    """In two segments, with the activation that has the rare values at the seam."""
    plan = PlanOptions(strategy="given", cuts=("relu0",))
    return flow.split(model, pictures(16, 0), SplitOptions(plan=plan, without=("equalise",), **options), out)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return flow.prepare(str(nets.saved(spiked(), tmp_path_factory.mktemp("spiked"))))


@pytest.fixture(scope="module")
def searched(model: Any, tmp_path_factory: pytest.TempPathFactory) -> flow.SplitResult:
    return split(model, tmp_path_factory.mktemp("searched") / "out", independent=True)


def test_rare_values_are_cut_off_where_the_outputs_gain(searched: flow.SplitResult, model: Any, tmp_path: Path):
    plain = split(model, tmp_path / "plain", effort="fast")
    assert not any("ranges of" in note for part in plain.segments for note in part.notes)
    assert any("chosen by their effect on the outputs" in note for part in searched.segments for note in part.notes)
    changed = [
        one.inputs[0].scale < 0.9 * two.inputs[0].scale
        for one, two in zip(searched.segments[1:], plain.segments[1:], strict=True)
    ]
    assert changed == [True], "the seam's range is cut"


def test_both_sides_of_a_seam_get_the_range_and_all_ways_through_agree(searched: flow.SplitResult):
    made, read = searched.segments[0].outputs[0], searched.segments[1].inputs[0]
    assert (made.scale, made.zero_point) == (read.scale, read.zero_point)
    scales = [
        {name: group.scale for group in groups(part.tflite_path.read_bytes()) for name in group.names}[made.layer]
        for part in searched.segments
    ]
    assert scales[0] == scales[1] == (made.scale, made.zero_point)
    assert searched.verification.exact
    assert searched.verification.independent is not None
    assert searched.verification.independent.largest_step <= 1, "the whole in one piece gets the same ranges"


def test_work_is_counted(searched: flow.SplitResult):
    maps = 24 * 24 * 8
    assert work(searched.segments) == maps * (9 * 3 + 3 * 9 * 8) + 4 * maps * ELEMENT_COST


def test_what_is_worse_on_the_first_samples_is_not_run_on_the_rest(searched: flow.SplitResult, model: Any):
    samples = pictures(16, 0)
    values, logits = float_values(model, searched.plan, samples)
    judge = Judge(searched.segments, samples, whole_of(model, searched.plan, values, logits, True), {})
    found = judge.tried()
    assert (found.searched, found.guarded) == judge.losses()
    assert found.first == pytest.approx(found.searched, abs=0.1)
    assert len(found.each) == 16
    assert judge.tried(worst=found.first) == found
    assert judge.tried(worst=found.first - 0.01) == Losses(first=found.first, searched=np.inf, guarded=np.inf, each=())


def test_a_search_is_deterministic(searched: flow.SplitResult, model: Any, tmp_path: Path):
    again = split(model, tmp_path / "again")
    for one, two in zip(searched.segments, again.segments, strict=True):
        assert one.tflite_path.read_bytes() == two.tflite_path.read_bytes()


def test_the_effort_stands_in_the_manifest_and_must_be_known(searched: flow.SplitResult):
    assert manifest.read(searched.folder).options["effort"] == "normal"
    assert range_search.TRIES["fast"] == 0 < range_search.TRIES["normal"] < range_search.TRIES["high"]
    with pytest.raises(UsageError, match="effort='most' is unknown"):
        SplitOptions(plan=PlanOptions(strategy="balanced", segments=2), effort="most")  # type: ignore[arg-type]
