"""What a user can get wrong, said in one line.

Every error a user can cause derives from :class:`GraphcutError`; the command line prints its message as one
line and exits with its ``exit_code``. Anything else that escapes is a bug and keeps its traceback.

A message has three parts: what is wrong and where, the number against its limit where there is one, and the
way out after a colon or a full stop ("budget 3.0 MiB is below the largest block conv5_block1 (5.7 MiB):
raise --budget to at least 5.8MiB").
"""

from __future__ import annotations

from typing import Any


class GraphcutError(Exception):
    """A user's error: one line that says what is wrong, where, and what to do.

    Args:
        message: what is wrong and where, without a full stop.
        way_out: what to do about it; joined to the message by a colon.
    """

    exit_code = 1

    def __init__(self, message: str, way_out: str = "") -> None:
        self.message = message
        self.way_out = way_out
        super().__init__(f"{message}: {way_out}" if way_out else message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with both parts, for errors that cross a process."""
        return type(self), (self.message, self.way_out)


class UsageError(GraphcutError):
    """A wrong option, an unknown name, an output folder that exists."""

    exit_code = 2


class ModelError(GraphcutError):
    """The model cannot be read or holds something that cannot be split."""

    exit_code = 3


class CalibrationError(GraphcutError):
    """The calibration data is missing, empty, unreadable or of the wrong shape."""

    exit_code = 4


class InfeasibleError(GraphcutError):
    """No plan satisfies the budget."""

    exit_code = 5


class ConversionError(GraphcutError):
    """A segment could not be converted, or its numbers are wrong after conversion."""

    exit_code = 6


class VerificationError(GraphcutError):
    """The segments do not compute what the whole model computes."""

    exit_code = 7


class OutputError(GraphcutError):
    """Artifacts cannot be written: not writable, disk full, already there."""

    exit_code = 8


class DependencyError(GraphcutError):
    """An optional dependency or outside program is not installed."""

    exit_code = 9


class RunError(GraphcutError):
    """A segment cannot be loaded or run, a device does not answer, or an input does not fit."""

    exit_code = 10


class CompilationError(GraphcutError):
    """The Edge TPU compiler refused or failed a file, or leaves on the CPU or off the chip what should not be."""

    exit_code = 11
