"""Cuts under constraints: any objective within limits on any cost, with pinned cuts, for a chain of devices.

1. ``greedy`` stays the reference rule: walk, and cut at the last place at which the segment is still within all limits
   of its device, no later than the next pin. Where all segments have the same limits no plan needs fewer: a part of a
   span within the limits is within them, so no plan's n-th cut lies after the walk's n-th.
2. The other objectives are those of graphcut.planning.objectives.
3. A request without a plan is refused with the violated constraint and the nearest request that has a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from graphcut.errors import InfeasibleError, UsageError, setting
from graphcut.planning.certificate import Proof
from graphcut.planning.exact import smallest_limit
from graphcut.planning.objectives import Objective, Phase, Problem, best, fewest_phase
from graphcut.planning.places import Places
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segment_limits import Limits
from graphcut.planning.span_costs import Spans
from graphcut.prediction.device_profiles import DeviceProfile
from graphcut.prediction.segment_costs import Costs
from graphcut.units import format_budget, format_bytes

_SAID = {
    "tflite_bytes": ("in its int8 file", "budget", ""),
    "compiled_bytes": ("in its compiled file", "limits", "compiled"),
    "parameter_bytes": ("of parameters on the chip", "limits", "parameters"),
    "off_chip_bytes": ("streamed at every inference", "limits", "off-chip"),
    "macs": ("multiplications", "limits", "macs"),
    "activation_bytes": ("of activations", "limits", "activations"),
    "seam_bytes": ("handed over", "limits", "seam"),
    "latency_us": ("a result", "limits", "latency"),
}


class Chosen(NamedTuple):
    """Cuts, the fewest segments that the constraints allow, and how both were found."""

    cuts: tuple[int, ...]
    minimal: int
    proof: Proof


def choose(at: Places, costs: Costs, options: PlanOptions, pins: frozenset[int]) -> Chosen:
    """Choose the cuts.

    Args:
        at: the places.
        costs: of the same graph.
        options: the request.
        pins: places of the cuts that must be there.

    Raises:
        InfeasibleError: nothing satisfies the constraints (statement 3).
        UsageError: the constraints contradict each other.
    """
    limits = options.limits
    if options.budget_bytes is not None:
        own = limits.tflite_bytes
        limits = replace(limits, tflite_bytes=options.budget_bytes if own is None else min(own, options.budget_bytes))
    spans = Spans(at, costs)
    request = Problem(
        objective="fewest" if options.strategy == "greedy" else cast(Objective, options.strategy),
        limits=limits,
        devices=options.devices,
        most=options.max_segments,
        pins=pins,
        default=options.device,
    )
    if options.strategy in ("greedy", "fewest"):
        _require_limits(options, limits)
    _require_blocks(spans, request, wider=options.max_seam_tensors is not None)
    minimal, counted = _minimal(spans, request, options)
    if options.strategy == "greedy":
        return Chosen(_greedy(spans, request), minimal, Proof(spans, request, (counted,)))
    count = options.segments
    if count is None and options.strategy == "balanced":
        count = minimal
    if count is not None:
        _require_count(spans, request, count, minimal)
        request = replace(request, count=count)
    found = best(spans, request, minimal)
    if found is None:
        raise InfeasibleError(
            f"there is no plan with {count} segments within these limits on these devices",
            f"omit {setting('segments')}: at least {minimal} are needed",
        )
    if options.strategy == "fewest":
        request = replace(request, count=minimal)
        return Chosen(found.cuts, minimal, Proof(spans, request, (counted, *found.phases)))
    return Chosen(found.cuts, minimal, Proof(spans, request, found.phases))


def _require_limits(options: PlanOptions, limits: Limits) -> None:
    """Refuse to plan where no setting limits the size of a segment.

    Raises:
        UsageError: neither a budget, nor a limit, nor one of every device.
    """
    bounded = {name for name in limits.given() if name not in ("seam_bytes", "latency_us")}
    chain = options.devices or (options.device,)
    unbounded = [device.name for device in chain if device.budget_bytes is None]
    if not bounded and unbounded:
        who = f"{unbounded[0]} has no budget, and" if options.devices else "no setting limits the size of a segment:"
        raise UsageError(
            f"{who} the {options.strategy} strategy needs one", f"add {setting('budget')}, or write NAME:7MiB"
        )
    if options.strategy == "greedy" and limits.latency_us is not None:
        raise UsageError(
            "the greedy strategy does not support a limit on latency", f"use {setting('strategy', 'fewest')}"
        )


def _require_blocks(spans: Spans, request: Problem, *, wider: bool) -> None:
    """Refuse limits that a single block exceeds on every device; ``wider`` seams are a remedy where they were excluded.

    Raises:
        InfeasibleError: names the block, what it needs, the limit, and a sufficient limit.
    """
    at, devices = spans.at, request.devices or (request.default,)
    for name in _SAID:
        allowed = [_allowed(name, request.limits, device) for device in devices]
        known = [limit for limit in allowed if limit is not None]
        if len(known) < len(devices):
            continue
        most = max(known)
        device = devices[allowed.index(most)]
        value = _block_values(spans, name, device)
        worst = max(range(at.end), key=value)
        needs = value(worst)
        if needs > most:
            said, option, which = _SAID[name]
            room = _option(name, needs)
            way_out = f"use {setting(option, f'{which}={room}') if which else setting(option, room)} or above"
            way_out += f", or allow wider seams ({setting('max_seam_tensors')})" if wider else ""
            if name == "off_chip_bytes" and _has_pairs(spans, worst):
                # Constants of a Mul and an Add never stay on the chip; as a depthwise convolution they do.
                way_out = f"load the model with {setting('target', 'edgetpu')}, or {way_out}"
            raise InfeasibleError(
                f"block {at.name(worst, worst + 1)} needs {_amount(name, needs)} {said} but it contains no place to "
                f"cut; the limit is {_amount(name, most)}",
                way_out,
            )


def _has_pairs(spans: Spans, block: int) -> bool:
    """Whether a block has a Mul or an Add by constants of channels."""
    start, stop = spans.at.positions[block], spans.at.positions[block + 1]
    return any(each.always_streams for each in spans.costs.predicted.packed(start, stop))


def _allowed(name: str, limits: Limits, device: DeviceProfile) -> int | None:
    if name == "tflite_bytes" and device.budget_bytes is not None:
        return device.budget_bytes
    return cast("int | None", getattr(limits, name))


def _block_values(spans: Spans, name: str, device: DeviceProfile) -> Callable[[int], int]:
    if name != "latency_us":
        return lambda place: spans.value(name, place, place + 1, device)
    micros = [int(row.micros(device)[-1]) for row in spans.rows(lambda stop: stop - 1)]
    return micros.__getitem__


def _minimal(spans: Spans, request: Problem, options: PlanOptions) -> tuple[int, Phase]:
    """The fewest segments, and how they were found.

    Raises:
        InfeasibleError: no number is sufficient; says how many devices or segments would be.
    """
    found = fewest_phase(spans, request)
    if found is not None:
        return found.value, found
    other = fewest_phase(spans, replace(request, devices=(), most=None, default=_largest(request)))
    freely = None if other is None else other.value
    if request.devices:
        needs = f"at least {freely} like {_largest(request).name}" if freely is not None else "larger ones"
        raise InfeasibleError(
            f"the model does not fit the chain of {len(request.devices)} devices in this order",
            f"add devices or use larger budgets ({needs} would be needed)",
        )
    if freely is None:
        raise InfeasibleError(
            "no choice of cuts keeps every segment within all limits", "raise the limit on latency or on seams"
        )
    pinned = f" with {len(request.pins)} pinned cuts" if request.pins else ""
    raise InfeasibleError(
        f"{options.max_segments} segments{pinned} do not fit within the limits; at least {freely} are needed",
        _more_room(
            spans, request, options.max_segments or 1, f"raise {setting('max_segments', to=freely)} to {freely}"
        ),
    )


def _largest(request: Problem) -> DeviceProfile:
    """The device with the largest limit."""
    return max(request.devices or (request.default,), key=lambda device: device.budget_bytes or 0)


def _require_count(spans: Spans, request: Problem, count: int, minimal: int) -> None:
    """Refuse a number of segments that no plan has.

    Raises:
        InfeasibleError: more than blocks or devices, fewer than pins or limits need.
    """
    at = spans.at
    if count > at.end:
        raise InfeasibleError(
            f"{count} segments were requested, but there are only {at.end - 1} places to cut",
            f"lower {setting('segments', to=at.end)} to at most {at.end}",
        )
    if request.devices and count > len(request.devices):
        raise InfeasibleError(
            f"{count} segments were requested on {len(request.devices)} devices",
            f"lower {setting('segments', to=len(request.devices))} to at most {len(request.devices)}",
        )
    if count <= len(request.pins):
        raise InfeasibleError(
            f"{count} segments cannot have {len(request.pins)} pinned cuts",
            f"raise {setting('segments', to=len(request.pins) + 1)} to at least {len(request.pins) + 1}, or pin fewer",
        )
    if count < minimal:
        raise InfeasibleError(
            f"{count} segments do not fit within the limits; at least {minimal} are needed",
            _more_room(spans, request, count, f"raise {setting('segments', to=minimal)} to {minimal}"),
        )


def _more_room(spans: Spans, request: Problem, count: int, way: str) -> str:
    """Add the budget with which so many segments would do, where it is the only limit."""
    if set(request.limits.given()) == {"tflite_bytes"} and not request.pins and not request.devices:
        room = format_budget(smallest_limit(spans.at, count))
        way += f" or {setting('budget', to=room)} to {room}"
    return way


def _greedy(spans: Spans, request: Problem) -> tuple[int, ...]:
    """Cut by the reference rule (statement 1); O(n log n)."""
    end = spans.at.end
    devices: Sequence[DeviceProfile] = request.devices or (request.default,)
    within = {device: spans.first_within(request.limits, [device])[0] for device in dict.fromkeys(devices)}
    stops = [*sorted(request.pins), end]
    cuts: list[int] = []
    here = 0
    while here < end:
        first = within[devices[min(len(cuts), len(devices) - 1)]]
        bound = next(stop for stop in stops if stop > here)
        reached = here
        while reached < bound and first[reached + 1] <= here:
            reached += 1
        if reached == here or (request.devices and len(cuts) == len(devices)):
            # A small device may have no room where the walk has arrived, although a plan with other cuts exists.
            found = best(spans, replace(request, objective="fewest"))
            assert found is not None, "the fewest segments were found before"
            return found.cuts
        here = reached
        cuts.append(here)
    return tuple(cuts[:-1])


def _amount(name: str, value: int) -> str:
    if name == "latency_us":
        return f"{value / 1000:.3f} ms"
    return format_bytes(value) if name.endswith("_bytes") else str(value)


def _option(name: str, value: int) -> str:
    """Format a limit as its option expects it: times in milliseconds."""
    if name == "latency_us":
        return f"{value / 1000:.3f}"
    return format_budget(value) if name.endswith("_bytes") else str(value)
