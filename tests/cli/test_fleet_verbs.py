"""From ``plan --devices N`` to a pipeline: the placement stands in the manifest, and every verb uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphcut
from graphcut import cli
from graphcut.records import SegmentTimes
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.placement import planned
from tests.support import nets

KINDS = "2xcoral-usb,1xcpu"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a split of it for two Edge TPUs and the host."""
    folder = tmp_path_factory.mktemp("fleet")
    nets.saved(nets.residual(softmax=True), folder)
    words = ["--devices", KINDS, "--pin", _cut(folder), "--calibration", "random", "-o", str(folder / "out")]
    assert cli.main(["split", str(folder / "model.onnx"), *words]) == 0
    return folder


def _cut(folder: Path) -> str:
    """A cut in the middle of the model, so that there is something to place."""
    candidates = graphcut.analyse(folder / "model.onnx").candidates
    return candidates[len(candidates) // 2].layer


def document(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_plan_shows_alternatives_and_recommends_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(home / "model.onnx"), "--devices", "3", "--device", "coral-pcie"]) == 0
    text = capsys.readouterr().out
    (recommended,) = [line for line in text.splitlines() if line.startswith("recommended: ")]
    assert "--device coral-pcie --devices 3 --calibration FOLDER" in recommended
    assert text.count(" * ") == 1
    found = document(capsys, "plan", home / "model.onnx", "--devices", 3, "--device", "coral-pcie", "--json")
    objectives = [each["objective"] for each in found["alternatives"]]
    assert objectives == sorted(objectives, reverse=True)
    assert min(each["interval_us"] for each in found["alternatives"]) == found["deployment"]["interval_us"]


def test_the_python_api_plans_the_same(home: Path) -> None:
    by_number, by_text = (graphcut.plan(home / "model.onnx", devices=given) for given in (3, "3"))
    assert by_number.deployment == by_text.deployment
    assert by_number.deployment in by_number.alternatives


def test_the_manifest_keeps_the_placement_and_verbs_use_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = home / "out"
    job = read_job(out)
    assert job.deployment is not None
    copies = [len(station.devices) for station in planned(job.deployment, len(job.parts)).stations]
    here = job.placement()
    assert here is not None
    assert [len(station.devices) for station in here.stations] == copies
    assert {device.name for station in here.stations for device in station.devices} == {"cpu"}, "nothing is compiled"
    assert cli.main(["verify", str(out)]) == 0
    np.save(home / "one.npy", np.load(out / "samples.npz")[graphcut.open(out).manifest.inputs[0].name][:1])
    run = document(capsys, "run", out, home / "one.npy", "--json")
    alone = document(capsys, "run", out, home / "one.npy", "--devices", "cpu", "--json")
    assert run["outputs"] == alone["outputs"]
    with graphcut.open(out).pipeline() as pipeline:
        assert [len(station.devices) for station in pipeline.placement.stations] == copies
    simulated = document(capsys, "simulate", out, "--json", "--inputs", 40)
    names = [each["devices"] for each in simulated["stations"]]
    assert [len(each) for each in names] == copies
    assert "usb:0" in {name for each in names for name in each}
    bench = document(capsys, "bench", out, "--rounds", 1, "--inputs", 2, "--no-estimates", "--json")
    assert [len(each["devices"]) for each in bench["measured"]["stations"]] == copies


def test_measured_times_are_planned_with(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = home / "times.json"
    assert cli.main(["bench", str(home / "out"), "--rounds", "1", "--inputs", "2", "--save-times", str(times)]) == 0
    saved = SegmentTimes.load(times)
    assert [each.kind for each in saved.times] == ["cpu", "cpu"]
    assert saved.times[0].to_cut == saved.times[1].from_cut != ()
    found = document(capsys, "plan", home / "model.onnx", "--devices", "2xcpu", "--times", times, "--json")
    measured = json.loads(found["certificate"])["asked"]["measured"]
    assert [micros for *_, micros in measured] == [each.micros for each in saved.times]
    assert cli.main(["plan", str(home / "model.onnx"), "--devices", "2", "--times", str(times)]) == 2
    assert "none of the 2 measured times" in capsys.readouterr().err


def test_a_bundle_runs_as_planned(home: Path) -> None:
    bundle = home / "bundle"
    assert cli.main(["bundle", str(home / "out"), "-o", str(bundle)]) == 0
    assert read_job(bundle).deployment == read_job(home / "out").deployment
    inputs = np.load(home / "out" / "samples.npz")[graphcut.open(home / "out").manifest.inputs[0].name][:1]
    np.save(home / "nhwc.npy", inputs.transpose(0, 2, 3, 1))
    words = [sys.executable, str(bundle / "run.py"), str(home / "nhwc.npy"), str(home / "nhwc.npy")]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "the CPU stands in for every device" in ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices", "0"], "give 1 to 64"),
        (["--devices", "2xcoral-usb,cpu"], "write 1xcpu"),
        (["--devices", "3", "--segments", "3"], "does not go with"),
        (["--times", "times.json"], "is for a number of devices"),
        (["--devices", "3", "--limit", "off-chip=0", "--limit", "parameters=1KiB"], "no plan for these devices"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert cli.main(["plan", str(home / "model.onnx"), *words]) != 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("broken", [{"stages": []}, {"batch": 0}, {"stages": [{"kind": "gpu", "copies": 1}]}])
def test_a_damaged_deployment_is_refused(home: Path, tmp_path: Path, broken: dict[str, object]) -> None:
    bundle = tmp_path / "bundle"
    assert cli.main(["bundle", str(home / "out"), "-o", str(bundle)]) == 0
    meta = json.loads((bundle / "meta.json").read_text())
    meta["deployment"] |= broken
    (bundle / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(graphcut.GraphcutError, match="damaged"):
        read_job(bundle)
