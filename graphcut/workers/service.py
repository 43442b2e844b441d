"""One long-lived process that runs native libraries, for several threads at a time.

1. The child is ``python -m graphcut.workers.server``. It has a few connections; each serves one call at a time, in a
   thread of the child's, so that as many calls run side by side.
2. A call names a function ("package.module:name") and has an argument and an answer that can be pickled; large arrays
   are shared (:mod:`graphcut.workers.sharing`).
3. A call has a limit on additional memory and on time. If the child dies or a call exceeds its time, all running calls
   and all later ones fail, with an error that gives the reason.
4. The child ends when its parent does, in any state: it watches a pipe that only the parent holds open. (Not
   PR_SET_PDEATHSIG, which follows the thread that started the child.)
5. A :class:`SharedService` is one that several parts of a program use: started by the first, ended after the last. A
   process that is a worker already needs none (:func:`is_worker`).
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from graphcut.errors import GraphcutError, RunError
from graphcut.workers import sharing
from graphcut.workers.confinement import NOTHING

CONNECTIONS = 3
_KILLED = "was killed from outside"
KILLERS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that a process does not send itself: they come from outside, or from a kernel that ran out of memory."""


_WORKERS = frozenset({"graphcut.workers.worker", "graphcut.workers.server", "graphcut.workers.remote_object_main"})


def is_worker() -> bool:
    """Whether this process is one of ours that may crash."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name in _WORKERS


class ServiceError(Exception):
    """A call failed: the library refused its input, crashed, or exceeded a limit. One line."""


class Service:
    """The parent's side (module docstring).

    Args:
        preload: modules that the child imports at once.
        environment: variables for the child, where the user has not set them.
        connections: calls that can run side by side.
        confined: the child can open no file but those of Python and the system, and has no network
            (:mod:`graphcut.workers.confinement`).
    """

    def __init__(
        self,
        preload: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        *,
        connections: int = CONNECTIONS,
        confined: bool = False,
    ) -> None:
        self.process_id = os.getpid()
        self._idle: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._ended = ""
        self._ending = threading.Lock()
        self._stopped_for = ""
        pairs = [socket.socketpair() for _ in range(connections)]
        alive, self._alive = os.pipe()
        theirs = [pair[1].fileno() for pair in pairs]
        package_parent = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH", ""))))
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "graphcut.workers.server"),
                    *(str(alive), ",".join(map(str, theirs)), NOTHING.text() if confined else "", *preload),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(alive, *theirs),
                start_new_session=True,
                env={**(environment or {}), **os.environ, "PYTHONPATH": path},
            )
        except BaseException:
            os.close(self._alive)
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            os.close(alive)
            for _, child in pairs:
                child.close()
        self._connections = [ours for ours, _ in pairs]
        for connection in self._connections:
            self._idle.put(connection)

    @property
    def ended(self) -> bool:
        """Whether the child has ended, so that every call would fail."""
        return bool(self._ended)

    def call(self, function: str, argument: Any, *, subject: str, memory: int, seconds: float) -> Any:
        """Call a function in the child.

        Args:
            function: "package.module:name".
            argument: picklable.
            subject: what runs there, for errors ("onnxruntime").
            memory: limit of additional memory in bytes.
            seconds: time limit.

        Raises:
            ServiceError: see statement 3, or raised by the function.
            RunError: the child was killed from outside.
            GraphcutError: raised by the function.
            RuntimeError: any other error of the function, with its traceback: a bug.
        """
        if self._ended:
            raise self._failure(subject)
        connection = self._idle.get()
        try:
            sharing.send(connection, (function, argument, memory))
            if not select.select([connection], [], [], seconds)[0]:
                self._stopped_for = f"took longer than {seconds:.0f} s and was stopped"
                raise EOFError
            outcome, value = sharing.receive(connection)
        except (EOFError, OSError) as error:
            raise self._failure(subject) from error
        except BaseException:  # Ctrl-C in between: what would come next over this connection is unknown
            self.close()
            raise
        finally:
            if self._ended:
                connection.close()
            self._idle.put(connection)  # a closed one tells the next who waits
        if outcome == "value":
            return value
        if outcome == "refused":
            raise ServiceError(value)
        if outcome == "memory":
            raise ServiceError(f"{subject} needs more than its memory limit of {memory / 2**30:.1f} GiB")
        if isinstance(value, GraphcutError):
            raise value
        raise RuntimeError(value)

    def close(self) -> None:
        """End the child at once; running calls fail."""
        self._end("was closed")

    def _failure(self, subject: str) -> Exception:
        self._end("")
        if self._ended.startswith(_KILLED):
            return RunError(
                f"the process of {subject} {self._ended}",
                "nothing is wrong with the model: see that there is memory free, and run it again",
            )
        return ServiceError(f"{subject} {self._ended}")

    def _end(self, why: str) -> None:
        with self._ending:
            if self._ended:
                return
            why = why or self._stopped_for
            if why:
                self._process.kill()
            try:
                code = self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                code, why = self._process.wait(), "has stopped responding"
            self._ended = why or _epitaph(code)
            os.close(self._alive)
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            idle = []
            with suppress(queue.Empty):
                while True:
                    idle.append(self._idle.get_nowait())
            for connection in idle:
                connection.close()
                self._idle.put(connection)


class SharedService:
    """A :class:`Service` for as long as anybody needs it; the arguments are those of one."""

    def __init__(
        self,
        preload: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        connections: int = CONNECTIONS,
        confined: bool = False,
    ) -> None:
        self._start = partial(Service, preload, environment, connections=connections, confined=confined)
        self._lock = threading.RLock()
        self._service: Service | None = None
        self._users = 0

    def acquire(self) -> Service:
        """The service, kept until :meth:`release`; another one where it has ended."""
        with self._lock:
            service = self._service
            if service is None or service.ended or service.process_id != os.getpid():
                service = self._service = self._start()
                self._users = 0
            self._users += 1
            return service

    def release(self, service: Service) -> None:
        """Say that a service from :meth:`acquire` is not needed any more."""
        with self._lock:
            if service is not self._service:
                return
            self._users -= 1
            if self._users == 0 and service.process_id == os.getpid():
                service.close()
                self._service = None


def _epitaph(code: int) -> str:
    if -code in KILLERS:
        return f"{_KILLED} ({signal.Signals(-code).name})"
    if code < 0:
        try:
            return f"crashed ({signal.Signals(-code).name})"
        except ValueError:
            return f"crashed (signal {-code})"
    return f"ended with exit code {code}"
