"""The error of single operators, held against the error at the seams, which verification measures in another way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphcut import cli
from graphcut.edgetpu import file_cost
from graphcut.measurement.operator_errors import operator_errors
from graphcut.records import OperatorError
from graphcut.report.html.collect import facts_of
from graphcut.result import manifest, reopen
from graphcut.split_folder import Split
from tests.cli.test_cli import PREPARED
from tests.support import nets


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("operators")
    nets.saved(nets.residual(softmax=True), folder)
    words = ["split", folder / "model.onnx", "-o", folder / "out", "--segments", 3, "-q", "--calibration", "random"]
    assert cli.main([str(word) for word in [*words, "--samples", 3, "--no-report", *PREPARED]]) == 0
    return folder / "out"


def errors(out: Path, most: int = 4) -> tuple[OperatorError, ...]:
    split = manifest.read(out)
    return operator_errors(split.segments, manifest.read_samples(split), most=most)


def test_operators_agree_with_the_seams(out: Path) -> None:
    found = {each.layer: each.sqnr_db for each in errors(out)}
    seams = {name: value for name, value in manifest.read(out).verification.sqnr_db.items() if name != "logits"}
    assert len(seams) == 2
    for name, value in seams.items():
        assert found[name] == pytest.approx(value, abs=0.01)


def test_nearly_every_operator_has_a_figure(out: Path) -> None:
    found = errors(out, most=1)
    layers = [
        packed for part in manifest.read(out).segments for packed, _ in file_cost.of_file(part.tflite_path).layers
    ]
    weighted = [each.layer.name for each in layers if each.layer.weights is not None]
    assert weighted
    assert set(weighted) <= {each.layer for each in found}
    assert all(each.sqnr_db > 3 for each in found)


def test_noise_accumulates_over_the_same_samples(out: Path) -> None:
    one, three = errors(out, most=1), errors(out, most=3)
    assert [each.layer for each in one] == [each.layer for each in three]
    assert one != three
    assert errors(out, most=100) == three


def test_an_operator_alone_has_the_noise_of_its_own_only(out: Path) -> None:
    """The first operator reads the same in both ways; the last convolution of a chain has less noise by itself."""
    found = errors(out)
    assert found[0].alone_db == pytest.approx(found[0].sqnr_db, abs=0.01)
    convolutions = [each for each in found if each.op == "CONV_2D"]
    assert all(each.scale is not None and each.low < each.high for each in convolutions)
    assert convolutions[-1].alone_db > convolutions[-1].sqnr_db + 1


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """int8 has 4 steps left for the channels that are read."""
    folder = tmp_path_factory.mktemp("spoilt")
    assert split_of_small_beside_large(folder, 60.0, "--min-sqnr", "0") == 0
    return folder / "out"


def split_of_small_beside_large(folder: Path, factor: float, *more: str) -> int:
    """Split a net that joins channels with others that are so many times larger, and reads only the small."""
    net = nets.Builder()
    x = net.node("Relu", [net.conv("x", "first", (3, 8))], "first/relu")
    spread = net.node("Mul", [x, net.conv(x, "gate", (8, 8))], "spread")
    far = net.node(
        "Concat",
        [spread, net.node("Mul", [spread, net.weight("far", np.full((1, 1, 1, 1), factor))], "up")],
        "joined",
        axis=1,
    )
    kept = net.conv(far, "kept", (16, 8), kernel=1)
    net.weights = [
        numpy_helper.from_array(_only_small(each), each.name) if each.name == "kept/w" else each for each in net.weights
    ]
    net.conv(kept, "last", (8, 4))
    nets.saved(net.model({"x": (1, 3, 16, 16)}, {"last": (1, 4, 16, 16)}), folder)
    words = ["split", folder / "model.onnx", "-o", folder / "out", "--segments", 2, "-q", "--calibration", "random"]
    return cli.main([str(word) for word in [*words, "--samples", 3, "--no-report", *more, *PREPARED]])


def _only_small(weights: onnx.TensorProto) -> np.ndarray:
    values = numpy_helper.to_array(weights).copy()
    values[:, 8:] = 0
    return values


def test_a_weak_verdict_names_the_operator_where_most_is_lost(spoilt: Path) -> None:
    proof = manifest.read(spoilt).verification
    assert proof.verdict != "PASSED"
    assert proof.worst_operator is not None
    worst = proof.worst_operator
    assert (worst.layer, worst.op) == ("joined", "CONCATENATION")
    assert worst.alone_db > 30  # of all its channels; those that are read have 4 steps
    assert worst.output_db is not None
    assert worst.output_db < 13
    assert f"most is lost at CONCATENATION joined (segment {worst.segment})" in proof.reason
    assert f"leaves {worst.output_db:.1f} dB at the output" in proof.reason
    again = reopen.verify(spoilt)
    assert (again.verdict, again.reason) == (proof.verdict, proof.reason)


def test_an_output_that_is_noise_is_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files are written, and the verdict says which operator it is: no accuracy method and no other cut helps."""
    assert split_of_small_beside_large(tmp_path, 3000.0) == 7
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("FAILED: ")
    assert "most is lost at CONV_2D kept" in last  # the range of what is joined is that of the small
    assert manifest.read(tmp_path / "out").verification.verdict == "FAILED"


def test_scales_too_far_apart_for_any_kernel_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert split_of_small_beside_large(tmp_path, 60000.0) == 6
    said = capsys.readouterr().err
    assert "CONV_2D (kept) does not run in int8: one step of what it reads" in said
    assert "scale what it reads down" in said


def test_what_only_rearranges_is_not_named(tmp_path: Path) -> None:
    """A normalisation becomes several operators, and a TRANSPOSE at its end may have the layer's name."""
    nets.saved(nets.layer_norm(), tmp_path)
    words = ["split", tmp_path / "model.onnx", "-o", tmp_path / "out", "--segments", 1, "-q", "--calibration", "random"]
    cli.main([str(word) for word in [*words, "--samples", 2, "--no-report", *PREPARED]])
    split = manifest.read(tmp_path / "out")
    found = operator_errors(split.segments, manifest.read_samples(split))
    moving = [each for each in found if each.op in ("TRANSPOSE", "RESHAPE")]
    assert found
    assert all(each.alone_db > 30 for each in moving)


def test_a_good_verdict_measures_no_operator(out: Path) -> None:
    proof = manifest.read(out).verification
    assert proof.verdict == "PASSED"
    assert proof.worst_operator is None


def test_diagnose_shows_the_worst_first_and_keeps_it(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diagnose", str(spoilt), "--json", "-q"]) == 0
    document = json.loads(capsys.readouterr().out)
    effects = [each["output_db"] for each in document["operators"] if each["output_db"] is not None]
    assert effects
    assert effects == sorted(effects)
    assert document["operators"][0]["layer"] == "joined"
    kept = manifest.read(spoilt).document["diagnosis"]["operators"]
    assert [each for each in kept if each in document["operators"]] == kept
    assert len(kept) == len(document["operators"])
    assert Split.of(spoilt).verify().verdict != "PASSED"  # the folder is still what was verified
    assert facts_of(spoilt).by_operator
    assert cli.main(["diagnose", str(spoilt), "--segment", "1", "-q"]) == 0
    table = capsys.readouterr().out.splitlines()[2:]
    assert {line.split()[0] for line in table[: table.index("")]} == {"1"}
    assert cli.main(["diagnose", str(spoilt), "--segment", "9", "-q"]) == 2
    assert "choose 1 to 2" in capsys.readouterr().err
    found = Split.of(spoilt).diagnose(segment=2)
    assert {each.segment for each in found} == {2}


def test_the_report_shows_them(out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    assert cli.main(["report", str(copy), "--operators", "-o", str(tmp_path / "report.html"), "-q"]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "seams and outputs only" not in text
    assert "sqnr_db_at_next_seam" not in text
    made = facts_of(copy)
    assert made.by_operator
    shown = {(each.segment, each.layer): each.sqnr_db for each in made.operators if each.sqnr_db is not None}
    assert shown == {(each.segment, each.layer): pytest.approx(each.sqnr_db, abs=1e-3) for each in errors(copy)}
