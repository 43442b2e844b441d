"""Where to cut: from candidates and sizes to a plan.

Strategies:

1. ``greedy``: the reference rule under a budget (graphcut.stages.planning.greedy). It needs the fewest segments there
   are for these candidates and sizes; a dynamic programme that shares nothing with it says so in ``minimal_k``. Where
   candidates of several tensors are among them, of all plans with so few segments the one that hands over the fewest
   bytes (graphcut.stages.planning.exact.cheapest).
2. ``balanced``: K segments whose largest is as small as can be; without K, the fewest that the budget allows.
3. ``range``: the later variant of the rule: every segment in LOW .. HIGH, aiming at the running average.
4. ``given``: the cuts named.

A candidate whose only reader would be fused into its producer (``pre_activation``) is passed over unless it is named
or the options allow it. All strategies take what the analysis offers; lower ranks than 4 are its option. Every plan is
checked by graphcut.stages.planning.checking before it is handed out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphcut.errors import InfeasibleError, UsageError
from graphcut.records import Analysis, Candidate, Plan
from graphcut.stages.planning.checking import BrokenPlanError, check
from graphcut.stages.planning.exact import balanced, cheapest, fewest, lower_bound, require_count
from graphcut.stages.planning.greedy import greedy
from graphcut.stages.planning.measured import corrected
from graphcut.stages.planning.named import named
from graphcut.stages.planning.places import Places, largest_block, places, require_blocks_fit, sizes_between
from graphcut.stages.planning.ranged import ranged
from graphcut.stages.planning.segments import segments
from graphcut.stages.sizes import Sizes
from graphcut.units import format_budget, format_bytes

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

Strategy = Literal["greedy", "balanced", "range", "given"]
_TAKES = {
    "greedy": {"budget_bytes"},
    "balanced": {"budget_bytes", "segments"},
    "range": {"range_bytes", "segments"},
    "given": {"budget_bytes", "cuts"},
}
_FLAGS = {"budget_bytes": "--budget", "segments": "--segments", "range_bytes": "--range", "cuts": "--cuts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What a plan is to satisfy; which fields a strategy takes is in brackets.

    Attributes:
        strategy: "greedy", "balanced", "range" or "given".
        budget_bytes: limit of every int8 file (greedy: needed; balanced: this or ``segments``; given).
        segments: K (balanced, range).
        range_bytes: LOW and HIGH (range: needed).
        cuts: layer or tensor names in any order (given: needed; empty for one segment).
        allow_pre_activation: also cut between an operator and the activation that would be fused into it.
        max_seam_tensors: the most tensors that a cut may hand over; None for 1 if there is a plan, else the fewest with
            which there is one. What is offered is the analysis's matter (graphcut.stages.arrange).
        layer_split: divide layers that alone pass the budget (graphcut.stages.arrange).

    Raises:
        UsageError: a field is missing, contradicts the strategy or is not above zero.
    """

    strategy: Strategy = "greedy"
    budget_bytes: int | None = None
    segments: int | None = None
    range_bytes: tuple[int, int] | None = None
    cuts: tuple[str, ...] | None = None
    allow_pre_activation: bool = False
    max_seam_tensors: int | None = None
    layer_split: bool = True

    def __post_init__(self) -> None:
        if self.strategy not in _TAKES:
            raise UsageError(f"no strategy is called {self.strategy!r}", f"choose from {', '.join(_TAKES)}")
        given = {name for name in _FLAGS if getattr(self, name) is not None}
        for name in sorted(given - _TAKES[self.strategy]):
            takes = " and ".join(_FLAGS[each] for each in _FLAGS if each in _TAKES[self.strategy])
            raise UsageError(f"the {self.strategy} strategy does not take {_FLAGS[name]}", f"it takes {takes}")
        needed = {"greedy": "budget_bytes", "range": "range_bytes", "given": "cuts"}.get(self.strategy)
        if needed and needed not in given:
            raise UsageError(f"the {self.strategy} strategy needs {_FLAGS[needed]}", f"add {_FLAGS[needed]}")
        if not given:
            raise UsageError("the balanced strategy needs to know how many segments", "add --segments or --budget")
        low, high = self.range_bytes or (1, 2)
        for value in (self.budget_bytes, self.segments, low, self.max_seam_tensors):
            if value is not None and not value >= 1:
                raise UsageError(f"{value} is not above zero", "budgets and numbers start at 1")
        if low >= high:
            raise UsageError(f"the range {low} .. {high} is empty", "write LOW..HIGH, such as 2MiB..6MiB")

    @property
    def limit_bytes(self) -> int | None:
        """What no file may pass: the budget or HIGH; None where only K or cuts are given."""
        return self.range_bytes[1] if self.range_bytes else self.budget_bytes


def plan(analysis: Analysis, sizes: Sizes, options: PlanOptions) -> Plan:
    """Choose the cuts; deterministic, and checked.

    Args:
        analysis: with the candidates; a ``range`` plan looks at ranks below 4 near the end, if they are in it.
        sizes: predicted, or corrected by measured files.
        options: strategy and limits.

    Raises:
        InfeasibleError: nothing satisfies the limits; says which block or segment is in the way and what would do.
        UsageError: a name in ``cuts`` is unknown or no candidate.
        BrokenPlanError: a bug.
    """
    budget = options.limit_bytes
    chosen = named(analysis, options.cuts or ())
    near_end = _near_end(sizes, budget) if options.strategy == "range" else None

    def keep(candidate: Candidate) -> bool:
        if candidate.position in chosen:
            return True
        if near_end is not None and len(candidate.shape) < 4 and candidate.position < near_end:
            return False
        return options.allow_pre_activation or not candidate.pre_activation

    at = places(analysis, sizes, keep)
    cuts = _cut(at, options, budget, chosen)
    made = Plan(
        strategy=options.strategy,
        budget_bytes=budget,
        candidates=tuple(at.candidates[cut - 1] for cut in cuts),
        segments=segments(analysis.graph, [at.positions[cut] for cut in cuts], sizes),
        minimal_k=None if budget is None else fewest(at, budget),
        lower_bound=None if budget is None else lower_bound(whole_bytes(sizes), sizes.base_bytes, budget),
        max_seam_tensors=analysis.max_seam_tensors,
        min_rank=analysis.min_rank,
        places=len(analysis.candidates),
    )
    check(made, analysis, sizes)
    return made


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
    assert budget is not None, "PlanOptions has seen to it"
    return cheapest(at, budget) if at.several else greedy(at, budget)


def _balanced(at: Places, count: int | None, budget: int | None) -> tuple[int, ...]:
    if budget is not None:
        require_blocks_fit(at, budget)
        minimal = fewest(at, budget)
        assert minimal is not None, "every block fits, so one segment a block is a plan"
        if count is not None:
            require_count(at, count, minimal, budget)
        count = count or minimal
    assert count is not None, "PlanOptions has seen to it"
    return balanced(at, count)


def _given(at: Places, chosen: frozenset[int], budget: int | None) -> tuple[int, ...]:
    """Find the places of the named cuts and hold them against the budget."""
    cuts = tuple(place for place, position in enumerate(at.positions[:-1]) if position in chosen)
    if budget is None:
        return cuts
    bounds = (0, *cuts, at.end)
    for index, size in enumerate(sizes_between(at, cuts)):
        if size > budget:
            start, stop = bounds[index], bounds[index + 1]
            inside = at.reach(start, budget)
            way_out = f"raise --budget to at least {format_budget(size)}"
            way_out += f" or cut at {at.names[inside]} too" if inside > start else ""
            raise InfeasibleError(
                f"segment {index + 1} ({at.name(start, stop)}) needs {format_bytes(size)}, "
                f"the budget is {format_bytes(budget)}",
                way_out,
            )
    return cuts


def _near_end(sizes: Sizes, high: int | None) -> int | None:
    """First position behind which everything fits one segment."""
    if high is None:
        return None
    end = len(sizes.prefix_bytes) - 1
    return next((position for position in range(end + 1) if sizes.segment_bytes(position, end) <= high), end)
