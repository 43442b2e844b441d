"""``graphcut bundle``: one way of running a split, with the program that runs it, for another machine."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.codec import from_json
from graphcut.records import Preprocessing
from graphcut.settings import positive

EXAMPLES = (
    "graphcut bundle OUT -o for_the_pi --labels labels.txt",
    "graphcut bundle OUT -o for_the_pi --tail 3",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "bundle",
        help="write a folder that runs without graphcut",
        description="Write the segments, or a prefix and its tail, with a program that runs them where only numpy, "
        "Pillow and an interpreter are installed: python run.py PICTURE.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the folder to write")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--tail", metavar="K", type=positive, help="segments 1 .. K-1 and the tail from K")
    way.add_argument("--unsplit", action="store_true", help="run the whole model in one file")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="file with class names to include, one per line")
    parser.add_argument(
        "--layout",
        choices=("graphcut", "coral"),
        default="graphcut",
        help="names of the parts; coral: NAME_segment_0_of_3_edgetpu.tflite, as pycoral and libcoral expect "
        "(default: graphcut)",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier bundle")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_pixels(parser)
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Write."""
    from graphcut.deploy.bundling import bundle
    from graphcut.report import tables
    from graphcut.runtime.job_folder import read_job
    from graphcut.units import format_bytes

    job = read_job(arguments.folder, tail=arguments.tail, unsplit=arguments.unsplit)
    known = None if job.preprocessing is None else from_json(Preprocessing, job.preprocessing)
    made = bundle(
        arguments.folder,
        arguments.output,
        tail=arguments.tail,
        unsplit=arguments.unsplit,
        preprocessing=options.preprocessing(arguments, known),
        labels=arguments.labels,
        layout=arguments.layout,
        force=arguments.force,
    )
    rows = [
        (label, format_bytes(size), "-" if compiled is None else format_bytes(compiled))
        for label, size, compiled in made.parts
    ]
    shown: list[str | tables.TextTable] = [
        tables.table(("part", "int8", "compiled"), rows, right=("int8", "compiled")),
        "",
        f"{made.way}, {format_bytes(made.total_bytes)} in {made.folder}",
        f"python {made.folder}/run.py PICTURE",
    ]
    for trouble in made.coral_trouble:
        console.note(f"the pipelined runners of pycoral and libcoral cannot run it: {trouble}")
    document = {
        "coral_trouble": list(made.coral_trouble),
        "folder": str(made.folder),
        "way": made.way,
        "total_bytes": made.total_bytes,
        "parts": [
            {"label": label, "tflite_bytes": size, "compiled_bytes": compiled} for label, size, compiled in made.parts
        ],
    }
    console.result(shown, document)
    return 0
