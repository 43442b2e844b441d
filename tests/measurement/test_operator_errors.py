"""The error of single operators, held against the error at the seams, which verification measures in another way."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphcut import cli
from graphcut.edgetpu import file_cost
from graphcut.measurement.operator_errors import operator_errors
from graphcut.report.html.collect import facts_of
from graphcut.result import manifest
from tests.cli.test_cli import PREPARED
from tests.support import nets


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operators")
    nets.saved(nets.residual(softmax=True), folder)
    words = ["split", folder / "model.onnx", "-o", folder / "out", "--segments", 3, "-q", "--calibration", "random"]
    assert cli.main([str(word) for word in [*words, "--samples", 3, "--no-report", *PREPARED]]) == 0
    return folder / "out"


def test_operators_agree_with_the_seams(out: Path) -> None:
    split = manifest.read(out)
    found = operator_errors(split.segments, manifest.read_samples(split))
    seams = {name: value for name, value in split.verification.sqnr_db.items() if name != "logits"}
    assert len(seams) == 2
    for name, value in seams.items():
        assert found[name] == pytest.approx(value, abs=0.01)


def test_nearly_every_operator_has_a_figure(out: Path) -> None:
    split = manifest.read(out)
    found = operator_errors(split.segments, manifest.read_samples(split), most=1)
    layers = [packed for part in split.segments for packed, _ in file_cost.of_file(part.tflite_path).layers]
    weighted = [each.layer.name for each in layers if each.layer.weights is not None]
    assert weighted
    assert set(weighted) <= set(found)
    assert all(value > 3 for value in found.values())


def test_noise_accumulates_over_the_same_samples(out: Path) -> None:
    split = manifest.read(out)
    samples = manifest.read_samples(split)
    one, three = (operator_errors(split.segments, samples, most=most) for most in (1, 3))
    assert one.keys() == three.keys()
    assert one != three
    assert operator_errors(split.segments, samples, most=100) == three


def test_the_report_shows_them(out: Path, tmp_path: Path) -> None:
    assert cli.main(["report", str(out), "--operators", "-o", str(tmp_path / "report.html"), "-q"]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "seams and outputs only" not in text
    assert "sqnr_db_at_next_seam" not in text
    split = manifest.read(out)
    found = operator_errors(split.segments, manifest.read_samples(split))
    made = facts_of(out, operators=found)
    assert made.by_operator
    assert {each.layer: each.sqnr_db for each in made.operators if each.sqnr_db is not None} == found
