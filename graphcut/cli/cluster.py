"""``graphcut cluster``: run inputs through a split whose parts are on the machines of a Ray cluster."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.errors import UsageError
from graphcut.settings import positive

EXAMPLES = (
    "graphcut cluster OUT cat.jpg dog.jpg",
    "graphcut cluster OUT data.npz --address auto --device usb",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "cluster",
        help="run inputs through a split on several machines (extra: cluster)",
        description="Run inputs through a split, each part on a machine of a Ray cluster that has what the part needs, "
        "or on a cluster started here. Results are in order; a part that dies is restarted.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder of `graphcut split`, or a bundle")
    parser.add_argument("inputs", metavar="INPUT", type=Path, nargs="+", help="pictures, .npy or .npz files")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--tail", metavar="K", type=positive, help="segments 1 .. K-1 and the tail from K")
    way.add_argument("--unsplit", action="store_true", help="run the whole model in one file")
    parser.add_argument(
        "--address", help="address of a running cluster: auto, HOST:6379, ray://HOST:10001 (default: start one here)"
    )
    parser.add_argument(
        "--device", default="cpu", help="device of each part on its machine: cpu, usb, pci (default: cpu)"
    )
    parser.add_argument(
        "--needs",
        metavar="NAME=N,..",
        type=_resources,
        help="resources that each part needs (default: edgetpu=1 on Edge TPUs, CPU=1 otherwise)",
    )
    parser.add_argument("--top", metavar="N", type=positive, default=5, help="number of classes to show (default: 5)")
    parser.add_argument("-o", "--output", metavar="FILE.npz", type=Path, help="write all outputs (int8)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_runtime(parser)
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Run."""
    from graphcut import files
    from graphcut.cli.bundle_main import described_output
    from graphcut.cluster.cluster_pipeline import ClusterPipeline, ClusterSettings
    from graphcut.runtime.devices import parse_device
    from graphcut.runtime.job_folder import read_job
    from graphcut.runtime.pictures import read_input

    if arguments.output is not None and arguments.output.suffix != ".npz":
        raise UsageError(f"{arguments.output} is not an .npz file", "choose a name that ends in .npz")
    if arguments.output is not None:
        files.check_file(arguments.output, force=True)
    job = read_job(arguments.folder, tail=arguments.tail, unsplit=arguments.unsplit)
    code = arguments.folder / "graphcut"
    settings = ClusterSettings(
        address=arguments.address,
        device=parse_device(arguments.device),
        resources=arguments.needs,
        code=code if code.is_dir() else None,
        local_options={"num_cpus": max(2, len(job.parts))} if arguments.address is None else {},
    )
    opener = options.opener(arguments)
    shown: list[dict[str, Any]] = []
    kept: dict[str, Any] = {}
    with ClusterPipeline(job.parts, opener, inputs=job.inputs, outputs=job.outputs, settings=settings) as pipeline:
        places = pipeline.where()
        for label, place in places.items():
            console.note(f"{label} on {place.host}, node {place.node[:8]}")
        given = (read_input(path, pipeline.inputs, job.preprocessing) for path in arguments.inputs)
        for number, (path, outputs) in enumerate(zip(arguments.inputs, pipeline.run(given), strict=True), start=1):
            if isinstance(outputs, BaseException):
                raise outputs
            described = [
                described_output(edge, array, [], arguments.top)
                for edge, array in zip(pipeline.outputs, outputs, strict=True)
            ]
            shown.append({"input": str(path), "outputs": described})
            kept |= {f"{number}/{e.name}": array for e, array in zip(pipeline.outputs, outputs, strict=True)}
    if arguments.output is not None:
        files.write_outputs(arguments.output, kept)
    document = {"parts": {label: place._asdict() for label, place in places.items()}, "results": shown}
    console.result("\n".join(_lines(shown)), document)
    return 0


def _lines(shown: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in shown:
        lines.append(each["input"])
        for output in each["outputs"]:
            lines.append(f"  {output['name']}  from {output['min']:.6g} to {output['max']:.6g}")
            lines += [f"    {best['class']:>5}  {best['score']:.6g}" for best in output.get("top", ())]
    return lines


def _resources(text: str) -> dict[str, float]:
    found = {}
    for each in text.split(","):
        name, _, amount = each.partition("=")
        try:
            found[name.strip()] = float(amount or 1)
        except ValueError:
            raise ArgumentTypeError(f"{each!r} is not a resource, such as edgetpu=1") from None
        if not name.strip() or found[name.strip()] <= 0:
            raise ArgumentTypeError(f"{each!r} is not a resource, such as edgetpu=1")
    return found
