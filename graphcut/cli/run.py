"""``graphcut run``: run inputs through the chain, or through a prefix and its tail."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.errors import CalibrationError, UsageError
from graphcut.progress import Event
from graphcut.records import Array, ModelInput, Preprocessing, Samples
from graphcut.settings import positive
from graphcut.units import format_rate

if TYPE_CHECKING:
    from graphcut.report.tables import Shown, TextTable
    from graphcut.samples import LayoutOption

_ALL = 2**31

EXAMPLES = (
    "graphcut run OUT cat.jpg --labels labels.txt",
    "graphcut run OUT pictures 'more/*.png' data.npz -o outputs.npz",
    "graphcut run OUT cat.jpg --tail 3",
    "graphcut run OUT street.jpg --draw boxes.png",
    "graphcut run OUT cat.jpg --devices usb:0,usb:1",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "run",
        help="run inputs through a split",
        description="Run pictures or arrays through the chain of segments, or through a prefix and its tail. Show the "
        "best classes, or write the outputs. For several inputs, also show the speed.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a picture, an .npy or .npz file, a folder of pictures, or a pattern such as 'pictures/*.png'",
    )
    parser.add_argument(
        "--tail", metavar="K", type=positive, help="segments 1 .. K-1 and the tail from K (1: the unsplit model)"
    )
    parser.add_argument("--labels", metavar="FILE", type=Path, help="file with class names, one per line")
    parser.add_argument("--top", metavar="N", type=positive, default=5, help="number of classes to show (default: 5)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="write the outputs as .npy (several outputs, or several inputs as NUMBER/OUTPUT: .npz)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    drawing = parser.add_argument_group("drawing")
    drawing.add_argument(
        "--draw",
        metavar="FILE.png|DIR",
        type=Path,
        help="draw boxes, the mask or the best classes onto the picture; several pictures need a new folder",
    )
    options.add_task(drawing)
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
    """Run the inputs."""
    from graphcut import files
    from graphcut.report import tables
    from graphcut.result import manifest, reopen
    from graphcut.runtime.job_folder import described_devices, read_job
    from graphcut.samples import SUFFIXES

    opened = manifest.read(arguments.folder)
    labels = [] if arguments.labels is None else list(options.read_labels(arguments.labels))
    prepared = options.preprocessing(arguments, opened.preprocessing)
    paths = _paths(arguments.inputs)
    if arguments.output is not None and (len(paths) > 1 or paths[0].suffix.lower() in SUFFIXES):
        _check_suffix(arguments.output, len(opened.tails[0].outputs) * len(paths))
    drawn = None if arguments.draw is None else _Drawing(arguments, paths, opened.inputs, labels)
    opener = options.opener(arguments, isolated=True)
    job = read_job(arguments.folder, tail=arguments.tail if arguments.tail != 1 else None, unsplit=arguments.tail == 1)
    console.note(f"{opener.describe()}, devices {described_devices(job, arguments.devices)}")
    names: list[str] = []
    shown: list[list[dict[str, Any]]] = []
    kept: list[Mapping[str, Array]] = []
    clock: list[float] = []
    outputs_of = reopen.stream(
        arguments.folder,
        _read(paths, opened.inputs, prepared, arguments.layout, names),
        arguments.tail,
        opener=opener,
        devices=arguments.devices,
        report=console.report,
    )
    for outputs in outputs_of:
        clock.append(time.perf_counter())
        console.report(Event(stage="run", done=len(clock), detail=names[len(clock) - 1]))
        shown.append([_shown(name, values, labels, arguments.top) for name, values in outputs.items()])
        if arguments.output is not None:
            kept.append(outputs)
        if drawn is not None:
            drawn.add(paths[len(clock) - 1], list(outputs.values()))
    synthetic = opened.verification.synthetic_calibration
    lines: list[str | tables.TextTable] = [tables.SYNTHETIC] if synthetic else []
    document = {"tail": arguments.tail, "synthetic_calibration": synthetic, "runtime": opener.describe()}
    if len(shown) == 1:
        lines += [line for each in shown[0] for line in _lines(each)]
        document = {"input": names[0], **document, "outputs": shown[0]}
    else:
        rate = (len(clock) - 1) / max(clock[-1] - clock[0], 1e-9)
        lines += [_table(names, shown), "", f"{len(names)} inputs, {format_rate(rate)}, including reading them"]
        results = [{"input": name, "outputs": each} for name, each in zip(names, shown, strict=True)]
        document = {**document, "results_per_s": rate, "results": results}
    if arguments.output is not None:
        numbered = {f"{at}/{name}": one for at, each in enumerate(kept, 1) for name, one in each.items()}
        written = kept[0] if len(kept) == 1 else numbered
        _check_suffix(arguments.output, len(written))
        files.write_outputs(arguments.output, written)
    if drawn is not None:
        document = {**document, "drawn": drawn.write()}
        lines.append(f"drawn: {arguments.draw}")
    console.result(lines, document)
    return 0


class _Drawing:
    """Pictures with the model's results drawn onto them, written after all of them are drawn.

    Raises:
        UsageError: an input is no picture, or a picture to be drawn would replace a file.
    """

    def __init__(
        self, arguments: Namespace, paths: Sequence[Path], inputs: tuple[ModelInput, ...], labels: Sequence[str]
    ) -> None:
        from graphcut.evaluation.measure import EvaluateOptions, anchors_of, image_size
        from graphcut.samples import SUFFIXES

        self._size = image_size(inputs)
        self._options = EvaluateOptions(
            task=arguments.task,
            head=arguments.head,
            anchors=anchors_of(arguments.anchors),
            labels=labels,
            score=arguments.score,
            iou=arguments.iou,
        )
        self._folder = None if len(paths) == 1 else arguments.draw
        other = next((path for path in paths if path.suffix.lower() not in SUFFIXES), None)
        if other is not None:
            raise UsageError(
                f"{other} is not a picture, so --draw cannot be used", "omit --draw, or pass only pictures"
            )
        names = [path.stem for path in paths]
        numbered = len(set(names)) < len(names)
        self._targets = [
            arguments.draw
            if self._folder is None
            else self._folder / (f"{at}_{name}.png" if numbered else f"{name}.png")
            for at, name in enumerate(names, 1)
        ]
        if self._folder is None and arguments.draw.suffix.lower() != ".png":
            raise UsageError(f"{arguments.draw} is not the name of a PNG file", "choose a name that ends in .png")
        if self._folder is not None and self._folder.exists():
            raise UsageError(f"{self._folder} exists", "choose a new folder for --draw")
        if self._folder is None and arguments.draw.exists() and arguments.draw.samefile(paths[0]):
            raise UsageError(f"{arguments.draw} is the input picture", "choose another file for --draw")
        self._drawn: list[bytes] = []

    def add(self, path: Path, outputs: Sequence[Array]) -> None:
        """Draw onto one picture."""
        from graphcut.evaluation.draw import draw_png

        self._drawn.append(draw_png(path, outputs, self._size, self._options))

    def write(self) -> list[str]:
        """Write all pictures and return their paths."""
        from graphcut import files

        if self._folder is not None:
            with files.writing(self._folder):
                self._folder.mkdir(parents=True)
        for target, data in zip(self._targets, self._drawn, strict=True):
            files.write_bytes(target, data)
        return [str(target) for target in self._targets]


def _paths(given: Sequence[str]) -> list[Path]:
    """Return the files that arguments name: files, pictures in folders, matches of patterns; sorted for each argument.

    Raises:
        UsageError: an argument asks for generated samples.
        CalibrationError: a file does not exist, or a folder contains no pictures.
    """
    from graphcut import samples

    found: list[Path] = []
    for word in given:
        path = Path(word)
        if path.is_dir():
            found += samples.pictures_in(path)
        elif path.exists():
            found.append(path)
        elif word == samples.RANDOM:
            raise UsageError(f"{word} is not one input", "pass pictures, or .npy or .npz files")
        else:
            matched = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
            if not matched:
                raise CalibrationError(f"there is no file {word}", "pass pictures, or .npy or .npz files")
            found += matched
    return found


def _read(
    paths: Sequence[Path],
    inputs: tuple[ModelInput, ...],
    prepared: Preprocessing | None,
    layout: LayoutOption,
    names: list[str],
) -> Iterator[Samples]:
    """Read one file after the other; ``names`` gets the name of each sample."""
    from graphcut import samples as calibrate

    for path in paths:
        samples = calibrate.load_samples(path, inputs, prepared, layout=layout, limit=_ALL)
        names += [str(path)] if len(samples) == 1 else [f"{path}[{number}]" for number in range(len(samples))]
        yield samples


def _check_suffix(path: Path, outputs: int) -> None:
    wanted = ".npy" if outputs == 1 else ".npz"
    if path.suffix != wanted:
        raise UsageError(
            f"{outputs} output{'' if outputs == 1 else 's'} cannot be written to {path}",
            f"choose a name that ends in {wanted}",
        )


def _shown(name: str, values: Array, labels: list[str], top: int) -> dict[str, Any]:
    """Describe one output, with its best classes if it is a vector of scores.

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


def _table(names: Sequence[str], shown: Sequence[Sequence[Mapping[str, Any]]]) -> TextTable:
    """Show one line for each output of each input: its best class, or its range."""
    from graphcut.report import tables

    rows = []
    for name, outputs in zip(names, shown, strict=True):
        for each in outputs:
            best = each.get("top", [{}])[0]
            scored = f"{best['score']:.6g}" if best else f"{each['min']:.6g} .. {each['max']:.6g}"
            said = (best["label"] or str(best["class"])) if best else ""
            rows.append((name, each["layer"], said, scored))
    return tables.table(("input", "output", "best class", "score or range"), rows, right=("score or range",))
