"""``graphcut simulate``: estimate how fast a split would run on Edge TPUs."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli.console import Console
from graphcut.errors import UsageError
from graphcut.settings import positive

EXAMPLES = (
    "graphcut simulate OUT",
    "graphcut simulate OUT --devices 4 --batch 8 --link pcie",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "simulate",
        help="estimate throughput and latency on Edge TPUs, without the hardware",
        description="Simulate the pipeline of a split on Edge TPUs, over costs fitted to published measurements: "
        "computing, streaming of parameters, and transfers on a shared bus. Results are marked as estimates.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote, or a bundle")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--tail", metavar="K", type=positive, help="segments 1 .. K-1 and the tail from K")
    way.add_argument("--unsplit", action="store_true", help="the whole model in one file")
    parser.add_argument(
        "--devices",
        metavar="N|LIST",
        help="number of Edge TPUs, or their names: usb:0,usb:1 (default: as planned, or one per part)",
    )
    parser.add_argument(
        "--link",
        choices=("usb", "usb-x86", "pcie"),
        help="how they are connected to the host (default: as planned, or usb)",
    )
    parser.add_argument("--inputs", metavar="N", type=positive, default=1000, help="number of inputs (default: 1000)")
    parser.add_argument(
        "--every",
        metavar="MS",
        type=_milliseconds,
        default=0.0,
        help="time between inputs in ms (default: 0, as fast as possible)",
    )
    parser.add_argument(
        "--random-arrivals", metavar="SEED", type=int, help="let inputs arrive at random, --every ms apart on average"
    )
    parser.add_argument(
        "--batch",
        metavar="N",
        type=positive,
        help="inputs that a station processes together (default: as planned, or 1)",
    )
    parser.add_argument(
        "--depth", metavar="N", type=positive, default=2, help="inputs, or batches of inputs, in a queue (default: 2)"
    )
    parser.add_argument(
        "--compute-ms", metavar="A,B,..", type=_times, default=(), help="measured computing times in ms, one per part"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Simulate."""
    from graphcut.deploy import part_costs
    from graphcut.deploy.simulation import Load, simulate
    from graphcut.prediction.latency import link_named
    from graphcut.report.simulation_tables import simulation_json, simulation_text
    from graphcut.runtime.job_folder import read_job

    if arguments.random_arrivals is not None and not arguments.every:
        raise UsageError("--random-arrivals needs the mean time between inputs", "add --every MS")
    job = read_job(arguments.folder, tail=arguments.tail, unsplit=arguments.unsplit)
    link = link_named(arguments.link or part_costs.link_of(job))
    batch = arguments.batch or job.batch
    estimates = part_costs.of_folder(
        arguments.folder,
        link,
        tail=arguments.tail,
        unsplit=arguments.unsplit,
        compute_given_ms=arguments.compute_ms,
    )
    placement = part_costs.placement_of(job, estimates.parts, arguments.devices, link, batch)
    load = Load(
        inputs=arguments.inputs,
        interval_ms=arguments.every,
        jitter=arguments.random_arrivals is not None,
        seed=arguments.random_arrivals or 0,
    )
    result = simulate(estimates.parts, placement, link, load, batch=batch, depth=arguments.depth)
    shown = (result, estimates.parts, placement, link, estimates.notes)
    console.result(simulation_text(*shown), {"folder": str(arguments.folder), **simulation_json(*shown)})
    return 0


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise ArgumentTypeError(f"{text!r} is not a time in milliseconds")
    return value


def _times(text: str) -> tuple[float, ...]:
    return tuple(_milliseconds(each) for each in text.split(","))
