"""Compare plans for several devices with published measurements, for docs/explanation/numbers.md.

    python -m tools.fleet_numbers ../shared docs/explanation/numbers.md

multi_tpu.json lists which division into pipelines of segments was fastest on a card of eight Edge TPUs over PCIe. The
models that are also in the zoo are rebuilt. No constant was fitted to these rows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from graphcut.planning import other_tools
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import planned
from graphcut.planning.segments import segments
from graphcut.prediction.device_profiles import DEVICES, DeviceProfile
from graphcut.prediction.segment_costs import Costs, PlanCost
from graphcut.prediction.sizes import predict
from graphcut.records import Graph
from graphcut.units import MIB
from tools import architectures
from tools.edgetpu_numbers import table
from tools.page import run

NAME = "fleet_numbers.py"
CARD = DEVICES["coral-pcie"]
DEVICES_ON_CARD = 8
AT_RATES = replace(CARD, seams_at_rates=True, handover_ms_per_mib=0.0)
"""The card if what is handed over took the time that the model's own outputs and inputs take."""
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
    """A model on a card of devices, cut by the vendor's rule as the published ones were.

    Where it is published what the vendor's split streams (``off_chip_mib_by_N``, a list apart from the divisions), the
    last segment streams what the rule misses of it.
    """

    def __init__(self, graph: Graph, streamed_mib: Sequence[float] = (), device: DeviceProfile = CARD) -> None:
        self.graph = graph
        self.streamed, self.device = streamed_mib, device
        self.sizes = predict(graph)
        self.costs = Costs(graph, self.sizes)
        self.weights = other_tools.weight_sums(graph)

    @cache  # noqa: B019
    def pipeline(self, count: int) -> PlanCost:
        """Return the cost of a pipeline of ``count`` segments."""
        cuts = other_tools.by_equal_shares(self.graph, self.weights, count)
        own = segments(self.graph, cuts, self.sizes)
        found = [self.costs.segment(each, self.device) for each in own]
        if count <= len(self.streamed):
            missing = round(self.streamed[count - 1] * MIB) - sum(each.off_chip_bytes for each in found)
            off_chip, more_ms = found[-1].off_chip_bytes + missing, self.device.stream_ms_per_mib * missing / MIB
            if missing > 0:
                found[-1] = replace(found[-1], off_chip_bytes=off_chip, latency_ms=found[-1].latency_ms + more_ms)
        return PlanCost(segments=tuple(found))

    def rate(self, division: tuple[int, ...]) -> float:
        """Return the results per second of several pipelines that run side by side."""
        return sum(1000 / self.pipeline(count).interval_ms for count in division)


def judged(shared: Path, rows: list[list[Any]], streamed: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, ...]]:
    """Yield a table row for every model that can be rebuilt."""
    for model, _, _, shortest, measured_ms, published, measured in rows:
        if model not in REBUILT:
            continue
        graph = architectures.zoo(shared, *REBUILT[model])
        card = Card(graph, streamed.get(model, ()))
        slow = Card(graph, streamed.get(model, ()), AT_RATES)
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
            f"{slow.rate(said(published)) / measured - 1:+.0%}",
            f"{measured_ms} ({shortest})",
            f"{card.pipeline(said(shortest)[0]).latency_ms:.1f}",
            f"{slow.pipeline(said(shortest)[0]).latency_ms:.1f}",
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
        *("measured best, foreseen /s", "error", "error at rates", "measured ms (division)"),
        *("longest pipeline, foreseen ms", "at rates, ms"),
        *("ours: segments x copies, in order", "ours, foreseen /s", "ours, ms"),
    )
    found = list(judged(shared, published, document["off_chip_mib_by_N_1_to_8"]))
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
            f"is foreseen within 5 % of the best for {near} of {len(found)}. No constant was fitted to these rows. "
            "ResNet101 in eight segments streams 2.03 MiB as published, which the vendor's rule as described misses: "
            "without that, eight segments were foreseen as best.",
            "Rates are foreseen too high. *At rates* counts what is handed over as an output of one device and an "
            "input of the next, at the rates of PCIe that the ladders' networks show; the errors are then small, and "
            "so are those of the latencies, which the publication calls inflated. The costs use the line that the same "
            "publication gives for handing over, 2.35 ms/MiB, where the rates would give 15. Which holds for a setup "
            "can only be measured there: `seams_at_rates` in a device profile chooses.",
            f"Not rebuilt, for want of their graphs here: {', '.join(others)}. Nor are the {len(models)} models of the "
            f"camera server's {len(served)} rows ({', '.join(models)}): they are not judged.",
        ]
    )


if __name__ == "__main__":
    sys.exit(run(NAME, __doc__, section))
