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
from multiprocessing.connection import Connection
from typing import Any

from graphcut.errors import GraphcutError
from graphcut.workers.confinement import confine, from_text

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve calls over the inherited socket.

    argv: its descriptor, the memory limit, the parent's process id, what it is confined to ("": nothing), then modules
    to import before the first call.
    """
    descriptor, memory, parent = (int(word) for word in sys.argv[1:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    allowed = memory if hard == resource.RLIM_INFINITY else min(memory, hard)  # a batch system may have set less
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    if sys.argv[4]:
        confine(from_text(sys.argv[4]))
    connection = Connection(descriptor)
    for module in sys.argv[5:]:
        importlib.import_module(module)
    gc.freeze()  # what was imported stays: the collector need not look through it at every call
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
