"""The child's side of :mod:`graphcut.workers.remote_object`: creates one object, then answers calls.

Runs on devices: Python 3.9 and up, standard library only.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import pickle
import select
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any, Callable

from graphcut.errors import GraphcutError

_F_SETSIG = 10  # linux/fcntl.h


def main() -> None:
    """Serve one object. argv: the inherited socket, a pipe to watch, the factory ("package.module:name")."""
    descriptor = int(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(int(sys.argv[2]))
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


def end_with_parent(pipe: int) -> None:
    """End this process when its parent does, whatever it is doing.

    The parent holds the other end of the pipe, and only it. On Linux the kernel itself kills this process then, even in
    the middle of a call that gives no other thread a turn (fcntl(2), F_SETSIG). Not PR_SET_PDEATHSIG, which follows the
    thread that started the child.
    """
    if sys.platform == "linux":
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([pipe], [], [], 0)[0]:  # it has ended before
            os._exit(0)
    else:
        threading.Thread(target=_await_end, args=(pipe,), daemon=True).start()


def _await_end(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is ever written: it returns when the parent is gone
    os._exit(0)


def _answer(call: Callable[[Any], Any], argument: Any) -> tuple[bool, Any]:
    try:
        return True, call(argument)
    except GraphcutError as error:
        return False, error
    except Exception as error:  # is sent to the parent, which raises it and decides about this process
        return False, f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
