"""``graphcut doctor``: what of this machine serves to run and compile for Edge TPUs, and what to do about the rest."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from graphcut.cli.console import Console
from graphcut.errors import DependencyError

EXAMPLES = ("graphcut doctor", "graphcut doctor --json")


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "doctor",
        help="check this machine: interpreter, libedgetpu, Edge TPUs, compiler",
        description="Look at Python, packages, docker, edgetpu_compiler, libedgetpu, Edge TPUs on USB and PCIe, rights "
        "and the kernel driver, and say in one line each what to do. Exit code 9: something is in the way of them.",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(_arguments: Namespace, console: Console) -> int:
    """Look."""
    from graphcut.edgetpu import compiler
    from graphcut.runtime.machine_check import as_lines, examine

    found = examine(compiler=lambda: compiler.find().name)
    broken = [each for each in found if each.state == "broken"]
    console.result("\n".join(as_lines(found)), {"ready": not broken, "findings": [each._asdict() for each in found]})
    if broken:
        raise DependencyError(
            f"{len(broken)} of {len(found)} findings are in the way of Edge TPUs",
            "the lines marked BROKEN say what to do",
        )
    return 0
