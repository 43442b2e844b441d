"""Optimal plans for several devices: cuts, copies and kinds of devices, chosen together.

1. A plan for a *fleet* (a number of devices of each kind) is a chain of *stages*. A stage runs consecutive blocks of
   the model on one kind of device, with one or more *copies* that alternate. A device runs one segment, or several
   segments *share* it. Shared devices reload parameters at every switch, once for each batch of ``batch`` inputs.
2. If an inference takes t microseconds, a stage of r copies accepts an input every t / r. Transfers over a shared bus
   (activations, streamed and reloaded parameters) are serialised, so the bus needs the sum of the transfer times of its
   stages for each input. The *interval* of a plan is the largest of these times. Its throughput is the inverse.
3. *Throughput*: the least interval T. Plans with intervals up to T are those whose stages have t <= T * r and whose
   bus sum is at most T, so T is found by bisection over a dynamic programme that minimises the bus sum (without a
   shared bus: the latency) over states (stages, used devices of each kind, place)::

       best[k + 1][u + r * e_kind][j] = min over i, kind, r of best[k][u][i] + bus(i, j, kind)

   It extends PipeDream's (Narayanan et al., SOSP 2019, section 3.1: stages and replicas on one kind of device) by
   kinds, sharing, streaming, hand-over by the tensors of each seam and the bus. O(n^2 * states * copies) a step.
4. *Latency*: the least sum of t; copies and sharing cannot lower it, so neither is tried.
5. Segments that share a device are cut to minimise the time of one input, then the bytes transferred. Given this, plans
   are optimal for the available places and the order of the nodes (a test compares with all plans of small graphs).
6. Among plans with the same interval, the one with the fewest devices, then the fewest stages, then the least bus sum
   (or latency) is chosen.
7. Measured times (:class:`MeasuredSpans`) replace predicted ones. Predicted times for the same kind are scaled by the
   median of measured over predicted, so that both are comparable.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any, Literal, NamedTuple

import numpy as np

from graphcut.errors import InfeasibleError, UsageError, setting
from graphcut.planning.objectives import BEYOND
from graphcut.planning.segment_limits import Limits
from graphcut.planning.span_costs import Ints, Spans
from graphcut.prediction.device_profiles import DeviceProfile
from graphcut.units import MIB

MOST_ENTRIES = 20_000_000
"""Largest table: stages times used devices times places."""
_BITS = 31
"""A pair of microseconds in one number: the first above so many bits, the second below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSpans:
    """Times of segments that were measured: (places from, to, kind of device by number) -> microseconds."""

    micros: Mapping[tuple[int, int, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The available devices.

    Attributes:
        kinds: of devices, each once.
        counts: how many of each.
        batch: the most inputs that a device with several segments takes together.
    """

    kinds: tuple[DeviceProfile, ...]
    counts: tuple[int, ...]
    batch: int = 1

    @classmethod
    def of(cls, devices: Sequence[DeviceProfile], batch: int = 1) -> Fleet:
        """Count devices by kind."""
        kinds = tuple(dict.fromkeys(devices))
        return cls(kinds=kinds, counts=tuple(devices.count(kind) for kind in kinds), batch=batch)


class Laid(NamedTuple):
    """A stage: its first and last place, kind of device by number, copies, and whether its devices share segments."""

    start: int
    stop: int
    kind: int
    copies: int
    shared: bool


class FleetPlan(NamedTuple):
    """One plan: its stages, and the places where segments end in each.

    Attributes:
        stages: in order.
        cuts: for each stage the places between its segments; empty if it has one segment.
        interval_us: between results (statement 2).
        latency_us: of a single input; of a batch where devices share segments.
        bus_us: time on the shared bus per input.
        stage_us: for each stage the time of one inference on one of its copies.
    """

    stages: tuple[Laid, ...]
    cuts: tuple[tuple[int, ...], ...]
    interval_us: int
    latency_us: int
    bus_us: int
    stage_us: tuple[int, ...]

    @property
    def devices(self) -> int:
        """Number of devices that it uses."""
        return sum(stage.copies for stage in self.stages)

    @property
    def segments(self) -> int:
        """Number of segments, each a file."""
        return sum(len(cuts) + 1 for cuts in self.cuts)


class FleetProof(NamedTuple):
    """Proof that no plan is better: a table that no transition improves (graphcut.planning.certificate).

    Attributes:
        objective: "throughput" or "latency".
        value: of the plan, microseconds.
        below_us: throughput: stages above it are left out, one less than the value; latency: None.
        table: by used devices of each kind and place.
    """

    objective: str
    value: int
    below_us: int | None
    table: Ints


class Times:
    """Microseconds of every span on every kind of device, exclusive and shared; BEYOND if a span cannot be used.

    Attributes:
        single, bus: by kind, matrices (from place, to place).
    """

    def __init__(
        self, spans: Spans, fleet: Fleet, limits: Limits, pins: frozenset[int], measured: MeasuredSpans
    ) -> None:
        self.fleet = fleet
        self.end = spans.at.end
        size = self.end + 1
        self.single, self.bus, self._reload = (
            [np.full((size, size), BEYOND, np.int64) for _ in fleet.kinds] for _ in range(3)
        )
        self.ratio_ppm = [1_000_000] * len(fleet.kinds)
        within = spans.first_within(limits, fleet.kinds)
        for row in spans.rows(lambda _: 0):
            last_pin = max((pin for pin in pins if pin < row.stop), default=0)
            for number, kind in enumerate(fleet.kinds):
                first = max(within[number][row.stop], last_pin)
                column = (slice(first, row.stop), row.stop)
                self.single[number][column] = row.micros(kind)[first:]
                self.bus[number][column] = row.bus_micros(kind)[first:] if kind.shared_bus else 0
                loading = kind.stream_ms_per_mib * row.cached_bytes(kind)[first:] / MIB
                self._reload[number][column] = np.rint(1000 * loading).astype(np.int64)
        self._measure(measured)
        if limits.latency_us is not None:
            for times in self.single:
                times[times > limits.latency_us] = BEYOND
        self._shared: dict[int, tuple[Ints, Ints]] = {}
        self._pairs: dict[int, tuple[Ints, Ints, Ints]] = {}
        for number, kind in enumerate(fleet.kinds):
            if fleet.batch > 1 and kind.kind != "cpu":
                self._share(number, kind)

    def _measure(self, measured: MeasuredSpans) -> None:
        """Replace predicted times with measured ones (statement 7)."""
        for number in range(len(self.fleet.kinds)):
            known = {key[:2]: micros for key, micros in measured.micros.items() if key[2] == number}
            predicted = {key: int(self.single[number][key]) for key in known}
            ratios = [known[key] / predicted[key] for key in known if 0 < predicted[key] < BEYOND]
            if not ratios:
                continue
            self.ratio_ppm[number] = round(1_000_000 * statistics.median(ratios))
            times = self.single[number]
            competing = times < BEYOND
            times[competing] = times[competing] * self.ratio_ppm[number] // 1_000_000
            for key, micros in known.items():
                if times[key] < BEYOND:
                    times[key] = micros

    def _share(self, number: int, kind: DeviceProfile) -> None:
        """Find the fastest way to cut every span into segments that share a device; O(n^3)."""
        competing = self.single[number] < BEYOND
        reload = -(-self._reload[number] // self.fleet.batch)
        moved = self.bus[number] + (reload if kind.shared_bus else 0)
        step: Ints = np.where(competing, ((self.single[number] + reload) << _BITS) + moved, BEYOND)
        several: Ints = np.full_like(step, BEYOND)
        fewest: Ints = step.copy()  # one segment or several
        came: Ints = np.zeros_like(step)
        for stop in range(2, self.end + 1):
            found = np.minimum(fewest[:, 1:stop] + step[1:stop, stop], BEYOND)
            place = found.argmin(axis=1)
            several[:, stop] = found[np.arange(self.end + 1), place]
            came[:, stop] = place + 1
            np.minimum(fewest[:, stop], several[:, stop], out=fewest[:, stop])
        there = several < BEYOND
        own: Ints = np.where(there, several >> _BITS, BEYOND)
        bus: Ints = np.where(there, several & ((1 << _BITS) - 1), BEYOND)
        self._shared[number] = own, bus
        self._pairs[number] = came, several, step

    def cuts(self, stage: Laid) -> tuple[int, ...]:
        """Places where the segments of a stage meet."""
        if not stage.shared:
            return ()
        came, several, step = self._pairs[stage.kind]
        found = [int(came[stage.start, stage.stop])]
        while several[stage.start, found[-1]] < step[stage.start, found[-1]]:
            found.append(int(came[stage.start, found[-1]]))
        return tuple(reversed(found))

    def ways(self) -> Iterator[tuple[int, int, bool, Ints, Ints]]:
        """Yield kind, copies, shared, times and bus times for every way to run a span."""
        for number, count in enumerate(self.fleet.counts):
            for copies in range(1, count + 1):
                yield number, copies, False, self.single[number], self.bus[number]
                if number in self._shared:
                    yield number, copies, True, *self._shared[number]

    def latency(self, stage: Laid) -> int:
        """Microseconds of an input alone in a stage; of a batch where its devices share segments."""
        number, batch = stage.kind, self.fleet.batch
        if not stage.shared:
            return int(self.single[number][stage.start, stage.stop])
        bounds = (stage.start, *self.cuts(stage), stage.stop)
        spans = list(pairwise(bounds))
        return sum(batch * int(self.single[number][span]) + int(self._reload[number][span]) for span in spans)

    def plan(self, stages: Sequence[Laid]) -> FleetPlan:
        """Build the plan of a chain of stages."""
        own, bus, rates = [], 0, []
        for stage in stages:
            times: Ints = self.single[stage.kind]
            moved: Ints = self.bus[stage.kind]
            if stage.shared:
                times, moved = self._shared[stage.kind]
            span = (stage.start, stage.stop)
            own.append(int(times[span]))
            bus += int(moved[span])
            rates.append(-(-own[-1] // stage.copies))
        return FleetPlan(
            stages=tuple(stages),
            cuts=tuple(map(self.cuts, stages)),
            interval_us=max(*rates, bus),
            latency_us=sum(map(self.latency, stages)),
            bus_us=bus,
            stage_us=tuple(own),
        )


class _Solver:
    """Tables over (stages, used devices of each kind, place)."""

    def __init__(self, times: Times) -> None:
        self.times = times
        counts = times.fleet.counts
        self.most = min(sum(counts), times.end)
        self.shape = (self.most + 1, *(count + 1 for count in counts), times.end + 1)
        if int(np.prod(self.shape, dtype=np.int64)) > MOST_ENTRIES:
            raise UsageError(
                f"{sum(counts)} devices and {times.end} places to cut are too many to plan for together",
                f"pass fewer devices, or reduce the places to cut with {setting('min_rank', 4)}",
            )
        self.on_bus = any(kind.shared_bus for kind in times.fleet.kinds)

    def table(self, cost: Literal["slowest", "bus", "time"], cap: int | None = None) -> Ints:
        """Fill the table of best values: the largest t / r for ``slowest``, else sums; skip stages above the cap."""
        value: Ints = np.full(self.shape, BEYOND, np.int64)
        value[(0,) * len(self.shape)] = 0
        axes = len(self.times.fleet.counts)
        for stop in range(1, self.times.end + 1):
            for number, copies, shared, own, bus in self.times.ways():
                if cost == "time" and cap is None and (copies > 1 or shared):
                    continue
                column = own[:stop, stop]
                rate = _rate(column, copies)
                costs = {"slowest": rate, "bus": bus[:stop, stop], "time": column}[cost]
                if cap is not None:
                    costs = np.where(rate > cap, BEYOND, costs)
                before = (slice(None, -copies if axis == number else None) for axis in range(axes))
                after = (slice(copies if axis == number else None, None) for axis in range(axes))
                source: Any = (slice(None, -1), *before, slice(None, stop))
                place: Any = (slice(1, None), *after, stop)
                earlier, target = value[source], value[place]
                found = np.maximum(earlier, costs) if cost == "slowest" else np.minimum(earlier + costs, BEYOND)
                np.minimum(target, found.min(axis=-1), out=target)
        return value

    def walk(self, value: Ints, state: tuple[int, ...], cost: Literal["bus", "time"], cap: int | None) -> list[Laid]:
        """Reconstruct a plan from a table of sums, starting at its end."""
        stages: list[Laid] = []
        stop = self.times.end
        while stop:
            stages.append(self._step(value, state, stop, cost, cap))
            stop = stages[-1].start
            used = list(state)
            used[0] -= 1
            used[1 + stages[-1].kind] -= stages[-1].copies
            state = tuple(used)
        return stages[::-1]

    def _step(self, value: Ints, state: tuple[int, ...], stop: int, cost: str, cap: int | None) -> Laid:
        reached = int(value[(*state, stop)])
        for number, copies, shared, own, bus in self.times.ways():
            if state[1 + number] < copies or (cost == "time" and cap is None and (copies > 1 or shared)):
                continue
            before = list(state)
            before[0] -= 1
            before[1 + number] -= copies
            column = own[:stop, stop]
            costs = bus[:stop, stop] if cost == "bus" else column
            if cap is not None:
                costs = np.where(_rate(column, copies) > cap, BEYOND, costs)
            source: Any = (*before, slice(None, stop))
            same = np.minimum(value[source] + costs, BEYOND) == reached
            if same.any():
                return Laid(int(same.argmax()), stop, number, copies, shared)
        raise AssertionError("a table holds what its transitions made")

    def ends(self, value: Ints, stages: int) -> Ints:
        """Values at the last place for a number of stages, by used devices."""
        every: Any = (stages, ..., self.times.end)
        found: Ints = value[every]
        return found

    def fewest(self, ends: Ints, most: int) -> tuple[int, ...] | None:
        """Return the smallest set of used devices with a value of at most ``most``; the least value breaks ties."""
        states = [state for state in product(*map(range, ends.shape)) if ends[state] <= most]
        return min(states, key=lambda state: (sum(state), int(ends[state]), state), default=None)


def _rate(times: Ints, copies: int) -> Ints:
    """Microseconds between the inputs of a stage with this number of copies."""
    found: Ints = np.where(times < BEYOND, -(-times // copies), BEYOND)
    return found


def by_throughput(times: Times) -> list[FleetPlan]:
    """The plan with the least interval for every feasible number of stages (statements 3 and 6)."""
    solver = _Solver(times)
    slowest = solver.table("slowest")
    cost: Literal["bus", "time"] = "bus" if solver.on_bus else "time"
    tables: dict[int, Ints] = {}

    def table(cap: int) -> Ints:
        if cap not in tables:
            tables[cap] = solver.table(cost, cap)
        return tables[cap]

    found = []
    for stages in range(1, solver.most + 1):
        low = int(solver.ends(slowest, stages).min())
        if low >= BEYOND:
            continue
        high = max(low, int(solver.ends(table(low), stages).min())) if solver.on_bus else low
        while low < high:
            middle = (low + high) // 2
            if int(solver.ends(table(middle), stages).min()) <= middle:
                high = middle
            else:
                low = middle + 1
        state = solver.fewest(solver.ends(table(low), stages), low if solver.on_bus else BEYOND - 1)
        assert state is not None, "bisection ends at an interval that there is"
        found.append(times.plan(solver.walk(table(low), (stages, *state), cost, low)))
    return found


def by_latency(times: Times) -> list[FleetPlan]:
    """The plan with the least latency for every feasible number of stages (statement 4)."""
    solver = _Solver(times)
    value = solver.table("time")
    found = []
    for stages in range(1, solver.most + 1):
        ends = solver.ends(value, stages)
        if int(ends.min()) < BEYOND:
            state = solver.fewest(ends, int(ends.min()))
            assert state is not None, "the least value is reached"
            found.append(times.plan(solver.walk(value, (stages, *state), "time", None)))
    return found


def best_of(plans: Sequence[FleetPlan], objective: str) -> FleetPlan:
    """Return the best plan by an objective; ties are broken by the fewest devices, then the fewest stages.

    Raises:
        InfeasibleError: there is none.
    """
    if not plans:
        raise InfeasibleError(
            "no plan for these devices meets all limits for every segment",
            "pass more devices, or raise the limits",
        )
    if objective == "latency":
        return min(plans, key=lambda plan: (plan.latency_us, plan.devices, len(plan.stages)))
    return min(plans, key=lambda plan: (plan.interval_us, plan.devices, len(plan.stages)))


def prove(times: Times, plan: FleetPlan, objective: str) -> FleetProof:
    """Prove that no plan is better, with tables for one microsecond less and any number of stages."""
    solver = _Solver(times)
    if objective == "latency":
        value = plan.latency_us
        return FleetProof("latency", value, None, solver.table("time").min(axis=0))
    value = plan.interval_us
    table = solver.table("bus", value - 1)
    return FleetProof("throughput", value, value - 1, table.min(axis=0))
