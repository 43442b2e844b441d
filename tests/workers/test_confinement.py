"""A confined worker: it opens what it was given and what Python is made of, and nothing else; it has no network."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from graphcut.workers.confinement import Confinement, from_text
from graphcut.workers.pool import Call, Pool

HERE = "tests.support.confined"


def has_landlock() -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    return sys.platform == "linux" and library.syscall(444, None, 0, 1) >= 1


def has_seccomp() -> bool:
    return sys.platform == "linux" and ctypes.CDLL(None).prctl(21, 0, 0, 0, 0) >= 0


def ask(function: str, argument: str, given: Confinement, logs: Path) -> str:
    with Pool(1, logs, confinement=given) as pool:
        return str(pool.map([Call(function=f"{HERE}:{function}", argument=argument, subject="it")])[0])


def test_it_goes_through_an_argument() -> None:
    given = Confinement(readable=(Path("/a b"), Path('/"c"')), home=Path("/d"))
    assert from_text(given.text()) == given


@pytest.mark.skipif(not has_landlock(), reason="this kernel has no Landlock")
def test_only_what_was_given_is_read_and_written(tmp_path: Path) -> None:
    for name in ("given", "home", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    given = Confinement(readable=(tmp_path / "given" / "file",), home=tmp_path / "home")
    assert ask("read", str(tmp_path / "given" / "file"), given, tmp_path) == "given"
    assert ask("read", str(tmp_path / "other" / "file"), given, tmp_path) == "PermissionError"
    assert ask("read", "/etc/passwd", given, tmp_path) == "PermissionError"
    assert ask("read", str(Path.home() / ".bashrc"), given, tmp_path) in ("PermissionError", "FileNotFoundError")
    assert ask("write", str(tmp_path / "home" / "new"), given, tmp_path) == "written"
    assert ask("write", str(tmp_path / "other" / "new"), given, tmp_path) == "PermissionError"
    assert ask("write", str(tmp_path / "given" / "file"), given, tmp_path) == "PermissionError"
    assert ask("temporary", "", given, tmp_path).startswith(str(tmp_path / "home"))


@pytest.mark.skipif(not has_seccomp(), reason="this kernel has no seccomp")
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_there_is_no_network(family: str, tmp_path: Path) -> None:
    given = Confinement(readable=(), home=tmp_path)
    assert ask("socket", family, given, tmp_path) == "PermissionError"
    assert ask("socket", "AF_UNIX", given, tmp_path) == "made"


def test_numbers_and_packages_work_inside(tmp_path: Path) -> None:
    given = Confinement(readable=(), home=tmp_path)
    assert ask("compute", "", given, tmp_path) == "6.0"


def test_without_confinement_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("free")
    with Pool(1, tmp_path) as pool:
        call = Call(function=f"{HERE}:read", argument=str(tmp_path / "file"), subject="it")
        assert pool.map([call]) == ["free"]
    assert os.environ.get("HOME") != str(tmp_path)
