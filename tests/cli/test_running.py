"""From pictures to a service on a real split: run, bench, simulate and bundle agree about one model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphcut import cli
from graphcut.runtime.chain import Chain
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from graphcut.runtime.pictures import read_input
from graphcut.runtime.pipeline import Pipeline
from tests.support import nets


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and a split calibrated with them."""
    folder = tmp_path_factory.mktemp("home")
    nets.saved(nets.residual(softmax=True), folder)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(3)
    for index in range(4):
        small = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(small).resize((60, 50), Image.Resampling.BICUBIC).save(folder / "photos" / f"{index}.png")
    prepared = ["--mean", "127.5", "--std", "127.5", "--calibration", str(folder / "photos")]
    assert cli.main(["split", str(folder / "model.onnx"), "-o", str(folder / "out"), "--segments", "3", *prepared]) == 0
    return folder


def pictures(home: Path) -> list[Path]:
    return sorted((home / "photos").iterdir())


def document(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_every_way_of_running_gives_the_same_bytes(home: Path) -> None:
    opener = LiteRtOpener()
    seen = []
    for way in ({}, {"tail": 2}, {"tail": 3}, {"unsplit": True}):
        job = read_job(home / "out", **way)
        with Chain(job.parts, opener, inputs=job.inputs, outputs=job.outputs) as chain:
            inputs = [read_input(path, chain.inputs, job.preprocessing) for path in pictures(home)]
            seen.append([chain.run(each)[0].tobytes() for each in inputs])
        with Pipeline(job.parts, opener, inputs=job.inputs, outputs=job.outputs) as pipeline:
            seen.append([outputs[0].tobytes() for outputs in pipeline.run(inputs)])
    assert all(each == seen[0] for each in seen)
    assert len(set(seen[0])) > 1, "different pictures give different results"


def test_run_takes_devices_and_interpreters(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = home / "out", pictures(home)[0]
    alone = document(capsys, "run", out, picture, "--json")
    assert str(alone["runtime"]).endswith("2 threads")
    for words in (["--devices", "cpu,cpu"], ["--processes"], ["--tail", 2, "--devices", "cpu,cpu", "--threads", 1]):
        assert document(capsys, "run", out, picture, "--json", *words)["outputs"] == alone["outputs"]
    for words, code in ((["--devices", "tpu"], 2), (["--devices", "usb:0"], 10), (["--runtime", "tflite-runtime"], 9)):
        assert cli.main(["run", str(out), str(picture), *words]) == code


def test_a_bundle_says_what_run_says(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--tail", "2"], ["--unsplit"]):
        bundle = tmp_path / "-".join(["bundle", *words])
        assert cli.main(["bundle", str(home / "out"), "-o", str(bundle), *words]) == 0
        done = subprocess.run(
            [sys.executable, str(bundle / "run.py"), *map(str, pictures(home)), "--json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        for path, line in zip(pictures(home), done.stdout.splitlines(), strict=True):
            (ours,) = json.loads(line)["outputs"]
            (theirs,) = document(capsys, "run", home / "out", path, "--json")["outputs"]  # type: ignore[misc]
            assert [(each["class"], each["score"]) for each in ours["top"]] == [
                (each["class"], each["score"]) for each in theirs["top"]
            ]


def test_bench_and_simulate_read_the_same_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = document(capsys, "bench", home / "out", "--rounds", 2, "--inputs", 5, "--json")
    assert measured["measured"]["inferences"] == 10  # type: ignore[index]
    assert measured["measured"]["synthetic"] is False  # type: ignore[index]
    simulated = document(capsys, "simulate", home / "out", "--devices", 3, "--json")
    assert simulated["throughput_per_s"] == pytest.approx(
        measured["estimated"]["chain, 3 over usb"]["throughput_per_s"]  # type: ignore[index]
    )
