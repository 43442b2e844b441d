"""Choose the best plan for a fleet from the options, with the alternatives to show (graphcut.planning.fleet)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from graphcut.errors import UsageError, setting
from graphcut.planning.exact import fewest
from graphcut.planning.fleet import (
    Fleet,
    FleetPlan,
    FleetProof,
    MeasuredSpans,
    Times,
    best_of,
    by_latency,
    by_throughput,
    prove,
)
from graphcut.planning.places import Places
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segment_limits import Limits
from graphcut.planning.span_costs import Spans
from graphcut.prediction.device_profiles import CPU, DeviceProfile
from graphcut.prediction.segment_costs import Costs
from graphcut.records import Deployment, Plan, SegmentTimes, Stage


class FleetChoice(NamedTuple):
    """Cuts for a fleet, and how they were found.

    Attributes:
        cuts: places.
        minimal: fewest segments within the budget; None without one.
        chosen: of ``rows``.
        rows: the best by throughput, then by latency, for every number of stages.
        spans, limits, pins, fleet, measured, times: what was planned with.
        proof: that no plan is better.
        plan: the chosen plan, by places.
    """

    cuts: tuple[int, ...]
    minimal: int | None
    chosen: Deployment
    rows: tuple[Deployment, ...]
    spans: Spans
    limits: Limits
    pins: frozenset[int]
    times: Times
    measured: MeasuredSpans
    proof: FleetProof
    plan: FleetPlan


def choose_for_fleet(at: Places, costs: Costs, options: PlanOptions, pins: frozenset[int]) -> FleetChoice:
    """Choose cuts, copies and devices.

    Args:
        at: the places.
        costs: of the same graph.
        options: with a fleet.
        pins: places of the required cuts.

    Raises:
        InfeasibleError: no plan meets the limits.
        UsageError: too many devices and places, or none of the measured times is of a segment of this model.
    """
    limits, budget = options.limits, options.budget_bytes
    if budget is not None:
        limits = limits.stricter(Limits(tflite_bytes=budget))
    fleet = Fleet.of(options.fleet, options.micro_batch)
    measured = MeasuredSpans() if options.times is None else _measured(at, fleet, options.times)
    spans = Spans(at, costs)
    times = Times(spans, fleet, limits, pins, measured)
    found = {"throughput": by_throughput(times), "latency": by_latency(times)}
    plan = best_of(found[options.strategy], options.strategy)
    rows = []
    for objective, plans in found.items():
        rows += [_deployment(at, costs, times, objective, each) for each in plans]
    return FleetChoice(
        cuts=_cuts(plan),
        minimal=None if options.limit_bytes is None else fewest(at, options.limit_bytes),
        chosen=_deployment(at, costs, times, options.strategy, plan),
        rows=tuple(rows),
        spans=spans,
        limits=limits,
        pins=pins,
        times=times,
        measured=measured,
        proof=prove(times, plan, options.strategy),
        plan=plan,
    )


def _measured(at: Places, fleet: Fleet, times: SegmentTimes) -> MeasuredSpans:
    """Map measured times to places."""
    place = {each.tensors: number for number, each in enumerate(at.candidates, start=1)}
    found = {}
    for each in times.times:
        start = place.get(each.from_cut) if each.from_cut else 0
        stop = place.get(each.to_cut) if each.to_cut else at.end
        for number, kind in enumerate(fleet.kinds):
            if start is not None and stop is not None and start < stop and kind.kind == each.kind:
                found[start, stop, number] = each.micros
    if not found:
        kinds = ", ".join(dict.fromkeys(kind.kind for kind in fleet.kinds))
        raise UsageError(
            f"none of the {len(times.times)} measured times is for a segment of this model on {kinds}",
            f"omit {setting('times')}, or measure a split of this model on these devices",
        )
    return MeasuredSpans(micros=found)


def _cuts(plan: FleetPlan) -> tuple[int, ...]:
    """Return all places to cut at: between stages, and within them."""
    inner = [place for cuts in plan.cuts for place in cuts]
    return tuple(sorted({*inner, *(stage.start for stage in plan.stages[1:])}))


def _deployment(at: Places, costs: Costs, times: Times, objective: str, plan: FleetPlan) -> Deployment:
    """Convert a plan from places to segments and names."""
    stages: list[Stage] = []
    first = streamed = 0
    for laid, cuts, micros in zip(plan.stages, plan.cuts, plan.stage_us, strict=True):
        kind = times.fleet.kinds[laid.kind]
        stop = first + len(cuts) + 1
        stages.append(
            Stage(first=first, stop=stop, device=kind.name, kind=kind.kind, copies=laid.copies, micros=micros)
        )
        first = stop
        for start, end in pairwise((laid.start, *cuts, laid.stop)):
            nodes_from, nodes_to = at.positions[start], at.positions[end]
            room = costs.room_bytes(costs.predicted.reserved_bytes(nodes_from, nodes_to), kind)
            streamed += 0 if kind.kind == "cpu" else costs.predicted.off_chip_bytes(nodes_from, nodes_to, room)
    interval_us, latency_us = plan.interval_us, plan.latency_us
    rest = _rest_micros(at, costs)
    if rest is not None:
        stages.append(Stage(first=first, stop=first + 1, device=CPU.name, kind=CPU.kind, copies=1, micros=rest))
        interval_us, latency_us = max(interval_us, rest), latency_us + rest
    return Deployment(
        objective=objective,
        cuts=tuple(at.names[cut] for cut in (*_cuts(plan), *(() if rest is None else (at.end,)))),
        stages=tuple(stages),
        batch=times.fleet.batch if any(stage.stop - stage.first > 1 for stage in stages) else 1,
        interval_us=interval_us,
        latency_us=latency_us,
        bus_us=plan.bus_us,
        streamed_bytes=streamed,
    )


def _rest_micros(at: Places, costs: Costs) -> int | None:
    """Microseconds that the CPU takes for the nodes after the last place; None where there are none."""
    graph, border = costs.graph, at.positions[-1]
    if border == len(graph.nodes):
        return None
    rest = graph.nodes[border:]
    made = {name for node in rest for name in node.outputs}
    read = dict.fromkeys(name for node in rest for name in node.inputs if name in graph.tensors and name not in made)
    outputs = [name for name in graph.outputs if name in made]
    return round(1000 * costs.run(border, len(graph.nodes), read, outputs, CPU).latency_ms)


def devices_of(plan: Plan, options: PlanOptions) -> tuple[DeviceProfile, ...]:
    """Return the devices of a plan's segments in order; the last one serves all further segments."""
    if plan.deployment is None:
        given = options.devices or (options.device,)
        if not plan.on_cpu:
            return given
        count = len(plan.chip_segments)
        return (*given[:count], *(given[-1],) * (count - len(given)), CPU)
    profiles = {device.name: device for device in options.fleet}
    profiles.setdefault(CPU.name, CPU)
    return tuple(
        profiles.get(stage.device, options.device)
        for stage in plan.deployment.stages
        for _ in range(stage.first, stage.stop)
    )
