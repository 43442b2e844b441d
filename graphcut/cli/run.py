"""``graphcut run``: run one input through the chain, or through a prefix and its tail."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.errors import CalibrationError, UsageError
from graphcut.records import Array
from graphcut.settings import positive

if TYPE_CHECKING:
    from graphcut.report.tables import Shown

EXAMPLES = (
    "graphcut run OUT cat.jpg --labels labels.txt",
    "graphcut run OUT cat.jpg --tail 3",
    "graphcut run OUT cat.jpg --devices usb:0,usb:1",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "run",
        help="run one input through a split",
        description="Run one input through the chain of segments, or through a prefix and its tail, and show the best "
        "classes or write the outputs.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote")
    parser.add_argument("sample", metavar="INPUT", help="a picture, or an .npy or .npz file with one sample")
    parser.add_argument(
        "--tail", metavar="K", type=positive, help="segments 1 .. K-1 and the tail from K (1: the unsplit model)"
    )
    parser.add_argument("--labels", metavar="FILE", type=Path, help="file with class names, one per line")
    parser.add_argument("--top", metavar="N", type=positive, default=5, help="number of classes to show (default: 5)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write the output to an .npy file (several outputs: .npz)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_preprocessing(parser)
    parser.add_argument(
        "--devices",
        metavar="N|LIST",
        default="",
        help="number of devices, or usb:0,pci:0,cpu ..; several make a pipeline (default: as planned, or cpu)",
    )
    options.add_runtime(parser, threads=2)
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Run one input."""
    from graphcut import files
    from graphcut import samples as calibrate
    from graphcut.report import tables
    from graphcut.result import manifest, reopen
    from graphcut.runtime.job_folder import described_devices, read_job

    opened = manifest.read(arguments.folder)
    labels = [] if arguments.labels is None else list(options.read_labels(arguments.labels))
    if arguments.output is not None:
        _check_suffix(arguments.output, len(opened.tails[0].outputs))
    prepared = options.preprocessing(arguments, opened.preprocessing)
    if arguments.sample == calibrate.RANDOM or Path(arguments.sample).is_dir():
        raise UsageError(f"{arguments.sample} is not one input", "pass a picture, or an .npy or .npz file")
    if not Path(arguments.sample).exists():
        raise CalibrationError(f"there is no file {arguments.sample}", "pass a picture, or an .npy or .npz file")
    samples = calibrate.load_samples(
        arguments.sample, opened.inputs, prepared, layout=arguments.layout, report=console.report
    )
    if len(samples) > 1:
        raise UsageError(f"{arguments.sample} contains {len(samples)} samples", "pass a file with one sample")
    opener = options.opener(arguments, isolated=True)
    job = read_job(arguments.folder, tail=arguments.tail if arguments.tail != 1 else None, unsplit=arguments.tail == 1)
    console.note(f"{opener.describe()}, devices {described_devices(job, arguments.devices)}")
    (outputs,) = reopen.run(
        arguments.folder,
        samples,
        arguments.tail,
        opener=opener,
        devices=arguments.devices,
        report=console.report,
    )
    if arguments.output is not None:
        files.write_outputs(arguments.output, outputs)
    shown = [_shown(name, values, labels, arguments.top) for name, values in outputs.items()]
    lines: list[str | tables.TextTable] = [tables.SYNTHETIC] if opened.verification.synthetic_calibration else []
    for each in shown:
        lines += _lines(each)
    document = {
        "input": samples.names[0],
        "tail": arguments.tail,
        "synthetic_calibration": opened.verification.synthetic_calibration,
        "runtime": opener.describe(),
        "outputs": shown,
    }
    console.result(lines, document)
    return 0


def _check_suffix(path: Path, outputs: int) -> None:
    wanted = ".npy" if outputs == 1 else ".npz"
    if path.suffix != wanted:
        raise UsageError(
            f"{outputs} output{'' if outputs == 1 else 's'} cannot be written to {path}",
            f"choose a name that ends in {wanted}",
        )


def _shown(name: str, values: Array, labels: list[str], top: int) -> dict[str, Any]:
    """Describe one output; with its best classes where it is a vector of scores.

    Raises:
        UsageError: there are labels, and not as many as classes.
    """
    described: dict[str, Any] = {
        "layer": name,
        "shape": list(values.shape),
        "min": float(values.min()),
        "max": float(values.max()),
    }
    if values.size < 2 or values.size != values.shape[-1]:
        return described
    scores = values.reshape(-1)
    if labels and len(labels) != len(scores):
        raise UsageError(
            f"there are {len(labels)} labels, but {name} has {len(scores)} classes", "use the right --labels"
        )
    best = np.argsort(-scores, kind="stable")[:top]
    described["top"] = [
        {"class": int(index), "score": float(scores[index]), "label": labels[index] if labels else None}
        for index in best
    ]
    return described


def _lines(described: Mapping[str, Any]) -> Shown:
    from graphcut.report import tables

    shape = tables.shown_shape(tuple(described["shape"]))
    head = f"{described['layer']}  {shape}  from {described['min']:.6g} to {described['max']:.6g}"
    if "top" not in described:
        return [head]
    rows = [(str(each["class"]), f"{each['score']:.6g}", each["label"] or "") for each in described["top"]]
    return [head, tables.table(("class", "score", "label"), rows, right=("class", "score"))]
