"""The child's side of :mod:`graphcut.workers.remote_object`: makes one object, then answers calls.

Runs on devices: Python 3.9 and up, standard library only.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any, Callable

from graphcut.errors import GraphcutError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve one object. argv: the inherited socket, the parent's process id, the factory ("package.module:name")."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
    connection = Connection(descriptor)
    module, name = sys.argv[3].split(":")
    made: list[Callable[[Any], Any]] = []

    def make(argument: Any) -> Any:
        greeting, answer = getattr(importlib.import_module(module), name)(argument)
        made.append(answer)
        return greeting

    while True:
        try:
            argument = connection.recv()
        except EOFError:
            return
        connection.send_bytes(pickle.dumps(_answer(made[0] if made else make, argument)))


def _answer(call: Callable[[Any], Any], argument: Any) -> tuple[bool, Any]:
    try:
        return True, call(argument)
    except GraphcutError as error:
        return False, error
    except Exception as error:  # goes to the parent, which raises it; the parent decides what becomes of this process
        return False, f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
