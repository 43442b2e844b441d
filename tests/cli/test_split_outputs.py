"""A part that int8 loses beside another: the error says how to keep it."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphcut.cli import main

DATA = Path(__file__).resolve().parents[1] / "data"


def test_lost_scores_are_named_with_the_way_out_and_kept_by_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["split", str(DATA / "Softmax_concat.onnx"), "--segments", "2", "--calibration", "random", "--jobs", "1"]
    assert main([*command, "--output", str(tmp_path / "joined")]) == 7
    said = capsys.readouterr().err
    assert "scores (channels 4..9 of y): 0.0 dB, every value is 0; most is lost at " in said
    assert ": --split-outputs gives each part of an output its own int8 scale" in said
    assert main([*command, "--split-outputs", "--output", str(tmp_path / "apart")]) == 0
