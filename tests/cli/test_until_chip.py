"""`--until chip`: from a detector to a folder whose last segment is for the CPU, and what is done with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from graphcut.cli import main
from graphcut.deploy.bundling import bundle
from graphcut.runtime.job_folder import read_job
from tests.support.compiled_files import compiled_file
from tests.support.detector import detector
from tests.support.nets import saved
from tests.support.stand_in_compiler import install


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split with a segment for the CPU, compiled by a stand-in."""
    folder = tmp_path_factory.mktemp("until")
    saved(detector(), folder)
    words = [str(folder / "model.onnx"), "--until", "chip", "--segments", "2", "--calibration", "random"]
    assert main(["split", *words, "--effort", "fast", "--no-report", "-o", str(folder / "out")]) == 0
    (folder / "bin").mkdir()
    (folder / "bin" / "clean.tflite").write_bytes(compiled_file(4096, 0))
    answer = {"clean": folder / "bin" / "clean.tflite", "streaming": folder / "bin" / "clean.tflite"}
    program = install(
        folder / "bin", limit=10**6, answer=answer, numbers={"clean": [4096, 0, 1, 0], "streaming": [4096, 0, 1, 0]}
    )
    assert main(["compile", str(folder / "out"), "--compiler", str(program)]) == 0
    return folder


def test_the_manifest_and_the_note_say_what_stays_on_the_cpu_and_why(made: Path):
    meta = json.loads((made / "out" / "meta.json").read_text())
    assert [each["on_chip"][0] == each["on_chip"][1] for each in meta["segments"]] == [True, True, False]
    assert meta["segments"][2]["on_chip"][0] == 0
    assert [each.split(":")[0] for each in meta["plan"]["on_cpu"]] == ["SOFTMAX scores", "EXP sizes"]
    assert meta["verification"]["exact"]
    note = (made / "out" / "note.txt").read_text()
    assert "run on the CPU, after" in note
    assert "segment 3: SOFTMAX scores: its input 1x256x4 is not one-dimensional" in note
    assert main(["verify", str(made / "out"), "--model", str(made / "model.onnx")]) == 0


def test_the_segment_for_the_cpu_is_not_compiled(made: Path, capsys: pytest.CaptureFixture[str]):
    there = sorted(path.name for path in (made / "out" / "full_split" / "tpu").glob("*.tflite"))
    assert there == ["seg1_int8_edgetpu.tflite", "seg2_int8_edgetpu.tflite"]
    assert main(["check", str(made / "out")]) == 0
    assert "seg3" not in capsys.readouterr().out


def test_devices_are_for_the_other_segments(made: Path, tmp_path: Path):
    job = read_job(made / "out")
    for named in ("usb:0,usb:1", "2"):
        stations = job.placement(named).stations  # type: ignore[union-attr]
        assert [(each.first, str(each.devices[0])) for each in stations] == [(0, "usb:0"), (1, "usb:1"), (2, "cpu")]
    assert [str(each.devices[0]) for each in job.placement("usb:0,usb:1,cpu").stations][2] == "cpu"  # type: ignore[union-attr]
    assert len(job.placement("cpu").stations) == 1  # type: ignore[union-attr]
    bundle(made / "out", tmp_path / "bundle")
    assert read_job(tmp_path / "bundle").rest_on_cpu
    readme = (tmp_path / "bundle" / "README.md").read_text()
    assert "--devices usb:0,usb:1,cpu" in readme
    assert not read_job(made / "out", tail=2).rest_on_cpu


def test_simulate_has_the_rest_on_the_cpu(made: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", str(made / "out"), "--json"]) == 0
    stations = json.loads(capsys.readouterr().out)["stations"]
    assert [each["devices"] for each in stations] == [["usb:0"], ["usb:1"], ["cpu"]]


def test_export_writes_both_sides_of_the_border(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "front.onnx"
    assert main(["export", str(made / "model.onnx"), "--until", "chip", "-o", str(out), "--json"]) == 0
    rest = Path(json.loads(capsys.readouterr().out)["rest"])
    assert rest == tmp_path / "front_cpu.onnx"
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    whole = onnxruntime.InferenceSession(made / "model.onnx").run(None, {"image": image})
    before = onnxruntime.InferenceSession(out)
    handed = dict(zip([each.name for each in before.get_outputs()], before.run(None, {"image": image}), strict=True))
    behind = onnxruntime.InferenceSession(rest)
    got = behind.run(None, {each.name: handed[each.name] for each in behind.get_inputs()})
    for one, other in zip(whole, got, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    assert main(["export", str(made / "model.onnx"), "--until", "chip", "-o", str(out)]) == 2
