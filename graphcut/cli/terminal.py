"""Results and progress set for a terminal, with rich: its width, its colours, a bar that moves.

1. A table that is too wide first breaks the headers of its numbers, then wraps sentences at spaces and shortens long
   words (layer names) in the middle. Where that is not enough, each row becomes lines of "header  value". Numbers are
   never shortened.
2. Colours belong to words of graphcut's own (``STYLES``), at the places where it writes them. Text is text: rich's
   markup is off, and the caller spells out what would steer a terminal (:mod:`graphcut.cli.visible`).
3. A stage is a bar while it runs and a line with its time once it has ended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from graphcut.report.tables import TextTable

STYLES = {
    "PASSED": "bold green",
    "WEAK": "bold yellow",
    "FAILED": "bold red",
    "yes": "green",
    "NO": "bold red",
    "NOT COMPILED": "bold yellow",
    "SYNTHETIC": "bold yellow",
    "ESTIMATED": "bold yellow",
    "graphcut: error:": "bold red",
}
_WORDS = re.compile(
    r"^\s*(?P<verdict>PASSED|WEAK|FAILED|NOT COMPILED|SYNTHETIC|ESTIMATED|graphcut: error:)(?!\w)|: (?P<answer>yes|NO)$"
)
_GAP = 2
_LEAST = 12
"""Columns that a word keeps which is shortened."""
_NARROWEST = 20
"""Columns that a line is wrapped at where a terminal says it has fewer."""


class _Stream(RichConsole):
    def on_broken_pipe(self) -> None:
        """Leave it to the caller; rich would end the process."""
        raise BrokenPipeError


class Terminal:
    """A stream that is a terminal, or is to be set like one.

    Args:
        stream: where to write.
        width: columns; None asks the terminal.
    """

    def __init__(self, stream: TextIO, width: int | None = None) -> None:
        self._rich = _Stream(
            file=stream,
            width=width,
            color_system=None if os.environ.get("NO_COLOR") else "auto",
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._dots = "…" if self._rich.encoding.startswith("utf") else ".."
        self._bar: Progress | None = None

    def line(self, text: str, style: str = "") -> None:
        """Write text, wrapped at spaces; the rest of a long line stands two columns further to the right."""
        for line in text.split("\n"):
            words = Text(line.lstrip(" "), style=style)
            indent = len(line) - len(words)
            coloured = _WORDS.search(words.plain)
            if coloured is not None and coloured.lastgroup is not None:
                words.stylize(STYLES[coloured[coloured.lastgroup]], *coloured.span(coloured.lastgroup))
            room = self._rich.width - indent
            fits = words.cell_len <= room
            for number, each in enumerate([words] if fits else words.wrap(self._rich, max(room - _GAP, _NARROWEST))):
                each.rstrip()
                each.pad_left(indent + (_GAP if number else 0))
                self._rich.print(each, soft_wrap=True)

    def table(self, table: TextTable) -> None:
        """Write a table (statement 1)."""
        right = [header in table.right for header in table.headers]
        widths = widths_within(self._rich.width - table.indent, table.headers, table.rows, right)
        if not widths:
            self._records(table)
            return
        shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for header, width, flush in zip(table.headers, widths, right, strict=True):
            title = Text(shortened(header, width, self._dots), style="bold")
            shown.add_column(title, width=width, justify="right" if flush else "left", vertical="top")
        for row in table.rows:
            cells = (shortened(cell, width, self._dots) for cell, width in zip(row, widths, strict=True))
            shown.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
        self._rich.print(Padding(shown, (0, 0, 0, table.indent), expand=False))

    def _records(self, table: TextTable) -> None:
        longest = max(map(cell_len, table.headers))
        for number, row in enumerate(table.rows):
            if number:
                self.line("")
            for header, cell in zip(table.headers, row, strict=True):
                line = f"{' ' * table.indent}{header.ljust(longest)}  {cell}"
                if cell and cell_len(line) <= self._rich.width:
                    self.line(line)
                elif cell:
                    self.line(f"{' ' * table.indent}{header}")
                    self.line(f"{' ' * (table.indent + _GAP)}{cell}")

    def progress(self, stage: str, done: int, total: int, detail: str) -> None:
        """Move the bar of the running stage; ``total`` is 0 where nobody knows it."""
        if self._bar is None:
            self._bar = Progress(
                SpinnerColumn("dots" if self._dots == "…" else "line"),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[detail]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
                console=self._rich,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                expand=True,
            )
            self._bar.add_task(stage, total=total or None, count="", detail="")
            self._bar.start()
        (task,) = self._bar.tasks
        count = f"{done}/{total}" if total else ""
        self._bar.update(task.id, description=stage, total=total or None, completed=done, count=count, detail=detail)
        self._bar.refresh()

    def end_progress(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None


def widths_within(
    room: int, headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]
) -> tuple[int, ...]:
    """Return a width for each column so that a table has at most ``room`` columns; empty where there is no way.

    A column of numbers (``right``) keeps the width of its longest cell. The widest of the others are narrowed first.
    """
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    least = []
    for (header, *cells), width, flush in zip(columns, widths, right, strict=True):
        kept = max(map(cell_len, cells), default=0) if flush else min(width, _LEAST)
        least.append(max([kept, *map(cell_len, header.split())]))
    spare = room - sum(widths) - _GAP * (len(widths) - 1)
    for flushed in (True, False):
        while spare < 0:
            free = [at for at, flush in enumerate(right) if flush is flushed and widths[at] > least[at]]
            if not free:
                break
            widths[max(free, key=lambda at: widths[at])] -= 1
            spare += 1
    return () if spare < 0 else tuple(widths)


def shortened(text: str, width: int, dots: str = "…") -> str:
    """Shorten each word that is longer than ``width`` columns in its middle."""
    return " ".join(_shortened_word(word, width, dots) for word in text.split(" "))


def _shortened_word(word: str, width: int, dots: str) -> str:
    if cell_len(word) <= width:
        return word
    head, tail = word, word
    keep = max(width - len(dots), 2)
    while cell_len(head) > keep - keep // 2:
        head = head[:-1]
    while cell_len(tail) > keep // 2:
        tail = tail[1:]
    return f"{head}{dots}{tail}"
