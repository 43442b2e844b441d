"""The part of docs/explanation/numbers.md on plans and the best of all topological orders.

    python -m tools.order_numbers ../shared docs/explanation/numbers.md

Without the second argument, the section is printed. With it, the section replaces the text between its two markers in
the file, or is appended.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from graphcut.errors import GraphcutError
from graphcut.planning.all_orders import interval_bound
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import planned
from graphcut.prediction.device_profiles import DEFAULT
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import predict
from graphcut.records import Graph
from tools import architectures
from tools.edgetpu_numbers import table
from tools.page import run

NAME = "order_numbers.py"
COUNTS = (2, 4, 8)
SEAM = 4
WITHIN = 0.01


def models(shared: Path) -> Iterator[tuple[str, Graph]]:
    """Name and graph of every model of the zoo that can be read at 224."""
    for path in sorted((shared / "zoo").glob("*.onnx")):
        try:
            yield path.stem, architectures.zoo(shared, path.stem, 224)
        except GraphcutError:
            continue


def interval_us(graph: Graph, count: int, most: int | None) -> int | None:
    """Microseconds of the slowest segment of a throughput plan; None where there is no such plan."""
    options = PlanOptions(strategy="throughput", segments=count, max_seam_tensors=most)
    try:
        arranged, made = planned(graph, options, predict)
    except GraphcutError:
        return None
    return round(1000 * arranged.costed().plan(made, (DEFAULT,)).interval_ms)


def section(shared: Path, cache: Path | None) -> str:
    """The whole section."""
    del cache
    rows, gaps, seconds = [], [], []
    for name, graph in models(shared):
        costs = Costs(graph, predict(graph))
        row: list[object] = [name]
        worst = 0.0
        for count in COUNTS:
            began = time.process_time()
            bound = interval_bound(costs, DEFAULT, count)
            seconds.append(time.process_time() - began)
            one, several = (interval_us(graph, count, most) for most in (None, SEAM))
            row.append(f"{bound.micros / 1000:.3f}{'' if bound.exact else ' (mean)'}")
            row += ["-" if each is None else f"{max(0.0, each / bound.micros - 1):.2%}" for each in (one, several)]
            worst = max(worst, float("inf") if several is None else several / bound.micros - 1)
        gaps.append(worst)
        rows.append(tuple(row))
    headers = ["model"]
    for count in COUNTS:
        headers += [f"K = {count}: bound, ms", "plan, one tensor", f"plan, up to {SEAM}"]
    near = sum(gap <= WITHIN for gap in gaps)
    return "\n\n".join(
        [
            "## Plans and all topological orders",
            f"Made by `python -m tools.{NAME.removesuffix('.py')} ../shared docs/explanation/numbers.md`. The bound is "
            "the slowest segment of the best plan with K segments over **all** orders of the operators, with any "
            "number of tensors at a seam (`graphcut/planning/all_orders.py`); tests compare it with every order and "
            "every cut of small graphs. *One tensor* is `--objective throughput --segments K` as it comes, which cuts "
            f"where one tensor is alive; *up to {SEAM}* adds `--max-seam-tensors {SEAM}`. Times are predicted for "
            f"{DEFAULT.name}.",
            table(tuple(headers), rows),
            f"With `--max-seam-tensors {SEAM}` the plans of {near} of {len(gaps)} models are within {WITHIN:.0%} of "
            f"the bound for all K. A bound took {statistics.median(seconds):.1f} s of processor time, "
            f"{max(seconds):.1f} s at most. *(mean)*: there are too many orders, and the bound is only the mean over "
            "the segments.",
        ]
    )


if __name__ == "__main__":
    sys.exit(run(NAME, __doc__, section))
