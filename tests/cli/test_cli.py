"""The command line in-process: results, JSON, and one line with the right exit code for every mistake."""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from graphcut import cli
from graphcut.cli.console import Console
from graphcut.progress import Clock, Event
from graphcut.report.tables import table
from tests.support import nets
from tests.support.places import ROOT

PREPARED = ["--mean", "127.5", "--std", "127.5"]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Graphcut:
    """Runs the command line and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> Ended:
        self._capsys.readouterr()
        code = cli.main([str(word) for word in words])
        printed = self._capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    def fails(self, code: int, told: str, *words: object) -> None:
        """Run; it must end with that code, nothing on stdout and one line on stderr (progress aside)."""
        ended = self(*words)
        errors = [line for line in ended.err.splitlines() if line.startswith("graphcut: error: ")]
        assert (ended.code, len(errors)) == (code, 1), ended.err
        assert told in errors[0]
        assert ended.err.endswith(f"{errors[0]}\n")
        assert ended.out == ""


@pytest.fixture
def graphcut(capsys: pytest.CaptureFixture[str]) -> Graphcut:
    return Graphcut(capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nets.saved(nets.residual(softmax=True), tmp_path_factory.mktemp("model"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    return folder


# --- results ---


def test_plan_json_has_the_keys_scripts_rely_on(graphcut: Graphcut, model: Path) -> None:
    ended = graphcut("plan", model, "--budget", "8KiB", "--json", "-q")
    assert ended.code == 0
    assert ended.err == ""
    plan = ended.document
    assert plan["k"] == len(plan["segments"]) == len(plan["cuts"]) + 1 >= 3
    assert plan["candidates"] >= len(plan["cuts"])
    assert plan["lower_bound"] <= plan["minimal_k"] == plan["k"]
    assert plan["segments"][0]["inputs"] == ["image"]
    assert plan["segments"][-1]["outputs"] == ["probabilities"]
    for before, after in zip(plan["segments"], plan["segments"][1:], strict=False):
        assert before["outputs"] == after["inputs"] == [plan["cuts"][before["index"] - 1]]
    assert all(0 < each["weight_bytes"] < each["tflite_bytes"] <= 8192 for each in plan["segments"])


def test_plan_for_people(graphcut: Graphcut, model: Path) -> None:
    ended = graphcut("plan", model, "--segments", 3)
    assert ended.code == 0
    assert "K = 3 (balanced)" in ended.out
    assert ended.err.startswith("load 0/")


def test_default_budget_is_7_mib(graphcut: Graphcut, model: Path) -> None:
    plan = graphcut("plan", model, "--json").document
    assert (plan["budget_bytes"], plan["k"], plan["strategy"]) == (7 * 2**20, 1, "greedy")


def test_named_cuts_by_layer_or_tensor_name(graphcut: Graphcut, model: Path) -> None:
    plan = graphcut("plan", model, "--cuts", "block3_out, block1_out", "--json").document
    assert (plan["cuts"], plan["strategy"]) == (["block1_out", "block3_out"], "given")


def test_per_tensor_is_smaller(graphcut: Graphcut, model: Path) -> None:
    sizes = [
        sum(
            each["tflite_bytes"]
            for each in graphcut("plan", model, "--segments", 2, "--json", *more).document["segments"]
        )
        for more in ([], ["--per-tensor"])
    ]
    assert sizes[1] < sizes[0]


def test_inspect_lists_cuts(graphcut: Graphcut, model: Path) -> None:
    shown = graphcut("inspect", model)
    assert shown.code == 0
    assert "block4_out" in shown.out
    document = graphcut("inspect", model, "--json").document
    assert "block4_out" in [each["layer"] for each in document["candidates"]]
    assert document["inputs"][0]["shape"] == [1, 3, 32, 32]
    assert len(document["model"]["sha256"]) == 64
    more = graphcut("inspect", model, "--json", "--min-rank", 2).document
    assert len(more["candidates"]) > len(document["candidates"])


def test_inspect_says_why(graphcut: Graphcut, model: Path) -> None:
    told = graphcut("inspect", model, "--why", "block2_conv1")
    assert told.code == 0
    assert "block2_conv1 is not a candidate" in told.out
    assert (
        graphcut("inspect", model, "--why", "block2_out", "--json").document["why"].startswith("block2_out is a cand")
    )


def test_inspect_shows_passes(graphcut: Graphcut, model: Path) -> None:
    assert graphcut("inspect", model, "--passes").out.startswith("pass ")


def test_open_shapes_need_a_number(graphcut: Graphcut, tmp_path: Path) -> None:
    proto = nets.residual()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "width"
    path = nets.saved(proto, tmp_path)
    graphcut.fails(3, "image", "inspect", path)
    shown = graphcut("inspect", path, "--input", "image:1x3x48x48", "--json")
    assert shown.document["inputs"][0]["shape"] == [1, 3, 48, 48]


def test_version_and_help(graphcut: Graphcut) -> None:
    assert graphcut("--version").out.startswith("graphcut ")
    for verb in ("export", "inspect", "plan", "split", "verify", "run", "view"):
        ended = graphcut(verb, "--help")
        assert ended.code == 0
        assert ended.out.startswith(f"usage: graphcut {verb}")
    nothing = graphcut()
    assert (nothing.code, nothing.out) == (2, "")
    assert "usage: graphcut" in nothing.err


VERBS = next(each for each in cli._parser()._actions if isinstance(each, argparse._SubParsersAction)).choices


def test_help_shows_every_verb_under_one_heading(graphcut: Graphcut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = graphcut("--help").out
    assert re.findall(r"^([A-Z]\w+( \w+)?):$", shown, flags=re.M)
    assert sorted(re.findall(r"^  ([a-z]+) +\S", shown, flags=re.M)) == sorted(VERBS)
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_says_defaults_and_ends_with_examples_that_parse(
    graphcut: Graphcut, verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OUT").mkdir()
    (tmp_path / "OUT" / "job.toml").write_text('model = "model.onnx"')  # parsed with the line
    shown, _, examples = graphcut(verb, "--help").out.partition("\nexamples:\n")
    assert max(map(len, shown.splitlines())) <= 80
    assert examples
    for example in examples.splitlines():
        program, *words = shlex.split(example.partition(" > ")[0])
        assert (program, cli._parser().parse_args(words).verb) == ("graphcut", verb)
    for option in VERBS[verb]._actions:
        assert option.help, option.option_strings
        unsaid = option.default in (None, (), [], argparse.SUPPRESS) or isinstance(option.default, bool)
        assert unsaid or "default" in option.help, option.option_strings


def test_quiet_stands_before_or_behind_the_verb(graphcut: Graphcut, model: Path) -> None:
    assert graphcut("-q", "plan", model).err == ""
    assert graphcut("plan", "-q", model).err == ""


# --- mistakes ---


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["plan"], "MODEL"),
        (["frobnicate"], "there is no verb 'frobnicate'"),
        (["slpit"], "there is no verb 'slpit': did you mean split?"),
        (["plan", "m.onnx", "--budget", "7"], "did you mean 7MiB? Write 7B for bytes"),
        (["plan", "m.onnx", "--frob"], "unrecognized arguments: --frob"),
        (["plan", "m.onnx", "--seg", "3"], "unrecognized arguments: --seg 3"),
        (["split", "m.onnx", "--bugdet=2MiB"], "unrecognized arguments: --bugdet: did you mean --budget?"),
        (["split", "m.onnx"], "required: -o/--output"),
        (["plan", "resnet999"], "unknown recipe 'resnet999'"),
        (["split", "resnet999", "-o", "out", "--calibration", "random"], "did you mean"),
        (["export", "resnet999", "-o", "x.onnx"], "unknown recipe 'resnet999'"),
        (["plan", "m.onnx", "--budget", "much"], "'much' is not a size"),
        (["plan", "m.onnx", "--budget", "7M"], "ambiguous"),
        (["plan", "m.onnx", "--budget", "-7MiB"], "--budget"),
        (["plan", "m.onnx", "--budget", "0"], "not positive"),
        (["plan", "m.onnx", "--bugdet", "3"], "did you mean --budget? `graphcut plan --help` lists the options"),
        (["plan", "m.onnx", "surplus"], "unrecognized arguments: surplus: `graphcut plan --help`"),
        (["plan", "m.onnx", "--segments", "0"], "'0' is not a positive integer"),
        (["run", "out", "x.npy", "--threads", "100000"], "100000 threads are too many"),
        (["plan", "m.onnx", "--segments", "two"], "'two' is not a positive integer"),
        (["plan", "m.onnx", "--range", "6MiB..2MiB"], "6MiB..2MiB"),
        (["plan", "m.onnx", "--cuts", "a", "--segments", "2"], "given strategy does not accept --segments"),
        (["plan", "m.onnx", "--strategy", "balanced", "--range", "1MiB..2MiB"], "does not accept --range"),
        (["plan", "m.onnx", "--input", "image"], "'image' is not the shape of an input"),
        (["plan", "m.onnx", "--input", "image:1x3x0x4"], "not the shape of an input"),
        (["split", "m.onnx", "-o", "out", "--mean", "half"], "'half' is not a number"),
        (["split", "m.onnx", "-o", "out", "--std", "1,0,1"], "--std 1,0,1 is not positive"),
        (["split", "m.onnx", "-o", "out", "--mean", "nan"], "'nan' is not a number"),
        (["split", "m.onnx", "-o", "out", "--samples", "0"], "not a positive integer"),
        (["verify", "nowhere"], "there is no folder nowhere"),
        (["run", "nowhere", "x.png"], "there is no folder nowhere"),
        (["view", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_wrong_options(
    graphcut: Graphcut, words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `make split` was run there is an `out`
    graphcut.fails(2, told, *words)


def test_models_that_are_none(graphcut: Graphcut, tmp_path: Path, model: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    graphcut.fails(3, "not an ONNX file", "plan", text)
    cut_off = tmp_path / "cut.onnx"
    cut_off.write_bytes(model.read_bytes()[:5000])
    graphcut.fails(3, "truncated", "inspect", cut_off)
    graphcut.fails(3, "does not exist", "plan", tmp_path / "missing.onnx")
    onnx.save(
        nets.residual(), tmp_path / "external.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    (tmp_path / "w.bin").unlink()
    graphcut.fails(3, "w.bin", "plan", tmp_path / "external.onnx")


def test_cuts_that_are_none(graphcut: Graphcut, model: Path) -> None:
    graphcut.fails(2, "did you mean block1_out", "plan", model, "--cuts", "blok1_out")
    graphcut.fails(2, "block1_conv1 is not a candidate", "plan", model, "--cuts", "block1_conv1")
    graphcut.fails(2, "blok1", "inspect", model, "--why", "blok1")


def test_budget_below_the_largest_block(graphcut: Graphcut, model: Path) -> None:
    for budget in ("1KiB", "1B"):
        graphcut.fails(5, "--budget", "plan", model, "--budget", budget)


def test_split_without_calibration_tells_the_three_ways(graphcut: Graphcut, model: Path, tmp_path: Path) -> None:
    graphcut.fails(4, "--calibration random", "split", model, "-o", tmp_path / "out")


def test_calibration_that_is_none(graphcut: Graphcut, model: Path, photos: Path, tmp_path: Path) -> None:
    split = ["split", model, "-o", tmp_path / "out", "--calibration"]
    graphcut.fails(4, "does not exist", *split, tmp_path / "missing")
    graphcut.fails(4, "set --mean and --std", *split, photos)
    (tmp_path / "empty").mkdir()
    graphcut.fails(4, "no pictures in", *split, tmp_path / "empty", *PREPARED)
    (photos / "c.png").write_text("no picture")
    graphcut.fails(4, "picture c.png cannot be read (not a picture)", *split, photos, *PREPARED)
    np.save(tmp_path / "x.npy", np.zeros((4, 32, 32, 4), np.float32))
    graphcut.fails(4, "4x32x32x4, but the model takes 3x32x32 NCHW or 32x32x3 NHWC", *split, tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", picture=np.zeros((4, 32, 32, 3), np.float32))
    graphcut.fails(4, "no array for input image; it has picture", *split, tmp_path / "x.npz")
    assert not (tmp_path / "out").exists()


def test_output_is_checked_before_any_work(graphcut: Graphcut, model: Path, tmp_path: Path) -> None:
    split = ["split", model, "--calibration", "random", "-o"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    graphcut.fails(2, "mine exists: ", *split, tmp_path / "mine")
    graphcut.fails(2, "is not a result of graphcut", *split, tmp_path / "mine", "--force")
    graphcut.fails(2, "is not a folder", *split, tmp_path / "mine" / "thesis.tex", "--force")
    graphcut.fails(8, "cannot create the folder", *split, tmp_path / "mine" / "thesis.tex" / "out")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, a folder nobody can write to")
def test_folder_nobody_can_write_to(graphcut: Graphcut, model: Path) -> None:
    graphcut.fails(8, "/proc", "split", model, "--calibration", "random", "-o", "/proc/out")


def test_export_checks_its_file_first(graphcut: Graphcut, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("mine")
    graphcut.fails(2, "x.onnx exists", "export", "resnet50", "-o", tmp_path / "x.onnx")
    graphcut.fails(2, "is a folder", "export", "resnet50", "-o", tmp_path)
    graphcut.fails(2, "there is no folder", "export", "resnet50", "-o", tmp_path / "deep" / "x.onnx")
    assert (tmp_path / "x.onnx").read_text() == "mine"


def test_folders_that_are_no_split(graphcut: Graphcut, tmp_path: Path) -> None:
    for verb in ("verify", "inspect", "view"):
        graphcut.fails(2, "has no meta.json", verb, tmp_path)
    graphcut.fails(2, "need a model", "inspect", tmp_path, "--why", "x")


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("graphcut.planning.plan_model.make_costed_plan", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["plan", str(model)])


def test_interruption_is_a_line_and_130(graphcut: Graphcut, monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphcut.planning.plan_model.make_costed_plan", interrupted)
    ended = graphcut("plan", model, "-q")
    assert (ended.code, ended.out, ended.err) == (130, "", "graphcut: interrupted, nothing was written\n")


def test_nobody_reads_stdout(model: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [sys.executable, "-m", "graphcut", "inspect", str(model), "-q"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        os.close(writer)
        _, printed = process.communicate(timeout=60)
    assert printed == b""
    assert process.returncode == 141


def streams(model: Path, redirection: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = ["sh", "-c", f'exec "$0" -m graphcut plan "$1" --segments 2 {redirection}', sys.executable, str(model)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    options = {"env": environment} | options
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **options)


def test_streams_that_take_no_words(model: Path) -> None:
    full = streams(model, "-q >/dev/full")
    assert full.returncode == 8
    assert full.stderr.startswith("graphcut: error: the result cannot be put on stdout (No space left on device)")
    assert full.stderr.count("\n") == 1
    assert streams(model, ">&-").returncode == 0
    for redirection in ("2>&-", "2>/dev/full"):
        ended = streams(model, redirection)
        assert ended.returncode == 0
        assert "segment" in ended.stdout


def test_names_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    proto = nets.residual()
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "größe"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    ended = streams(nets.saved(proto, tmp_path), "-q", env=plain)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in ended.stdout


# --- progress ---


def test_log_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        for done in range(1000):
            console.report(Event(stage="samples", done=done, total=1000, detail=f"{done}.png"))
        console.report(Event(stage="samples", done=1000, total=1000, detail="last.png"))
        console.report(Event(stage="plan", detail="a file came\nout above", note=True))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "samples 0/1000: 0.png"
    assert lines[-3:-1] == ["samples 1000/1000: last.png", "graphcut: a file came out above"]
    assert re.fullmatch(r"samples: \d+\.\d s", lines[-1])
    assert len(lines) < 7


def test_a_stage_that_ends_is_one_line_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with Console() as console:
        clock = Clock(console.report)
        console.report(Event(stage="load", detail="read m.onnx"))
        with clock("refine"):
            console.report(Event(stage="convert", done=1, total=2, detail="segment 2"))
        with clock("verify"):
            pass
        console.result("result", {})
    ended = [line for line in capsys.readouterr().err.splitlines() if re.search(r"\d s$", line)]
    assert [line.split(":")[0] for line in ended] == ["load", "refine", "verify"]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", **variables}.items():
        monkeypatch.setenv(name, value)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)


def test_bars_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    with Console() as console:
        console.report(Event(stage="convert"))
        console.report(Event(stage="convert", done=1, total=3, detail="segment 2 \x1b[31m [red]"))
        console.report(Event(stage="convert", note=True, detail="kept"))
        console.report(Event(stage="verify", done=2, total=4, detail="chain"))
        console.result("result", {})
    printed = capsys.readouterr()
    assert printed.out == "result\n"
    assert "it/s" not in printed.err
    assert "1/3" in printed.err
    assert r"segment 2 \u001b[31m [red]" in printed.err
    assert "graphcut: kept\n" in printed.err
    assert "2/4" in printed.err
    assert re.findall(r"m(\w+) +\d+\.\d s", printed.err) == ["convert", "verify"]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escapes_where_they_are_not_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    on_a_terminal(monkeypatch, **variables)
    with Console() as console:
        console.report(Event(stage="convert", done=1, total=3, detail="segment 2"))
        console.result(["PASSED on 3 samples", table(("layer", "proved"), [("a", "NO")])], {})
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\r" not in printed.err


def test_quiet_console_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(quiet=True) as console:
        console.report(Event(stage="plan", done=1, total=2))
        console.report(Event(stage="plan", note=True, detail="note"))
    assert capsys.readouterr().err == ""
