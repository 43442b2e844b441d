"""``graphcut bench``: measure a split here, and estimate it on Edge TPUs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.errors import ModelError, OutputError, UsageError
from graphcut.settings import positive

if TYPE_CHECKING:
    from graphcut.deploy.simulation import Simulated
    from graphcut.prediction.latency import Link
    from graphcut.runtime.interpreter import Opener
    from graphcut.runtime.job_folder import Job

EXAMPLES = (
    "graphcut bench OUT",
    "graphcut bench OUT --devices usb:0,usb:1 --rounds 10 --plot bench.svg",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "bench",
        help="measure chain, pipeline and unsplit model in one run",
        description="Measure latency, throughput, queue waits and memory of the chain, of the pipeline and of the "
        "unsplit model, in turns, and compare their results byte for byte.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote")
    parser.add_argument("--tail", metavar="K", type=positive, help="segments 1 .. K-1 and the tail from K")
    parser.add_argument(
        "--devices",
        metavar="N|LIST",
        help="of the pipeline: so many, or usb:0,usb:1,cpu (as planned, or a CPU worker for each processor)",
    )
    options.add_runtime(parser)
    parser.add_argument("--rounds", metavar="N", type=positive, default=5, help="rounds (default: 5)")
    parser.add_argument("--inputs", metavar="N", type=positive, default=20, help="inferences per round (default: 20)")
    parser.add_argument(
        "--depth", metavar="N", type=positive, default=2, help="inputs, or batches of inputs, in a queue (default: 2)"
    )
    parser.add_argument(
        "--batch", metavar="N", type=positive, help="inputs a station takes together (as planned, or 1)"
    )
    parser.add_argument(
        "--save-times", metavar="FILE", type=Path, help="write each segment's time, for `graphcut plan --times FILE`"
    )
    parser.add_argument("--no-estimates", action="store_true", help="do not add estimates")
    parser.add_argument("--plot", metavar="FILE.svg", type=Path, help="also draw the result as an SVG file")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Measure."""
    from graphcut import files
    from graphcut.deploy.benchmark import BenchOptions, bench, segment_times
    from graphcut.report.bench_tables import bench_json, bench_text
    from graphcut.report.plot import bench_svg
    from graphcut.result import manifest
    from graphcut.runtime.devices import parse_devices
    from graphcut.runtime.job_folder import read_job

    if arguments.plot is not None and arguments.plot.suffix != ".svg":
        raise UsageError(f"{arguments.plot} is not an .svg file", "choose a name that ends in .svg")
    if arguments.plot is not None and not arguments.plot.parent.is_dir():
        raise OutputError(f"there is no folder {arguments.plot.parent}", "choose another --plot")
    if arguments.save_times is not None and arguments.tail is not None:
        raise UsageError("--save-times is for the chain of segments", "leave --tail out")
    opener = options.opener(arguments)
    job = read_job(arguments.folder, tail=arguments.tail)
    try:
        unsplit = read_job(arguments.folder, unsplit=True)
    except UsageError:
        unsplit = None
    chosen = BenchOptions(
        rounds=arguments.rounds,
        inputs=arguments.inputs,
        devices=parse_devices(arguments.devices, job.kind) if arguments.devices is not None else (),
        depth=arguments.depth,
        batch=arguments.batch or job.batch,
    )
    result = bench(job, unsplit, opener, opener.describe(), chosen, console.report)
    estimates = {} if arguments.no_estimates else _estimates(job, unsplit, opener, console)
    if arguments.save_times is not None:
        opened = manifest.read(arguments.folder)
        segment_times(result, opened.plan, opened.source.sha256).save(arguments.save_times)
    if arguments.plot is not None:
        files.rewrite(arguments.plot, bench_svg(result))
    console.result(bench_text(result, estimates), bench_json(result, estimates))
    return 0


def _estimates(job: Job, unsplit: Job | None, opener: Opener, console: Console) -> dict[str, tuple[Link, Simulated]]:
    """Simulate the same parts on an Edge TPU each, and the unsplit model on one, over both kinds of link."""
    from graphcut.deploy import part_costs
    from graphcut.deploy.simulation import simulate
    from graphcut.prediction.latency import LINKS
    from graphcut.runtime.chain import Chain

    found: dict[str, tuple[Link, Simulated]] = {}
    try:
        for each in filter(None, (unsplit, job)):
            with Chain(each.parts, opener, inputs=each.inputs, outputs=each.outputs) as chain:
                links = (LINKS["usb"], LINKS["pcie"])
                costs = [part_costs.part_costs(each.parts, chain.flow, link).parts for link in links]
            for link, parts in zip(links, costs, strict=True):
                devices = part_costs.tpus(len(parts), link)
                name = f"{each.way}, {len(parts)} over {link.name}"
                found[name] = link, simulate(parts, part_costs.place_on(parts, devices, link), link)
    except ModelError as error:
        console.note(f"no estimates: {error}")
        return {}
    return found
