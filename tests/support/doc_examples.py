"""Commands and Python examples of README and docs, as text with the line they stand on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OURS = ("graphcut ", "make ", "pip install ", "python ", "python3 ", "sh tools/", "tools/", ".venv/bin/")
"""How commands begin that the tests can judge, wherever they stand in a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code: the language after its fence ("" for an indented one), its first line's number, its lines."""

    page: Path
    language: str
    line: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """Where it stands."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a block, as words without a comment."""

    block: Block
    words: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of code of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    position = 0
    while position < len(lines):
        fence = re.match(r"( *)```(\w*)$", lines[position])
        indented = lines[position].strip() != "" and lines[position].startswith("    ")
        if fence:
            stop = next(at for at in range(position + 1, len(lines)) if lines[at].strip() == "```")
            inside = tuple(line[len(fence[1]) :] for line in lines[position + 1 : stop])
            yield Block(page=page, language=fence[2], line=position + 2, lines=inside)
            position = stop + 1
        elif indented and (position == 0 or not lines[position - 1].strip()):
            stop = position
            while stop < len(lines) and (lines[stop].startswith("    ") or not lines[stop].strip()):
                stop += 1
            inside = tuple(line[4:] for line in lines[position:stop])
            yield Block(page=page, language="", line=position + 1, lines=inside)
            position = stop
        else:
            position += 1


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block: all lines of a ``sh`` block, else the lines that begin as commands of ours do."""
    if block.language not in ("sh", ""):
        return
    joined = "\n".join(block.lines).replace("\\\n", " ").splitlines()
    for line in joined:
        text = line.strip()
        if block.language != "sh" and not text.startswith(OURS):
            continue
        for part in re.split(r" && (?=[\w./])", text):
            words = shlex.split(part, comments=True)
            if words:
                yield Command(block=block, words=tuple(words))


def python(page: Path) -> list[Block]:
    """The Python examples of a page."""
    return [block for block in blocks(page) if block.language == "python"]
