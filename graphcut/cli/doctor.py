"""``graphcut doctor``: check whether this machine can compile for Edge TPUs and run on them."""

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
        description="Check Python, packages, docker, edgetpu_compiler, libedgetpu, Edge TPUs on USB and PCIe, "
        "permissions and the kernel driver. Print one line for each, with advice on problems. Exit code 9: a check "
        "failed.",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(_arguments: Namespace, console: Console) -> int:
    """Check the machine."""
    from graphcut.edgetpu import compiler
    from graphcut.runtime.machine_check import as_lines, examine

    found = examine(compiler=lambda: compiler.find().name)
    broken = [each for each in found if each.state == "broken"]
    console.result("\n".join(as_lines(found)), {"ready": not broken, "findings": [each._asdict() for each in found]})
    if broken:
        raise DependencyError(
            f"{len(broken)} of {len(found)} checks failed",
            "follow the advice in the lines marked BROKEN",
        )
    return 0
