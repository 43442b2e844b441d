"""``graphcut diagnose``: where int8 loses accuracy, operator by operator."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli.console import Console
from graphcut.codec import to_json
from graphcut.errors import UsageError
from graphcut.settings import positive

EXAMPLES = (
    "graphcut diagnose OUT",
    "graphcut diagnose OUT --segment 2 --json",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "diagnose",
        help="show where int8 loses most, operator by operator",
        description="Run a split with all inner tensors kept, and each int8 operator by itself, and compare both with "
        "float: the operator that is worst for the outputs first. The figures are kept in meta.json, and `graphcut "
        "report` shows them.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote")
    parser.add_argument("--segment", metavar="I", type=positive, help="show only the operators of this segment")
    parser.add_argument(
        "--samples", metavar="N", type=positive, default=4, help="maximum number of samples to run (default: 4)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Measure and show."""
    from graphcut.measurement.operator_errors import severity
    from graphcut.report import tables
    from graphcut.result import diagnosis, manifest

    segments = len(manifest.read(arguments.folder).segments)
    if arguments.segment is not None and arguments.segment > segments:
        raise UsageError(f"{arguments.folder} has no segment {arguments.segment}", f"choose 1 to {segments}")
    found = diagnosis.diagnose(arguments.folder, most=arguments.samples, report=console.report)
    shown = sorted((each for each in found if arguments.segment in (None, each.segment)), key=severity)
    document = manifest.read(arguments.folder).document[diagnosis.KEY]
    text = tables.operators_text(shown, document["samples"], synthetic=document["synthetic"])
    console.result(text, {**document, "operators": [to_json(each) for each in shown]})
    return 0
