"""The planning part of docs/explanation/numbers.md: our plans, the vendor's rule, and planning times.

    python -m tools.objective_numbers ../shared docs/explanation/numbers.md [--cache DIR]

Without the second argument, the section is printed. With it, the section replaces the text between its two markers in
the file, or is appended. DenseNet201, Xception and EfficientNetB3 need the keras extra; without it, they are omitted
and listed.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import exp, log
from pathlib import Path
from typing import NamedTuple

from graphcut.planning import other_tools
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import arrange
from graphcut.planning.segment_limits import Limits
from graphcut.planning.segments import segments
from graphcut.prediction.device_profiles import DEFAULT, DEVICES
from graphcut.prediction.segment_costs import Costs, PlanCost
from graphcut.prediction.sizes import predict
from graphcut.records import Graph
from graphcut.units import MIB
from tools import architectures, planning_time
from tools.densenet import densenet201
from tools.edgetpu_numbers import table
from tools.page import run

NAME = "objective_numbers.py"
PUBLISHED_VENDOR = (35.91, 28.36, 20.79, 13.27, 5.47, 2.03, 2.03, 2.03)
"""MiB that the vendor's own split of ResNet-101 streams for N = 1 .. 8 (SPARTA, LAAS-CNRS)."""
MOST = 16
SEAM = 4


class Compared(NamedTuple):
    """One model: our plans, and the vendor's rule for the same number of segments and for more."""

    name: str
    ours: PlanCost
    wider: PlanCost
    fastest: PlanCost
    vendor: dict[int, PlanCost]
    notes: tuple[str, ...]


def models(shared: Path, cache: Path | None) -> Iterator[tuple[str, Callable[[], Graph | None]]]:
    """Yield the name and graph of every model in the tables."""
    yield "ResNet-101, 224", partial(architectures.zoo, shared, "keras_resnet101", 224)
    yield "ResNet-50, 224", partial(architectures.zoo, shared, "keras_resnet50", 224)
    yield "InceptionV3, 299", partial(architectures.zoo, shared, "keras_inceptionv3", 299)
    yield "DenseNet201, 224, --target edgetpu", partial(densenet201, depthwise=True)
    yield "Xception, 299", partial(architectures.application, "Xception", 299, cache)
    yield "VGG16, 224", partial(architectures.vgg, "vgg16")
    yield "EfficientNetB3, 300", partial(architectures.application, "EfficientNetB3", 300, cache)


def compared(name: str, graph: Graph) -> Compared:
    """Plan a model so that nothing streams, for the least interval with as many segments, and by the vendor's rule."""
    options = PlanOptions(strategy="fewest", budget_bytes=7 * MIB, limits=Limits(off_chip_bytes=0))
    arranged = arrange(graph, options, predict)
    own, sizes = arranged.analysis.graph, predict(arranged.analysis.graph)
    costs = Costs(own, sizes)
    ours = plan(arranged.analysis, sizes, options)
    wide = replace(options, max_seam_tensors=SEAM)
    rearranged = arrange(graph, wide, predict)
    wider = plan(rearranged.analysis, rearranged.sizes, wide)
    fastest = plan(arranged.analysis, sizes, PlanOptions(strategy="throughput", segments=ours.k))
    whole = Costs(graph, predict(graph))
    counts = range(1, max(ours.k, MOST) + 1)
    return Compared(
        name=name,
        ours=costs.plan(ours),
        wider=Costs(rearranged.analysis.graph, rearranged.sizes).plan(wider),
        fastest=costs.plan(fastest),
        vendor={count: vendor(graph, whole, count) for count in counts},
        notes=arranged.notes,
    )


def vendor(graph: Graph, costs: Costs, count: int) -> PlanCost:
    """Return the result of the vendor's rule."""
    positions = other_tools.by_equal_shares(graph, costs.predicted.sums.parameter_bytes, count)
    return PlanCost(segments=tuple(costs.segment(each) for each in segments(graph, positions, costs.sizes)))


def streaming_table(rows: list[Compared]) -> str:
    """Return the table of streamed bytes."""
    lines = []
    for row in rows:
        count = len(row.ours.segments)
        clean = [n for n, cost in row.vendor.items() if cost.off_chip_bytes == 0]
        worst = min(each.fit.probability for each in row.ours.segments)
        lines.append(
            (
                row.name,
                count,
                len(row.wider.segments),
                mib(max(each.tflite_bytes for each in row.ours.segments)),
                mib(row.ours.off_chip_bytes),
                f"{worst:.0%}",
                mib(row.vendor[count].off_chip_bytes),
                mib(row.vendor[1].off_chip_bytes),
                min(clean, default=f"none up to {MOST}"),
            )
        )
    headers = (
        *(
            "model",
            "K",
            f"K, up to {SEAM} tensors a seam",
            "largest int8 file",
            "streams",
            "least probability",
            "vendor's rule, same K",
            "vendor's, N = 1",
        ),
        "vendor's first N without",
    )
    return table(headers, lines)


def interval_table(rows: list[Compared]) -> str:
    """Return the table of pipeline intervals, compared with the vendor's rule for as many segments."""
    lines, ratios = [], []
    for row in rows:
        count = len(row.ours.segments)
        theirs = row.vendor[count].interval_ms
        ratios.append(theirs / row.fastest.interval_ms)
        lines.append(
            (
                row.name,
                count,
                f"{theirs:.2f}",
                f"{row.ours.interval_ms:.2f}",
                f"{row.fastest.interval_ms:.2f}",
                f"{theirs / row.ours.interval_ms:.2f}",
                f"{ratios[-1]:.2f}",
            )
        )
    mean = exp(statistics.fmean(map(log, ratios)))
    headers = (
        *("model", "segments", "vendor's rule", "nothing streams (`fewest`)", "`throughput`"),
        *("vendor's / `fewest`", "vendor's / `throughput`"),
    )
    ours = [row.vendor[len(row.ours.segments)].interval_ms / row.ours.interval_ms for row in rows]
    worse = [row.name for row, ratio in zip(rows, ours, strict=True) if ratio < 1]
    without = [each for row, each in zip(rows, ratios, strict=True) if not row.name.startswith("VGG")]
    trimmed = exp(statistics.fmean(map(log, without)))
    said = f"Geometric mean of the last column: {mean:.2f} (without VGG16: {trimmed:.2f})."
    if worse:
        said += (
            f" `fewest` is behind on {', '.join(worse)}: it asks for few segments and small files, not for time, and "
            "early layers, few bytes that compute long, come into one segment; `throughput` is what to ask for."
        )
    return f"{table(headers, lines)}\n\n{said}"


def vendor_table(row: Compared) -> str:
    """Return the table of the vendor's rule on ResNet-101 and the published results of the vendor's compiler."""
    predicted = [mib(row.vendor[count].off_chip_bytes) for count in range(1, 9)]
    return table(
        ("MiB off chip, N =", *map(str, range(1, 9))),
        [("published", *PUBLISHED_VENDOR), ("the rule, predicted", *predicted)],
    )


def mib(size: int) -> str:
    """Format bytes in MiB."""
    return f"{size / MIB:.2f}"


def section(shared: Path, cache: Path | None) -> str:
    """Return the section."""
    rows, missing = [], []
    for name, make in models(shared, cache):
        graph = make()
        if graph is None:
            missing.append(name)
            continue
        rows.append(compared(name, graph))
    parts = [
        "## Planning",
        f"Made by `python -m tools.{NAME.removesuffix('.py')} ../shared docs/explanation/numbers.md`; see "
        "[planning-objectives.md](planning-objectives.md). Times and what streams are predicted, not measured "
        f"({DEFAULT.name}: {DEVICES[DEFAULT.name].stream_ms_per_mib} ms/MiB streamed).",
        "### Nothing streams: the fewest segments, and the vendor's rule",
        "`graphcut plan MODEL --objective fewest --budget 7MiB --limit off-chip=0`, sizes in MiB. The vendor's "
        "compiler was not run, but its rule (graphcut/planning/other_tools.py), held against what was published.",
        streaming_table(rows),
        *[f"{row.name}: {'; '.join(row.notes)}." for row in rows if row.notes],
        f"The vendor's rule cuts inside branches, our plans only where one tensor is alive as long as that will do: "
        f"`--max-seam-tensors {SEAM}` lifts it.",
        "How near the rule comes to the compiler, on ResNet-101:",
        vendor_table(rows[0]),
        "At N = 8 the compiler still streams 2.03 MiB; the rule as described would cut one convolution later.",
        "### Pipeline interval against the vendor's rule, ms",
        interval_table(rows),
        "### Planning time",
        "Processor time from the loaded graph on; `make bench` prints it, `make bench-plan` graphs of up to 100,000 "
        "nodes ([planning.md](planning.md)).",
        table(planning_time.HEADERS, planning_time.rows(shared)),
    ]
    if missing:
        parts.append(f"Left out for want of the keras extra: {', '.join(missing)}.")
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(run(NAME, __doc__, section))
