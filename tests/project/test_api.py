"""The public Python API: its surface is pinned, its documented example runs, the documents name every option."""

import argparse
import inspect
import re
import subprocess
import sys
from argparse import ArgumentParser
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import graphcut
from graphcut import api, cli
from graphcut.api import plan_options
from graphcut.cli.options import add_settings, settings_of
from graphcut.errors import CalibrationError, InfeasibleError, UsageError, VerificationError
from graphcut.planning.search import arrangement_of
from graphcut.prediction.sizes import predict
from graphcut.samples import load_samples
from graphcut.settings import PlanSettings, SplitSettings, flag_of, table
from tests.support import nets, wide_nets
from tests.support.places import ROOT

PIXELS = graphcut.Preprocessing(mean=(127.5,), std=(127.5,))
RANDOM = {"calibration": "random", "out": "out"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nets.saved(nets.residual(), tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(5)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "photos" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FUNCTIONS = ["analyse", "check", "compile", "cost", "export", "extract", "load", "open", "plan", "split", "verify"]
RECORDS = [
    *("Analysis", "Bench", "Bundle", "CalibrationError", "Candidate", "Chain", "Check", "CompilationError"),
    *("CompileResult", "CompiledSplit", "ConversionError", "ConvertedSegment", "DependencyError", "Evaluation"),
    *("Event", "Extracted", "FileCost"),
    *("GraphcutError", "InfeasibleError", "Model", "ModelError", "OutputError", "Pipeline", "Plan", "Preprocessing"),
    *("RunError", "Samples", "Segment", "Simulated", "Split", "Tail", "UsageError", "Verification"),
    "VerificationError",
]


def test_public_surface() -> None:
    assert dir(graphcut) == sorted([*FUNCTIONS, *RECORDS, "__version__"])
    assert all(getattr(graphcut, name) is not None for name in dir(graphcut))
    with pytest.raises(AttributeError, match="no attribute 'api2'"):
        graphcut.api2  # noqa: B018


def test_functions_take_every_setting_with_its_default() -> None:
    for function, own, settings in (
        (graphcut.plan, ["model"], PlanSettings),
        (
            graphcut.split,
            *(
                [
                    "model",
                    "calibration",
                    "out",
                    "plan",
                    "validation",
                    "preprocessing",
                    "samples",
                    "seed",
                    "compiler",
                    "report",
                ],
            ),
            SplitSettings,
        ),
    ):
        parameters = inspect.signature(function).parameters
        assert list(parameters) == [*own, *table(settings)]
        assert all(parameters[name].default == each.default for name, each in table(settings).items())


def test_the_command_line_takes_every_setting() -> None:
    """And what it takes, Python takes: a plan made with all defaults of the one is the plan of the other."""
    parser = ArgumentParser()
    add_settings(parser, SplitSettings)
    flags = {option for action in parser._actions for option in action.option_strings}
    assert {flag_of(name) for name in table(SplitSettings)} <= flags
    given = settings_of(parser.parse_args(["--limit", "compiled=1MiB", "--pin", "a,b", "--pin", r"c\,d"]), PlanSettings)
    assert given["limits"] == {"compiled": "1MiB"}
    assert given["pins"] == ("a", "b", "c,d")
    assert plan_options(**settings_of(parser.parse_args([]), PlanSettings)) == plan_options()


@pytest.mark.usefixtures("home")
def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match=r"there is no setting 'segmnts': did you mean segments\?"):
        graphcut.plan("model.onnx", segmnts=3)  # type: ignore[call-arg]


@pytest.mark.usefixtures("home")
def test_an_error_carries_its_remedy_as_data() -> None:
    with pytest.raises(InfeasibleError, match="raise budget to at least") as caught:
        graphcut.plan("model.onnx", budget=1000, layer_split=False)
    ((first, value), *_) = caught.value.remedies
    assert first == "budget"
    assert value is not None
    assert graphcut.plan("model.onnx", budget=value, layer_split=False).k > 1


def test_a_plan_is_kept_and_applied(home: Path) -> None:
    made = graphcut.plan("model.onnx", segments=2)
    made.save("plan.json")
    kept = graphcut.Plan.load("plan.json")
    assert kept == made
    result = graphcut.split("model.onnx", plan=kept, calibration="random", out="applied")
    asked = graphcut.split("model.onnx", segments=2, calibration="random", out="asked")
    assert result.plan.cuts == asked.plan.cuts == made.cuts
    for one, other in zip(result.segments, asked.segments, strict=True):
        assert one.tflite_path.read_bytes() == other.tflite_path.read_bytes()
    with pytest.raises(UsageError, match="both a plan and segments are given"):
        graphcut.split("model.onnx", plan=kept, segments=2, calibration="random", out="both")
    other = nets.saved(nets.residual(blocks=2), home, "other.onnx")
    with pytest.raises(UsageError, match="does not belong to this model"):
        graphcut.split(other, plan=graphcut.plan("model.onnx", segments=3), **RANDOM)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "graphcut Plan"}', '{"format": "graphcut Plan", "version": 1, "record": {"k": 1}}']
)
def test_a_file_that_is_no_plan_is_refused(home: Path, text: str) -> None:
    (home / "plan.json").write_text(text)
    with pytest.raises(UsageError, match=r"plan\.json"):
        graphcut.Plan.load("plan.json")


def test_plans_with_parts_and_another_order_are_applied(tmp_path: Path) -> None:
    measure = partial(predict, per_channel=True)
    for net, budget in ((wide_nets.unet(), "8KiB"), (wide_nets.vgg([(1, 8), (1, 16)], 16, (32, 32), 10), "12KiB")):
        model = graphcut.load(nets.saved(net, tmp_path, "wide.onnx"))
        made = graphcut.plan(model, budget=budget)
        made.save(tmp_path / "plan.json")
        again = arrangement_of(model.graph, graphcut.Plan.load(tmp_path / "plan.json"), measure)
        assert again.made == made
        assert [(each.position, each.tensors) for each in made.candidates] == [
            (each.position, each.tensors) for each in again.analysis.candidates if each in made.candidates
        ]


@pytest.mark.usefixtures("home")
def test_an_opened_split_does_what_the_command_line_does() -> None:
    made = graphcut.split("model.onnx", segments=3, calibration="photos", preprocessing=PIXELS, out="out")
    assert repr(made) == repr(graphcut.open("out"))
    split = graphcut.open("out")
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    whole, chained = split.run(pixels, tail=1), split.run(pixels, devices="cpu,cpu")
    assert len(whole) == 2
    assert all(
        np.array_equal(one[name], other[name]) for one, other in zip(whole, chained, strict=True) for name in one
    )
    assert len(split.run("photos")) == 3
    assert len(split.run(["photos/0.png", "photos/1.png"])) == 2
    assert split.verify().passed
    assert split.bench(rounds=1, inputs=2).parts
    assert split.simulate(devices=2).throughput_per_s > 0
    assert len(split.check()) == len(split.cost()) == 3
    with split.chain() as chain, split.pipeline() as pipeline:
        assert len(chain.parts) == len(pipeline.placement.stations) == 3
    assert split.bundle("shipped").folder.is_dir()
    assert "<table>" in split._repr_html_()
    with pytest.raises(UsageError, match="choose 1 to 3"):
        split.file(4)


@pytest.mark.usefixtures("home")
def test_reprs_are_short() -> None:
    model = graphcut.load("model.onnx")
    split = graphcut.split(model, segments=2, calibration="random", out="out")
    for record in (model, graphcut.analyse(model), split.plan, split, split.verification, split.segments[0]):
        assert len(repr(record)) < 1000, type(record)


def test_import_is_light() -> None:
    program = (
        "import sys, graphcut, graphcut.cli\n"
        "heavy = 'onnx onnxruntime onnx2tf tensorflow ai_edge_litert ai_edge_quantizer netron PIL'.split()\n"
        "print(sorted(set(heavy) & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def run_example(page: str) -> None:
    shared: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        exec(compile(example, page, "exec"), shared)


def test_the_example_of_the_first_page_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("README.md")
    assert "'logits'" in capsys.readouterr().out
    assert (home / "out" / "model" / "meta.json").is_file()


def test_documented_example_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("docs/reference/python.md")
    printed = capsys.readouterr().out
    assert "block2_out (1, 16, 16, 16)" in printed
    assert "'logits'" in printed
    assert "budget" in printed.splitlines()[-1]
    assert (home / "out" / "full_split" / "tflite" / "seg3_int8.tflite").is_file()


def test_errors_are_one_family(home: Path) -> None:
    model = graphcut.load("model.onnx")
    with pytest.raises(InfeasibleError):
        graphcut.plan(model, budget=1000)
    with pytest.raises(CalibrationError, match="mean"):
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
        ({"segments": "3"}, "'3' is not an integer"),
        ({"segments": 0}, "0 is not positive"),
        ({"cuts": "nowhere"}, "no tensor or layer 'nowhere'"),
    ):
        with pytest.raises(UsageError, match=says):
            graphcut.plan(model, **plan)
    with pytest.raises(UsageError, match="jobs=0 is less than 1"):
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
