"""A few of the kills of ``make crash``, and machines that lack something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.crash import kills
from tests.support.places import ROOT
from tests.support.tiny_split import straight, write_split

FEW = 14


@pytest.mark.skipif(not kills.can_trace(), reason="there is no strace that may inject faults")
def test_a_kill_at_any_call_leaves_the_old_result_or_the_new_one(tmp_path: Path) -> None:
    tally = kills.kill_everywhere(kills.WRITER, FEW, tmp_path)
    assert tally.faults == []
    assert tally.kills >= FEW - 2
    assert tally.old >= 1
    assert tally.new >= 1


def test_the_same_process_number_twice_is_no_obstacle(tmp_path: Path) -> None:
    """In a container a process has the same number after every start."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process number spaces here")
    out = tmp_path / "out"
    numbers = set()
    for _ in range(2):
        script = (
            "import os, pathlib, sys\nfrom graphcut import staging\n"
            "print(os.getpid(), flush=True)\n"
            "with staging.staging(pathlib.Path(sys.argv[1]), force=True) as folder:\n"
            "    (folder / 'half').write_text('x')\n    os.kill(os.getpid(), 9)\n    os._exit(9)\n"
        )
        ended = subprocess.run(
            [*unshare, sys.executable, "-c", script, str(out)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        numbers.add(ended.stdout.strip())
        assert ended.returncode, "it was killed, or ended itself where number 1 cannot be"
    assert len(numbers) == 1
    ended = subprocess.run(
        [sys.executable, *kills.WRITER.arguments(out)[1:]], cwd=ROOT, capture_output=True, check=False
    )
    assert ended.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def run(
    arguments: list[str], *, before: str = "", environment: Mapping[str, str] | None = None, **more: object
) -> subprocess.CompletedProcess[str]:
    """The command line, after some shell words that take something away."""
    command = [sys.executable, "-m", "graphcut", *arguments]
    if before:
        command = ["sh", "-c", f'{before} exec "$@"', "sh", *command]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=environment, **more
    )  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("tiny") / "a split", straight(2), ["s2"], ["image"])


def said(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in ended.stderr.splitlines() if line.startswith("graphcut: error: ")]


@pytest.mark.parametrize(
    "before",
    [
        "unset HOME TMPDIR;",
        "exec 0<&- 1>&- 2>&-;",
        "exec 2>&-;",
        "umask 777;",
        "cd /proc;",
        "ulimit -n 64; ulimit -s 512;",
    ],
)
def test_a_bundle_is_made_on_a_machine_that_lacks_something(split: Path, tmp_path: Path, before: str) -> None:
    if "umask" in before and os.geteuid():
        pytest.skip("without rights on its own files nobody but root writes")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = run(["bundle", str(split), "-o", str(tmp_path / "out")], before=before, environment=environment)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "meta.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("limit", [150_000, 400_000, 800_000])
def test_little_memory_is_a_line_or_enough(split: Path, tmp_path: Path, limit: int) -> None:
    ended = run(["bundle", str(split), "-o", str(tmp_path / "out")], before=f"ulimit -v {limit};")
    if ended.returncode:
        # Python itself may not start, or find no room for a module.
        assert said(ended) or limit <= 500_000, ended.stderr
        assert list(tmp_path.iterdir()) == []
    assert not kills.ours()


@pytest.mark.parametrize("name", ["new\nline", "-dash ünï", "\u202ea'b\"c$d", "x" * 200])
def test_odd_names_are_only_names(split: Path, tmp_path: Path, name: str) -> None:
    ended = run(["bundle", str(split), "-o", f"{tmp_path}/{name}"])
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_is_a_line(split: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        ended = run(["bundle", str(split), "-o", str(disk / "out")])
        assert ended.returncode == 8, ended.stderr
        assert len(said(ended)) == 1
        assert "No space left" in said(ended)[0]
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ended = run(["bundle", str(split), "-o", str(disk / "out")])
        assert ended.returncode == 8, ended.stderr
        assert "Read-only" in said(ended)[0]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_without_shared_memory_in_the_file_system(split: Path, tmp_path: Path) -> None:
    unshare = ["unshare", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount name spaces here")
    command = [sys.executable, "-m", "graphcut", "bundle", str(split), "-o", str(tmp_path / "out")]
    hidden = 'mount -t tmpfs -o ro,size=4k none /dev/shm && exec "$@"'
    ended = subprocess.run(
        [*unshare, "sh", "-c", hidden, "sh", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
