"""The child's side of :mod:`graphcut.workers.service`: answers calls until its parent ends."""

from __future__ import annotations

import gc
import importlib
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from graphcut.errors import GraphcutError
from graphcut.workers import sharing
from graphcut.workers.confinement import confine, from_text
from graphcut.workers.service import ServiceError

_FIRST_BYTES = 2**16
"""More than Python takes from memory of its own, less than the C library maps by itself."""


def main() -> None:
    """Serve calls.

    argv: the pipe to watch, the inherited sockets ("5,7,9"), what the process is confined to ("": nothing), then
    modules to import before the first call.
    """
    alive, descriptors = int(sys.argv[1]), [int(word) for word in sys.argv[2].split(",")]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_watch, args=(alive,), daemon=True).start()
    if sys.argv[3]:
        confine(from_text(sys.argv[3]))
    for module in sys.argv[4:]:
        importlib.import_module(module)
    gc.freeze()
    limits, started = _Limits(), threading.Barrier(len(descriptors))
    threads = [
        threading.Thread(target=_serve, args=(socket.socket(fileno=each), limits, started), daemon=True)
        for each in descriptors
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _watch(alive: int) -> None:
    os.read(alive, 1)  # nothing is ever written: it returns when the parent is gone
    os._exit(0)


def _serve(connection: socket.socket, limits: _Limits, started: threading.Barrier) -> None:
    # A thread's stack, and what the C library reserves at its first allocation, must not count against another's call.
    bytearray(_FIRST_BYTES)
    started.wait()
    while True:
        try:
            function, argument, memory = sharing.receive(connection)
        except (EOFError, OSError):
            return
        with limits.more(memory):
            answer = _answer(function, argument)
        del argument
        sharing.send(connection, answer)
        del answer


def _answer(function: str, argument: Any) -> tuple[str, Any]:
    module, name = function.split(":")
    try:
        return "value", getattr(importlib.import_module(module), name)(argument)
    except MemoryError:
        return "memory", None
    except ServiceError as error:
        return "refused", str(error)
    except GraphcutError as error:
        return "error", error
    except Exception:  # a bug must reach the parent with its traceback, not end as a broken socket
        return "error", traceback.format_exc()


class _Limits:
    """The address space that the calls under way may take: what the process had before them, and more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        self._running = 0
        self._limit = 0

    def more(self, memory: int) -> _Limits:
        with self._lock:
            taken = _address_space()
            if taken:
                self._limit = max(taken + memory, self._limit if self._running else 0)
                if self._hard != resource.RLIM_INFINITY:
                    self._limit = min(self._limit, self._hard)
                with suppress(ValueError, OSError):
                    resource.setrlimit(resource.RLIMIT_AS, (self._limit, self._hard))
            self._running += 1
        return self

    def __enter__(self) -> None:
        """The limit holds from :meth:`more` on."""

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                with suppress(ValueError, OSError):
                    resource.setrlimit(resource.RLIMIT_AS, (self._hard, self._hard))


def _address_space() -> int:
    """Bytes of address space of this process (Linux; elsewhere 0)."""
    with suppress(OSError):
        # proc(5), statm: the first field is the size of the address space, in pages
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


if __name__ == "__main__":
    main()
