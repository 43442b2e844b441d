"""Prepare a graph for a budget: the candidates to offer, the order of the nodes, the layers to split.

1. **Offer as few kinds of candidates as are sufficient.* These are tried in order, and the first with a plan is used:
   single feature maps that dominate the outputs; single tensors of lower rank too; then every position with up to N
   tensors, for N = 1, 2, ..; for each N, feature maps alone before lower ranks. Settings of the user (``min_rank``,
   ``max_seam_tensors``) are kept.
2. *Order.* A seam of one dominating tensor is the same in every topological order. From then on the order matters, and
   that of several (graphcut.analysis.orders), and of their best blocks put together, is taken in which the
   fewest segments are needed, then the fewest bytes handed over, then the one nearest to the file's. Given the order,
   plans are exact. For ``throughput`` with a number of segments and no other constraint it is the best of all orders
   (graphcut.planning.all_orders), unless there are too many.
3. *Layers.* Layers that exceed the budget by themselves are divided by output channels (graphcut.planning.layer_split),
   unless the user forbids it or names the cuts.
4. *Until the chip ends.* With ``until`` all this is done for the nodes that the Edge TPU runs
   (graphcut.prediction.chip_reach), as for a model that ends there. The rest becomes one more segment.
5. If nothing is sufficient, the widest offer is refused with the block that does not fit and the remedies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from graphcut.analysis.candidates import analyse
from graphcut.analysis.cut_names import named, named_order, seam_named
from graphcut.analysis.liveness import lifetimes
from graphcut.analysis.orders import reordered
from graphcut.errors import InfeasibleError, UsageError, setting
from graphcut.graph.passes.parts import SplitLayers, split_layers
from graphcut.planning import layer_split
from graphcut.planning.all_orders import best_order
from graphcut.planning.layer_split import Measure
from graphcut.planning.make_plan import plan, smallest_feasible_budget
from graphcut.planning.order_choice import Chooser
from graphcut.planning.places import places, require_blocks_fit
from graphcut.planning.plan_options import PlanOptions
from graphcut.prediction.chip_reach import ChipReach, chip_reach, front
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import WIDEST_SEAM, Sizes
from graphcut.records import Analysis, Graph, Plan
from graphcut.units import format_bytes
from graphcut.workers.garbage import uncollected

RANKS = (4, 2)
"""Feature maps; vectors too. Tensors of rank 1 and 0 are not candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """The input of planning.

    Attributes:
        analysis: the places offered, of the graph with its layers split and its nodes in the order chosen.
        sizes: predicted, of that graph.
        splits: output of a layer of the graph given -> the channels at which its parts meet.
        notes: notes for the user.
        made: the plan for the same options, where it took one to know that there is one; without the notes.
        costs: of its graph, where that plan took them.
    """

    analysis: Analysis
    sizes: Sizes
    splits: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...]
    made: Plan | None = None
    costs: Costs | None = None

    def costed(self) -> Costs:
        """The costs of its graph, computed where no plan took them."""
        return self.costs or Costs(self.analysis.graph, self.sizes, per_channel=self.sizes.per_channel)


class _Attempt(NamedTuple):
    """What there is of a plan: nothing where sizes alone say that there is one."""

    made: Plan | None = None
    costs: Costs | None = None


@uncollected()
def arrange(graph: Graph, options: PlanOptions, measure: Measure, min_rank: int | None = None) -> Arrangement:
    """Arrange a graph for a plan (module docstring); deterministic.

    Args:
        graph: normalised.
        options: what the plan is to satisfy.
        measure: predicts the bytes of every node of a graph, in its order.
        min_rank: lowest rank of a tensor to cut at; None for 4 if there is a plan, else 2.

    Raises:
        InfeasibleError: nothing satisfies the limits; the error names what does not fit and a sufficient limit.
        UsageError: a name in ``cuts`` is not a place to cut.
        ModelError: the graph has no operators.
    """
    if options.until is None:
        return _arranged(graph, options, measure, min_rank)
    reach = chip_reach(graph)
    if not reach.left:
        arranged = _arranged(graph, options, measure, min_rank)
        return replace(arranged, notes=(*arranged.notes, "no operator has to run on the CPU: nothing is cut off"))
    arranged = _arranged(front(reach.graph, reach.border), options, measure, min_rank)
    return _with_rest(arranged, reach, measure)


def _with_rest(arranged: Arrangement, reach: ChipReach, measure: Measure) -> Arrangement:
    """Put the nodes for the CPU after those of an arrangement (statement 4)."""
    before, rest = arranged.analysis.graph, reach.graph.nodes[reach.border :]
    named = {name for node in rest for name in (*node.inputs, *node.outputs)}
    whole = replace(
        reach.graph,
        nodes=(*before.nodes, *rest),
        tensors={**before.tensors, **{name: each for name, each in reach.graph.tensors.items() if name in named}},
        weights={**before.weights, **{name: each for name, each in reach.graph.weights.items() if name in named}},
        layers={**before.layers, **{name: each for name, each in reach.graph.layers.items() if name in named}},
    )
    analysis = _bordered(replace(arranged.analysis, graph=whole), len(before.nodes))
    reasons = tuple(map(str, reach.left))
    note = f"{len(rest)} of {len(whole.nodes)} operators run on the CPU, after {analysis.candidates[-1].layer}"
    return Arrangement(
        analysis=replace(analysis, on_cpu=reasons),
        sizes=measure(whole),
        splits=arranged.splits,
        notes=(*arranged.notes, f"{note}: {'; '.join(reasons)}"),
    )


def _bordered(analysis: Analysis, border: int) -> Analysis:
    """Add the place where the nodes for the CPU begin, whatever crosses there, to the places before it."""
    graph = analysis.graph
    made = {*graph.inputs, *(name for node in graph.nodes[:border] for name in node.outputs)}
    crossing = {name for node in graph.nodes[border:] for name in node.inputs if name in made}
    last = analyse(graph, min_rank=1, max_seam_tensors=len(crossing))
    end = next(each for each in last.candidates if each.position == border)
    before = analysis.candidates[-1].weight_bytes_before if analysis.candidates else 0
    end = replace(end, weight_bytes_between=end.weight_bytes_before - before)
    return replace(analysis, candidates=(*analysis.candidates, end), border=border)


def _arranged(graph: Graph, options: PlanOptions, measure: Measure, min_rank: int | None) -> Arrangement:
    """Arrange a graph, all of it for the chip."""
    sizes = measure(graph)
    limit = _limit_of_parts(options)
    layers: Mapping[str, int] = {}
    if limit is not None and options.layer_split and options.strategy != "given":
        layers = layer_split.oversized(graph, sizes, limit)
    if not layers:
        return _offered(graph, options, measure, min_rank, sizes)
    assert limit is not None, "layers are too large for something"
    sliced = split_layers(graph, layer_split.slices(graph, sizes, limit, layers, cached=_must_not_stream(options)))
    try:
        thin, cuts = _sliced_plan(sliced, options, limit, layer_split.shared(graph, layers, sliced, measure), min_rank)
    except InfeasibleError as error:
        raise _even_in_parts(graph, options, measure, min_rank, sizes, error) from None
    positions = [candidate.position for candidate in cuts.candidates]
    splits = layer_split.meeting_points(sliced, thin.analysis.graph, positions)
    arranged = _offered(split_layers(graph, splits).graph, options, measure, min_rank)
    said = tuple(
        f"layer {graph.layers[name]} ({format_bytes(alone)}) is split by output channels into {len(splits[name]) + 1} "
        "parts"
        for name, alone in layers.items()
        if name in splits
    )
    return replace(arranged, splits=splits, notes=(*said, *arranged.notes))


def planned(
    graph: Graph, options: PlanOptions, measure: Measure, min_rank: int | None = None
) -> tuple[Arrangement, Plan]:
    """Arrange a graph and plan its cuts, once; arguments and errors as in :func:`arrange`.

    Returns:
        The arrangement, and the plan with the notes of both.
    """
    arranged = arrange(graph, options, measure, min_rank)
    made = arranged.made or plan(arranged.analysis, arranged.sizes, options, arranged.costs)
    made = replace(made, notes=arranged.notes, splits=arranged.splits, order=_other_order(graph, arranged))
    return arranged, made


def arrangement_of(graph: Graph, given: Plan, measure: Measure) -> Arrangement:
    """Arrange a graph for a plan that exists already (:attr:`Plan.order`, :attr:`Plan.splits`).

    Raises:
        UsageError: the plan is one of another model.
    """
    try:
        ordered = split_layers(graph, given.splits).graph if given.splits else graph
        if given.order:
            by_output = {node.outputs[0]: node for node in ordered.nodes}
            ordered = replace(ordered, nodes=tuple(by_output.pop(name) for name in given.order))
        most = given.max_seam_tensors
        border = given.segments[-1].start if given.on_cpu else None
        planned_for = ordered if border is None else front(ordered, border)
        analysis = analyse(planned_for, min_rank=given.min_rank, max_seam_tensors=most if most > 1 else None)
        if border is not None:
            analysis = replace(_bordered(replace(analysis, graph=ordered), border), on_cpu=given.on_cpu)
        here = {(each.position, each.tensors) for each in analysis.candidates}
        missing = [each.layer for each in given.candidates if (each.position, each.tensors) not in here]
        ends = given.segments[-1].stop == len(ordered.nodes)
    except (KeyError, ValueError) as error:
        raise _of_another_model(str(error)) from error
    if missing or not ends:
        raise _of_another_model(f"no cut at {missing[0]}" if missing else "another number of operators")
    return Arrangement(analysis=analysis, sizes=measure(ordered), splits=given.splits, notes=given.notes, made=given)


def _of_another_model(reason: str) -> UsageError:
    return UsageError(f"the plan does not belong to this model ({reason})", "make a plan from this model")


def _other_order(graph: Graph, arranged: Arrangement) -> tuple[str, ...]:
    """First outputs of the nodes in their order, where it is not that of the file; else empty."""
    file = split_layers(graph, arranged.splits).graph if arranged.splits else graph
    chosen = arranged.analysis.graph.nodes
    same = len(file.nodes) == len(chosen) and all(
        one is other or one.outputs == other.outputs for one, other in zip(file.nodes, chosen, strict=True)
    )
    return () if same else tuple(node.outputs[0] for node in chosen)


def _limit_of_parts(options: PlanOptions) -> int | None:
    """Return the limit of every part of a layer; with several devices, any of them may run it."""
    budgets = [device.budget_bytes for device in options.devices if device.budget_bytes is not None]
    limit = options.limit_bytes
    return limit if limit is None else min([limit, *budgets])


def _sliced_plan(
    sliced: SplitLayers, options: PlanOptions, limit: int, measure: Measure, min_rank: int | None
) -> tuple[Arrangement, Plan]:
    """Plan with slices for a little less than the limit; for the limit itself where that is too little.

    By sizes alone: where parts meet is a question of what fits, not of the objective.
    """
    plain = PlanOptions(
        strategy="balanced" if options.strategy == "balanced" and not options.constrained else "greedy",
        budget_bytes=limit,
        segments=options.segments if options.strategy == "balanced" and not options.constrained else None,
        allow_pre_activation=options.allow_pre_activation,
        max_seam_tensors=options.max_seam_tensors,
    )
    smaller = replace(plain, budget_bytes=layer_split.safe(limit))
    with suppress(InfeasibleError):
        thin = _offered(sliced.graph, smaller, measure, min_rank)
        return thin, plan(thin.analysis, thin.sizes, smaller)
    thin = _offered(sliced.graph, plain, measure, min_rank)
    return thin, plan(thin.analysis, thin.sizes, plain)


def _must_not_stream(options: PlanOptions) -> bool:
    return options.limits.off_chip_bytes is not None


def _even_in_parts(
    graph: Graph,
    options: PlanOptions,
    measure: Measure,
    min_rank: int | None,
    sizes: Sizes,
    error: InfeasibleError,
) -> InfeasibleError:
    """Name the block that does not fit, with the remedies for a model with layers in parts."""
    if not error.message.startswith("block "):
        return error  # enough blocks, but too few segments
    try:
        _offered(graph, options, measure, min_rank, sizes)
    except InfeasibleError as whole:
        return InfeasibleError(f"{whole.message}, and its layers in parts do not fit either", error.way_out)
    return error


def _offered(
    graph: Graph, options: PlanOptions, measure: Measure, min_rank: int | None, sizes: Sizes | None = None
) -> Arrangement:
    """Offer as little as will do (statements 1 and 2); ``sizes`` are the graph's if they are known."""
    ranks = RANKS if min_rank is None else (min_rank,)
    sizes = measure(graph) if sizes is None else sizes
    if options.cuts is not None:
        return _named(graph, options, measure, sizes, ranks)
    pinned = max((len(seam_named(graph, name)) for name in options.pins), default=1)
    if pinned > 1:
        graph, sizes = _in_order(graph, named_order(graph, options.pins), sizes, measure)
    limit, most = options.limit_bytes, options.max_seam_tensors
    chooser: Chooser | None = None
    life = lifetimes(graph, None if sizes.files is None else sizes.files.reads)
    for rank in ranks if most is None and pinned == 1 else ():
        if chooser is None or limit is None or chooser.least_own(1, rank) <= limit:
            analysis = analyse(graph, min_rank=rank, life=life)
            attempt = _attempt(analysis, sizes, options)
            if attempt is not None:
                return _arrangement(analysis, graph, sizes, measure, _rank_note(rank, ranks), attempt)
        chooser = chooser or Chooser(graph, sizes, allow_fused=options.allow_pre_activation, life=life)
    chooser = chooser or Chooser(graph, sizes, allow_fused=options.allow_pre_activation, life=life)
    own = None if most is not None or pinned > 1 or limit is None else chooser.own(ranks, limit)
    if own is not None:
        most, rank = own
        best = graph
    else:
        most = most or max(pinned, _fewest(chooser, options, ranks))
        rank = next((rank for rank in ranks if _reaches(chooser, most, (rank,), options)), ranks[-1])
        best = chooser.best(most, rank, limit) if pinned == 1 else graph
        if not _reaches(chooser, most, (rank,), options):
            analysis = analyse(best, min_rank=rank, max_seam_tensors=most)
            _refuse(analysis, measure(best), options, chooser, rank)
    analysis = analyse(best, min_rank=rank, max_seam_tensors=most, life=life if best is graph else None)
    if most > 1 and pinned == 1 and options.strategy == "throughput":
        analysis = _over_all_orders(analysis, options, measure)
    notes = _rank_note(rank, ranks)
    if options.max_seam_tensors is None and most > 1 and limit is not None:
        least = chooser.least_own if own is not None else chooser.least
        needs = format_bytes(least(most - 1, ranks[-1]))
        notes = (f"seams of up to {most} tensors: with {most - 1} a segment would need {needs}", *notes)
    if options.max_seam_tensors is None and pinned == 1 and _asks_more_than_sizes(options):
        wider = _wider(chooser, options, measure, most, ranks)
        if wider is not None:
            as_by_sizes = (wider.analysis.max_seam_tensors, wider.analysis.min_rank) == (most, rank)
            return replace(wider, notes=notes) if as_by_sizes else wider
    return _arrangement(analysis, graph, sizes, measure, notes)


def _over_all_orders(analysis: Analysis, options: PlanOptions, measure: Measure) -> Analysis:
    """Take the order with the best plan of all orders, where no constraint but the number of segments is given."""
    constrained = bool(options.fleet or options.devices or options.avoid or options.limits.given())
    if options.segments is None or options.limit_bytes is not None or constrained:
        return analysis
    graph, sizes = analysis.graph, measure(analysis.graph)
    costs = Costs(graph, sizes, per_channel=sizes.per_channel)
    order = best_order(costs, options.device, options.segments, analysis.max_seam_tensors)
    if order is None:
        return analysis
    most = analysis.max_seam_tensors
    other = analyse(reordered(graph, order), min_rank=analysis.min_rank, max_seam_tensors=most)
    found: list[tuple[int, int, Analysis]] = []
    for each in (analysis, other):
        with suppress(InfeasibleError):
            own = measure(each.graph)
            own_costs = Costs(each.graph, own, per_channel=own.per_channel)
            interval = own_costs.plan(plan(each, own, options, own_costs), (options.device,)).interval_ms
            found.append((round(1000 * interval), len(found), each))
    return min(found, key=lambda row: row[:2])[2] if found else analysis


def _asks_more_than_sizes(options: PlanOptions) -> bool:
    """Return whether places whose blocks are small enough may still have no plan."""
    return bool(options.constrained or options.avoid or options.segments is not None)


def _wider(
    chooser: Chooser, options: PlanOptions, measure: Measure, least: int, ranks: tuple[int, ...]
) -> Arrangement | None:
    """Return the narrowest offer from ``least`` tensors on, up to WIDEST_SEAM, that has a plan; None if none has."""
    for most in range(least, max(least, min(chooser.widest, WIDEST_SEAM)) + 1):
        for rank in ranks:
            graph = chooser.best(most, rank, options.limit_bytes)
            analysis = analyse(graph, min_rank=rank, max_seam_tensors=most)
            sizes = measure(graph)
            attempt = _attempt(analysis, sizes, options)
            if attempt is not None:
                said = f"seams of up to {most} tensors: with fewer, the constraints cannot be satisfied"
                notes = ((said,) if most > 1 else ()) + _rank_note(rank, ranks)
                return _arrangement(analysis, graph, sizes, measure, notes, attempt)
    return None


def _in_order(graph: Graph, ordered: Graph, sizes: Sizes, measure: Measure) -> tuple[Graph, Sizes]:
    """Give a graph in another order with its sizes."""
    return ordered, sizes if ordered is graph else measure(ordered)


def _arrangement(
    analysis: Analysis,
    graph: Graph,
    sizes: Sizes,
    measure: Measure,
    notes: tuple[str, ...] = (),
    attempt: _Attempt | None = None,
) -> Arrangement:
    """Put the result together; in another order than the graph's the sizes are found again."""
    _, found = _in_order(graph, analysis.graph, sizes, measure)
    made, costs = attempt or _Attempt()
    return Arrangement(analysis=analysis, sizes=found, splits={}, notes=notes, made=made, costs=costs)


def _attempt(analysis: Analysis, sizes: Sizes, options: PlanOptions) -> _Attempt | None:
    """Find whether there is a plan with the places offered; None where there is none."""
    limit, allowed = options.limit_bytes, options.allow_pre_activation
    if limit is not None and smallest_feasible_budget(analysis, sizes, allow_pre_activation=allowed) > limit:
        return None
    if options.strategy != "range" and not _asks_more_than_sizes(options):
        return _Attempt()
    costs = Costs(analysis.graph, sizes, per_channel=sizes.per_channel) if options.constrained else None
    try:
        return _Attempt(plan(analysis, sizes, options, costs), costs)
    except InfeasibleError:
        return None


def _reaches(chooser: Chooser, most: int, ranks: tuple[int, ...], options: PlanOptions) -> bool:
    """Return whether seams of ``most`` tensors are sufficient."""
    if options.limit_bytes is not None:
        return any(chooser.least(most, rank) <= options.limit_bytes for rank in ranks)
    return options.segments is None or any(chooser.places(most, rank) >= options.segments - 1 for rank in ranks)


def _fewest(chooser: Chooser, options: PlanOptions, ranks: tuple[int, ...]) -> int:
    """Find the fewest sufficient tensors by bisection; those of the widest seam if nothing is sufficient."""
    low, high = 1, max(1, chooser.widest)
    while low < high:
        middle = (low + high) // 2
        if _reaches(chooser, middle, ranks, options):
            high = middle
        else:
            low = middle + 1
    return low


def _refuse(analysis: Analysis, sizes: Sizes, options: PlanOptions, chooser: Chooser, rank: int) -> None:
    """Refuse the request (statement 5).

    Raises:
        InfeasibleError: always where a block exceeds the limit.
    """
    limit = options.limit_bytes
    if limit is None:
        return
    ways = []
    wider = _fewest(chooser, options, (rank,))
    if wider > analysis.max_seam_tensors and _reaches(chooser, wider, (rank,), options):
        ways.append(f"allow seams of {wider} tensors with {setting('max_seam_tensors', wider)}")
    if not options.layer_split and layer_split.oversized(analysis.graph, sizes, limit):
        ways.append(f"allow layers to be split (without {setting('layer_split', False)})")
    allowed = options.allow_pre_activation
    at = places(analysis, sizes, lambda each: allowed or not each.pre_activation)
    require_blocks_fit(at, limit, "size_range" if options.range_bytes else "budget", ways)


def _rank_note(rank: int, ranks: tuple[int, ...]) -> tuple[str, ...]:
    if rank == ranks[0]:
        return ()
    return (f"cuts at tensors of rank {rank} too: feature maps alone are not sufficient",)


def _named(graph: Graph, options: PlanOptions, measure: Measure, sizes: Sizes, ranks: tuple[int, ...]) -> Arrangement:
    """Offer what the named cuts need."""
    cuts = options.cuts or ()
    refused: list[UsageError] = []
    for rank in ranks:
        analysis = analyse(graph, min_rank=rank)
        if _holds(analysis, cuts, refused):
            return _arrangement(analysis, graph, sizes, measure)
    seams = [seam_named(graph, name) for name in cuts]
    most = max(map(len, seams))
    if options.max_seam_tensors is not None and most > options.max_seam_tensors:
        widest = next(name for name, seam in zip(cuts, seams, strict=True) if len(seam) == most)
        raise UsageError(
            f"{widest} hands over {most} tensors, but {setting('max_seam_tensors')} is {options.max_seam_tensors}",
            f"allow {most}",
        )
    ordered = named_order(graph, cuts)
    for rank in ranks:
        analysis = analyse(ordered, min_rank=rank, max_seam_tensors=most)
        if _holds(analysis, cuts, refused):
            return _arrangement(analysis, graph, sizes, measure)
    raise refused[0] if most == 1 else refused[-1]


def _holds(analysis: Analysis, cuts: Sequence[str], refused: list[UsageError]) -> bool:
    """Return whether all named cuts are among those offered; adds the reason if not."""
    try:
        named(analysis, cuts)
    except UsageError as error:
        refused.append(error)
        return False
    return True
