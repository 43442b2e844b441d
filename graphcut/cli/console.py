"""Where words go: results to stdout, progress and notes to stderr.

1. A stream that is a terminal, and not a dumb one, is set for its width and in colours
   (:mod:`graphcut.cli.terminal`). ``NO_COLOR`` leaves the width, and no escape sequence. ``--width`` sets results for
   that many columns wherever they go. Otherwise text is plain, and a table as wide as what is in it: scripts read it.
2. On a terminal with colours a running stage is a bar; elsewhere it is a line when it begins, ends, or has been silent
   for a second, so that a log stays short. A stage that has ended is a line with its time on both.
3. ``--quiet`` leaves results and errors. ``--json`` puts one JSON document, and nothing else, on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from graphcut.cli.visible import one_line, visible
from graphcut.errors import OutputError, spelt
from graphcut.progress import Event
from graphcut.settings import as_flag

if TYPE_CHECKING:
    from graphcut.cli.terminal import Terminal
    from graphcut.report.tables import Shown, TextTable

_SECONDS_BETWEEN_LINES = 1.0
_DUMB = frozenset({"dumb", "unknown"})


class Console:
    """The terminal, or what stands for it.

    Args:
        quiet: no progress and no notes.
        as_json: results are JSON.
        width: columns for results; None for the terminal's, and for no limit elsewhere.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, width: int | None = None) -> None:
        self.as_json = as_json
        self._quiet = quiet
        self._width = width
        self._bars = None if quiet or os.environ.get("NO_COLOR") else terminal_of(sys.stderr)
        self._timed: list[str] = []  # stages that say when they end
        self._passing, self._began = "", 0.0  # the one that does not: it ends where the next begins
        self._said, self._said_at = "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._end_passing()
        self._end_bar()

    def result(self, shown: str | Shown, document: Any) -> None:
        """Put a result on stdout: lines and tables for people or, where JSON is asked for, the document."""
        self._end_passing()
        if self.as_json:
            self._end_bar()
            with _stdout() as out:
                out.write(f"{visible(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False))}\n")
            return
        for each in [shown] if isinstance(shown, str) else shown:
            self.line(each)

    def line(self, shown: str | TextTable) -> None:
        """Put a line or a table on stdout at once.

        Raises:
            OutputError: it cannot be written, to a full disk say.
            BrokenPipeError: nobody reads any more.
        """
        self._end_bar()
        with _stdout() as out:
            terminal = terminal_of(out, self._width)
            if terminal is None:
                out.write(f"{_safe(str(shown))}\n")
            elif isinstance(shown, str):
                terminal.line(_safe(shown))
            else:
                terminal.table(_safe_table(shown))

    def note(self, text: str) -> None:
        """Tell the user something beside the result."""
        if not self._quiet:
            self._end_bar()
            say(sys.stderr, f"graphcut: {text}")

    def report(self, event: Event) -> None:
        """Show progress; the report that stages are given."""
        if self._quiet:
            return
        if event.note:
            self.note(event.detail)
        elif event.seconds is not None:
            while self._timed and self._timed.pop() != event.stage:
                pass
            self._end_stage(event.stage, event.seconds)
        else:
            self._enter(event)
            if self._bars is not None:
                self._bars.progress(event.stage, event.done, event.total, one_line(event.detail))
            else:
                self._say_step(event)

    def _enter(self, event: Event) -> None:
        if event.begins or (not self._timed and event.stage != self._passing):
            self._end_passing()
        if event.begins:
            self._timed.append(event.stage)
        elif not self._timed and not self._passing:
            self._passing, self._began = event.stage, time.monotonic()

    def _end_passing(self) -> None:
        if self._passing:
            self._end_stage(self._passing, time.monotonic() - self._began)
        self._passing = ""

    def _end_stage(self, stage: str, seconds: float) -> None:
        self._end_bar()
        self._said = ""
        if self._bars is not None:
            self._bars.line(f"{stage:<10} {seconds:7.1f} s", style="dim")
        else:
            say(sys.stderr, f"{stage}: {seconds:.1f} s")

    def _end_bar(self) -> None:
        if self._bars is not None:
            self._bars.end_progress()

    def _say_step(self, event: Event) -> None:
        begins = event.stage != self._said
        ends = bool(event.total) and event.done == event.total
        late = time.monotonic() - self._said_at >= _SECONDS_BETWEEN_LINES
        if not (begins or ends or late) or not (event.detail or begins):
            return
        self._said, self._said_at = event.stage, time.monotonic()
        count = f" {event.done}/{event.total}" if event.total else ""
        say(sys.stderr, f"{event.stage}{count}{': ' if event.detail else ''}{event.detail}")


def terminal_of(stream: TextIO, width: int | None = None) -> Terminal | None:
    """A terminal on a stream, or one of that width; None where text is to be plain."""
    if width is None and (not stream.isatty() or os.environ.get("TERM", "").lower() in _DUMB):
        return None
    from graphcut.cli.terminal import Terminal

    return Terminal(stream, width)


def say(stream: TextIO, text: str) -> None:
    """Write one line to a stream (:mod:`graphcut.cli.visible`), line breaks in the text made spaces."""
    line = one_line(spelt(text, as_flag))
    try:
        terminal = terminal_of(stream)
        if terminal is not None:
            terminal.line(line)
        else:
            stream.write(f"{line}\n")
        stream.flush()
    except OSError:
        if stream is not sys.stderr:
            raise
        forget(stream)  # what nobody can read must not end a job


@contextmanager
def _stdout() -> Iterator[TextIO]:
    """Give stdout, which is flushed afterwards; see :meth:`Console.line` for what is raised."""
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget(sys.stdout)
        what = f"the result cannot be put on stdout ({error.strerror or error})"
        raise OutputError(what, "make room, or read it elsewhere") from error


def _safe(text: str) -> str:
    return visible(spelt(text, as_flag))


def _safe_table(table: TextTable) -> TextTable:
    """The same with cells that are one visible line each."""

    def cells(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(" ".join(_safe(each).split()) for each in texts)

    return replace(
        table, headers=cells(table.headers), rows=tuple(map(cells, table.rows)), right=frozenset(cells((*table.right,)))
    )


def forget(stream: TextIO) -> None:
    """Point a standard stream nowhere, lest the interpreter's last flush complains again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
