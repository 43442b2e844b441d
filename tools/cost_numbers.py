"""The cost part of docs/explanation/numbers.md: predicted sizes, streaming and times against published ones.

    python -m tools.cost_numbers ../shared docs/explanation/numbers.md [--cache DIR]

Without the second argument, the section is printed. With it, the section replaces the text between its two markers in
the file, or is appended. Every model is converted whole and in four segments, which takes about twenty minutes. Some
times need architectures of the keras extra; without it, they are omitted and listed.
"""

from __future__ import annotations

import runpy
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import onnx

from graphcut import flow
from graphcut.analysis.candidates import analyse
from graphcut.conversion import convert
from graphcut.errors import GraphcutError, InfeasibleError
from graphcut.graph.extraction import Extraction
from graphcut.graph.model import Model
from graphcut.measurement.float_reference import float_values
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segments import segments
from graphcut.prediction.device_profiles import DEVICES
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import predict
from graphcut.records import Graph
from graphcut.samples import load_samples
from graphcut.units import MIB
from graphcut.workers.pool import Pool
from tools import architectures
from tools.edgetpu_numbers import table
from tools.edgetpu_published import Published, published
from tools.page import run

NAME = "cost_numbers.py"
PARTS = 4


class Written(NamedTuple):
    """A converted file: its size, the exact prediction and the prediction for planning."""

    model: str
    size: int
    exact: int
    planned: int


class Timed(NamedTuple):
    """One architecture of Google's table: milliseconds with the USB accelerator on a desktop, and on the Dev Board."""

    name: str
    make: Callable[[], Graph | None]
    usb_ms: float
    board_ms: float


def sources(shared: Path, work: Path) -> Iterator[Path]:
    """Yield ONNX files with weights: those of the zoo with seeded weights, and the real models."""
    filler = runpy.run_path(str(shared / "zoo" / "materialize.py"))
    for path in sorted((shared / "zoo").glob("*.onnx")):
        target = work / path.name
        onnx.save(filler["materialize"](onnx.load(path, load_external_data=False)), target)
        yield target
        target.unlink()
    yield from sorted((shared / "models").glob("*.onnx"))


def written(path: Path, work: Path) -> Iterator[Written]:
    """Convert a model as a whole and in parts, and yield the files."""
    model = flow.prepare(str(path))
    for count in (1, PARTS):
        try:
            yield from _converted(model, path.stem, count, work)
        except InfeasibleError:
            continue  # has no so many places


def _converted(model: Model, name: str, count: int, work: Path) -> Iterator[Written]:
    graph = model.graph
    whole = PlanOptions(strategy="given", cuts=())
    sizes = predict(graph)
    made = plan(analyse(graph), sizes, whole if count == 1 else PlanOptions(strategy="balanced", segments=count))
    samples = load_samples("random", model.inputs, None)
    extraction = Extraction(model)
    protos = [extraction.segment(each.inputs, each.outputs) for each in made.segments]
    values, logits = float_values(model, made, samples)
    with Pool(1, work) as pool, tempfile.TemporaryDirectory(dir=work) as folder:
        files = convert.convert(
            model, made, protos, values, logits, pool, Path(folder), samples=len(samples), per_channel=True
        ).segments
        for file in files:
            own = file.segment
            size = file.tflite_path.stat().st_size
            yield Written(name, size, sizes.file_bytes(own.start, own.stop), sizes.segment_bytes(own.start, own.stop))


def size_table(rows: list[Written], failed: list[str]) -> str:
    """Return the table of predicted and actual bytes by model."""
    lines = []
    for name in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == name]
        errors = [row.exact - row.size for row in own]
        lines.append(
            (
                name,
                len(own),
                sum(error == 0 for error in errors),
                max(map(abs, errors)),
                f"{100 * max(abs(row.exact - row.size) / row.size for row in own):.3f} %",
                f"{min(row.planned - row.size for row in own)} .. {max(row.planned - row.size for row in own)}",
            )
        )
    shares = [abs(row.exact - row.size) / row.size for row in rows]
    exact = sum(row.exact == row.size for row in rows)
    middle, largest = f"{100 * statistics.median(shares):.4f} %", f"{100 * max(shares):.3f} %"
    said = (
        f"{exact} of {len(rows)} files are predicted to the byte; the median error is {middle}, the largest {largest}. "
        "Plans add sizes up, so they count a little more (last column)."
    )
    if failed:
        said += f" Not converted: {', '.join(failed)}."
    headers = ("model", "files", "to the byte", "largest error, bytes", "largest error", "planned less written, bytes")
    return f"{table(headers, lines)}\n\n{said}"


def off_chip_table(files: list[Published]) -> str:
    """Return the table of expected and published MiB off chip."""
    told = [each for each in files if each.off_chip_mib is not None]
    expected = [each.caching.off_chip_bytes / MIB for each in told]
    errors = [(found - (each.off_chip_mib or 0.0), found, each) for found, each in zip(expected, told, strict=True)]
    lines = []
    for model in dict.fromkeys(each.model for each in told):
        for kind in ("segment", "tail"):
            own = [error for error, _, each in errors if each.model == model and each.part.startswith(kind)]
            lines.append(
                (
                    model,
                    kind,
                    len(own),
                    f"{statistics.median(map(abs, own)):.2f}",
                    f"{min(own):+.2f} .. {max(own):+.2f}",
                )
            )
    worst = sorted(errors, key=lambda each: -abs(each[0]))[:3]
    said = "; ".join(f"{each.model} {each.part} {found:.2f} for {each.off_chip_mib}" for _, found, each in worst)
    return f"{table(('model', 'files', 'number', 'median error, MiB', 'errors'), lines)}\n\nFarthest off: {said}."


def google(shared: Path, cache: Path | None) -> list[Timed]:
    """Return the rows of coral.ai/docs/edgetpu/benchmarks whose architecture is available."""
    zoo, keras = partial(architectures.zoo, shared), architectures.application
    return [
        Timed("SqueezeNet, 224", partial(zoo, "onnx_squeezenet", 224), 2.1, 2.0),
        Timed("MobileNet v1, 224", partial(zoo, "torch_hf_mobilenetv1", 224), 2.4, 2.4),
        Timed("MobileNet v2, 224", partial(zoo, "keras_mobilenetv2", 224), 2.6, 2.6),
        Timed("DenseNet, 224", partial(zoo, "keras_densenet121", 224), 20, 25),
        Timed("ResNet-50 V1, 299", partial(zoo, "keras_resnet50", 299), 49, 56),
        Timed("ResNet-50 V2, 299", partial(keras, "ResNet50V2", 299, cache), 50, 59),
        Timed("ResNet-152 V2, 299", partial(keras, "ResNet152V2", 299, cache), 128, 151),
        Timed("Inception-ResNet V2, 299", partial(keras, "InceptionResNetV2", 299, cache), 57, 69),
        Timed("VGG16, 224", partial(architectures.vgg, "vgg16"), 296, 343),
        Timed("VGG19, 224", partial(architectures.vgg, "vgg19"), 308, 357),
    ]


def time_table(rows: list[Timed]) -> str:
    """Return the table of predicted and published times of whole models."""
    lines, errors, missing = [], [], []
    for row in rows:
        graph = row.make()
        if graph is None:
            missing.append(row.name)
            continue
        sizes = predict(graph)
        costs, (whole,) = Costs(graph, sizes), segments(graph, [], sizes)
        cells: list[str] = []
        for device, measured in (("coral-usb-x86", row.usb_ms), ("coral-dev-board", row.board_ms)):
            found = costs.segment(whole, DEVICES[device])
            streaming = DEVICES[device].stream_ms_per_mib * found.off_chip_bytes / MIB
            error = found.latency_ms / measured - 1
            errors.append(abs(error))
            cells += [f"{measured:g}", f"{found.latency_ms:.1f}", f"{100 * error:+.0f} %", f"{streaming:.1f}"]
        lines.append((row.name, f"{found.macs / 1e9:.2f}", f"{found.off_chip_bytes / MIB:.1f}", *cells))
    headers = (
        *("model", "10^9 MAC", "MiB off chip", "USB, published", "predicted", "error", "streaming alone"),
        *("Dev Board (PCIe), published", "predicted", "error", "streaming alone"),
    )
    said = f"Median error {100 * statistics.median(errors):.0f} %."
    if missing:
        said += f" Left out for want of the keras extra: {', '.join(missing)}."
    return f"{table(headers, lines)}\n\n{said}"


def section(shared: Path, cache: Path | None) -> str:
    """Return the section."""
    rows: list[Written] = []
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for path in sources(shared, work):
            try:
                rows += written(path, work)
            except GraphcutError as error:
                failed.append(f"{path.stem} ({error.message})")
        files = published(shared, work)
    return "\n\n".join(
        [
            "## Costs predicted",
            f"Made by `python -m tools.{NAME.removesuffix('.py')} ../shared docs/explanation/numbers.md`; see "
            "[planning-objectives.md](planning-objectives.md). Parameter bytes and compiled files are above.",
            f"### Int8 files: every model whole and in {PARTS} segments, predicted from the graph and really written",
            size_table(rows, failed),
            "### Parameters that stream (published tails and segments)",
            "Predicted: the layers that do not fit into the room beside the activations, whole.",
            off_chip_table(files),
            "Two segments are published as streaming what the tail beginning with them streams, far above what they "
            "lack room for ([edgetpu.md](edgetpu.md)).",
            "### Times of whole models, ms",
            "Published: coral.ai/docs/edgetpu/benchmarks. The model adds call, computing, streaming and transfers "
            "(k = 2.32 ms/MiB on x86, 2.76 over PCIe, not fitted to these; the call and the computing over USB are "
            "fitted to MobileNet v1 and Inception v1, the call of the Dev Board to MobileNet v1 and SqueezeNet).",
            time_table(google(shared, cache)),
            "What to expect: where most parameters stream, Google's figures lie near streaming alone, so computing "
            "seems to run beside it and the sum is the pessimistic end. Layers that fill the chip badly (depthwise "
            "ones, the scalings and joins between DenseNet's) take several times what their multiplications say. "
            "Inception-ResNet V2's published time is half of what its parameters would take at the published rate.",
        ]
    )


if __name__ == "__main__":
    sys.exit(run(NAME, __doc__, section))
