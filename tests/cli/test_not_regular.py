"""Pipes, devices, folders and links in a circle in the place of files: each verb says so in a line, at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from graphcut.cli import main
from tests.support.tiny_split import straight, write_split

MORE = {"run": ["x.npy"], "bundle": ["-o", "no/out"], "evaluate": ["x.csv"], "report": ["-o", "no/x.html"]}
PLACES = ("pipe", "zero", "folder", "circle", "outside")


def put(place: Path, what: str) -> Path:
    """Put something that is no regular file of this folder in the place of a file."""
    place.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    else:
        place.symlink_to({"zero": "/dev/zero", "circle": place.name, "outside": os.devnull}[what])
    return place


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("tiny") / "split", straight(2), ["s2"], ["image"])


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize(
    "verb", ["run", "verify", "bundle", "report", "inspect", "cost", "evaluate", "simulate", "view"]
)
def test_a_manifest_that_is_no_file(
    split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, what: str
) -> None:
    shutil.copytree(split, tmp_path / "split")
    put(tmp_path / "split" / "meta.json", what)
    more = {
        "run": ["x.npy"],
        "bundle": ["-o", str(tmp_path / "out")],
        "evaluate": ["x.csv"],
        "report": ["-o", "x.html"],
    }
    assert main([verb, str(tmp_path / "split"), *more.get(verb, [])]) in (2, 3, 7)
    _one_line(capsys)


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("verb", ["report", "verify", "diagnose", "bundle"])
def test_samples_that_are_no_file(
    split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, what: str
) -> None:
    shutil.copytree(split, tmp_path / "split")
    put(tmp_path / "split" / "samples.npz", what)
    out = {"report": ["-o", str(tmp_path / "out.html")], "bundle": ["-o", str(tmp_path / "out")]}
    if main([verb, str(tmp_path / "split"), *out.get(verb, [])]):
        _one_line(capsys)


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize(
    "command",
    [
        ["plan", "net.onnx", "--segments", "2", "--device", "FILE.toml"],
        ["split", "net.onnx", "--config", "FILE.toml", "-o", "out"],
        ["split", "net.onnx", "--calibration", "FILE.npz", "-o", "out"],
        ["split", "net.onnx", "--calibration", "FILE.png", "-o", "out"],
        ["plan", "net.onnx", "--segments", "2", "--times", "FILE.json"],
        ["split", "net.onnx", "--plan", "FILE.json", "-o", "out"],
        ["verify", "FILE.json"],
        ["inspect", "FILE.toml"],
        ["inspect", "FILE.onnx"],
        ["inspect", "FILE.tflite"],
        ["inspect", "FILE.keras"],
        ["inspect", "FILE.h5"],
        ["inspect", "FILE.pt2"],
        ["run", "split", "FILE.npy"],
        ["run", "split", "FILE.png"],
        ["run", "split", "x.npy", "--labels", "FILE.txt"],
        ["bundle", "split", "-o", "out", "--labels", "FILE.txt"],
        ["evaluate", "split", "FILE.csv"],
        ["evaluate", "split", "FILE.json", "--pictures", "."],
    ],
)
def test_an_argument_that_is_no_file(
    split: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    what: str,
) -> None:
    from tests.fuzz import seeds

    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(seeds.chain_of_convolutions())
    (tmp_path / "split").symlink_to(split)
    (name,) = (word for word in command if word.startswith("FILE"))
    put(tmp_path / name, what)
    assert main(command) in range(2, 12)
    _one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["run", "bundle", "evaluate", "diagnose"])
def test_a_file_in_the_place_of_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    (tmp_path / "net.onnx").write_bytes(b"x")
    assert main([verb, str(tmp_path / "net.onnx"), *MORE.get(verb, ())]) == 2
    assert "net.onnx is not a folder: pass the folder" in capsys.readouterr().err


def _one_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("graphcut: error: ")] == lines[-1:]
