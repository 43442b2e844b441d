"""The child's side of :mod:`graphcut.workers.pool`: answers calls until its socket closes."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import pickle
import resource
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from graphcut.errors import GraphcutError
from graphcut.workers.confinement import confine, from_text

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Import, and serve calls or fork those that do.

    argv: the sockets of the workers and one for how they ended ("5,7,9"), their logs ("11,13"), the memory limit, the
    parent's process id, what it is confined to ("": nothing), then modules to import before the first call.
    """
    *sockets, statuses = (int(word) for word in sys.argv[1].split(","))
    logs = [int(word) for word in sys.argv[2].split(",")]
    memory, parent = int(sys.argv[3]), int(sys.argv[4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not _end_with(parent, signal.SIGKILL):
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    allowed = memory if hard == resource.RLIM_INFINITY else min(memory, hard)  # a batch system may have set less
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    if sys.argv[5]:
        confine(from_text(sys.argv[5]))
    for module in sys.argv[6:]:
        importlib.import_module(module)
    gc.freeze()  # what was imported stays: the collector need not look through it at every call
    if len(sockets) == 1:
        _serve(sockets[0])
        return
    _fork(sockets, logs, statuses, parent)


def _fork(sockets: list[int], logs: list[int], statuses: int, parent: int) -> None:
    """Fork a worker for each socket, tell how each ended, and end with the last; kill them when asked to stop."""
    own, numbers = os.getpid(), dict[int, int]()

    def stop(*_: object) -> None:
        for worker in tuple(numbers):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGTERM, stop)
    for number, (connection, log) in enumerate(zip(sockets, logs, strict=True)):
        worker = os.fork()
        if not worker:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            for other in (*sockets, statuses):
                if other != connection:
                    os.close(other)
            for stream in (1, 2):
                os.dup2(log, stream)
            if _end_with(own, signal.SIGKILL):
                _serve(connection)
            return
        numbers[worker] = number
    for descriptor in (*sockets, *logs):
        os.close(descriptor)
    alive = _end_with(parent, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if not alive:
        stop()
    told = Connection(statuses)
    while numbers:
        worker, status = os.wait()
        with suppress(BrokenPipeError, ConnectionResetError):  # nobody asks any more
            told.send((numbers.pop(worker), os.waitstatus_to_exitcode(status)))


def _end_with(parent: int, number: int) -> bool:
    """Get a signal when the parent dies (Linux); whether it still lives."""
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def _serve(descriptor: int) -> None:
    """Answer calls until the socket closes."""
    connection = Connection(descriptor)
    while True:
        try:
            function, argument = connection.recv()
        except EOFError:
            return
        connection.send_bytes(pickle.dumps(_answer(function, argument)))


def _answer(function: str, argument: Any) -> tuple[bool, Any]:
    module, name = function.split(":")
    try:
        return True, getattr(importlib.import_module(module), name)(argument)
    except MemoryError:
        return False, MemoryError()
    except GraphcutError as error:
        return False, error
    except OSError as error:
        return False, OSError(error.errno, error.strerror, error.filename)
    except Exception:  # a bug in a worker must reach the parent with its traceback, not end as a broken pipe
        return False, traceback.format_exc()


if __name__ == "__main__":
    main()
