"""``graphcut evaluate``: judge a split by its task, on pictures with or without labels."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.settings import positive

EXAMPLES = (
    "graphcut evaluate OUT pictures",
    "graphcut evaluate OUT pictures_by_class --labels labels.txt",
    "graphcut evaluate OUT instances.json --pictures pictures --task detection --json",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "evaluate",
        help="compare int8 and float results on pictures",
        description="Run float and int8 on the same pictures and compare their results: top-1 and top-5, mean average "
        "precision, mean intersection over union, or cosine similarity. Without labels, the results of the float "
        "model are the reference.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote")
    parser.add_argument(
        "data",
        metavar="DATA",
        type=Path,
        help="a folder of pictures; a folder with a subfolder for each class; pictures with YOLO labels (.txt) or "
        "masks; a CSV file with the columns file and label; or a COCO JSON file",
    )
    parser.add_argument("--pictures", metavar="DIR", type=Path, help="folder of the pictures of a CSV or JSON file")
    options.add_task(parser)
    parser.add_argument("--labels", metavar="FILE", type=Path, help="names of the model's classes, one per line")
    parser.add_argument(
        "--samples", metavar="N", type=positive, help="at most N pictures, evenly spaced (default: all)"
    )
    parser.add_argument("--devices", metavar="LIST", help="also run on these: usb:0, pci:0 ..")
    parser.add_argument("--save", action="store_true", help="write the result into the split's meta.json")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_pixels(parser)
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Evaluate."""
    from graphcut.report import evaluation_text
    from graphcut.split_folder import Split

    split = Split.of(arguments.folder)
    found = split.evaluate(
        arguments.data,
        pictures=arguments.pictures,
        task=arguments.task,
        head=arguments.head,
        anchors=arguments.anchors,
        labels=() if arguments.labels is None else options.read_labels(arguments.labels),
        score=arguments.score,
        iou=arguments.iou,
        samples=arguments.samples,
        devices=arguments.devices or "",
        preprocessing=options.preprocessing(arguments, split.preprocessing),
        save=arguments.save,
        report=console.report,
    )
    console.result(evaluation_text.evaluation_text(found), evaluation_text.document(found, arguments.folder))
    return 0
