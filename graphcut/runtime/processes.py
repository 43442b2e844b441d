"""Interpreters in separate processes, for delegates that abort and devices that stop responding.

An interpreter that crashes ends only its process; one that hangs is killed and releases its device, which a thread
cannot do. Each call copies its arrays through a socket in both directions (about 0.2 ms for 200 KiB).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import AnyArray, Edge, Interpreter, Opener, Part
from graphcut.workers.remote_object import Held

Ends = tuple[tuple[Edge, ...], tuple[Edge, ...]]


class ProcessOpener:
    """Opens each part in a separate process; an :data:`graphcut.runtime.interpreter.Opener`.

    Args:
        opener: opens the part in the process; picklable, such as a :class:`graphcut.runtime.litert.LiteRtOpener`.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def describe(self) -> str:
        """The description of the opener, and that it runs in separate processes."""
        inner = getattr(self._opener, "describe", None)
        return f"{inner() if inner is not None else 'interpreters'}, each in a separate process"

    def __call__(self, part: Part, device: Device = CPU) -> Interpreter:
        """Start a process and open the part in it.

        Raises:
            GraphcutError: raised by the opener.
            RunError: the process died.
        """
        return _Remote(self._opener, part, device)


class _Remote:
    def __init__(self, opener: Opener, part: Part, device: Device) -> None:
        self._held = Held("graphcut.runtime.processes:hold", (opener, part, device), f"{part.label} on {device}")
        ends: Ends = self._held.greeting
        self.inputs, self.outputs = ends

    def __call__(self, arrays: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        made: tuple[AnyArray, ...] = self._held.call(tuple(arrays))
        return made

    def close(self) -> None:
        self._held.close()


def hold(argument: tuple[Opener, Part, Device]) -> tuple[Ends, Callable[[Any], Any]]:
    """Open a part in the child: return its edges and the function that answers calls."""
    opener, part, device = argument
    interpreter = opener(part, device)
    return (tuple(interpreter.inputs), tuple(interpreter.outputs)), interpreter
