"""Compare plans for several devices with published measurements, for docs/explanation/numbers.md.

    python -m tools.fleet_numbers ../shared docs/explanation/numbers.md

multi_tpu.json lists which division into pipelines of segments was fastest on a card of eight Edge TPUs over PCIe. The
models that are also in the zoo are rebuilt. No constant was fitted to these rows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from graphcut.planning import other_tools
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import planned
from graphcut.planning.segments import segments
from graphcut.prediction.device_profiles import DEVICES
from graphcut.prediction.segment_costs import Costs, PlanCost
from graphcut.prediction.sizes import predict
from graphcut.records import Graph
from tools import architectures
from tools.edgetpu_numbers import table
from tools.page import run

NAME = "fleet_numbers.py"
CARD = DEVICES["coral-pcie"]
DEVICES_ON_CARD = 8
REBUILT = {"ResNet50": ("keras_resnet50", 224), "ResNet101": ("keras_resnet101", 224)}


def partitions(total: int, most: int | None = None) -> Iterator[tuple[int, ...]]:
    """Yield the ways to write a number as a sum, largest first: 5+3, 4+4, 4+3+1 ..."""
    if total == 0:
        yield ()
        return
    for first in range(min(total, most or total), 0, -1):
        for rest in partitions(total - first, first):
            yield (first, *rest)


def said(text: str) -> tuple[int, ...]:
    """Return a division as it is published: "5+3" for pipelines of 5 and 3 segments, "2x4" for 4 of 2 each."""
    if "x" in text:
        length, times = map(int, text.split("x"))
        return (length,) * times
    return tuple(sorted(map(int, text.split("+")), reverse=True))


class Card:
    """A model on a card of devices, cut by the vendor's rule as the published ones were."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sizes = predict(graph)
        self.costs = Costs(graph, self.sizes)
        self.weights = other_tools.weight_sums(graph)

    @cache  # noqa: B019
    def pipeline(self, count: int) -> PlanCost:
        """Return the cost of a pipeline of ``count`` segments."""
        cuts = other_tools.by_equal_shares(self.graph, self.weights, count)
        own = segments(self.graph, cuts, self.sizes)
        return PlanCost(segments=tuple(self.costs.segment(each, CARD) for each in own))

    def rate(self, division: tuple[int, ...]) -> float:
        """Return the results per second of several pipelines that run side by side."""
        return sum(1000 / self.pipeline(count).interval_ms for count in division)


def judged(shared: Path, rows: list[list[Any]]) -> Iterator[tuple[str, ...]]:
    """Yield a table row for every model that can be rebuilt."""
    for model, _, _, _, _, published, measured in rows:
        if model not in REBUILT:
            continue
        graph = architectures.zoo(shared, *REBUILT[model])
        card = Card(graph)
        best = max(partitions(DEVICES_ON_CARD), key=card.rate)
        options = PlanOptions(strategy="throughput", fleet=(CARD,) * DEVICES_ON_CARD)
        made = planned(graph, options, predict)[1].deployment
        assert made is not None, "it was planned for a fleet"
        layout = ", ".join(
            f"{stage.stop - stage.first if stage.stop - stage.first > 1 else 1}x{stage.copies}" for stage in made.stages
        )
        ours = 1e6 / made.interval_us
        yield (
            model,
            published,
            str(measured),
            "+".join(map(str, best)),
            f"{card.rate(best):.0f}",
            f"{card.rate(said(published)):.0f}",
            f"{card.rate(said(published)) / measured - 1:+.0%}",
            layout,
            f"{ours:.0f}",
            f"{made.latency_us / 1000:.1f}",
        )


def section(shared: Path, _cache: Path | None) -> str:
    """Return the section on fleets."""
    document = json.loads((shared / "reference" / "multi_tpu.json").read_text(encoding="utf-8"))
    published = document["best_partition_of_8_tpus_unpruned"]["rows"]
    headers = (
        *("model", "measured best division of 8", "measured /s", "foreseen best division", "foreseen /s"),
        *("measured best, foreseen /s", "error", "ours: segments x copies, in order", "ours, foreseen /s"),
        "ours, ms",
    )
    found = list(judged(shared, published))
    others = [row[0] for row in published if row[0] not in REBUILT]
    served = document["codeproject_ai"]["rows"]
    models = sorted({row["model"] for row in served})
    same = sum(said(row[1]) == tuple(map(int, row[3].split("+"))) for row in found)
    near = sum(float(row[5]) >= 0.95 * float(row[4]) for row in found)
    return "\n\n".join(
        [
            "## Plans for several devices",
            f"Made by `python -m tools.{NAME.removesuffix('.py')} ../shared docs/explanation/numbers.md`. A card of "
            "eight Edge TPUs over PCIe ran pipelines cut by the vendor's compiler side by side; 5+3 is a pipeline of "
            "five segments and one of three. Foreseen rates of such divisions use the vendor's rule. Ours is "
            "`graphcut plan MODEL --devices 8 --device coral-pcie`, one chain of stages with copies.",
            table(headers, found),
            f"The division foreseen as best is the measured one for {same} of {len(found)} models; the measured best "
            f"is foreseen within 5 % of the best for {near} of {len(found)}. Rates are foreseen too high: the host's "
            "work for eight devices is not in the costs. Nothing was fitted to these rows: all of them are a test.",
            f"Not rebuilt, for want of their graphs here: {', '.join(others)}. Nor are the {len(models)} models of the "
            f"camera server's {len(served)} rows ({', '.join(models)}): they are not judged.",
        ]
    )


if __name__ == "__main__":
    sys.exit(run(NAME, __doc__, section))
