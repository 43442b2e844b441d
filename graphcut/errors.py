"""Errors that a user can cause, each reported in one line.

Every error a user can cause derives from :class:`GraphcutError`; the command line prints its message as one
line and exits with its ``exit_code``. Anything else that escapes is a bug and keeps its traceback.

A message has three parts: what is wrong and where, the number and its limit if there is one, and the remedy after a
    colon ("budget 3.0 MiB is below the largest block conv5_block1 (5.7 MiB):
raise --budget to at least 5.8MiB").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_OPEN, _CLOSE = "\ue000", "\ue001"  # private use: no other text contains them
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NAMED = re.compile(f"{_OPEN}(\\w+)(?:([=~])([^{_CLOSE}]*))?{_CLOSE}")

LONGEST_LINE = 300
"""The most characters of a library's message that an error shows."""

Spelling = Callable[[str, str | None], str]
"""Formats a setting, given its name in the Python API and its value or None."""


def setting(name: str, value: object = None, *, to: object = None) -> str:
    """Name a setting in a text by its name in the Python API; each interface shows it in its own form.

    Args:
        name: such as "max_seam_tensors".
        value: the value to set, shown with the name; None for no value.
        to: the same, where the surrounding text shows the value: kept as data only.
    """
    given = f"={value}" if value is not None else "" if to is None else f"~{to}"
    return f"{_OPEN}{name}{given}{_CLOSE}"


def as_argument(name: str, value: str | None) -> str:
    """Format a setting as in Python code: ``max_seam_tensors=2``."""
    if value is None:
        return name
    if name == "input_shapes":
        key, _, dimensions = value.rpartition(":")
        return f"{name}={{{key!r}: ({dimensions.replace('x', ', ')})}}"
    if name == "limits":
        key, _, bound = value.partition("=")
        return f"{name}={{{key!r}: {bound!r}}}"
    plain = value in ("True", "False") or re.fullmatch(r"-?\d+(\.\d+)?", value)
    return f"{name}={value if plain else repr(value)}"


def spelt(text: str, spelling: Spelling = as_argument) -> str:
    """Format every setting that :func:`setting` named in a text."""
    return _NAMED.sub(lambda found: spelling(found[1], found[3] if found[2] == "=" else None), text)


def first_line(error: BaseException) -> str:
    """The first line of an error's text that has a letter, shortened; its type if there is none.

    For errors of libraries, which write paragraphs, rulers and colours: onnxruntime lists every type of a node.
    """
    for line in _COLOUR.sub("", str(error)).splitlines():
        words = " ".join(line.split())
        if any(letter.isalpha() for letter in words):
            return words if len(words) <= LONGEST_LINE else f"{words[: LONGEST_LINE - 3]}..."
    return type(error).__name__


class GraphcutError(Exception):
    """A user's error: one line that says what is wrong, where, and what to do.

    Args:
        message: what is wrong and where, without a full stop.
        way_out: the remedy; joined to the message by a colon. Settings in both are named by :func:`setting`.
    """

    exit_code = 1

    def __init__(self, message: str, way_out: str = "") -> None:
        self.message = message
        self.way_out = way_out
        super().__init__(spelt(self.text))

    @property
    def text(self) -> str:
        """The line, with settings not formatted yet."""
        return f"{self.message}: {self.way_out}" if self.way_out else self.message

    @property
    def remedies(self) -> tuple[tuple[str, str | None], ...]:
        """The settings that the remedy names, each with the value to set, or None if there is none."""
        return tuple((found[1], found[3]) for found in _NAMED.finditer(self.way_out))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle both parts, for errors from other processes."""
        return type(self), (self.message, self.way_out)


class UsageError(GraphcutError):
    """A wrong option, an unknown name, an output folder that exists."""

    exit_code = 2


class ModelError(GraphcutError):
    """The model cannot be read or contains something that cannot be split."""

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
    """Artifacts cannot be written: the folder is not writable or the disk is full."""

    exit_code = 8


class DependencyError(GraphcutError):
    """An optional dependency or external program is not installed."""

    exit_code = 9


class RunError(GraphcutError):
    """A segment cannot be loaded or run, a device does not respond, or an input does not fit."""

    exit_code = 10


class CompilationError(GraphcutError):
    """The Edge TPU compiler failed, left operators on the CPU, or left parameters off the chip."""

    exit_code = 11
