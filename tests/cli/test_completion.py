"""Completion, by the shells themselves where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onnx import ModelProto

from graphcut import cli, recipes
from graphcut.cli.completion import SHELLS
from tests.cli.test_cli import Graphcut
from tests.support import nets

COMPLETE = r"""
source "$1"; shift
COMP_LINE="$1"
COMP_POINT=${#COMP_LINE}
# As bash's readline cuts the line: at spaces and at the characters of COMP_WORDBREAKS.
COMP_WORDS=(); IFS=' ' read -ra spaced <<< "$COMP_LINE"
for each in "${spaced[@]}"; do
  while [[ $each == *:* ]]; do COMP_WORDS+=("${each%%:*}" ":"); each="${each#*:}"; done
  COMP_WORDS+=("$each")
done
[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
function=$(complete -p graphcut | sed 's/.*-F \([^ ]*\).*/\1/')
$function
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def graphcut(capsys: pytest.CaptureFixture[str]) -> Graphcut:
    return Graphcut(capsys)


def hostile() -> ModelProto:
    """The small net with names that a shell would run, and with names that bash cuts at colons."""
    proto = nets.residual()
    names = {"block1_out": "$(touch${IFS}owned)", "block2_out": "part:0/block2_out:0", "block3_out": "a b"}
    for node in proto.graph.node:
        for place in (node.input, node.output):
            for number, name in enumerate(place):
                place[number] = names.get(name, name)
    return proto


@pytest.fixture
def shell(tmp_path: Path, graphcut: Graphcut) -> Path:
    """A folder with the script for bash, a program ``graphcut`` on PATH and two models."""
    (tmp_path / "graphcut.bash").write_text(graphcut("completion", "bash").out)
    program = tmp_path / "bin" / "graphcut"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m graphcut "$@"\n')
    program.chmod(0o755)
    nets.saved(nets.residual(), tmp_path)
    (tmp_path / "hostile.onnx").write_bytes(hostile().SerializeToString())
    return tmp_path


def completed(folder: Path, line: str) -> list[str]:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [bash, "--norc", "-c", COMPLETE, "bash", "graphcut.bash", line],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("\n")[:-1]


def test_bash_completes_verbs_options_and_choices(shell: Path) -> None:
    assert completed(shell, "graphcut spl") == ["split"]
    assert "--budget-on" in completed(shell, "graphcut plan model.onnx --bud")
    assert completed(shell, "graphcut split model.onnx --effort no") == ["normal"]
    assert completed(shell, "graphcut completion fi") == ["fish"]


def test_bash_completes_recipes_and_files(shell: Path) -> None:
    assert set(recipes.names()) <= set(completed(shell, "graphcut split "))
    assert "model.onnx" in completed(shell, "graphcut split mod")
    assert completed(shell, "graphcut split model.onnx --calibration host") == ["hostile.onnx"]


def test_bash_completes_layers_of_the_model_on_the_line(shell: Path) -> None:
    assert "block1_out" in completed(shell, "graphcut plan model.onnx --cuts block1_o")
    assert completed(shell, "graphcut plan model.onnx --cuts block1_out,block4_ou") == ["block1_out,block4_out"]
    assert "block4_out" in completed(shell, "graphcut inspect model.onnx --why block4_")
    assert completed(shell, "graphcut plan missing.onnx --cuts block1_o") == [""]


def test_names_from_a_file_are_never_run(shell: Path) -> None:
    offered = completed(shell, "graphcut plan hostile.onnx --cuts ")
    assert "block4_out" in offered
    assert not [name for name in offered if "$" in name or " " in name]
    assert completed(shell, "graphcut plan hostile.onnx --cuts part:0/bl") == ["0/block2_out:0"]
    assert not (shell / "owned").exists()


def test_names_come_from_a_cheap_source_only(graphcut: Graphcut, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    for name in ("text.onnx", "missing.onnx"):
        assert graphcut("completion", "--layers", tmp_path / name).out == ""
    with (tmp_path / "huge.onnx").open("wb") as huge:
        huge.truncate(2**33)
    began = time.process_time()
    assert graphcut("completion", "--layers", tmp_path / "huge.onnx").out == ""
    assert time.process_time() - began < 5


@pytest.mark.parametrize("shell_name", SHELLS)
def test_the_script_is_one_that_the_shell_reads(graphcut: Graphcut, tmp_path: Path, shell_name: str) -> None:
    script = graphcut("completion", shell_name).out
    assert "resnet101" in script
    program = shutil.which(shell_name)
    if program is None:
        pytest.skip(f"{shell_name} is not installed")
    (tmp_path / "script").write_text(script)
    ended = subprocess.run([program, "-n", tmp_path / "script"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_shell_must_be_named(graphcut: Graphcut) -> None:
    graphcut.fails(2, "no shell is named", "completion")
    graphcut.fails(2, "did you mean fish?", "completion", "fsh")
    assert cli.main(["completion", "--help"]) == 0
