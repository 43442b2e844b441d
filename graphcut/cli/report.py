"""``graphcut report``: a split, or several, as one HTML file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut import files
from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.errors import UsageError
from graphcut.settings import positive
from graphcut.units import format_bytes

if TYPE_CHECKING:
    from graphcut.report.html.collect import HeldOut
    from graphcut.report.html.report_facts import Timeline

EXAMPLES = (
    "graphcut report OUT",
    "graphcut report OUT --held-out pictures --labels labels.txt",
    "graphcut report A B C -o compared.html",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "report",
        help="write a split, or several side by side, as one HTML file",
        description="Write a report: the graph as a strip, sizes against the budget, the trade-off, the pipeline, the "
        "error and what stays on the CPU. The file needs no external resources and can be printed.",
    )
    parser.add_argument(
        "folders", metavar="OUT", type=Path, nargs="+", help="folders that `graphcut split` wrote; several are compared"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="the file to write (default: OUT/report.html; report.html for several)",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="file with class names, one per line")
    parser.add_argument(
        "--held-out",
        metavar="DATA",
        help="pictures or arrays that were not used for calibration; their error is shown separately",
    )
    parser.add_argument(
        "--measure",
        metavar="DEVICES",
        help="run the split and draw measured times: cpu, or a device for each segment (usb:0,usb:1)",
    )
    parser.add_argument(
        "--operators",
        action="store_true",
        help="measure the error of every operator first, as `graphcut diagnose` does, and show it",
    )
    parser.add_argument("--samples", metavar="N", type=positive, help="most held-out samples to use (default: 100)")
    options.add_runtime(parser)
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Write the report."""
    from graphcut.report.html import write_report
    from graphcut.result import diagnosis

    folders: list[Path] = arguments.folders
    if len(folders) > 1:
        if arguments.labels or arguments.held_out or arguments.measure or arguments.operators:
            raise UsageError("--labels, --held-out, --measure and --operators need a single split", "pass one OUT")
        target = arguments.output or Path(write_report.NAME)
        files.check_file(target, arguments.force)
        written = write_report.write_comparison(folders, target)
    else:
        if arguments.output is not None:
            files.check_file(arguments.output, arguments.force)
        labels = () if arguments.labels is None else options.read_labels(arguments.labels)
        held_out = None if arguments.held_out is None else _held_out(folders[0], arguments, console)
        measured = None if arguments.measure is None else _measured(folders[0], arguments)
        if arguments.operators:
            diagnosis.diagnose(folders[0], report=console.report)
        written = write_report.write_report(
            folders[0], arguments.output, labels=labels, held_out=held_out, measured=measured
        )
    console.line(f"{written}: {format_bytes(written.stat().st_size)}")
    return 0


def _measured(folder: Path, arguments: Namespace) -> Timeline:
    """Run the split on devices and time it.

    Raises:
        UsageError: there are neither one nor as many devices as segments.
    """
    from graphcut.report.html.stopwatch import measured
    from graphcut.result import manifest
    from graphcut.runtime.devices import parse_devices

    devices = parse_devices(arguments.measure)
    segments = len(manifest.read(folder).segments)
    if len(devices) == 1 and not devices[0].is_tpu:
        devices *= segments
    if len(devices) not in (1, segments):
        raise UsageError(
            f"there are {len(devices)} devices for {segments} segments", "use one device, or one per segment"
        )
    opener = options.opener(arguments)
    return measured(folder, opener, devices, opener.describe())


def _held_out(folder: Path, arguments: Namespace, console: Console) -> HeldOut:
    """Run the split on samples that it was not calibrated with."""
    from graphcut.report.html.collect import HeldOut
    from graphcut.result import manifest, reopen
    from graphcut.samples import load_samples

    split = manifest.read(folder)
    samples = load_samples(
        arguments.held_out, split.inputs, split.preprocessing, limit=arguments.samples, report=console.report
    )
    return HeldOut(samples=samples, verification=reopen.verify(folder, samples, console.report))
