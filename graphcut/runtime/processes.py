"""Interpreters in processes of their own: for delegates that abort, and devices that hang for good.

An interpreter that dies takes its process along and nothing else; one that hangs is killed and gives its device back,
which a thread cannot. Each call copies its arrays there and back through a socket (about 0.2 ms for 200 KiB).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import AnyArray, Edge, Interpreter, Opener, Part
from graphcut.workers.remote_object import Held

Ends = tuple[tuple[Edge, ...], tuple[Edge, ...]]


class ProcessOpener:
    """Opens each part in a process of its own; an :data:`graphcut.runtime.interpreter.Opener`.

    Args:
        opener: what opens the part there; picklable, such as a :class:`graphcut.runtime.litert.LiteRtOpener`.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def describe(self) -> str:
        """As the opener says, and where."""
        inner = getattr(self._opener, "describe", None)
        return f"{inner() if inner is not None else 'interpreters'}, each in a process of its own"

    def __call__(self, part: Part, device: Device = CPU) -> Interpreter:
        """Start a process and open the part in it.

        Raises:
            GraphcutError: as the opener.
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
    """Open a part in the child: its edges, and what answers calls."""
    opener, part, device = argument
    interpreter = opener(part, device)
    return (tuple(interpreter.inputs), tuple(interpreter.outputs)), interpreter
