"""``graphcut check``: check whether the Edge TPU can run a file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli.console import Console
from graphcut.codec import to_json
from graphcut.errors import CompilationError

EXAMPLES = (
    "graphcut check OUT",
    "graphcut check model_int8.tflite --json",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "check",
        help="show which operators the Edge TPU can run, before compiling",
        description="Check an int8 TFLite file, or every segment of a split, against the Edge TPU's limits, operator "
        "by "
        "operator: which run on the chip, which on the CPU, and why. Exit code 0: all of them run on the chip; 11: "
        "some do not.",
    )
    parser.add_argument("path", metavar="FILE.tflite|OUT", type=Path, help="a file, or a folder of `graphcut split`")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Check a file or the segments of a split."""
    from graphcut.deploy.compilation import segment_files
    from graphcut.edgetpu.operator_check import check
    from graphcut.report import edgetpu

    given: Path = arguments.path
    files = segment_files(given, on_chip=True) if given.is_dir() else [given]
    found = [(edgetpu.relative(file, given) if given.is_dir() else str(file), check(file)) for file in files]
    documents = [{"file": name, **to_json(result)} for name, result in found]
    shown = [each for name, result in found for each in edgetpu.check_text(result, name)]
    accepted = all(result.accepted for _, result in found)
    whole = {"accepted": accepted, "files": documents}
    console.result(shown, whole if given.is_dir() else documents[0])
    refused = [(name, result) for name, result in found if not result.accepted]
    if refused:
        name, result = refused[0]
        what = (*result.refusals, *result.faults) or (f"{len(result.on_cpu)} operators stay on the CPU",)
        more = f" (and {len(refused) - 1} more files)" if len(refused) > 1 else ""
        raise CompilationError(f"{name}{more}: {what[0]}", "the table shows which operators, and why")
    return 0
