"""Job files: what ``split --config`` reads, and that the one in a result repeats it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from graphcut import cli
from graphcut.errors import UsageError
from tests.cli.test_cli import Graphcut
from tests.support import nets


@pytest.fixture
def graphcut(capsys: pytest.CaptureFixture[str]) -> Graphcut:
    return Graphcut(capsys)


def parsed(*words: object) -> tuple[dict[str, object], str]:
    found = vars(cli._parser().parse_args([str(word) for word in ["split", *words]]))
    return found, str(found["job"])


WORDS = [
    *("m.onnx", "--calibration", "random", "--budget", "2MiB", "--cuts", r"a,b+c,d\\,e", "--limit", "macs=5"),
    *("--limit", "compiled=3MiB", "--pin", "x", "--mean", "1,2,3", "--std", "4", "--input", "image:1x3x8x8"),
    *("--input-layout", "NHWC", "--per-tensor", "--split-outputs", "--effort", "normal", "--min-rank", "2"),
]


def test_the_written_job_means_the_same(tmp_path: Path) -> None:
    first, job = parsed(*WORDS, "-o", "out", "--jobs", "1", "--force")
    (tmp_path / "job.toml").write_text(job)
    second, again = parsed("--config", tmp_path / "job.toml", "-o", "out", "--jobs", "1", "--force")
    assert again == job
    assert {**second, "config": None, "parser": None} == {**first, "parser": None}
    kept = tomllib.loads(job)
    assert kept["model"] == "m.onnx"
    assert not {"output", "jobs", "force"} & set(kept)


def test_the_line_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        'model = "m.onnx"\nbudget = "2MiB"\neffort = "high"\npins = ["a", "b,c"]\nsamples = 7\nmean = [1, 2.5]\n'
        "limits = {macs = 5}\nallow_pre_activation = true\n"
    )
    alone, _ = parsed("--config", tmp_path / "job.toml", "-o", "out")
    assert (alone["model"], alone["samples"], alone["mean"]) == ("m.onnx", 7, (1.0, 2.5))
    assert (alone["limits"], alone["allow_pre_activation"]) == ([("macs", "5")], True)
    both, job = parsed("n.onnx", "--config", tmp_path / "job.toml", "--effort", "normal", "--pin", "z", "-o", "out")
    assert (both["model"], both["effort"], both["pins"], both["budget"]) == ("n.onnx", "normal", [("z",)], "2MiB")
    assert tomllib.loads(job)["effort"] == "normal"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('bugdet = "2MiB"', "there is no setting bugdet: did you mean budget?"),
        ('range = "2MiB..6MiB"', "there is no setting range: did you mean size_range?"),
        ('output = "out"', "output is no part of a job: give --output"),
        ("jobs = 4", "jobs is no part of a job: give --jobs"),
        ('segments = "two"', "segments: 'two' is not a positive integer"),
        ('effort = "much"', "effort: "),
        ("per_channel = 1", "write true or false"),
        ("samples = {a = 1}", "write text, a number or a list"),
        ("samples = ", "is not a job file"),
    ],
)
def test_what_is_wrong_is_named(graphcut: Graphcut, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "job.toml").write_text(text)
    graphcut.fails(2, told, "split", "--config", tmp_path / "job.toml", "-o", tmp_path / "out")


def test_a_job_that_is_missing_or_names_no_model(graphcut: Graphcut, tmp_path: Path) -> None:
    graphcut.fails(2, "cannot be read", "split", "--config", tmp_path / "job.toml", "-o", tmp_path / "out")
    (tmp_path / "job.toml").write_text("")
    graphcut.fails(2, "no MODEL is given", "split", "--config", tmp_path / "job.toml", "-o", tmp_path / "out")


def test_a_name_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(UsageError, match="not Unicode"):
        parsed("m\udcff.onnx", "--calibration", "random", "-o", "out")


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_split_is_repeated_from_its_job(graphcut: Graphcut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nets.saved(nets.residual(softmax=True), tmp_path)
    np.save("data.npy", np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8))
    words = ["split", "model.onnx", "--calibration", "data.npy", "--mean", "127.5", "--std", "127.5", "--segments", "2"]
    assert graphcut(*words, "-o", "first", "-q").code == 0
    assert graphcut("split", "--config", "first/job.toml", "-o", "second", "-q", "--no-cache").code == 0
    assert files_of(Path("first")) == files_of(Path("second"))
    listed = json.loads(Path("first/meta.json").read_text())["files"]
    assert listed["job.toml"]["bytes"] == Path("first/job.toml").stat().st_size
    assert str(tmp_path) not in Path("first/job.toml").read_text()
    assert "job.toml" in Path("first/note.txt").read_text()
