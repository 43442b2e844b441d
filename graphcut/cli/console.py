"""Where words go: results to stdout, progress and notes to stderr.

1. On a terminal progress is a bar for each stage; elsewhere it is a line when a stage begins, ends, or has been
   silent for a second, so that a log stays short.
2. ``--quiet`` leaves results and errors. ``--json`` puts one JSON document, and nothing else, on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

from graphcut.cli.visible import one_line, visible
from graphcut.errors import OutputError, spelt
from graphcut.progress import Event
from graphcut.settings import as_flag

_SECONDS_BETWEEN_LINES = 1.0


class Console:
    """The terminal, or what stands for it.

    Args:
        quiet: no progress and no notes.
        as_json: results are JSON.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.as_json = as_json
        self._quiet = quiet
        self._bars = sys.stderr.isatty()
        self._bar: Any = None
        self._stage = ""
        self._said_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_bar()

    def result(self, text: str, document: Any) -> None:
        """Put a result on stdout: ``text`` for people or, where JSON is asked for, the document."""
        self._close_bar()
        self.line(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) if self.as_json else text)

    def line(self, text: str) -> None:
        """Put a line on stdout at once.

        Raises:
            OutputError: it cannot be written, to a full disk say.
            BrokenPipeError: nobody reads any more.
        """
        try:
            sys.stdout.write(f"{visible(spelt(text, as_flag))}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            forget(sys.stdout)
            what = f"the result cannot be put on stdout ({error.strerror or error})"
            raise OutputError(what, "make room, or read it elsewhere") from error

    def note(self, text: str) -> None:
        """Tell the user something beside the result."""
        if not self._quiet:
            self._close_bar()
            say(sys.stderr, f"graphcut: {text}")

    def report(self, event: Event) -> None:
        """Show progress; the report that stages are given."""
        if self._quiet:
            return
        if event.note:
            self.note(event.detail)
        elif self._bars:
            self._move_bar(event)
        else:
            self._say_step(event)

    def _move_bar(self, event: Event) -> None:
        if event.stage != self._stage or (self._bar is None and event.total):
            self._close_bar()
            self._stage = event.stage
            self._bar = tqdm(total=event.total or None, desc=event.stage, file=sys.stderr, leave=False)
        if self._bar is None:
            return
        if event.total:
            self._bar.total = event.total
        self._bar.n = event.done
        self._bar.set_postfix_str(one_line(event.detail), refresh=False)
        self._bar.refresh()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    def _say_step(self, event: Event) -> None:
        begins = event.stage != self._stage
        ends = bool(event.total) and event.done == event.total
        late = time.monotonic() - self._said_at >= _SECONDS_BETWEEN_LINES
        if not (begins or ends or late) or not (event.detail or begins):
            return
        self._stage, self._said_at = event.stage, time.monotonic()
        count = f" {event.done}/{event.total}" if event.total else ""
        say(sys.stderr, f"{event.stage}{count}{': ' if event.detail else ''}{event.detail}")


def say(stream: TextIO, text: str) -> None:
    """Write one line to a stream (:mod:`graphcut.cli.visible`), line breaks in the text made spaces."""
    try:
        stream.write(one_line(spelt(text, as_flag)) + "\n")
        stream.flush()
    except OSError:
        if stream is not sys.stderr:
            raise
        forget(stream)  # what nobody can read must not end a job


def forget(stream: TextIO) -> None:
    """Point a standard stream nowhere, lest the interpreter's last flush complains again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
