"""Every command of README and docs is one that exists, and every Python example runs.

1. ``graphcut`` commands go through the real parser; ``make`` targets, extras, scripts and modules must exist.
2. Python examples of a page run one after the other, in a folder with ``model.onnx`` and ``photos``.
3. The commands of the tutorial run on the model that it is about.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphcut import cli
from graphcut.cli import bundle_main
from graphcut.errors import UsageError
from tests.support import nets
from tests.support.doc_examples import PAGES, Command, blocks, commands, python
from tests.support.places import ROOT, SHARED
from tools import docs_pages

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
FOREIGN = {"apt-get", "cd", "curl", "docker", "echo", "git", "ray", "scp", "ssh", "sudo", "tee", ".", "cp", "mkdir"}
"""Commands of a ``sh`` block that are not ours."""
FRAMEWORKS = {"keras", "tensorflow", "torch"}


def fault(words: Sequence[str]) -> str | None:
    """What is wrong with a command; None where it is one that exists."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program = words[0]
    if program == "graphcut":
        return parser_fault(words[1:])
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        given = [word for word in words[1:] if "=" not in word]
        return next((f"no target {word}" for word in given if word not in targets), None)
    if program == "pip":
        asked = {extra for word in words for found in re.findall(r"\[([\w,]+)\]", word) for extra in found.split(",")}
        outside = any(word.startswith("graphcut") for word in words)
        return (
            "graphcut is on no index" if outside else next((f"no extra {each}" for each in asked - set(EXTRAS)), None)
        )
    if program == "sh":
        missing = not (ROOT / words[1]).exists()
        return (
            f"no {words[1]}" if missing else next((f"no extra {each}" for each in set(words[2:]) - set(EXTRAS)), None)
        )
    if program.rpartition("/")[2] in ("python", "python3"):
        return python_fault(words[1:])
    if program.startswith((".venv/bin/", "tools/", ".ci/")):
        return None
    return None if program in FOREIGN else f"unknown program {program}"


def parser_fault(words: Sequence[str]) -> str | None:
    try:
        cli._parser().parse_args(words)
    except UsageError as error:
        return str(error)
    return None


def python_fault(words: Sequence[str]) -> str | None:
    if words[0] == "run.py":
        try:
            bundle_main._parser().parse_args(words[1:])
        except UsageError as error:
            return str(error)
        return None
    if words[0] == "-m":
        return None if importlib.util.find_spec(words[1]) else f"no module {words[1]}"
    return None if (ROOT / words[0]).is_file() else f"no script {words[0]}"


def test_every_command_exists() -> None:
    found = [command for page in PAGES for block in blocks(page) for command in commands(block)]
    assert len(found) > 60
    wrong = {f"{each.block}: {' '.join(each.words)}": fault(each.words) for each in found}
    assert {text: said for text, said in wrong.items() if said is not None} == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("graphcut split model.onnx --bugdet 7MiB -o out", "bugdet"),
        ("graphcut splitt model.onnx", "splitt"),
        ("make tests", "no target"),
        ("pip install graphcut[keras]", "no index"),
        ("pip install .[kears]", "no extra"),
        ("python -m tools.nothing", "no module"),
        ("python run.py --chekc", "chekc"),
        ("frobnicate", "unknown program"),
    ],
)
def test_a_command_that_does_not_exist_is_found(words: str, says: str) -> None:
    assert says in str(fault(words.split()))


def test_verbs_and_options_named_in_a_sentence_exist() -> None:
    verbs = {"graphcut": {option for parser in [cli._parser()] for option in parser._option_string_actions}}
    (sub,) = (
        action for action in cli._parser()._actions if hasattr(action, "choices") and isinstance(action.choices, dict)
    )
    verbs |= {verb: set(parser._option_string_actions) for verb, parser in sub.choices.items()}
    wrong = []
    for page in PAGES:
        for span in re.findall(r"`graphcut ([^`\n]+(?:\n[^`\n]+)?)`", page.read_text(encoding="utf-8")):
            words = span.split()
            if re.fullmatch(r"[a-z]+", words[0]) and words[0] not in verbs:
                wrong.append(f"{page.name}: graphcut {span}")
                continue
            options = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", span))
            unknown = options - verbs.get(words[0], set()) - verbs["graphcut"]
            wrong += [f"{page.name}: graphcut {span}: {option}" for option in sorted(unknown)]
    assert wrong == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name: a model, photographs, and a split of it."""
    nets.saved(nets.residual(), tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(5)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "photos" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


EXAMPLES = [page for page in PAGES if python(page)]


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.relative_to(ROOT).as_posix())
@pytest.mark.usefixtures("home")
def test_python_examples_run(page: Path) -> None:
    examples = python(page)
    names = {
        name.partition(".")[0]
        for block in examples
        for node in ast.walk(ast.parse("\n".join(block.lines), str(block)))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    absent = sorted(name for name in names if importlib.util.find_spec(name) is None)
    if absent:
        pytest.skip(f"the examples import {', '.join(absent)}, which is not installed")
    if any("out/resnet101" in line for block in examples for line in block.lines):
        split = ["split", "model.onnx", "--segments", "3", "--calibration", "random", "-o", "out/resnet101"]
        assert cli.main(split) == 0
    if names & FRAMEWORKS:  # two frameworks in one process end it
        program = "\n\n".join("\n".join(block.lines) for block in examples)
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-3000:]
        return
    shared: dict[str, object] = {"images": list(np.random.default_rng(0).standard_normal((3, 32, 32, 3), np.float32))}
    for block in examples:
        exec(compile("\n".join(block.lines), str(block), "exec"), shared)


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def assert_shown(quoted: str, printed: str) -> None:
    """What a page quotes is what was printed, but for a twentieth of each number: the converter gets better."""
    pattern = _NUMBER.sub(lambda _: f"({_NUMBER.pattern})", re.escape(quoted).replace(r"\.", "."))
    found = re.search(pattern, printed)
    assert found is not None, f"{quoted!r} is not printed"
    assert [float(each) for each in found.groups()] == pytest.approx(
        [float(each) for each in _NUMBER.findall(quoted)], rel=0.05
    ), f"{quoted!r} has other numbers today: {found[0]!r}"


def test_a_quotation_with_another_number_is_found() -> None:
    assert_shown("at 24.1 dB", "PASSED at 24.6 dB")
    with pytest.raises(AssertionError, match="other numbers"):
        assert_shown("at 24.1 dB", "PASSED at 27.0 dB")
    with pytest.raises(AssertionError, match="not printed"):
        assert_shown("at 24.1 dB", "FAILED")


def tutorial() -> list[Command]:
    """The commands of the tutorial up to the one that needs another machine."""
    page = ROOT / "docs" / "tutorial.md"
    every = [command for block in blocks(page) if block.language == "sh" for command in commands(block)]
    stop = next(at for at, command in enumerate(every) if command.words[0] == "scp")
    return every[:stop]


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the trained model is not beside the repository")
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All but what downloads or needs TensorFlow; where there is no compiler, its exit code is 9."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHARED / "models" / "mobilenet_v2_imagenet.onnx", "mobilenet.onnx")
    shutil.copy(SHARED / "images" / "parrot.jpg", "parrot.jpg")
    shutil.copy(SHARED / "images" / "imagenet_labels.txt", "imagenet_labels.txt")
    shutil.copytree(SHARED / "images" / "general_calibration", "photos")
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    printed = {}
    for command in tutorial():
        if command.words[0] != "graphcut" or command.words[1] == "export":
            continue
        code = cli.main(command.words[1:])
        verb = command.words[1]
        assert code == 0 or (verb == "compile" and code == 9), " ".join(command.words)
        printed[verb] = capsys.readouterr().out
    for line in re.findall(r"```text\n(.*?)```", page, re.DOTALL)[1:3]:
        assert_shown(line.strip("\n"), printed["split"])
    assert re.search(r"macaw", printed["run"])
    claimed = re.search(r"simulation estimates (\d+) results per second", page)
    assert claimed is not None
    assert cli.main(["simulate", "out/mobilenet", "--devices", "3", "--json"]) == 0
    simulated = json.loads(capsys.readouterr().out)["throughput_per_s"]
    assert simulated == pytest.approx(float(claimed[1]), rel=0.05), "the figure of the tutorial is another today"
    assert {"inspect", "plan", "split", "run", "check", "simulate", "compile", "bundle"} <= set(printed)


def test_the_example_of_a_device_profile_is_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "explanation" / "planning-objectives.md"
    (profile,) = (block for block in blocks(page) if block.language == "toml")
    (home / "mine.toml").write_text("\n".join(profile.lines), encoding="utf-8")
    named = [
        command.words
        for block in blocks(page)
        for command in commands(block)
        if any("mine.toml" in word for word in command.words)
    ]
    assert len(named) == 2
    for words in named:
        assert cli.main(["model.onnx" if word == "MODEL" else word for word in words[1:]]) == 0
        assert "K = 1" in capsys.readouterr().out


def test_the_verbs_without_json_are_those_that_the_page_lists() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    listed = re.search(r"`--json`, on every verb but ([^,]+(?:, `\w+`)* and `\w+`),", text)
    assert listed is not None
    without = {verb for verb, parser in docs_pages.verbs().items() if "--json" not in parser._option_string_actions}
    assert set(re.findall(r"`(\w+)`", listed[1])) == without
