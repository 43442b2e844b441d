"""Workers that fail, hang, die or eat memory fail their call and nothing else."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from graphcut.conversion.workers import converters
from graphcut.errors import ConversionError, RunError, UsageError
from graphcut.workers.pool import Call, Pool
from graphcut.workers.resident_memory import resident_bytes
from graphcut.workers.threads import threads
from tests.support.places import ROOT


def double(number: int) -> int:
    return 2 * number


def refuse(_: int) -> int:
    raise UsageError("this is wrong", "do that")


def explode(_: int) -> int:
    raise ZeroDivisionError("a bug")


def hang(_: int) -> int:
    time.sleep(600)
    return 0


def die(_: int) -> int:
    print("the last words of the worker", flush=True)
    os._exit(3)


def crash(_: int) -> int:
    return ctypes.string_at(0)


def devour(_: int) -> int:
    return len(bytearray(1 << 34))


def grow(_: int) -> int:
    kept = []
    while True:
        kept.append(b"x" * 2**24)
        time.sleep(0.01)


def process_id(_: int) -> int:
    return os.getpid()


def calls(function: str, count: int = 1) -> list[Call]:
    return [
        Call(function=f"tests.workers.test_pool:{function}", argument=n, subject=f"segment {n + 1}")
        for n in range(count)
    ]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with Pool(2, tmp_path, memory=2 * 2**30, seconds=20) as made:
        yield made


def test_results_come_in_order_and_each_is_told(pool: Pool):
    told: list[int] = []
    assert pool.map(calls("double", 9), told.append) == [2 * n for n in range(9)]
    assert sorted(told) == list(range(9))


def test_a_users_error_crosses_whole(pool: Pool):
    with pytest.raises(UsageError) as caught:
        pool.map(calls("refuse"))
    assert caught.value.message == "this is wrong"
    assert caught.value.way_out == "do that"


def test_a_bug_keeps_its_traceback(pool: Pool):
    with pytest.raises(RuntimeError, match=r"segment 1: Traceback[\s\S]*ZeroDivisionError: a bug"):
        pool.map(calls("explode"))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            "die",
            r"segment 1 made the converter exit with code 3 \(last line of its log: the last words of the worker\)",
        ),
        ("crash", r"segment 1 crashed the converter \(SIGSEGV\)"),
        ("devour", r"segment 1 needed more than the memory limit of 2.0 GiB"),
    ],
)
def test_a_worker_that_dies_is_named(pool: Pool, function: str, words: str):
    with pytest.raises(ConversionError, match=words):
        pool.map(calls(function))


def test_a_worker_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with Pool(1, tmp_path, seconds=1.5) as made, pytest.raises(ConversionError, match="segment 1 took longer than 2 s"):
        made.map(calls("hang"))


def test_a_worker_that_grows_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where address space cannot be limited: TensorFlow reserves far more than it uses."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with Pool(1, tmp_path, resident=2**29, seconds=60) as made:
        assert made.map(calls("double", 3)) == [0, 2, 4]
        with pytest.raises(ConversionError, match=r"segment 1 needed more than 0\.5 GiB of memory and was stopped"):
            made.map(calls("grow"))


def test_memory_of_a_process_is_told() -> None:
    before = resident_bytes()
    kept = bytearray(b"x" * 2**27)
    assert resident_bytes() - before > 0.9 * len(kept)
    assert resident_bytes(os.getpid()) == pytest.approx(resident_bytes(), rel=0.05)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident_bytes(ended.pid) == 0


def test_no_worker_outlives_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with Pool(2, tmp_path) as made:
        identities = set(made.map(calls("process_id", 6)))
    for identity in identities:
        with pytest.raises(ProcessLookupError):
            os.kill(identity, 0)


def parent_and_its_threads(_: int) -> tuple[int, int]:
    return os.getppid(), len(list(Path(f"/proc/{os.getppid()}/task").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker is started by itself")
def test_converters_are_forked_from_one_process_that_has_no_other_thread():
    with converters(2) as made:
        seen = set(made.map(calls("process_id", 1) + calls("parent_and_its_threads", 8)))
        ours = {made._starters[0].process.pid}
    assert {each[0] for each in seen if isinstance(each, tuple)} == ours
    assert {each[1] for each in seen if isinstance(each, tuple)} == {1}
    assert not ours & {each for each in seen if isinstance(each, int)}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker is started by itself")
def test_workers_end_when_what_forked_them_is_killed(pool: Pool):
    identities = set(pool.map(calls("process_id", 6)))
    pool._starters[0].process.kill()
    with pytest.raises(RunError, match=r"segment [12] lost its worker, which was killed from outside \(SIGKILL\)"):
        pool.map(calls("hang", 2))
    for identity in identities:
        with suppress(OSError):  # left to init, which may not have looked yet
            while Path(f"/proc/{identity}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X"):
                time.sleep(0.01)  # its files are closed already


def scribble(folder: str) -> None:
    """Write into the folder without end: one file after another."""
    for number in itertools.count():
        (Path(folder) / str(number)).touch()


def refuse_late(folder: str) -> None:
    """Refuse as soon as the other worker writes."""
    while not any(Path(folder).iterdir()):
        time.sleep(0.01)
    raise UsageError("this is wrong", "do that")


def test_no_worker_writes_on_after_a_failure(pool: Pool, tmp_path: Path):
    """Else a folder that is removed because of the failure would be filled again, and stay."""
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(UsageError):
        pool.map(
            [
                Call(function=f"tests.workers.test_pool:{function}", argument=str(work), subject=function)
                for function in ("scribble", "refuse_late")
            ]
        )
    written = sum(1 for _ in work.iterdir())
    time.sleep(0.2)
    assert sum(1 for _ in work.iterdir()) == written
    shutil.rmtree(work)


def test_a_lower_limit_of_the_system_stays(tmp_path: Path):
    """A batch system sets one that nobody may raise: no worker started under it before."""
    program = (
        "import resource, sys; from pathlib import Path; from graphcut.workers.pool import Call, Pool\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))\n"
        "with Pool(1, Path(sys.argv[1])) as pool:\n"
        "    print(pool.map([Call(function='tests.workers.test_pool:double', argument=4, subject='four')]))\n"
    )
    root = ROOT
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("[8]\n", "")


def test_no_more_workers_than_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr("graphcut.conversion.workers._PRELOAD", ())
    with converters(1000) as pool:
        assert len({*pool.map(calls("process_id", 60))}) <= 3
        assert len(list(pool.logs.glob("worker*.log"))) == 3


def test_threads_that_nobody_knows_of_do_nothing(monkeypatch: pytest.MonkeyPatch):
    start = threading.Thread.start
    done: list[int] = []

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    def use() -> None:
        with threads(2) as pool:
            pool.submit(done.append, 1)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            use()
    deadline = time.monotonic() + 60
    while any(each.name.startswith("ThreadPoolExecutor") for each in threading.enumerate()):
        assert time.monotonic() < deadline, "the thread waits for ever"
        time.sleep(0.01)
    assert done == []
    with threads(3) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]
