"""Compiling, against a program that speaks the documented format and fails in every way."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphcut.edgetpu import compiler, output
from graphcut.edgetpu.compiler import CompileResult, CompileSuccess, compile_files, find, options_for
from graphcut.edgetpu.failures import CompileFailure, classify
from graphcut.errors import DependencyError, OutputError, UsageError, spelt
from graphcut.progress import Event
from graphcut.settings import as_flag
from graphcut.workers.process import Finished
from tests.support.compiled_files import compiled_file
from tests.support.places import ROOT
from tests.support.stand_in_compiler import GOOD, install
from tests.workers.test_process import gone

CACHED, STREAMED = 1_478_492, 0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a program's folder, an int8 file, an answer and room for results."""
    for name in ("bin", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "seg1_int8.tflite").write_bytes(b"any bytes: the stand-in does not read them")
    (tmp_path / "answer.tflite").write_bytes(compiled_file(CACHED, STREAMED))
    return tmp_path


def run(place: Path, mode: str, **scenario: Any) -> CompileResult:
    numbers = [CACHED, STREAMED, 1, 0]
    program = install(
        place / "bin", **{"mode": mode, "answer": place / "answer.tflite", "numbers": numbers, **scenario}
    )
    (result,) = compile_files(find(str(program)), [place / "seg1_int8.tflite"], place / "out", seconds=5)
    return result


def left(place: Path) -> set[str]:
    return {path.name for path in (place / "out").iterdir()}


def test_a_good_run(place: Path) -> None:
    result = run(place, "ok")
    assert isinstance(result, CompileSuccess)
    assert left(place) == {f"seg1_int8_edgetpu.{suffix}" for suffix in ("tflite", "log", "out.txt")}
    assert result.path.read_bytes() == (place / "answer.tflite").read_bytes()
    assert result.compiled.cached_parameter_bytes == CACHED
    assert result.printed.version == GOOD
    assert result.printed.complete
    assert result.printed.milliseconds == 1157
    assert result.printed.statuses == (output.OperatorStatus(op="CONV_2D", count=3, status="Mapped to Edge TPU"),)
    assert result.printed.on_chip_left is not None
    assert result.printed.on_chip_left.size_bytes == round(5.74 * 2**20)
    assert result.notes == ()
    assert "Mapped to Edge TPU" in result.log_path.read_text()
    assert "Compilation succeeded!" in result.output_path.read_text()


def test_operators_left_on_the_cpu_are_in_the_result(place: Path) -> None:
    (place / "answer.tflite").write_bytes(compiled_file(CACHED, 0, cpu_ops=["SOFTMAX", "SOFTMAX"]))
    result = run(place, "ok", numbers=[CACHED, 0, 1, 2])
    assert isinstance(result, CompileSuccess)
    assert result.compiled.cpu_ops == {"SOFTMAX": 2}
    assert result.printed.left_on_cpu == 2


@pytest.mark.parametrize(
    ("mode", "kind", "said"),
    [
        ("not quantised", "not quantised", "Model not quantized"),
        ("op version", "op version", "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'"),
        ("dynamic", "dynamic shapes", "dynamic-sized tensors"),
        ("custom", "custom operator", "Atan"),
        ("large", "large activations", "large activation tensors"),
        ("gave up", "timeout", "timed out"),
        ("thrown", "crash", "std::out_of_range"),
        ("internal", "crash", "Internal compiler error"),
        ("crash", "crash", "SIGSEGV"),
        ("plain", "failed", "Compilation failed!"),
        ("killed", "crash", "SIGKILL"),
        ("nothing", "no output", "without an error message"),
        ("exit", "failed", "it printed nothing about the file (exit code 3)"),
        ("disk full", "disk full", "No space left on device"),
        ("flood", "failed", "xxx (exit code 1)"),
        ("stub", "stub", "damaged"),
        ("no file", "no output", "wrote no file"),
        ("late failure", "failed", "reported success but returned exit code 4"),
        ("no lines", "disagreement", "without the usual lines"),
    ],
)
def test_failures_are_told_apart_and_leave_no_file(place: Path, mode: str, kind: str, said: str) -> None:
    result = run(place, mode)
    assert isinstance(result, CompileFailure)
    assert (result.kind, said in result.line) == (kind, True), result
    assert "seg1_int8_edgetpu.tflite" not in left(place)
    assert "seg1_int8_edgetpu.out.txt" in left(place)
    assert result.log_path.is_file()
    assert result.way_out
    assert "\n" not in str(result)
    assert ".." not in str(result)
    assert len(str(result)) < 700


def test_one_that_was_killed_is_not_blamed_on_the_graph(place: Path) -> None:
    result = run(place, "killed")
    assert isinstance(result, CompileFailure)
    assert "--jobs 1" in spelt(result.way_out, as_flag)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([CACHED, 0, 2, 0], "2 Edge TPU subgraphs, but its file has 1"),
        ([CACHED, 0, 1, 4], "4 operators on the CPU, but its file has 0"),
        ([CACHED, 300_000, 1, 0], "off the chip, but its file streams 0"),
    ],
)
def test_a_report_that_contradicts_the_file_is_not_believed(place: Path, numbers: list[int], said: str) -> None:
    result = run(place, "ok", numbers=numbers)
    assert isinstance(result, CompileFailure)
    assert (result.kind, said in result.line) == ("disagreement", True)


def test_a_size_that_differs_is_noted(place: Path) -> None:
    result = run(place, "ok", numbers=[2 * CACHED, 0, 1, 0])
    assert isinstance(result, CompileSuccess)
    assert f"in the file {CACHED}" in result.notes[0]


def test_a_hanging_compiler_is_ended_with_its_children(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_GRACE_SECONDS", 0.5)
    program = install(place / "bin", mode="hang")
    found = find(str(program))
    pids: list[int] = []

    def watch() -> None:
        for _ in range(200):
            for path in (place / "out").glob(".*/child.pid"):
                if path.read_text():
                    pids.append(int(path.read_text()))
                    return
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    (result,) = compile_files(found, [place / "seg1_int8.tflite"], place / "out", seconds=1)
    watcher.join()
    assert isinstance(result, CompileFailure)
    assert result.kind == "timeout"
    assert result.seconds < 4
    assert len(pids) == 1
    assert gone(pids[0])


def test_several_files_at_a_time_each_with_its_own_fate(place: Path) -> None:
    files = []
    for number in range(1, 5):
        files.append(place / f"seg{number}_int8.tflite")
        files[-1].write_bytes(b"x")
    modes = {file.name: "large" if "seg2" in file.name else "ok" for file in files}
    program = install(place / "bin", mode=modes, answer=place / "answer.tflite", numbers=[CACHED, STREAMED, 1, 0])
    events: list[Event] = []
    results = compile_files(find(str(program)), files, place / "out", jobs=3, report=events.append)
    assert [isinstance(result, CompileSuccess) for result in results] == [True, False, True, True]
    assert [result.source for result in results] == files
    assert [event.done for event in events] == [0, 1, 2, 3, 4]
    assert len(list((place / "out").glob("*.tflite"))) == 3


def test_an_interruption_stops_what_is_under_way(place: Path) -> None:
    program = install(place / "bin", mode="hang")
    files = [place / "seg1_int8.tflite", place / "seg2_int8.tflite"]
    files[1].write_bytes(b"x")

    def interrupt(event: Event) -> None:
        if event.done == 0:
            time.sleep(0.2)
            raise KeyboardInterrupt

    stop_at = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        compile_files(find(str(program)), files, place / "out", seconds=100, report=interrupt)
    assert time.monotonic() - stop_at < 50
    assert left(place) == set()


def test_a_result_replaces_an_older_one(place: Path) -> None:
    (place / "out" / "seg1_int8_edgetpu.tflite").write_bytes(b"old")
    assert isinstance(run(place, "ok"), CompileSuccess)
    assert (place / "out" / "seg1_int8_edgetpu.tflite").stat().st_size > 1000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(place: Path) -> None:
    (place / "out").chmod(0o500)
    with pytest.raises(OutputError, match="cannot compile into"):
        run(place, "ok")


def test_a_folder_that_is_not_there(place: Path) -> None:
    (place / "out").rmdir()
    with pytest.raises(OutputError, match="cannot compile into"):
        run(place, "ok")


def test_not_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=r"not on PATH: .*tools/edgetpu-compiler/Dockerfile"):
        find()
    with pytest.raises(DependencyError, match="docker is not on PATH"):
        find("docker:coral")


def test_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find().version == GOOD
    assert find().name == f"edgetpu_compiler {GOOD}"
    assert find(str(tmp_path)).program == str(tmp_path.resolve() / "edgetpu_compiler")


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ({"version": "15.0.340273435"}, "version 15.0.340273435; 16 or later"),
        ({"says": "usage: something else entirely"}, "another program .*usage: something else"),
        ({"says": ""}, "another program .*nothing"),
    ],
)
def test_the_wrong_program(tmp_path: Path, scenario: dict[str, str], said: str) -> None:
    with pytest.raises(DependencyError, match=said) as caught:
        find(str(install(tmp_path, **scenario)))
    assert "\n" not in str(caught.value)


def test_one_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_PROBE_SECONDS", 0.5)
    with pytest.raises(DependencyError, match="did not print its version"):
        find(str(install(tmp_path, sleeps=60)))


def test_not_executable_not_there_not_a_program(tmp_path: Path) -> None:
    program = install(tmp_path)
    program.chmod(0o644)
    with pytest.raises(DependencyError, match=r"not executable: chmod \+x"):
        find(str(program))
    with pytest.raises(DependencyError, match="does not exist"):
        find(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DependencyError, match="empty contains no edgetpu_compiler"):
        find(str(tmp_path / "empty"))
    for nothing in ("", "docker:"):
        with pytest.raises(UsageError, match="is empty"):
            find(nothing)
    program.write_bytes(b"\x7fELF for another machine")
    program.chmod(0o755)
    with pytest.raises(DependencyError, match="not a program for this machine"):
        find(str(program))


DOCKER = """#!/bin/sh
# Stands in for docker: runs the stand-in compiler of this folder with the container's paths put back.
here=$(dirname "$0")
echo "$@" >> "$here/calls.txt"
[ "$1" = kill ] && exit 0
in= out= words=
while [ $# -gt 0 ]; do
  case "$1" in
    --volume) case "$2" in *:/in:ro) in=${2%%:/in:ro} ;; *:/out) out=${2%%:/out} ;; esac; shift ;;
    --entrypoint) program=$2; shift 2; image=$1; shift; words="$*"; break ;;
  esac
  shift
done
[ "$image" = coral ] || { echo "Unable to find image '$image' locally"; exit 125; }
words=$(echo "$words" | sed "s#-o /out#-o $out#; s#/in/#$in/#")
exec "$here/$program" $words
"""


def test_docker(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place / "bin", answer=place / "answer.tflite", numbers=[CACHED, STREAMED, 1, 0])
    docker = place / "bin" / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(place / "bin"), prepend=os.pathsep)
    with pytest.raises(DependencyError, match=r"in the image other does not start .*Unable to find image 'other'"):
        find("docker:other")
    found = find("docker:coral")
    assert found.name == f"edgetpu_compiler {GOOD} in coral"
    (result,) = compile_files(found, [place / "seg1_int8.tflite"], place / "out")
    assert isinstance(result, CompileSuccess), result
    last = (place / "bin" / "calls.txt").read_text().splitlines()[-1]
    assert "--network none" in last
    assert f"--user {os.getuid()}:{os.getgid()}" in last


def test_docker_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    said = "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    docker.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 125\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(DependencyError, match=r"the docker engine is not running .*start it") as caught:
        find("docker:coral")
    assert "\n" not in str(caught.value)


def test_docker_containers_are_stopped_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place / "bin", mode="hang")
    docker = place / "bin" / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(place / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(compiler, "_GRACE_SECONDS", 0.2)
    (result,) = compile_files(find("docker:coral"), [place / "seg1_int8.tflite"], place / "out", seconds=1)
    assert isinstance(result, CompileFailure)
    assert result.kind == "timeout"
    calls = (place / "bin" / "calls.txt").read_text().splitlines()
    name = calls[-2].split("--name ")[1].split()[0]
    assert calls[-1] == f"kill {name}"


def test_a_real_log_is_read() -> None:
    """The lines of a published run, with two statuses for one operator."""
    text = """Edge TPU Compiler version 16.0.384591198
Searching for valid delegate with step 10
Try to compile segment with 246 ops
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 3133 ms.

Input model: runs/best-int8.tflite
Input size: 6.00MiB
Output model: runs/best-int8_edgetpu.tflite
Output size: 6.47MiB
On-chip memory used for caching model parameters: 5.90MiB
On-chip memory remaining for caching model parameters: 1.16MiB
Off-chip memory used for streaming uncached model parameters: 41.75KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 246
Operation log: runs/best-int8_edgetpu.log

Operator                       Count      Status

MAX_POOL_2D                    6          More than one subgraph is not supported
QUANTIZE                       2          Operation is working on an unsupported data type
QUANTIZE                       1          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""
    printed = output.parse(text)
    assert printed.complete
    assert printed.off_chip is not None
    assert printed.off_chip.size_bytes == 42752
    assert printed.off_chip.agrees(42_750)
    assert not printed.off_chip.agrees(43_000)
    assert printed.left_on_cpu == 8
    assert len(printed.statuses) == 3
    assert output.statuses(text) == printed.statuses


def test_words_that_are_not_the_compilers_are_nothing() -> None:
    printed = output.parse("hello\nOutput size: lots\nNumber of Edge TPU subgraphs: 99999999999999999999999999\n")
    assert not printed.complete
    assert printed.output_size is None
    assert printed.statuses == ()


@pytest.mark.parametrize(("failures", "compiled"), [(0, True), (2, True), (3, False)])
def test_an_internal_error_is_tried_again_twice(place: Path, failures: int, compiled: bool) -> None:
    program = install(
        place / "bin",
        mode=f"internal error {failures}",
        answer=place / "answer.tflite",
        numbers=[CACHED, STREAMED, 1, 0],
    )
    (result,) = compile_files(find(str(program)), [place / "seg1_int8.tflite"], place / "out")
    assert isinstance(result, CompileSuccess) == compiled
    (tries,) = (place / "bin").glob("*.tries")
    assert int(tries.read_text()) == min(failures + 1, 3)


def test_its_own_options_reach_it(place: Path) -> None:
    options = options_for(
        multiple_subgraphs=True,
        search_delegate=True,
        delegate_search_step=4,
        intermediate_tensors=("a", "b"),
        min_runtime_version=13,
    )
    assert options == ("-a", "-d", "-k", "4", "-i", "a,b", "-m", "13")
    program = place / "bin" / "edgetpu_compiler"
    told = place / "told"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\necho "Edge TPU Compiler version 16.0.384591198"\necho "$@" > {told}\n')
    program.chmod(0o755)
    compile_files(replace(find(str(program)), options=options), [place / "seg1_int8.tflite"], place / "out")
    assert " ".join(options) in told.read_text()
    with pytest.raises(UsageError, match="-k"):
        options_for(delegate_search_step=2)


def test_the_line_that_says_why_comes_first() -> None:
    text = "ERROR: Op builtin_code out of range: 206. Are you using old TFLite binary?\nModel could not be parsed"
    finished = Finished(code=1, output=text, seconds=1.0, timed_out=False, signal="")
    kind, line, _ = classify(finished, "", None, succeeded=False)
    assert kind == "op version"
    assert line.startswith("ERROR: Op builtin_code out of range: 206")


def test_the_container_s_key_is_bound_to_its_source() -> None:
    text = (ROOT / "tools" / "edgetpu-compiler" / "Dockerfile").read_text()
    assert "signed-by=/usr/share/keyrings/coral-edgetpu.gpg" in text
    assert "apt-key add" not in text
    assert "apt-key add" not in (ROOT / "docs" / "explanation" / "edgetpu.md").read_text()
