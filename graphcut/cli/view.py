"""``graphcut view``: a segment in Netron."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.errors import UsageError

if TYPE_CHECKING:
    from graphcut.result.manifest import Manifest


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "view",
        help="look at a segment in Netron",
        description="Serve a file of a split to the browser in Netron, until Ctrl-C.",
    )
    parser.add_argument(
        "folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote, or a model file"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--segment", metavar="I", type=options.count, help="segment I (without: the unsplit model)")
    which.add_argument("--tail", metavar="K", type=options.count, help="the tail from segment K")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--onnx", action="store_true", help="the segment in float")
    form.add_argument("--tflite", action="store_true", help="the segment as int8 TFLite (the default)")
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="localhost",
        help="address to listen on (localhost); 0.0.0.0 lets other machines look, and read the file",
    )
    parser.add_argument("--port", metavar="N", type=options.count, help="port to listen on (a free one)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Serve until Ctrl-C, which is a good end here."""
    from graphcut.report import netron

    file, segments = chosen_file(arguments)
    served = netron.serving(
        file, host=arguments.host, port=arguments.port, browser=not arguments.no_browser, segments=segments
    )
    with served as address:
        console.line(f"{file.name}: {address}")
        console.note("Ctrl-C ends it")
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
    from graphcut.result import manifest

    folder: Path = arguments.folder
    if folder.is_file():
        if arguments.segment or arguments.tail:
            raise UsageError(f"{folder} is a file", "--segment and --tail choose from a folder")
        return folder, ()
    opened = manifest.read(folder)
    last = len(opened.segments)
    number = arguments.segment or arguments.tail
    if number is not None and number > last:
        raise UsageError(f"{folder} has {last} segments, so there is no {number}", f"choose 1 to {last}")
    if arguments.segment:
        part = opened.segments[arguments.segment - 1]
        return _existing(part.onnx_path if arguments.onnx else part.tflite_path), ()
    if arguments.onnx:
        raise UsageError("only segments are kept as ONNX", "add --segment I")
    first = arguments.tail or 1
    file = _existing(next(tail.tflite_path for tail in opened.tails if tail.first == first))
    return file, _segments_of(file, opened, first)


def _segments_of(file: Path, opened: Manifest, first: int) -> tuple[int, ...]:
    """Segment of each operator of a tail, which is its segments one after the other; empty where they do not add up."""
    counts = [(part.segment.index, _operators(_existing(part.tflite_path))) for part in opened.segments[first - 1 :]]
    found = tuple(index for index, count in counts for _ in range(count))
    return found if len(found) == _operators(file) else ()


def _operators(path: Path) -> int:
    from graphcut.tflite import checked

    return len(checked.read(checked.read_bytes(path), str(path)).subgraphs[0].operators)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UsageError(f"{path} is missing", "split the model again")
    return path
