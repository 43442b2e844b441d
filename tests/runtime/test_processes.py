"""Interpreters in processes of their own: the same bytes; one that dies or hangs takes nothing else along."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from graphcut.errors import RunError
from graphcut.runtime.chain import Chain, SegmentError
from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import Interpreter, Part
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from graphcut.runtime.pipeline import Pipeline, Settings
from graphcut.runtime.processes import ProcessOpener
from graphcut.runtime.station import Patience
from tests.runtime.test_pipeline import eventually, pipeline_threads
from tests.support.places import ROOT
from tests.support.tiny_split import images, straight, write_split
from tests.support.toy_interpreter import Bench, Toy, computed, image, parts


class Dangerous:
    """Opens toys of which segment 2 does something once to its process; "once" is a file that it removes."""

    def __init__(self, what: str, once: Path) -> None:
        self.what, self.once = what, once

    def __call__(self, part: Part, device: Device) -> Toy:
        return Toy(Bench(act=self.act), part, device)

    def act(self, index: int, array: np.ndarray) -> None:
        if index != 2 or not np.array_equal(array, computed(image(3), 1)) or not self.once.exists():
            return
        self.once.unlink()
        if self.what == "abort":
            os.abort()
        elif self.what == "exit":
            os._exit(7)
        elif self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            time.sleep(3600)


def children() -> list[str]:
    listed = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if "graphcut.workers.remote_object_main" in line]


def test_real_segments_give_the_same_bytes(tmp_path: Path) -> None:
    job = read_job(write_split(tmp_path, straight(2), ["s2"]))
    with Chain(job.parts, LiteRtOpener(), outputs=job.outputs) as chain:
        wanted = [chain.run(array)[0].tobytes() for array in images(10)]
    opener = ProcessOpener(LiteRtOpener())
    assert opener.describe().endswith("each in a separate process")
    with Pipeline(job.parts, opener, outputs=job.outputs) as pipeline:
        assert len(children()) == 2
        assert [outputs[0].tobytes() for outputs in pipeline.run(images(10))] == wanted
    assert eventually(lambda: not children())


@pytest.mark.parametrize("what", ["abort", "exit", "kill", "hang"])
def test_a_process_that_dies_or_hangs_is_replaced_and_its_input_done_again(tmp_path: Path, what: str) -> None:
    once = tmp_path / "once"
    once.touch()
    notes: list[str] = []
    settings = Settings(patience=Patience(limit_s=0.5 if what == "hang" else 20, reopen_waits_s=(0.05,)))
    with Pipeline(parts(2), ProcessOpener(Dangerous(what, once)), settings=settings, note=notes.append) as pipeline:
        results = list(pipeline.run(map(image, range(8))))
        counts = pipeline.counts()[1]
    assert all(np.array_equal(outputs[0], computed(image(n), 2)) for n, outputs in enumerate(results))
    assert (counts.retried, counts.failed, counts.hung) == (1, 0, int(what == "hang"))
    said = {"abort": "crashed (SIGABRT)", "exit": "exit code 7", "kill": "crashed (SIGKILL)", "hang": "did not respond"}
    assert any(said[what] in note for note in notes)
    assert eventually(lambda: not children()), "a hanging process is killed"


def test_a_chain_goes_on_after_a_process_died(tmp_path: Path) -> None:
    once = tmp_path / "once"
    once.touch()
    with Chain(parts(2), ProcessOpener(Dangerous("abort", once))) as chain:
        for number in range(6):
            if number == 3:
                with pytest.raises(SegmentError, match=r"segment 2 failed on input 3: .*crashed \(SIGABRT\)"):
                    chain.run(image(number))
            else:
                assert np.array_equal(chain.run(image(number))[0], computed(image(number), 2))


def test_errors_cross_the_process(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone\.tflite does not exist"):
        ProcessOpener(LiteRtOpener())(Part("segment 1", tmp_path / "gone.tflite"), CPU)
    job = read_job(write_split(tmp_path, straight(1), ["s1"]))
    runner = ProcessOpener(LiteRtOpener())(job.parts[0], CPU)
    try:
        with pytest.raises(RuntimeError, match=r"ValueError: .*Dimension mismatch"):
            runner([np.zeros((1, 2, 2, 4), np.int8)])
        assert runner(images(1))[0].shape == (1, 8, 8, 4), "it goes on"
    finally:
        runner.close()
    assert eventually(lambda: not children())


def test_a_segment_error_keeps_its_parts_in_a_pickle() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(SegmentError("segment 3", 17, "no response", "look")))
    assert (error.label, error.number, error.reason, error.way_out) == ("segment 3", 17, "no response", "look")


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    folder = write_split(tmp_path, straight(1), ["s1"])
    script = (
        "import os, sys; from pathlib import Path\n"
        "from graphcut.runtime.job_folder import read_job; from graphcut.runtime.litert import LiteRtOpener\n"
        "from graphcut.runtime.processes import ProcessOpener; from graphcut.runtime.devices import CPU\n"
        "runner = ProcessOpener(LiteRtOpener())(read_job(Path(sys.argv[1])).parts[0], CPU)\n"
        "print(runner._held._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    child = Path("/proc") / done.stdout.strip()
    if not Path("/proc/self").exists():
        pytest.skip("no /proc to look for the child in")
    assert done.stdout.strip().isdigit(), done.stderr
    assert eventually(lambda: not child.exists() or "Z" in (child / "stat").read_text().split()[2])


def test_a_process_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    job = read_job(write_split(tmp_path, straight(1), ["s1"]))
    opened: list[Interpreter] = []
    thread = threading.Thread(target=lambda: opened.append(ProcessOpener(LiteRtOpener())(job.parts[0], CPU)))
    thread.start()
    thread.join()
    time.sleep(0.3)
    try:
        assert opened[0](images(1))[0].shape == (1, 8, 8, 4)
    finally:
        opened[0].close()


def holding_the_lock(_argument: object) -> tuple[int, object]:
    """A child that never lets another thread of its own have a turn."""
    return os.getpid(), lambda _: ctypes.PyDLL(None).sleep(600)


def test_a_process_in_a_call_that_stops_all_its_threads_ends_with_its_parent() -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere a thread of the child looks")
    script = (
        "from graphcut.workers.remote_object import Held\n"
        "held = Held('tests.runtime.test_processes:holding_the_lock', None, 'it')\n"
        "print(held.greeting, flush=True)\nheld.call(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.kill()
        parent.wait()
    assert eventually(lambda: not Path(f"/proc/{child}").exists(), 30)


def test_signals_to_processes_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    """What ``graphcut run --processes`` does for minutes, for some seconds."""
    storm(tmp_path, seconds=float(os.environ.get("GRAPHCUT_STORM_SECONDS", "6")))


def storm(folder: Path, seconds: float) -> tuple[int, int]:
    """Kill interpreters' processes at random while inputs go through; how many inputs, and how many kills."""
    job = read_job(write_split(folder, straight(3), ["s3"]))
    with Chain(job.parts, LiteRtOpener(), outputs=job.outputs) as chain:
        pictures = list(images(50))
        wanted = [chain.run(array)[0].tobytes() for array in pictures]
    fds = Path("/proc/self/fd")
    before = len([*fds.iterdir()]) if fds.is_dir() else 0
    ends, kills, rng = time.monotonic() + seconds, 0, random.Random(0)
    stopped = threading.Event()

    def kill() -> None:
        nonlocal kills
        while not stopped.wait(rng.uniform(0.2, 0.6)):
            listed = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "remote_object_main"], capture_output=True)
            found = listed.stdout.split()
            if found:
                with suppress(ProcessLookupError):
                    os.kill(int(rng.choice(found)), rng.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)))
                    kills += 1

    def source() -> Iterator[np.ndarray]:
        number = 0
        while time.monotonic() < ends:
            yield pictures[number % 50]
            number += 1

    killer = threading.Thread(target=kill)
    done = 0
    settings = Settings(patience=Patience(retries=20, reopen_waits_s=(0.05,) * 20))
    with Pipeline(job.parts, ProcessOpener(LiteRtOpener()), outputs=job.outputs, settings=settings) as pipeline:
        killer.start()
        try:
            for done, outputs in enumerate(pipeline.run(source()), start=1):
                assert outputs[0].tobytes() == wanted[(done - 1) % 50], done - 1  # type: ignore[index]
        finally:
            stopped.set()
            killer.join()
    assert done > 0
    assert eventually(lambda: not children() and not pipeline_threads())
    assert not before or eventually(lambda: len([*fds.iterdir()]) <= before)
    return done, kills
