"""The notebooks of docs run from the first cell to the last, and hold the output of a run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT

NOTEBOOKS = {"keras": "keras", "pytorch": "torch"}
"""Notebook -> the module, and marker, that it needs."""


def cells(name: str) -> list[dict[str, Any]]:
    """The cells of code of a notebook."""
    text = (ROOT / "docs" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    return [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all cells in one namespace, in an empty folder; a cell that raises fails."""
    if importlib.util.find_spec(NOTEBOOKS[name]) is None:
        pytest.skip(f"the {NOTEBOOKS[name]} extra is not installed")
    monkeypatch.chdir(folder)
    shared: dict[str, object] = {}
    for number, cell in enumerate(cells(name), start=1):
        exec(compile("".join(cell["source"]), f"{name}.ipynb, cell {number}", "exec"), shared)


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore")
def test_the_keras_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("keras", tmp_path, monkeypatch)
    assert (tmp_path / "out" / "small" / "full_split" / "tflite" / "seg3_int8.tflite").is_file()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_the_pytorch_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("pytorch", tmp_path, monkeypatch)
    assert (tmp_path / "out" / "detector" / "full_split" / "tflite" / "seg3_int8.tflite").is_file()


def test_every_notebook_is_run_and_shows_its_output() -> None:
    assert {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)
    for name in NOTEBOOKS:
        assert all(cell["execution_count"] for cell in cells(name)), f"{name}.ipynb was saved without a run"
        shown = "".join(text for cell in cells(name) for output in cell["outputs"] for text in output["text"])
        assert "passed: True exact: True" in shown
