"""The process for native libraries: crashes, hunger and hangs end it and not the program, and are said in a line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from graphcut.errors import ModelError, RunError
from graphcut.workers.service import CONNECTIONS, Service, ServiceError
from tests.support.places import ROOT

HERE = "tests.support.crashing"


@pytest.fixture
def service() -> Iterator[Service]:
    started = Service((HERE,))
    yield started
    started.close()


def call(service: Service, name: str, argument: object, *, memory: int = 2**30, seconds: float = 30.0) -> object:
    return service.call(f"{HERE}:{name}", argument, subject="the library", memory=memory, seconds=seconds)


def test_arrays_of_all_kinds_come_back_as_they_are(service: Service) -> None:
    generator = np.random.default_rng(0)
    large = generator.standard_normal((3, 500, 400)).astype(np.float32)
    arrays = {
        "large": large,
        "small": np.arange(5, dtype=np.int64),
        "turned": large.transpose(2, 0, 1),
        "fortran": np.asfortranarray(large[0]),
        "every other": large[:, ::2],
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(3.5),
        "bytes": generator.integers(0, 100, 100_000, np.uint8),
    }
    before = {name: array.copy() for name, array in arrays.items()}
    found = call(service, "doubled", arrays)
    assert isinstance(found, dict)
    for name, array in before.items():
        np.testing.assert_array_equal(found[name], array + array, err_msg=name)
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array, err_msg="the sender's own array was changed")
    found["large"][0, 0, 0] = 7  # what came back may be written into
    assert call(service, "doubled", {"x": np.ones(3)}) is not None


@pytest.mark.parametrize("number", [signal.SIGFPE, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL])
def test_a_crash_is_an_error_in_a_line(service: Service, number: signal.Signals) -> None:
    with pytest.raises(ServiceError, match=rf"the library crashed \({number.name}\)"):
        call(service, "crash", int(number))
    assert service.ended
    with pytest.raises(ServiceError, match="crashed"):
        call(service, "process_id", None)


def test_memory_is_limited_for_each_call(service: Service) -> None:
    assert call(service, "eat", 2**27, memory=2**28) == 2**27
    with pytest.raises(ServiceError, match=r"the library needs more than its memory limit of 0\.2 GiB"):
        call(service, "eat", 2**30, memory=2**28)
    assert call(service, "eat", 2**27, memory=2**28) == 2**27  # the process has survived


def test_what_threads_reserve_when_they_start_counts_against_no_call() -> None:
    with closing(Service((HERE,), connections=24)) as service:
        assert call(service, "eat", 2**27, memory=2**28) == 2**27


def test_time_is_limited(service: Service) -> None:
    begin = time.monotonic()
    with pytest.raises(ServiceError, match="the library took longer than 0 s and was stopped"):
        call(service, "sleep", 60, seconds=0.3)
    assert time.monotonic() - begin < 10


def test_being_killed_from_outside_is_not_blamed_on_the_model(service: Service) -> None:
    victim = call(service, "process_id", None)
    assert isinstance(victim, int)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, service, "sleep", 60)
        time.sleep(0.3)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(RunError, match=r"killed from outside \(SIGKILL\): nothing is wrong with the model"):
            waiting.result(30)


def test_errors_keep_their_kind(service: Service) -> None:
    with pytest.raises(ServiceError, match="not valid"):
        call(service, "refuse", "service")
    with pytest.raises(ModelError, match="no good: another"):
        call(service, "refuse", "user")
    with pytest.raises(RuntimeError, match=r"Traceback(.|\n)*KeyError"):
        call(service, "refuse", "bug")


def test_calls_run_side_by_side_and_the_rest_waits(service: Service) -> None:
    call(service, "process_id", None)
    begin = time.monotonic()
    with ThreadPoolExecutor(2 * CONNECTIONS) as pool:
        list(pool.map(lambda _: call(service, "sleep", 0.5), range(2 * CONNECTIONS)))
    assert 1.0 <= time.monotonic() - begin < 0.5 * 2 * CONNECTIONS


def test_a_crash_fails_all_that_wait(service: Service) -> None:
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(call, service, "sleep", 60) for _ in range(CONNECTIONS + 3)]
        time.sleep(0.5)
        service.close()
        for each in waiting:
            with pytest.raises(ServiceError, match="was closed"):
                each.result(30)


def test_it_outlives_the_thread_that_started_it() -> None:
    started: list[Service] = []
    thread = threading.Thread(target=lambda: started.append(Service()))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert isinstance(call(started[0], "process_id", None), int)
    started[0].close()


def test_it_ends_with_a_parent_that_is_killed_in_the_middle_of_a_call() -> None:
    script = (
        "import threading, time\n"
        "from graphcut.workers.service import Service\n"
        "s = Service()\n"
        f"c = lambda n, a: s.call('{HERE}:' + n, a, subject='it', memory=2**30, seconds=60)\n"
        "print(c('process_id', None), flush=True)\n"
        "c('sleep', 60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.1)
    assert not _runs(child)


def test_nothing_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for number in range(4):
        service = Service()
        if number % 2:
            call(service, "process_id", None)
        service.close()
        service.close()
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False
