"""``graphcut view``: a segment in Netron."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut.cli.console import Console
from graphcut.errors import UsageError
from graphcut.settings import positive

if TYPE_CHECKING:
    from graphcut.result.manifest import Manifest

EXAMPLES = (
    "graphcut view OUT --segment 2",
    "graphcut view OUT --tail 3 --no-browser --port 8080",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "view",
        help="show a segment in Netron",
        description="Serve a file of a split to the browser in Netron, until Ctrl-C.",
    )
    parser.add_argument(
        "folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote, or a model file"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--segment", metavar="I", type=positive, help="segment I (default: the unsplit model)")
    which.add_argument("--tail", metavar="K", type=positive, help="the tail from segment K")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--onnx", action="store_true", help="show the segment in float")
    form.add_argument("--tflite", action="store_true", help="show the segment as int8 TFLite (the default)")
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="localhost",
        help="address to listen on (default: localhost); 0.0.0.0 gives other machines access to the file",
    )
    parser.add_argument("--port", metavar="N", type=positive, help="port to listen on (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Serve until Ctrl-C."""
    from graphcut.report import netron

    file, segments = chosen_file(arguments)
    served = netron.serving(
        file, host=arguments.host, port=arguments.port, browser=not arguments.no_browser, segments=segments
    )
    with served as address:
        console.line(f"{file.name}: {address}")
        console.note("stop with Ctrl-C")
        try:
            netron.wait()
        except KeyboardInterrupt:
            return 0


def chosen_file(arguments: Namespace) -> tuple[Path, tuple[int, ...]]:
    """Return the file that the options mean, and the segment of each of its operators where it holds several.

    Raises:
        UsageError: there is no such segment, tail or file.
        ModelError: a file is damaged.
    """
    from graphcut import api

    folder: Path = arguments.folder
    if folder.is_file():
        if arguments.segment or arguments.tail:
            raise UsageError(f"{folder} is a file", "--segment and --tail choose from a folder")
        return folder, ()
    split = api.open(folder)
    file = split.file(arguments.segment, tail=arguments.tail, onnx=arguments.onnx)
    return file, () if arguments.segment else _segments_of(file, split.manifest, arguments.tail or 1)


def _segments_of(file: Path, opened: Manifest, first: int) -> tuple[int, ...]:
    """Segment of each operator of a tail, which is its segments one after the other; empty where they do not add up."""
    counts = [(part.segment.index, _operators(part.tflite_path)) for part in opened.segments[first - 1 :]]
    found = tuple(index for index, count in counts for _ in range(count))
    return found if len(found) == _operators(file) else ()


def _operators(path: Path) -> int:
    from graphcut.tflite import checked

    return len(checked.read(checked.read_bytes(path), str(path)).subgraphs[0].operators)
