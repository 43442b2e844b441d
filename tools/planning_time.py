"""Compare the time of planning with plain loops over every span: ``python -m tools.planning_time``.

The graphs are ResNet-101 at 224 if ``../shared/zoo`` has it, otherwise a generated chain of as many operators, and
generated chains of residual blocks. Times start at the loaded graph, and both sides must produce the same result.
``tools/bench_plan.py`` measures graphs of up to 100,000 nodes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

from graphcut.analysis.candidates import analyse
from graphcut.planning.constrained import choose
from graphcut.planning.exact import fewest
from graphcut.planning.make_plan import plan
from graphcut.planning.places import Places, places
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import arrange
from graphcut.planning.segment_limits import Limits
from graphcut.planning.segments import segments
from graphcut.prediction.device_profiles import DEFAULT
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import predict
from graphcut.records import Graph
from graphcut.report.tables import table
from graphcut.units import MIB
from tools import architectures
from tools.bench_plan import residual

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
RESNET, RESNET_NODES = "keras_resnet101", 345
CHAINS = (1_000, 4_000)
SEGMENTS = 7
HEADERS = ("graph", "places", "what", "graphcut, ms", "plain python, ms")


def rows(shared: Path) -> list[tuple[str, str, str, str, str]]:
    """Return cells for HEADERS; the column of the plain loop is empty where no plain loop does the same."""
    if (shared / "zoo" / f"{RESNET}.onnx").exists():
        name, graph = "ResNet-101", architectures.zoo(shared, RESNET, 224)
    else:
        name, graph = f"chain of {RESNET_NODES}", residual(RESNET_NODES)
    found = []
    at = _places(graph)
    for what, work in (
        ("analyse, predict all costs", partial(_predicted, graph)),
        ("all of `plan --budget` (greedy)", partial(_planned, graph, "greedy")),
        ("all of `plan --objective fewest --limit off-chip=0`", partial(_planned, graph, "fewest")),
        (f"all of `plan --objective throughput --segments {SEGMENTS}`", partial(_planned, graph, "throughput")),
    ):
        found.append((name, f"{at.end - 1}", what, f"{1000 * timed(work):.1f}", ""))
    found += _by_time(name, graph)
    found.append(_by_size(name, graph))
    found += [_by_size(f"chain of {nodes:,}", residual(nodes)) for nodes in CHAINS]
    return found


def _predicted(graph: Graph) -> object:
    return analyse(graph), Costs(graph, predict(graph))


def _planned(graph: Graph, name: str) -> object:
    """Arrange, predict and plan, starting from the graph."""
    options = {
        "greedy": PlanOptions(budget_bytes=7 * MIB),
        "fewest": PlanOptions(strategy="fewest", budget_bytes=7 * MIB, limits=Limits(off_chip_bytes=0)),
        "throughput": PlanOptions(strategy="throughput", segments=SEGMENTS),
    }
    arranged = arrange(graph, options[name], predict)
    return arranged.made or plan(arranged.analysis, arranged.sizes, options[name])


def _places(graph: Graph) -> Places:
    return places(analyse(graph), predict(graph), lambda each: not each.pre_activation)


def _by_size(name: str, graph: Graph) -> tuple[str, str, str, str, str]:
    """Find the fewest segments within a budget: with a moving window, and with the textbook's double loop."""
    at = _places(graph)
    budget = at.size(0, at.end) // (SEGMENTS - 1)
    assert fewest(at, budget) == plain_fewest(at, budget)
    ours, theirs = timed(lambda: fewest(at, budget)), timed(lambda: plain_fewest(at, budget))
    return (name, f"{at.end - 1}", "fewest segments by size", f"{1000 * ours:.3f}", f"{1000 * theirs:.1f}")


def _by_time(name: str, graph: Graph) -> list[tuple[str, str, str, str, str]]:
    """Minimise the slowest segment: with all spans at once, and with each span costed by itself."""
    at, costs = _places(graph), Costs(graph, predict(graph))
    request = PlanOptions(strategy="throughput", segments=SEGMENTS)
    chosen = choose(at, costs, request, frozenset())
    slowest = max(_span_ms(at, costs, start, stop) for start, stop in pairwise([0, *chosen.cuts, at.end]))
    best = plain_throughput(at, costs, SEGMENTS)
    assert math.isclose(slowest, best, rel_tol=1e-3), (slowest, best)
    ours = timed(lambda: choose(at, costs, request, frozenset()))
    theirs = timed(lambda: plain_throughput(at, costs, SEGMENTS))
    return [(name, f"{at.end - 1}", "least slowest segment", f"{1000 * ours:.1f}", f"{1000 * theirs:.1f}")]


def plain_fewest(at: Places, budget: int) -> int | None:
    """Find the fewest segments within a budget by trying every start for every stop: O(n^2)."""
    best: list[int | None] = [0]
    for stop in range(1, at.end + 1):
        reached = [best[start] for start in range(stop) if at.size(start, stop) <= budget]
        known = [count for count in reached if count is not None]
        best.append(min(known) + 1 if known else None)
    return best[at.end]


def plain_throughput(at: Places, costs: Costs, count: int) -> float:
    """Find the least milliseconds of the slowest of ``count`` segments, each span costed by itself: O(K n^2)."""
    time_of = {
        (start, stop): _span_ms(at, costs, start, stop) for stop in range(1, at.end + 1) for start in range(stop)
    }
    best = [0.0, *[math.inf] * at.end]
    for _ in range(count):
        best = [
            min((max(best[start], time_of[start, stop]) for start in range(stop)), default=math.inf)
            for stop in range(at.end + 1)
        ]
    return best[at.end]


def _span_ms(at: Places, costs: Costs, start: int, stop: int) -> float:
    cuts = [at.positions[place] for place in (start, stop) if 0 < place < at.end]
    own = next(each for each in segments(costs.graph, cuts, costs.sizes) if each.start == at.positions[start])
    return costs.segment(own, DEFAULT).latency_ms


def timed(work: Callable[[], object], least: float = 0.5) -> float:
    """Return seconds of processor time per call, the best of as many calls as fit into ``least`` seconds."""
    taken: list[float] = []
    begin = time.process_time()
    while not taken or time.process_time() - begin < least:
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def main() -> int:
    """Print the table."""
    print(table(HEADERS, rows(SHARED), right=(HEADERS[1], *HEADERS[3:])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
