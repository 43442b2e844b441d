"""Worker processes that can neither crash the program nor exhaust the machine's memory.

1. ``python -m graphcut.workers.worker`` imports what is needed once and forks the workers of a pool (on Linux;
   elsewhere each is started by itself). A worker has one socket to its parent; calls and answers are pickled records.
   (Not ``multiprocessing``: a spawned child would run the user's main script again.)
2. A worker's address space or resident memory is limited; its output goes to a log file; a call has a time limit.
3. If a worker dies, hangs or runs out of memory, only its call fails, and the error names the call.
4. No worker outlives its parent: it stops when the socket closes, and the kernel kills it when the parent dies.
5. Nor does one outlive a failure: before an error or Ctrl-C leaves :meth:`Pool.map`, all workers are stopped, so that
   no process writes to a folder that is then removed.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from graphcut.errors import ConversionError, GraphcutError, RunError, setting
from graphcut.workers.confinement import Confinement
from graphcut.workers.resident_memory import resident_bytes
from graphcut.workers.service import KILLERS

DEFAULT_MEMORY = 8 * 2**30
DEFAULT_SECONDS = 900.0
_LOOK_SECONDS = 0.5
_STOP_SECONDS = 10.0
_LOST = "lost its worker, which was killed from outside"
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call for a worker.

    Attributes:
        function: where the function is, "package.module:name"; it takes ``argument`` and returns a picklable record.
        argument: its only argument, picklable.
        subject: what the call is about, for errors ("segment 3 (conv4_block11_1_conv .. conv4_block16_out)").
    """

    function: str
    argument: Any
    subject: str


class _Starter:
    """The process that imports and then forks the workers, or is the only worker itself (statement 1)."""

    def __init__(
        self,
        logs: Sequence[Path],
        memory: int,
        preload: Sequence[str],
        environment: Mapping[str, str],
        confinement: Confinement | None,
    ) -> None:
        pairs = [socket.socketpair() for _ in (*logs, "statuses")]
        descriptors = [theirs.fileno() for _, theirs in pairs]
        package_parent = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH", ""))))
        own = confinement.environment() if confinement is not None else {}
        with ExitStack() as stack:
            for _, theirs in pairs:
                stack.callback(theirs.close)
            streams = [stack.enter_context(log.open("ab")) for log in logs]
            words = [",".join(map(str, each)) for each in (descriptors, (stream.fileno() for stream in streams))]
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "graphcut.workers.worker"),
                    *(*words, str(memory), str(os.getpid())),
                    confinement.text() if confinement is not None else "",
                    *preload,
                ],
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[0],
                pass_fds=(*descriptors, *(stream.fileno() for stream in streams)),
                start_new_session=True,
                env={**environment, **os.environ, **_ENVIRONMENT, **own, "PYTHONPATH": path},
            )
        *connections, self._statuses = [Connection(ours.detach()) for ours, _ in pairs]
        self._codes: dict[int, int] = {}
        self.workers = [
            _Worker(starter=self, number=number, log=log, connection=connection)
            for number, (log, connection) in enumerate(zip(logs, connections, strict=True))
        ]

    def exit_code(self, number: int) -> int:
        """How a worker ended; waits for it."""
        with suppress(EOFError, OSError):  # the process itself has ended, and all with it
            while number not in self._codes:
                ended, code = self._statuses.recv()
                self._codes[ended] = code
        return self._codes[number] if number in self._codes else self.process.wait()

    def stop(self) -> None:
        """End all workers, and wait until they are gone."""
        if len(self.workers) > 1:
            self.process.terminate()  # it kills the others and waits for them first
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_SECONDS)
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._statuses.close()
        for worker in self.workers:
            with suppress(
                EOFError, OSError
            ):  # where the process itself was killed, the kernel may still be ending them
                while worker.connection.poll(_STOP_SECONDS):
                    worker.connection.recv_bytes()
            worker.connection.close()


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    starter: _Starter
    number: int
    log: Path
    connection: Connection[Any, Any]
    position: int | None = None
    deadline: float = 0.0

    def resident_bytes(self) -> int:
        """What it has in memory, where it is the only one; 0 where it has just ended."""
        return resident_bytes(self.starter.process.pid)


class Pool:
    """A few workers, started at once so that they import while the parent still plans.

    Args:
        jobs: number of workers.
        logs: folder for ``worker1.log`` ...
        memory: bytes of address space for each worker.
        resident: bytes that the worker of a pool of one may have in memory, for those that reserve far more than they
            use; None: no limit.
        seconds: time limit of one call.
        preload: modules that each worker imports at once, while the parent does something else.
        environment: variables for the workers, where the user has not set them.
        confinement: what the workers may open; None: what this process may.
    """

    def __init__(
        self,
        jobs: int,
        logs: Path,
        *,
        memory: int = DEFAULT_MEMORY,
        resident: int | None = None,
        seconds: float = DEFAULT_SECONDS,
        preload: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        confinement: Confinement | None = None,
    ) -> None:
        self.logs = logs
        self._memory = memory
        self._resident = resident
        self._seconds = seconds
        self._starters: list[_Starter] = []
        names = [logs / f"worker{number}.log" for number in range(1, jobs + 1)]
        try:
            for together in [names] if sys.platform == "linux" else [[name] for name in names]:
                self._starters.append(_Starter(together, memory, preload, environment or {}, confinement))
        except BaseException:
            self.close()
            raise

    @property
    def _workers(self) -> list[_Worker]:
        return [worker for starter in self._starters for worker in starter.workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop every worker at once."""
        for starter in self._starters:
            starter.stop()
        self._starters = []

    def map(self, calls: Sequence[Call], done: Callable[[int], None] = lambda _: None) -> list[Any]:
        """Run all calls, as many at a time as there are workers; results in the calls' order.

        After an error, of whatever kind, the pool is closed.

        Args:
            calls: what to run; the first ones start first.
            done: called with the position of each call that has finished.

        Raises:
            GraphcutError: the first error of a call, as the worker raised it.
            OSError: a worker got an error such as a full disk.
            ConversionError: a worker died, ran out of memory or passed the time limit; names the call's subject.
            RunError: a worker was killed from outside.
        """
        try:
            return self._map(calls, done)
        except BaseException:
            self.close()
            raise

    def _map(self, calls: Sequence[Call], done: Callable[[int], None]) -> list[Any]:
        results: list[Any] = [None] * len(calls)
        waiting = list(range(len(calls)))[::-1]
        idle = self._workers
        busy: dict[int, _Worker] = {}
        while waiting or busy:
            while waiting and idle:
                worker, position = idle.pop(0), waiting.pop()
                worker.position, worker.deadline = position, time.monotonic() + self._seconds
                call = calls[position]
                self._send(worker, call)
                busy[worker.connection.fileno()] = worker
            wait = max(0.0, min(worker.deadline for worker in busy.values()) - time.monotonic())
            if self._resident is not None:
                wait = min(wait, _LOOK_SECONDS)
                self._refuse_large(busy.values(), self._resident, calls)
            ready, _, _ = select.select(list(busy), [], [], wait)
            late = min(busy.values(), key=lambda worker: worker.deadline)
            if not ready and late.deadline <= time.monotonic():
                raise self._failure(late, calls, f"took longer than {self._seconds:.0f} s and was stopped")
            for descriptor in ready:
                worker = busy.pop(descriptor)
                position = worker.position if worker.position is not None else -1
                results[position] = self._receive(worker, calls)
                idle.append(worker)
                done(position)
        return results

    def _refuse_large(self, workers: Iterable[_Worker], most: int, calls: Sequence[Call]) -> None:
        """Fail the call of a worker that exceeds its memory limit."""
        for worker in workers:
            if worker.resident_bytes() > most:
                raise self._failure(worker, calls, f"needed more than {most / 2**30:.1f} GiB of memory and was stopped")

    def _send(self, worker: _Worker, call: Call) -> None:
        try:
            worker.connection.send_bytes(pickle.dumps((call.function, call.argument)))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._failure(worker, {worker.position: call}, self._epitaph(worker)) from error

    def _receive(self, worker: _Worker, calls: Sequence[Call]) -> Any:
        try:
            succeeded, value = worker.connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise self._failure(worker, calls, self._epitaph(worker)) from error
        if succeeded:
            return value
        if isinstance(value, MemoryError):
            raise self._failure(
                worker, calls, f"needed more than the memory limit of {self._memory / 2**30:.1f} GiB"
            ) from value
        if isinstance(value, GraphcutError | OSError):
            raise value
        raise RuntimeError(f"{_subject(worker, calls)}: {value}")

    def _epitaph(self, worker: _Worker) -> str:
        code = worker.starter.exit_code(worker.number)
        if -code in KILLERS:
            return f"{_LOST} ({signal.Signals(-code).name})"
        if code < 0:
            return f"crashed the converter ({signal.Signals(-code).name})"
        return f"made the converter exit with code {code}"

    def _failure(self, worker: _Worker, calls: Any, what: str) -> GraphcutError:
        tail = worker.log.read_text(errors="replace").strip().splitlines()[-1:]
        last = f" (last line of its log: {tail[0][:200]})" if tail else ""
        if what.startswith(_LOST):
            return RunError(
                f"{_subject(worker, calls)} {what}",
                "the model is not the cause: check that enough memory is free, and run again",
            )
        return ConversionError(
            f"{_subject(worker, calls)} {what}{last}",
            f"choose other cuts ({setting('cuts')}, another {setting('budget')}), or simplify the operators in the log",
        )


def _subject(worker: _Worker, calls: Any) -> str:
    return str(calls[worker.position].subject) if worker.position is not None else "a call"
