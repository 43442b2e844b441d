"""Run an external program in its own folder and process group, with a time limit and captured output.

1. Its output is read as it comes, both streams in one; of very long output the beginning and the end are kept.
2. When it ends, passes its limit or the caller is interrupted, its whole process group is killed, so that no child
   process remains.
3. Its standard input is empty.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOST_OUTPUT = 2**20
_STEP = 0.2  # seconds between looks at a program that is silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended.

    Attributes:
        code: its exit code; None where a signal or the time limit ended it.
        signal: the signal's name ("SIGSEGV"), "" where it exited by itself or passed its limit.
        timed_out: it passed its limit and was killed.
        output: what it printed, as text.
        seconds: wall time.
    """

    code: int | None
    signal: str
    timed_out: bool
    output: str
    seconds: float


def run(
    command: Sequence[str],
    *,
    folder: Path,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    most_output: int = MOST_OUTPUT,
    stop: threading.Event | None = None,
) -> Finished:
    """Run a program to its end.

    Args:
        command: program and arguments; no shell is between.
        folder: its working directory.
        seconds: time limit.
        environment: variables beside those of this process.
        most_output: bytes of output to keep.
        stop: when set by another thread, the program is killed as if its time were up.

    Raises:
        OSError: it cannot be started (not there, not executable, not a program).
    """
    start = time.monotonic()
    process = subprocess.Popen(
        list(command),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    kept = _Kept(most_output)
    try:
        timed_out = not _listen(process, kept, start + seconds, stop or threading.Event())
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    code = process.returncode
    return Finished(
        code=None if timed_out or code < 0 else code,
        signal="" if timed_out or code >= 0 else _signal_name(-code),
        timed_out=timed_out,
        output=kept.text(),
        seconds=time.monotonic() - start,
    )


def _listen(process: subprocess.Popen[bytes], kept: _Kept, deadline: float, stop: threading.Event) -> bool:
    """Read until the program ends; False where the deadline or the stop came first.

    A child that outlives the program may hold its output open: the program's own end decides.
    """
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or stop.is_set():
                return False
            ended = process.poll() is not None
            pause = _STEP if selector.get_map() else _STEP / 20
            ready = selector.select(0 if ended else min(left, pause))
            if ready:
                data = os.read(descriptor, 1 << 16)
                if data:
                    kept.add(data)
                    continue
                selector.unregister(descriptor)  # its output is closed; it may still work
                continue
            if ended:
                return True


class _Kept:
    """The first and the last half of what may be a flood."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._first = bytearray()
        self._last = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        room = max(self._most // 2 - len(self._first), 0)
        self._first += data[:room]
        self._last += data[room:]
        over = len(self._last) - self._most // 2
        if over > 0:
            del self._last[:over]
            self._dropped += over

    def text(self) -> str:
        middle = f"\n[... {self._dropped} bytes omitted ...]\n".encode() if self._dropped else b""
        return (bytes(self._first) + middle + bytes(self._last)).decode(errors="replace")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
