"""Interpreters in another process: the same results, and nothing that a file does reaches this one."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from graphcut.errors import RunError
from graphcut.runtime import isolated
from graphcut.runtime.chain import Chain, SegmentError
from graphcut.runtime.interpreter import Part
from graphcut.runtime.isolated import IsolatedOpener, IsolatedRunner, try_out
from graphcut.runtime.litert import LiteRtOpener, Runner
from graphcut.tflite import schema
from tests.support.tiny_split import branched, conv, segment, straight
from tests.workers.test_confinement import has_landlock, has_seccomp


def crashing() -> bytes:
    """A file whose interpreter dies: the stride of a convolution is 0."""
    return changed("strideH", 0)


def changed(name: str, value: int) -> bytes:
    model = schema.read(straight(1)[0])
    setattr(model.subgraphs[0].operators[0].builtinOptions, name, value)
    return schema.write(model)


def put(folder: Path, files: list[bytes]) -> list[Part]:
    parts = []
    for number, data in enumerate(files, start=1):
        path = folder / f"seg{number}_int8.tflite"
        path.write_bytes(data)
        parts.append(Part(f"segment {number}", path))
    return parts


def child() -> int:
    service = isolated._shared._service
    assert service is not None
    return service._process.pid


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_it_gives_what_an_interpreter_in_this_process_gives(kernels: str) -> None:
    generator = np.random.default_rng(0)
    for data in (*branched(), segment([conv("a", "m"), conv("m", "b")], ["a"], ["b"], shape=(1, 64, 64, 8))):
        here, there = Runner(data, kernels=kernels), IsolatedRunner(data, kernels=kernels)  # type: ignore[arg-type]
        assert [each["name"] for each in there.inputs] == [each["name"] for each in here.inputs]
        kept = []
        for _ in range(3):
            arrays = [generator.integers(-128, 128, each["shape"], np.int8) for each in here.inputs]
            kept.append((here(arrays), there(arrays)))
        for wanted, got in kept:
            for first, second in zip(wanted, got, strict=True):
                np.testing.assert_array_equal(first, second)
                assert first.dtype == second.dtype


def test_inner_tensors_can_be_read() -> None:
    data = straight(1)[0]
    here, there = Runner(data, keep_all=True), IsolatedRunner(data, keep_all=True)
    array = np.full(here.inputs[0]["shape"], 5, np.int8)
    here([array])
    there([array])
    for index in range(3):
        np.testing.assert_array_equal(here.tensor(index), there.tensor(index))


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (8, 8, 4), (1, 1, 1, 1)])
def test_an_array_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    there = IsolatedRunner(straight(1)[0])
    with pytest.raises(ValueError, match="was given"):
        there([np.zeros(shape, np.int8)])
    with pytest.raises(ValueError, match="was given"):
        there([np.zeros((1, 8, 8, 4), np.float32)])
    with pytest.raises(ValueError, match="reads 1 arrays"):
        there([])


def test_a_file_that_crashes_the_interpreter_is_a_line(tmp_path: Path) -> None:
    parts = put(tmp_path, [crashing()])
    with pytest.raises(RunError, match=r"segment 1 \(seg1_int8\.tflite\) (is refused|fails).*(crashed|stride)"):
        try_out(parts, LiteRtOpener())
    for garbage in (b"", b"x" * 100, straight(1)[0][:300]):
        parts = put(tmp_path, [garbage])
        with pytest.raises(RunError, match=r"segment 1 \(seg1_int8\.tflite\) is refused by"):
            IsolatedOpener()(parts[0])


def test_a_process_that_somebody_kills_is_started_again(tmp_path: Path) -> None:
    parts = put(tmp_path, straight(3))
    image = np.full((1, 8, 8, 4), 9, np.int8)
    with Chain(parts, IsolatedOpener()) as chain, Chain(parts, LiteRtOpener()) as here:
        wanted = here.run(image)[0]
        np.testing.assert_array_equal(chain.run(image)[0], wanted)
        os.kill(child(), signal.SIGKILL)
        with pytest.raises(SegmentError, match=r"killed from outside \(SIGKILL\)"):
            chain.run(image)
        np.testing.assert_array_equal(chain.run(image)[0], wanted)


def test_the_process_ends_with_the_last_file() -> None:
    first, second = IsolatedRunner(straight(1)[0]), IsolatedRunner(straight(1)[0])
    process = child()
    del first
    gc.collect()
    second([np.zeros((1, 8, 8, 4), np.int8)])
    del second
    gc.collect()
    assert isolated._shared._service is None
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_it_opens_no_file_and_has_no_network() -> None:
    kept = IsolatedRunner(straight(1)[0])

    def tried(function: str, argument: str) -> object:
        return kept._service.call(
            f"tests.support.confined:{function}", argument, subject="it", memory=2**30, seconds=30.0
        )

    if has_landlock():
        assert tried("read", "/etc/passwd") == "PermissionError"
        assert tried("write", str(Path.home() / "graphcut-was-here")) == "PermissionError"
    if has_seccomp():
        assert tried("socket", "AF_INET") == "PermissionError"
    assert kept([np.zeros((1, 8, 8, 4), np.int8)])


def test_many_files_one_after_the_other_leave_no_descriptor() -> None:
    kept = IsolatedRunner(straight(1)[0])
    array = np.zeros((1, 8, 8, 4), np.int8)

    def open_files() -> tuple[int, int]:
        return len([*Path("/proc/self/fd").iterdir()]), len([*Path(f"/proc/{child()}/fd").iterdir()])

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc to count descriptors in")
    IsolatedRunner(straight(1)[0])([array])
    kept([array])
    before = open_files()
    for _ in range(50):
        IsolatedRunner(straight(1)[0])([array])
    gc.collect()
    kept([array])
    assert open_files() == before
