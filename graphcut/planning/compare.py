"""Compare all objectives and the rules of other tools on one graph, and the trade-off over K or over budgets.

Every plan is costed by the same model (graphcut.prediction.segment_costs), so plans are compared, not
models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from graphcut.errors import InfeasibleError
from graphcut.planning import other_tools
from graphcut.planning.fleet_choice import devices_of
from graphcut.planning.layer_split import Measure
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import arrange
from graphcut.planning.segment_limits import Limits
from graphcut.planning.segments import segments
from graphcut.prediction.device_profiles import DeviceProfile
from graphcut.prediction.segment_costs import Costs, Milliseconds, PlanCost
from graphcut.prediction.sizes import Sizes
from graphcut.record_types import FLAT, OMITTED, OPTIONAL, Without, derived
from graphcut.records import Analysis, Graph, Segment
from graphcut.settings import Strategy
from graphcut.units import format_bytes

OURS: tuple[Strategy, ...] = ("greedy", "fewest", "balanced", "throughput", "latency", "traffic")
MOST_SWEPT = 16
MOST_NODES = 5000
"""Nodes of a graph up to which every split records its trade-off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One way to cut.

    Attributes:
        name: the objective, or the tool whose rule it is.
        asked: the request ("K = 7", "7.000 MiB").
        segments, cost: the result; empty and None where there is no plan.
        refused: why there is no such plan; absent where there is one.
    """

    name: str
    asked: str
    segments: Annotated[tuple[Segment, ...], OMITTED] = ()
    cost: Annotated[PlanCost | None, FLAT] = None
    refused: Annotated[str | None, OPTIONAL] = None

    @property
    @derived("k")
    def k(self) -> Annotated[int | None, OPTIONAL]:
        """Number of segments."""
        return len(self.segments) or None

    @property
    @derived("largest_tflite_bytes")
    def largest_tflite_bytes(self) -> Annotated[int | None, OPTIONAL]:
        """Size of the largest int8 file, predicted."""
        return max(self.tflite_bytes or (), default=None)

    @property
    @derived("tflite_bytes")
    def tflite_bytes(self) -> Annotated[tuple[int, ...] | None, OPTIONAL]:
        """Sizes of the int8 files, predicted."""
        return tuple(each.tflite_bytes for each in self.segments) or None

    @property
    @derived("cuts")
    def cuts(self) -> Annotated[tuple[tuple[str, ...], ...] | None, OPTIONAL]:
        """For each cut the layers whose tensors are handed over."""
        return tuple(each.output_layers for each in self.segments[:-1]) if self.segments else None

    @property
    @derived("segment_latency_ms")
    def segment_latency_ms(self) -> Annotated[tuple[Milliseconds, ...] | None, OPTIONAL]:
        """Milliseconds of one inference of each segment, estimated."""
        return None if self.cost is None else tuple(each.latency_ms for each in self.cost.segments)


Summary = Annotated[Compared, Without(("cuts", "tflite_bytes", "segment_latency_ms", "seam_bytes", "balance"))]
"""A way to cut without its cuts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeOff:
    """Other ways to cut the same model, with predicted sizes and estimated times.

    Attributes:
        swept: the best plan for each number of segments around the chosen one.
        compared: other objectives, and the rules of other tools.
    """

    swept: tuple[Summary, ...] = ()
    compared: tuple[Summary, ...] = ()


def compare(given: Graph, options: PlanOptions, measure: Measure, min_rank: int | None = None) -> tuple[Compared, ...]:
    """Cut by every objective and by the rules of other tools.

    Args:
        given: the graph, which is arranged as the options ask for (graphcut.planning.search).
        options: the budget, limits, devices and constraints that hold for all of ours. K is what the plan that they ask
            for has.
        measure: predicts a graph's sizes.
        min_rank: lowest rank of a tensor to cut at; None for what is needed.

    Raises:
        InfeasibleError, UsageError: there is no such plan.
    """
    analysis = arrange(given, options, measure, min_rank).analysis
    sizes = measure(analysis.graph)
    costs = Costs(analysis.graph, sizes, per_channel=sizes.per_channel)
    asked = plan(analysis, sizes, options)
    count, budget = len(asked.chip_segments), options.limit_bytes
    if budget is None:
        budget = max(sizes.segment_bytes(each.start, each.stop) for each in asked.chip_segments)
    chain = options.devices or (options.device,)
    compared = [_ours(name, analysis, sizes, costs, _variant(options, name, count, budget)) for name in OURS]
    graph, weights = analysis.graph, other_tools.weight_sums(analysis.graph)

    def theirs(name: str, said: str, positions: Sequence[int]) -> Compared:
        made = segments(graph, positions, sizes)
        return Compared(name=name, asked=said, segments=made, cost=_cost(costs, made, chain))

    budget_said = format_bytes(budget)
    return (
        *compared,
        theirs("edgetpu_compiler", f"K = {count}", other_tools.by_equal_shares(graph, weights, count)),
        theirs("onnx2tf", budget_said, other_tools.by_filling(graph, sizes.prefix_bytes, budget)),
        theirs("ssp4onnx", budget_said, other_tools.by_passing(graph, weights, budget)),
    )


def trade_off(
    given: Graph, options: PlanOptions, measure: Measure, chosen: int, min_rank: int | None = None
) -> TradeOff:
    """The best plan for every number of segments around the chosen one, and the other ways to cut.

    Args:
        given, options, measure, min_rank: as in :func:`compare`.
        chosen: number of segments that was chosen.

    Returns:
        What :func:`sweep_counts` gives, for 1 to a third more than ``chosen`` (at least 12, at most 24 numbers), and
        what :func:`compare` gives; both empty for graphs of more than MOST_NODES nodes, where they would take minutes.
    """
    if len(given.nodes) > MOST_NODES:
        return TradeOff()
    last = max(12, chosen + -(-chosen // 3))
    step = -(-last // 24)
    counts = sorted({1, chosen, *range(step, last + 1, step)})
    swept = sweep_counts(given, options, measure, min_rank, counts)
    return TradeOff(
        swept=tuple(row for row in swept if row.cost is not None), compared=compare(given, options, measure, min_rank)
    )


def sweep_counts(
    given: Graph,
    options: PlanOptions,
    measure: Measure,
    min_rank: int | None = None,
    counts: Sequence[int] | None = None,
) -> tuple[Compared, ...]:
    """The best plan of an objective for every number of segments.

    Args:
        given, measure, min_rank: as in :func:`compare`.
        options: the objective and constraints. ``greedy`` and ``fewest`` have no K of their own: ``balanced`` is swept.
        counts: numbers of segments; None for 1 .. MOST_SWEPT, as far as there are places.
    """
    analysis = arrange(given, options, measure, min_rank).analysis
    sizes = measure(analysis.graph)
    costs = Costs(analysis.graph, sizes, per_channel=sizes.per_channel)
    known: Strategy = options.strategy if options.strategy in ("throughput", "latency", "traffic") else "balanced"
    swept = counts or range(1, min(MOST_SWEPT, len(analysis.candidates) + 1) + 1)
    return tuple(_ours(known, analysis, sizes, costs, _variant(options, known, count)) for count in swept)


def sweep_budgets(
    given: Graph, options: PlanOptions, measure: Measure, min_rank: int | None, budgets: Sequence[int]
) -> tuple[Compared, ...]:
    """The plan for every budget, each on the graph as that arranges it; arguments as in :func:`sweep_counts`."""
    return tuple(_within(given, replace(options, budget_bytes=budget), measure, min_rank) for budget in budgets)


def _within(given: Graph, options: PlanOptions, measure: Measure, min_rank: int | None) -> Compared:
    try:
        analysis = arrange(given, options, measure, min_rank).analysis
    except InfeasibleError as error:
        return Compared(name=options.strategy, asked=_said(options), refused=error.message)
    sizes = measure(analysis.graph)
    costs = Costs(analysis.graph, sizes, per_channel=sizes.per_channel)
    return _ours(options.strategy, analysis, sizes, costs, options)


def _variant(options: PlanOptions, name: Strategy, count: int, budget: int | None = None) -> PlanOptions:
    """Give the options with another objective, for ``count`` segments or within a budget, as that takes it."""
    by_size = name in ("greedy", "fewest")
    return replace(
        options,
        strategy=name,
        segments=None if by_size else count,
        max_segments=None,
        range_bytes=None,
        fleet=(),
        cuts=None,
        budget_bytes=budget if by_size or name == "traffic" else None,
        limits=options.limits if by_size or name == "traffic" else Limits(),
    )


def _ours(name: Strategy, analysis: Analysis, sizes: Sizes, costs: Costs, options: PlanOptions) -> Compared:
    try:
        made = plan(analysis, sizes, options)
    except InfeasibleError as error:
        return Compared(name=name, asked=_said(options), refused=error.message)
    return Compared(
        name=name, asked=_said(options), segments=made.segments, cost=costs.plan(made, devices_of(made, options))
    )


def _said(options: PlanOptions) -> str:
    """Describe the request for a plan."""
    if options.segments:
        return f"K = {options.segments}"
    return "" if options.limit_bytes is None else format_bytes(options.limit_bytes)


def _cost(costs: Costs, made: Sequence[Segment], chain: Sequence[DeviceProfile]) -> PlanCost:
    devices = [*chain, *[chain[-1]] * max(0, len(made) - len(chain))]
    return PlanCost(segments=tuple(costs.segment(each, device) for each, device in zip(made, devices, strict=False)))
