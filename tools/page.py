"""Sections of docs/explanation/numbers.md, each between two markers named after the script that makes it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def run(name: str, description: str | None, section: Callable[[Path, Path | None], str]) -> int:
    """Run a script's command line: print the section made from the shared folder and a cache, or write it to a file."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("shared", type=Path)
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    replace_section(arguments.target, name, section(arguments.shared, arguments.cache))
    return 0


def replace_section(target: Path | None, name: str, text: str) -> None:
    """Write a section to a file, replacing an earlier one or appending it; print it if there is no file."""
    begin, end = f"<!-- {name} begin -->", f"<!-- {name} end -->"
    made = f"{begin}\n\n{text}\n\n{end}"
    if target is None:
        sys.stdout.write(f"{made}\n")
        return
    before = target.read_text(encoding="utf-8") if target.exists() else "# Numbers\n"
    if begin in before:
        head, _, rest = before.partition(begin)
        _, _, tail = rest.partition(end)
        target.write_text(f"{head}{made}{tail}", encoding="utf-8")
    else:
        target.write_text(f"{before.rstrip()}\n\n{made}\n", encoding="utf-8")
