"""Draw the terminal output of a command as an SVG, for README.

    python -m tools.terminal_picture docs/images/terminal.svg --keep 16 10 -- graphcut split model.onnx -o out

The command runs on a pseudo-terminal (``pty``). ``--keep`` keeps only the first and last lines of a long output. The
picture uses the fonts of the reader and loads none.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

_CONTROL = re.compile(r"\x1b\[(\d*)([AGK])|\x1b\[\?\d+[hl]|(\r)|(\n)")
_FONTS = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and write the picture; return the command's exit code."""
    parser = argparse.ArgumentParser(description="Draw what a command shows on a terminal.")
    parser.add_argument("picture", metavar="FILE.svg", type=Path)
    parser.add_argument("--columns", metavar="N", type=int, default=92, help="width of the terminal (default: 92)")
    parser.add_argument("--keep", metavar="N", type=int, nargs=2, help="first and last lines to keep (default: all)")
    parser.add_argument("command", metavar="COMMAND", nargs="+")
    given = parser.parse_args(arguments)
    code, shown = on_a_terminal(given.command, given.columns)
    lines = screen(shown)
    if given.keep and len(lines) > sum(given.keep):
        first, last = given.keep
        lines = [*lines[:first], "…", *lines[len(lines) - last :]]
    given.picture.write_text(svg(shlex.join(given.command), lines, given.columns), encoding="utf-8")
    return code


def on_a_terminal(command: Sequence[str], columns: int) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and everything that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = bytearray()
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # what Linux says where the other side has closed
                break
            if not read:
                break
            written += read
    os.close(ours)
    return process.returncode, written.decode("utf-8", "replace")


def screen(written: str) -> list[str]:
    """Return the lines that the terminal finally shows, with their colours.

    Erased lines (a progress bar) are gone. Only moving up, moving to the start and erasing are supported.
    """
    lines, row, at = [""], 0, 0
    for found in _CONTROL.finditer(written):
        lines[row] += written[at : found.start()]
        at = found.end()
        if found[4]:
            row += 1
            if row == len(lines):
                lines.append("")
        elif found[2] == "A":
            row = max(0, row - int(found[1] or 1))
        elif found[2] == "K":
            lines[row] = ""
        elif found[3] and written[at : at + 1] != "\n":
            lines[row] = ""  # what is written next stands over it
    lines[row] += written[at:]
    return [line for line in lines if line] if not any(lines) else "\n".join(lines).rstrip().split("\n")


def svg(command: str, lines: Sequence[str], columns: int) -> str:
    """Draw the command and its output as an SVG without external links."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=False)
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    template = _FONTS.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code, monospace", "ui-monospace, monospace")
    return console.export_svg(title="graphcut", code_format=template, unique_id="terminal")


if __name__ == "__main__":
    sys.exit(main())
