"""The public Python API: its surface is pinned, its documented example runs, the documents name every option."""

import argparse
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import graphcut
from graphcut import api, cli
from graphcut.errors import CalibrationError, InfeasibleError, UsageError, VerificationError
from graphcut.samples import load_samples
from tests.support import nets
from tests.support.places import ROOT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nets.saved(nets.residual(), tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(5)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "photos" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_public_surface() -> None:
    assert graphcut.__all__ == ["GraphcutError", "Preprocessing", "analyse", "load", "plan", "split", "verify"]
    signatures = {name: list(inspect.signature(getattr(graphcut, name)).parameters) for name in graphcut.__all__[2:]}
    assert signatures == {
        "analyse": ["model", "min_rank", "max_seam_tensors"],
        "load": ["source", "input_shapes", "input_layouts", "cache", "report"],
        "plan": [
            *("model", "budget", "segments", "size_range", "cuts", "per_channel", "min_rank"),
            *("max_seam_tensors", "layer_split"),
        ],
        "split": [
            *("model", "calibration", "out", "budget", "segments", "size_range", "cuts", "preprocessing", "samples"),
            *("per_channel", "min_rank", "max_seam_tensors", "layer_split", "jobs", "force", "independent", "report"),
        ],
        "verify": ["folder", "calibration", "report"],
    }


def test_import_is_light() -> None:
    program = (
        "import sys, graphcut, graphcut.cli\n"
        "heavy = 'onnx onnxruntime onnx2tf tensorflow ai_edge_litert ai_edge_quantizer netron PIL'.split()\n"
        "print(sorted(set(heavy) & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def run_example(page: str) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    exec(compile(example, page, "exec"), {})


def test_the_example_of_the_first_page_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("README.md")
    assert "'logits'" in capsys.readouterr().out
    assert (home / "out" / "model" / "meta.json").is_file()


def test_documented_example_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("docs/reference/python.md")
    printed = capsys.readouterr().out
    assert "block2_out (1, 16, 16, 16)" in printed
    assert "'logits'" in printed
    assert (home / "out" / "full_split" / "tflite" / "seg3_int8.tflite").is_file()


def test_errors_are_one_family(home: Path) -> None:
    model = graphcut.load("model.onnx")
    with pytest.raises(InfeasibleError):
        graphcut.plan(model, budget=1000)
    with pytest.raises(CalibrationError, match="--mean"):
        graphcut.split(model, calibration="photos", out="out")
    (home / "out").mkdir()
    (home / "out" / "mine").write_text("")
    with pytest.raises(UsageError, match="exists"):
        graphcut.split(model, calibration="random", out="out")
    with pytest.raises(UsageError, match=r"no meta\.json"):
        graphcut.verify("out")
    with pytest.raises(graphcut.GraphcutError):
        graphcut.load("missing.onnx")


def test_what_is_not_possible_is_said_in_a_line(home: Path) -> None:
    model = graphcut.load("model.onnx")
    for wrong, says in (
        ({"mean": (float("nan"),)}, "mean is"),
        ({"std": (0.0,)}, "std is"),
        ({"colour": "xyz"}, "'xyz'"),
    ):
        with pytest.raises(CalibrationError, match=says):
            graphcut.split(model, calibration="photos", preprocessing=graphcut.Preprocessing(**wrong), out="out")
    for plan, says in (
        ({"segments": "3"}, "'3' is not a whole number"),
        ({"segments": 0}, "0 is not above zero"),
        ({"cuts": "nowhere"}, "called 'nowhere'"),
    ):
        with pytest.raises(UsageError, match=says):
            graphcut.plan(model, **plan)
    with pytest.raises(UsageError, match="0 worker processes"):
        graphcut.split(model, calibration="random", out="out", jobs=0)
    assert not (home / "out").exists()


def test_one_number_serves_all_channels() -> None:
    assert graphcut.Preprocessing(mean=127.5, std=2) == graphcut.Preprocessing(mean=(127.5,), std=(2.0,))


def test_samples_may_be_given_as_a_record(home: Path) -> None:
    model = graphcut.load("model.onnx", input_shapes={"image": [1, 3, 32, 32]})
    samples = load_samples("random", model.inputs, None, limit=2)
    result = graphcut.split(model, calibration=samples, out=home / "out", segments=2)
    assert result.verification.samples == 2
    assert result.verification.synthetic_calibration
    assert graphcut.verify("out", calibration=samples).samples == 2
    assert graphcut.verify("out", calibration="random").samples == 8
    (home / "out" / "samples.npz").write_bytes(b"")
    with pytest.raises(VerificationError, match=r"samples\.npz has changed"):
        graphcut.verify("out")


@pytest.mark.parametrize(
    ("said", "strategy", "budget_bytes"),
    [
        ({}, "greedy", 7 * 2**20),
        ({"budget": "6MiB"}, "greedy", 6 * 2**20),
        ({"budget": 123456}, "greedy", 123456),
        ({"segments": 4}, "balanced", None),
        ({"strategy": "balanced"}, "balanced", 7 * 2**20),
        ({"size_range": "2MiB..6MiB"}, "range", None),
        ({"size_range": (100, 200), "segments": 3}, "range", None),
        ({"cuts": ["a"]}, "given", None),
        ({"cuts": [], "budget": "1MiB"}, "given", 2**20),
    ],
)
def test_strategy_follows_what_is_said(said: dict[str, object], strategy: str, budget_bytes: int | None) -> None:
    options = api.plan_options(**said)
    assert (options.strategy, options.budget_bytes) == (strategy, budget_bytes)


def test_preprocessing_of_a_recipe_and_of_a_file(home: Path) -> None:
    known = api.recipe_preprocessing("resnet101")
    assert known is not None
    assert known.colour == "bgr"
    assert api.recipe_preprocessing(str(home / "model.onnx")) is None
    assert api.recipe_preprocessing("missing.onnx") is None
    with pytest.raises(UsageError, match="unknown recipe"):
        api.recipe_preprocessing("resnet9000")


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))
    (verbs,) = (action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    offered = {
        option for parser in verbs.choices.values() for action in parser._actions for option in action.option_strings
    }
    assert offered - documented == set()
    assert {f"`{verb} " for verb in verbs.choices} <= set(re.findall(r"`[a-z]+ ", text))
