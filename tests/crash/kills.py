"""Kills at every write and rename, and a machine that lacks things: what was there stays, and the next run works.

``python -m tests.crash.kills --count 200`` runs a command that replaces a result, under strace, which kills it at one
system call: at each rename, link, folder and removal, and at writes spread over the run. After each kill

1. OUT is the old result or the new one, byte for byte, and nothing in between;
2. the next run ends well, with the bytes that an undisturbed run gives;
3. no file of ours lies beside OUT, and no process is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.places import ROOT
from tests.support.provenance import provenance

CALLS = (
    *("mkdir", "rmdir", "unlink", "unlinkat", "rename", "renameat2", "link", "linkat", "fsync", "flock", "ftruncate"),
    *("write", "pwrite64", "copy_file_range", "sendfile"),
)
"""System calls that change files, as strace calls them; those that a kernel lacks are left out."""
RARE = frozenset(CALLS[:11])
MARK = "GRAPHCUT_CRASH_TEST"
_SECONDS = 180.0
_PARTIAL = re.compile(r"^\..*\.partial-[0-9a-f]{12}(\.lock)?$")
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command that replaces a result.

    Attributes:
        name: for people.
        command: arguments of Python; "OUT" and "IN" stand for paths.
        older: further arguments that make another result, which is there before.
        source: what "IN" stands for.
    """

    name: str
    command: tuple[str, ...]
    older: tuple[str, ...]
    source: Path | None = None

    def arguments(self, out: Path, *, older: bool = False) -> list[str]:
        """The command line."""
        places = {"OUT": str(out), "IN": str(self.source)}
        words = (*self.command, *(self.older if older else ()))
        return [sys.executable, *(places.get(word, word) for word in words)]


@dataclass(slots=True)
class Tally:
    """What came of the kills.

    Attributes:
        kills: how many hit.
        old, new: what OUT was afterwards.
        faults: what went wrong, in words.
    """

    kills: int = 0
    old: int = 0
    new: int = 0
    faults: list[str] = field(default_factory=list)


def digest(folder: Path, *, partial: bool = True) -> str:
    """All names and bytes below a folder, partial files among them or not; "" where there is none."""
    if not folder.exists():
        return ""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if not partial and _PARTIAL.search(path.name):
            continue
        total.update(f"{path.relative_to(folder)}\0{path.is_dir()}\0".encode())
        if path.is_file():
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def can_trace() -> bool:
    """Whether strace is there and may inject faults."""
    if shutil.which("strace") is None:
        return False
    tried = subprocess.run(
        ["strace", "-qq", "-e", "trace=write", "-e", "inject=write:error=EIO:when=1", "true"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


def known_calls() -> tuple[str, ...]:
    """Those of CALLS that strace knows on this machine."""
    return tuple(
        call
        for call in CALLS
        if not subprocess.run(
            ["strace", "-qq", "-e", f"trace={call}", "true"], capture_output=True, check=False
        ).returncode
    )


def count_calls(job: Job, out: Path, calls: Sequence[str]) -> Counter[str]:
    """Run a job to its end; how often its main thread made each call."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        ended = _run(["strace", "-qq", "-o", str(log), "-e", f"trace={','.join(calls)}", *job.arguments(out)])
        if ended.returncode:
            raise RuntimeError(f"{job.name} fails by itself: {ended.stderr[-500:]}")
        found = (_CALL.match(line) for line in log.read_text(errors="replace").splitlines())
        return Counter(each[1] for each in found if each is not None)


def places(counts: Counter[str], wanted: int) -> list[tuple[str, int]]:
    """Where to kill: every rare call, and others evenly."""
    rare = [(call, number) for call in sorted(counts) if call in RARE for number in range(1, counts[call] + 1)]
    other = [(call, number) for call in sorted(counts) if call not in RARE for number in range(1, counts[call] + 1)]
    if len(rare) > wanted:
        rare = [rare[number * len(rare) // wanted] for number in range(wanted)]
    left = min(max(wanted - len(rare), 0), len(other))
    return rare + [other[number * len(other) // left] for number in range(left)]


def kill_everywhere(job: Job, wanted: int, folder: Path) -> Tally:
    """Kill a job in ``wanted`` places, and look after each."""
    place = folder / f"results of {job.name}"
    place.mkdir(parents=True)
    out, tally = place / "out", Tally()
    kept = folder / f"older result of {job.name}"
    _must(job.arguments(kept, older=True))
    old = digest(kept)
    shutil.copytree(kept, out)
    counts = count_calls(job, out, known_calls())
    new = digest(out)
    if old == new:
        raise RuntimeError(f"{job.name}: the two results are the same")
    for call, number in places(counts, wanted):
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        where = f"{job.name} at {call} {number}"
        kill = f"inject={call}:signal=SIGKILL:when={number}"
        ended = _run(["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", kill, *job.arguments(out)])
        if ended.returncode not in (-9, 137):
            continue  # the call came less often this time
        tally.kills += 1
        found = digest(out, partial=False)
        tally.old += found == old
        tally.new += found == new
        if found not in (old, new) and not job.name.startswith("files"):
            tally.faults.append(f"{where}: OUT is neither the old result nor the new one")
        _await_end(tally, where)
        ended = _run(job.arguments(out))
        if ended.returncode:
            tally.faults.append(f"{where}: the next run fails: {ended.stderr.strip()[-200:]}")
            shutil.rmtree(out)
            _must(job.arguments(out))
        elif digest(out) != new:
            tally.faults.append(f"{where}: the next run gives other bytes")
        left = sorted(path.name for path in place.iterdir() if path != out)
        left += sorted(path.name for path in _temporary().iterdir())
        if left:
            tally.faults.append(f"{where}: {', '.join(left)[:200]} is left")
            for path in place.iterdir():
                if path != out:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        _await_end(tally, f"{where}, next run")
    return tally


def _must(arguments: Sequence[str]) -> None:
    ended = _run(arguments)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(arguments)} fails by itself: {ended.stderr[-500:]}")


def _temporary() -> Path:
    made = Path(tempfile.gettempdir()) / f"graphcut-crash-{os.getpid()}"
    made.mkdir(exist_ok=True)
    return made


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, MARK: str(os.getpid()), "PYTHONPATH": str(ROOT), "TMPDIR": str(_temporary())}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, timeout=_SECONDS, check=False
    )


def _await_end(tally: Tally, where: str) -> None:
    """See that no process is left; those of a killed parent may take a moment."""
    deadline = time.monotonic() + 10
    while left := ours():
        if time.monotonic() > deadline:
            tally.faults.append(f"{where}: processes {left} are left")
            return
        time.sleep(0.05)


def ours() -> list[int]:
    """Processes that a job has started."""
    wanted = f"{MARK}={os.getpid()}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if int(path.parent.name) != os.getpid() and wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


WRITER = Job(name="a small result", command=("-m", "tests.crash.writer", "OUT"), older=("--older",))


def jobs(split: Path) -> tuple[Job, ...]:
    """What is killed: a small result, a file, a bundle and a whole split."""
    return (
        WRITER,
        Job(name="files of outputs", command=("-m", "tests.crash.writer", "OUT", "--file"), older=("--older",)),
        Job(
            name="a bundle",
            command=("-m", "graphcut", "bundle", "IN", "-o", "OUT", "--force"),
            older=("--unsplit",),
            source=split,
        ),
        Job(
            name="a split",
            command=(
                *("-m", "graphcut", "split", "IN", "-o", "OUT", "--force", "--segments", "2"),
                *("--calibration", "random"),
            ),
            older=("--per-tensor",),
            source=split.parent / "net.onnx",
        ),
    )


def main(arguments: list[str] | None = None) -> int:
    """Kill, and print counts; 1 where anything was lost or left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="kills in all (200)")
    parser.add_argument("--json", action="store_true", help="counts as JSON on stdout, for tools.reliability_table")
    chosen = parser.parse_args(arguments)
    if not can_trace():
        sys.stderr.write("skipped: there is no strace that may inject faults\n")
        return 0
    from tests.fuzz import seeds

    shares = {"a small result": 0.6, "files of outputs": 0.1, "a bundle": 0.2, "a split": 0.1}
    kinds: dict[str, dict[str, Any]] = {}
    faults = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        seeds.unpack_split(folder / "split")
        (folder / "net.onnx").write_bytes(seeds.chain_of_convolutions())
        for job in jobs(folder / "split"):
            tally = kill_everywhere(job, max(1, round(chosen.count * shares[job.name])), folder)
            faults += tally.faults
            sys.stderr.write(f"{job.name}: {tally.kills} kills, {tally.old} old, {tally.new} new\n")
            kinds[job.name] = {"kills": tally.kills, "old": tally.old, "new": tally.new, "faults": tally.faults}
    shutil.rmtree(_temporary(), ignore_errors=True)
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    if chosen.json:
        sys.stdout.write(json.dumps({**provenance("crash"), "kinds": kinds}, indent=1) + "\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
