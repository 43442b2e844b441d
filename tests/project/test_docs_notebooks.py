"""The notebooks of docs run from the first cell to the last, and hold the output of a run."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
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


def run(name: str, folder: Path) -> None:
    """Run all cells in an empty folder, in a process of its own: two frameworks in one process end it."""
    if importlib.util.find_spec(NOTEBOOKS[name]) is None:
        pytest.skip(f"the {NOTEBOOKS[name]} extra is not installed")
    program = "\n\n".join("".join(cell["source"]) for cell in cells(name))
    ended = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.keras
def test_the_keras_notebook_runs(tmp_path: Path) -> None:
    run("keras", tmp_path)
    assert (tmp_path / "out" / "small" / "full_split" / "tflite" / "seg3_int8.tflite").is_file()


@pytest.mark.torch
def test_the_pytorch_notebook_runs(tmp_path: Path) -> None:
    run("pytorch", tmp_path)
    assert (tmp_path / "out" / "detector" / "full_split" / "tflite" / "seg3_int8.tflite").is_file()


def test_every_notebook_is_run_and_shows_its_output() -> None:
    assert {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)
    for name in NOTEBOOKS:
        assert all(cell["execution_count"] for cell in cells(name)), f"{name}.ipynb was saved without a run"
        shown = "".join(text for cell in cells(name) for output in cell["outputs"] for text in output["text"])
        assert "passed: True exact: True" in shown
