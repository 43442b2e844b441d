"""Processes that keep the pages they have had: what makes and drops large arrays faults each page in once."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from graphcut.workers import malloc
from graphcut.workers.pool import Call, Pool

TIMES, SIZE = 8, 64 * 2**20
COUNT = f"""
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({TIMES}):
    array = libc.malloc({SIZE})
    ctypes.memset(array, 1, {SIZE})
    libc.free(array)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
ONCE = SIZE // os.sysconf("SC_PAGE_SIZE")
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="pages are kept by glibc's own settings")


def _faults(environment: dict[str, str], first: str = "") -> int:
    own = {name: value for name, value in os.environ.items() if name not in malloc.ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", first + COUNT], env={**own, **environment}, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@glibc
def test_pages_are_faulted_in_once_and_not_every_time() -> None:
    assert _faults({}) >= TIMES * ONCE  # what is cured: without this the other assertions would say nothing
    assert _faults(malloc.ENVIRONMENT) < 2 * ONCE
    assert _faults({}, "from graphcut.workers import malloc\nassert malloc.keep()\n") < 2 * ONCE


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda _: object())
    assert malloc.keep() is False


def variable(name: str) -> str | None:
    return os.environ.get(name)


def test_the_environment_of_workers_gives_way_to_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4096")
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    names = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"]
    calls = [Call(function="tests.workers.test_malloc:variable", argument=name, subject=name) for name in names]
    with Pool(1, tmp_path, environment=malloc.ENVIRONMENT) as pool:
        assert pool.map(calls) == ["4096", malloc.ENVIRONMENT["MALLOC_MMAP_THRESHOLD_"]]
