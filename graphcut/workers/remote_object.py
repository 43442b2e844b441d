"""A child process with one object that answers calls, one at a time.

For code that may crash its process: a device's delegate that aborts, an interpreter that hangs. The child is
``python -m graphcut.workers.remote_object_main``; calls and answers are pickled over one socket. It ends with its
parent, whichever thread started it, and :meth:`Held.close` kills it at any time, which also ends a call that another
thread waits for.

Runs on devices: Python 3.9 and up, standard library only.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from graphcut.errors import GraphcutError, RunError


class Held:
    """An object in a separate process.

    Args:
        factory: where a function is, "package.module:name"; in the child it takes ``argument`` and returns a greeting
            (picklable) and a callable, which answers calls with one picklable argument.
        argument: picklable.
        subject: what it is about, for errors.

    Attributes:
        greeting: the greeting of the factory.

    Raises:
        GraphcutError: raised by the factory.
        RunError: the process died.
    """

    def __init__(self, factory: str, argument: Any, subject: str) -> None:
        self._subject = subject
        self._closing = threading.Lock()
        ours, theirs = socket.socketpair()
        watched, self._alive = os.pipe()
        package_parent = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH", ""))))
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "graphcut.workers.remote_object_main",
                    str(theirs.fileno()),
                    str(watched),
                    factory,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), watched),
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        except BaseException:
            ours.close()
            os.close(self._alive)
            raise
        finally:
            theirs.close()
            os.close(watched)
        self._connection = Connection(ours.detach())
        try:
            self.greeting = self.call(argument)
        except BaseException:
            self.close()
            raise

    def call(self, argument: Any) -> Any:
        """Call the object.

        Raises:
            GraphcutError: raised by the object.
            RuntimeError: any other error of the object, with its kind and text.
            RunError: the process died.
        """
        try:
            # Not send(): on a broken pipe it leaves a view of a BytesIO in the traceback, and collecting that can end
            # the process (cpython#111049 is related).
            self._connection.send_bytes(pickle.dumps(argument))
            succeeded, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise RunError(f"the process of {self._subject} {self._epitaph()}") from error
        if succeeded:
            return value
        if isinstance(value, GraphcutError):
            raise value
        raise RuntimeError(value)

    def close(self) -> None:
        """Kill the process; a running call fails."""
        with self._closing:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            self._connection.close()
            if self._alive >= 0:
                os.close(self._alive)
                self._alive = -1

    def _epitaph(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "stopped responding"
        return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
