"""Choose cuts: from candidates and sizes to a plan.

Strategies:

1. ``greedy``: the reference rule under a budget (graphcut.planning.greedy). It needs the fewest segments for these
   candidates and sizes; an independent dynamic programme confirms that in ``minimal_k``. If candidates of several
   tensors are among them, it returns, of all plans with the fewest segments, the one that hands over the fewest bytes
   (graphcut.planning.exact.cheapest).
2. ``balanced``: K segments whose largest is as small as possible; without K, the fewest that the budget allows.
3. ``range``: the later variant of the rule: every segment in LOW .. HIGH, aiming at the running average.
4. ``given``: the named cuts.
5. ``fewest``, ``throughput``, ``latency``, ``traffic``: exact by other objectives; and with pins, limits on other costs
   or a chain of devices all but the two before: graphcut.planning.constrained. For a fleet of devices ``throughput``
   and ``latency`` also choose copies and kinds of devices: graphcut.planning.fleet.

A candidate whose only reader would be fused into its producer (``pre_activation``) is skipped unless it is named or the
options allow it. All strategies use the candidates of the analysis, which may include ranks below 4. Every plan is
checked by graphcut.planning.self_check before it is returned.
"""

from __future__ import annotations

from graphcut.analysis.cut_names import named, offered
from graphcut.errors import InfeasibleError, setting
from graphcut.planning.certificate import Proof, certify
from graphcut.planning.constrained import Chosen, choose
from graphcut.planning.exact import balanced, cheapest, fewest, lower_bound, require_count
from graphcut.planning.fleet_choice import FleetChoice, choose_for_fleet
from graphcut.planning.greedy import greedy
from graphcut.planning.places import Places, largest_block, places, require_blocks_fit, sizes_between
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segments import segments
from graphcut.planning.self_check import BrokenPlanError, check
from graphcut.planning.size_range import ranged
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import Sizes, corrected
from graphcut.records import Analysis, Candidate, Plan
from graphcut.settings import Strategy
from graphcut.units import format_budget, format_bytes
from graphcut.workers.garbage import uncollected

__all__ = [
    "BrokenPlanError",
    "PlanOptions",
    "Strategy",
    "check",
    "corrected",
    "plan",
    "smallest_feasible_budget",
    "whole_bytes",
]


@uncollected()
def plan(analysis: Analysis, sizes: Sizes, options: PlanOptions, costs: Costs | None = None) -> Plan:
    """Choose the cuts; deterministic, and checked.

    Args:
        analysis: with the candidates; a ``range`` plan looks at ranks below 4 near the end, if they are in it.
        sizes: predicted, or corrected by measured files.
        options: strategy and limits.
        costs: of the same graph, if they are known.

    Raises:
        InfeasibleError: nothing satisfies the limits; the error names the block or segment and a sufficient limit.
        UsageError: a name in ``cuts`` is unknown or not a candidate.
        BrokenPlanError: a bug.
    """
    budget = options.limit_bytes
    chosen = named(analysis, options.cuts or options.pins)
    avoided = offered(analysis, options.avoid)
    near_end = _near_end(sizes, budget) if options.strategy == "range" else None

    def keep(candidate: Candidate) -> bool:
        if candidate.position in chosen or candidate.position in avoided:
            return candidate.position not in avoided
        vector = len(candidate.tensors) == 1 and len(candidate.shape) < 4
        if near_end is not None and vector and candidate.position < near_end:
            return False
        return options.allow_pre_activation or not candidate.pre_activation

    at = places(analysis, sizes, keep)
    minimal: int | None
    proof: Proof | FleetChoice | None = None
    if options.fleet:
        proof = choose_for_fleet(at, costs or _costs(analysis, sizes), options, _pinned(at, chosen))
        cuts, minimal = proof.cuts, proof.minimal
    elif options.constrained:
        cuts, minimal, proof = _constrained(at, costs or _costs(analysis, sizes), options, chosen)
    else:
        cuts = _cut(at, options, budget, chosen)
        minimal = None if budget is None else fewest(at, budget)
    bound = None if budget is None else lower_bound(at.size(0, at.end), sizes.base_bytes, budget)
    crossed = tuple(at.candidates[cut - 1] for cut in cuts)
    if analysis.border is not None:
        crossed = (*crossed, analysis.candidates[-1])
    made = Plan(
        strategy=options.strategy,
        budget_bytes=budget,
        candidates=crossed,
        segments=segments(analysis.graph, [cut.position for cut in crossed], sizes),
        minimal_k=None if budget is None else minimal,
        lower_bound=bound,
        max_seam_tensors=analysis.max_seam_tensors,
        min_rank=analysis.min_rank,
        places=len(analysis.candidates),
        certificate=certify(
            at,
            analysis.graph,
            sizes,
            cuts,
            strategy=options.strategy,
            budget=budget,
            lower_bound=bound,
            minimal=None if budget is None else minimal,
            proof=proof,
        ),
        on_cpu=analysis.on_cpu,
        deployment=proof.chosen if isinstance(proof, FleetChoice) else None,
        alternatives=proof.rows if isinstance(proof, FleetChoice) else (),
    )
    check(made, analysis, sizes)
    return made


def _costs(analysis: Analysis, sizes: Sizes) -> Costs:
    return Costs(analysis.graph, sizes, per_channel=sizes.per_channel)


def _constrained(at: Places, costs: Costs, options: PlanOptions, pinned: frozenset[int]) -> Chosen:
    """Choose places by costs and constraints."""
    return choose(at, costs, options, _pinned(at, pinned))


def _pinned(at: Places, pinned: frozenset[int]) -> frozenset[int]:
    return frozenset(place for place, position in enumerate(at.positions) if position in pinned)


def whole_bytes(sizes: Sizes) -> int:
    """Bytes of the unsplit int8 file."""
    return sizes.segment_bytes(0, len(sizes.prefix_bytes) - 1)


def smallest_feasible_budget(analysis: Analysis, sizes: Sizes, *, allow_pre_activation: bool = False) -> int:
    """Bytes of the largest block: the smallest budget for which there is a plan."""
    return largest_block(places(analysis, sizes, lambda each: allow_pre_activation or not each.pre_activation))


def _cut(at: Places, options: PlanOptions, budget: int | None, chosen: frozenset[int]) -> tuple[int, ...]:
    """Let the strategy choose places."""
    if options.strategy == "given":
        return _given(at, chosen, budget)
    if options.range_bytes:
        return ranged(at, *options.range_bytes, options.segments)
    if options.strategy == "balanced":
        return _balanced(at, options.segments, budget)
    assert budget is not None, "PlanOptions ensures it"
    return cheapest(at, budget) if at.several else greedy(at, budget)


def _balanced(at: Places, count: int | None, budget: int | None) -> tuple[int, ...]:
    if budget is not None:
        require_blocks_fit(at, budget)
        minimal = fewest(at, budget)
        assert minimal is not None, "every block fits, so one segment per block is a plan"
        if count is not None:
            require_count(at, count, minimal, budget)
        count = count or minimal
    assert count is not None, "PlanOptions ensures it"
    return balanced(at, count)


def _given(at: Places, chosen: frozenset[int], budget: int | None) -> tuple[int, ...]:
    """Find the places of the named cuts and check them against the budget."""
    cuts = tuple(place for place, position in enumerate(at.positions[:-1]) if position in chosen)
    if budget is None:
        return cuts
    bounds = (0, *cuts, at.end)
    for index, size in enumerate(sizes_between(at, cuts)):
        if size > budget:
            start, stop = bounds[index], bounds[index + 1]
            inside = at.reach(start, budget)
            room = format_budget(size)
            way_out = f"raise {setting('budget', to=room)} to at least {room}"
            way_out += f" or cut at {at.names[inside]} too" if inside > start else ""
            raise InfeasibleError(
                f"segment {index + 1} ({at.name(start, stop)}) needs {format_bytes(size)}; the budget is "
                f"{format_bytes(budget)}",
                way_out,
            )
    return cuts


def _near_end(sizes: Sizes, high: int | None) -> int | None:
    """First position after which everything fits in one segment."""
    if high is None:
        return None
    end = len(sizes.prefix_bytes) - 1
    return next((position for position in range(end + 1) if sizes.segment_bytes(position, end) <= high), end)
