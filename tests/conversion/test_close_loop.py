"""`split --compile` with a stand-in that streams by a rule: the loop converges, stops, and tells its rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from graphcut import flow
from graphcut.cli import main
from graphcut.edgetpu import compiler
from graphcut.planning import plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.samples import load_samples
from tests.support import nets
from tests.support.compiled_files import compiled_file
from tests.support.stand_in_compiler import install
from tests.support.warm import workers


def stand_in(folder: Path, limit: int, on_cpu: Sequence[str] = ()) -> Path:
    """A compiler for which files above ``limit`` bytes stream, and which leaves operators on the CPU."""
    folder.mkdir()
    (folder / "clean.tflite").write_bytes(compiled_file(4096, 0, cpu_ops=list(on_cpu)))
    (folder / "streaming.tflite").write_bytes(compiled_file(4096, 2048))
    return install(
        folder,
        limit=limit,
        answer={"clean": folder / "clean.tflite", "streaming": folder / "streaming.tflite"},
        numbers={"clean": [4096, 0, 1, len(on_cpu)], "streaming": [4096, 2048, 1, 0]},
    )


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    return nets.saved(nets.residual(blocks=3), tmp_path)


def split(model_path: Path, limit: int, budget: int) -> flow.SplitResult:
    model = flow.prepare(str(model_path))
    found = compiler.find(str(stand_in(model_path.parent / "bin", limit)))
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=budget), compiler=found)
    return flow.split(
        model, load_samples("random", model.inputs, None), options, model_path.parent / "out", pool=workers()
    )


def test_it_plans_again_until_nothing_streams(model_path: Path):
    result = split(model_path, limit=14_000, budget=20_000)
    assert result.closed is not None
    assert result.closed.clean
    assert len(result.closed.rounds) > 1
    assert result.closed.rounds[0].offences
    assert max(part.segment.tflite_bytes for part in result.segments) <= 14_000
    assert result.verification.passed
    document = json.loads((result.folder / "meta.json").read_text())
    assert len(document["edgetpu"]["rounds"]) == len(result.closed.rounds)
    for index in range(1, result.plan.k + 1):
        assert (result.folder / f"full_split/tpu/seg{index}_int8_edgetpu.tflite").is_file()


def test_it_stops_where_nothing_helps_and_says_why(model_path: Path):
    result = split(model_path, limit=100, budget=20_000)
    assert result.closed is not None
    assert not result.closed.clean
    assert result.closed.reason
    assert result.verification.passed, "what was converted is still proved"


def test_without_a_compiler_the_stage_is_called_not_run(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", "/nowhere")
    out = model_path.parent / "out"
    words = ["split", str(model_path), "--segments", "2", "--calibration", "random", "-o", str(out), "--compile"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "NOT COMPILED" in said.err
    assert "NOT COMPILED: edgetpu_compiler is not on PATH" in said.out
    assert "tools/edgetpu-compiler/Dockerfile" in said.out
    assert not list(out.rglob("*_edgetpu.tflite"))
    assert main([*words, "--force", "-q", "--json"]) == 0
    stage = json.loads(capsys.readouterr().out)["edgetpu"]
    assert stage["status"] == "not run"
    assert "tools/edgetpu-compiler/Dockerfile" in stage["reason"]
    assert "edgetpu" not in json.loads((out / "meta.json").read_text())


def test_what_was_compiled_is_shown_and_part_of_the_result(model_path: Path, capsys: pytest.CaptureFixture[str]):
    program = stand_in(model_path.parent / "bin", 10**6)
    out = model_path.parent / "out"
    words = ["split", str(model_path), "--segments", "2", "--calibration", "random", "-o", str(out)]
    assert main([*words, "--compiler", str(program), "-q"]) == 0
    assert "compiled for the Edge TPU by edgetpu_compiler" in capsys.readouterr().out
    assert main([*words, "--compiler", str(program), "-q", "--force", "--json"]) == 0
    stage = json.loads(capsys.readouterr().out)["edgetpu"]
    assert (stage["status"], stage["clean"], len(stage["rounds"])) == ("run", True, 1)
    assert stage["parts"]["seg1_int8.tflite"]["on_chip_bytes"] == 4096


def test_operators_on_the_cpu_are_the_exit_code_though_nothing_streams(
    model_path: Path, capsys: pytest.CaptureFixture[str]
):
    program = stand_in(model_path.parent / "bin", 10**6, on_cpu=["TANH"])
    out = model_path.parent / "out"
    words = ["split", str(model_path), "--segments", "2", "--calibration", "random", "-o", str(out)]
    assert main([*words, "--compiler", str(program), "-q", "--json"]) == 11
    said = capsys.readouterr()
    assert said.err == (
        "graphcut: error: operators of seg1_int8.tflite stay on the CPU (TANH) (and 1 more): "
        "the split is written and verified\n"
    )
    stage = json.loads(said.out)["edgetpu"]
    assert (stage["clean"], stage["trouble"]) == (
        False,
        "operators of seg1_int8.tflite stay on the CPU (TANH) (and 1 more)",
    )
    assert (out / "full_split/tpu/seg2_int8_edgetpu.tflite").is_file()


def test_a_compiler_that_is_named_and_missing_is_an_error(model_path: Path, capsys: pytest.CaptureFixture[str]):
    out = model_path.parent / "out"
    words = ["split", str(model_path), "--segments", "2", "--calibration", "random", "-o", str(out)]
    assert main([*words, "--compiler", "/nowhere/edgetpu_compiler"]) == 9
    assert "/nowhere/edgetpu_compiler" in capsys.readouterr().err
    assert not out.exists()
