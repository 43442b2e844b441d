"""The command line in a forked child: as fast as a call, and as separate as a process.

1. The child inherits the imported package; nothing it does reaches this process. Native libraries run in the child
   itself, which is faster; where one takes it down, the file is run again with the processes they have in real use.
2. Its address space and its processor time are limited, and so is the wall time.
3. An outcome is *sound* where the exit code is one of the documented list, a failure is one line on stderr without
   control characters, nothing was opened outside the places a run needs, no address was connected, and no limit was
   passed (:func:`faults`).
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CODES = frozenset({0, *range(2, 12)})
"""The documented exit codes (docs, `graphcut.errors`); 1 is a bug."""
MOST_SECONDS = 20.0
MOST_WALL_SECONDS = 300.0
"""Until it counts as a hang: far above what a run takes, because other programs use the machine as well."""
MOST_BYTES = 6 * 2**30
LONGEST_LINE = 2000

_PREFIX = "graphcut: error: "
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SECRETS = ("/etc/passwd", "/etc/shadow", "/etc/hostname", str(Path.home() / ".ssh"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: exit code; None where a signal ended it.
        signal: the signal's number, 0 for none.
        late: it passed the wall time and was killed.
        seconds: processor time, that of its children included.
        peak_bytes: the largest resident set.
        text: what it wrote to stderr.
        touched: places outside that it opened, and addresses it wanted to connect to.
    """

    code: int | None
    signal: int
    late: bool
    seconds: float
    peak_bytes: int
    text: str
    touched: str


def run(arguments: Sequence[str], *, isolate: bool = False) -> Outcome:
    """Run ``graphcut`` with arguments in a forked child; with the processes for native libraries where ``isolate``."""
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as touched:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _child(arguments, errors.fileno(), touched.fileno(), isolate=isolate)
        status, usage, late = _wait(child)
        errors.seek(0)
        touched.seek(0)
        return Outcome(
            code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            late=late,
            seconds=usage.ru_utime + usage.ru_stime,
            peak_bytes=usage.ru_maxrss * 1024,
            text=errors.read().decode(errors="replace"),
            touched=touched.read().decode(errors="replace"),
        )


def faults(outcome: Outcome) -> list[str]:
    """What is wrong with an outcome, one short phrase each; empty where it is sound (module, statement 3)."""
    found = []
    lines = outcome.text.splitlines()
    if outcome.late:
        found.append("hang")
    elif outcome.signal:
        found.append(f"native {signal.Signals(outcome.signal).name}")
    elif outcome.code not in CODES:
        found.append(f"exit code {outcome.code}")
    if any(line.startswith("Traceback") for line in lines):
        found.append(f"traceback {lines[-1][:100]}")
    said = [line for line in lines if line.startswith(_PREFIX)]
    if outcome.code not in (0, None) and not any("Traceback" in line for line in lines):
        if len(said) != 1 or lines[-1] != said[0]:
            found.append(f"{len(said)} error lines")
        elif len(said[0]) > LONGEST_LINE:
            found.append(f"a line of {len(said[0])} characters")
    if _CONTROL.search(outcome.text.replace("\n", "")):
        found.append("control characters")
    if outcome.seconds > MOST_SECONDS:
        found.append(f"{outcome.seconds:.0f} s")
    if outcome.peak_bytes > MOST_BYTES // 2:
        found.append(f"{outcome.peak_bytes / 2**30:.1f} GiB")
    if outcome.touched:
        found.append(f"touched {outcome.touched.splitlines()[0][:80]}")
    return found


def _child(arguments: Sequence[str], errors: int, touched: int, *, isolate: bool) -> None:
    code = 1
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number, target in ((0, nowhere), (1, nowhere), (2, errors)):
            os.dup2(target, number)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # for the life of the child
        sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
        _listen(touched)
        from graphcut.cli import main
        from graphcut.graph import native

        if not isolate:
            native.is_worker = lambda: True
        code = main([*arguments])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _listen(touched: int) -> None:
    """Write down what is opened outside, and every address that is asked for (PEP 578)."""

    def heard(event: str, values: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(values[0], str) and values[0].startswith(_SECRETS):
            os.write(touched, f"open {values[0]}\n".encode())
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            os.write(touched, f"{event} {values[-1]!r}\n".encode())

    sys.addaudithook(heard)


def _wait(child: int) -> tuple[int, resource.struct_rusage, bool]:
    deadline, late = time.monotonic() + MOST_WALL_SECONDS, False
    while True:
        ended, status, usage = os.wait4(child, 0 if late else os.WNOHANG)
        if ended:
            return status, usage, late
        if time.monotonic() > deadline:
            late = True
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)


def scratch() -> Path:
    """A folder for one campaign."""
    return Path(tempfile.mkdtemp(prefix="graphcut-fuzz-"))
