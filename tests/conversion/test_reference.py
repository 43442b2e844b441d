"""The reference result: Keras ResNet101 under 7 MiB in 7 segments, exported, split, proved and compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from graphcut import flow
from graphcut.graph.model import Model
from graphcut.planning import plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.prediction.sizes import predict
from graphcut.samples import load_samples

pytestmark = [pytest.mark.full, pytest.mark.keras, pytest.mark.timeout(1800)]

MIB = 2**20
CUTS = (
    "conv4_block4_out",
    "conv4_block10_out",
    "conv4_block16_out",
    "conv4_block22_out",
    "conv5_block1_out",
    "conv5_block2_out",
)
PER_TENSOR = (6.023, 6.391, 6.391, 6.391, 6.832, 4.262, 6.216)
PER_TENSOR_TAILS = {2: 36.46, 3: 30.07, 4: 23.68, 5: 17.29, 6: 10.46, 7: 6.22}


@pytest.fixture(scope="module")
def model() -> Model:
    return flow.prepare("resnet101")


def split(model: Model, out: Path, *, per_channel: bool = True) -> flow.SplitResult:
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=7 * MIB), per_channel=per_channel)
    return flow.split(model, load_samples("random", model.inputs, None), options, out)


@pytest.fixture(scope="module")
def channelwise(model: Model, tmp_path_factory: pytest.TempPathFactory) -> flow.SplitResult:
    return split(model, tmp_path_factory.mktemp("reference") / "out")


def test_seven_segments_at_the_published_cuts(channelwise: flow.SplitResult):
    assert channelwise.plan.cuts == CUTS
    assert channelwise.plan.k == channelwise.plan.minimal_k == channelwise.plan.lower_bound == 7
    assert channelwise.segments[0].outputs[0].shape == (1, 14, 14, 1024)
    assert channelwise.segments[-1].inputs[0].shape == (1, 7, 7, 2048)
    assert channelwise.segments[-1].outputs[0].shape == (1, 1000)
    assert max(part.segment.tflite_bytes for part in channelwise.segments) <= 7 * MIB


def test_it_is_proved_and_means_something(channelwise: flow.SplitResult):
    proved = channelwise.verification
    assert proved.passed
    assert proved.exact
    assert proved.float_exact
    assert proved.samples == 8
    assert min(proved.sqnr_db.values()) > 24


def test_predicted_sizes_are_within_half_a_percent(model: Model, channelwise: flow.SplitResult):
    sizes = predict(model.graph)
    for part in channelwise.segments:
        predicted = sizes.file_bytes(part.segment.start, part.segment.stop)
        assert predicted == pytest.approx(part.segment.tflite_bytes, rel=0.005)


def test_per_tensor_sizes_are_the_published_ones(model: Model, tmp_path: Path):
    result = split(model, tmp_path / "out", per_channel=False)
    assert result.plan.cuts == CUTS
    sizes = [part.segment.tflite_bytes / MIB for part in result.segments]
    assert sizes == pytest.approx(PER_TENSOR, rel=0.01)
    tails = {tail.first: tail.tflite_bytes / MIB for tail in result.tails if tail.first > 1}
    assert tails == pytest.approx(PER_TENSOR_TAILS, rel=0.01)


def test_the_same_job_gives_the_same_bytes(model: Model, channelwise: flow.SplitResult, tmp_path: Path):
    again = split(model, tmp_path / "out")
    for path in sorted(channelwise.folder.rglob("*.*")):
        other = again.folder / path.relative_to(channelwise.folder)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest(), path.name


def test_six_mebibytes_need_nine_segments(model: Model):
    plan = flow.make_plan(model, PlanOptions(budget_bytes=6 * MIB))
    assert plan.k == plan.minimal_k == 9
    assert plan.lower_bound == 8


def test_the_later_variant_stays_in_its_range(model: Model):
    options = PlanOptions(strategy="range", range_bytes=(2 * MIB, 7 * MIB))
    plan = flow.make_plan(model, options, min_rank=2)
    assert all(2 * MIB <= segment.tflite_bytes <= 7 * MIB for segment in plan.segments)


def test_the_manifest_has_the_tables(channelwise: flow.SplitResult):
    meta = json.loads((channelwise.folder / "meta.json").read_text())
    assert tuple(meta["cuts"]) == CUTS
    assert [segment["tflite_bytes"] for segment in meta["segments"]] == [
        part.segment.tflite_bytes for part in channelwise.segments
    ]
