"""``graphcut cost``: what an int8 file will take on the Edge TPU."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli.console import Console


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "cost",
        help="say what an int8 file will take on the Edge TPU, layer by layer",
        description="Say what an int8 TFLite file will take on the Edge TPU: parameter bytes by the packing formula, "
        "the size of the compiled file with its interval, multiplications, activations, and whether it fits.",
    )
    parser.add_argument("path", metavar="FILE.tflite", type=Path, help="an uncompiled int8 file")
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Say what a file costs."""
    from graphcut.edgetpu import cost
    from graphcut.report import edgetpu

    found = cost.of_file(arguments.path)
    name = str(arguments.path)
    console.result(edgetpu.cost_text(found, name), edgetpu.file_cost(found, name))
    return 0
