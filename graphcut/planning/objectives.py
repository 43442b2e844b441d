"""The best cuts by an objective, exactly, by dynamic programming over the places.

1. An objective is a list of *keys*, each the largest or the sum over the segments of some cost; plans are compared by
   the first key, at equal values by the next one; then the earliest cuts win (of the last segment first)::

       fewest      segments, largest int8 file, bytes handed over
       balanced    largest int8 file, sum of the squares of the files, for K segments
       throughput  slowest segment, bytes handed over, for K segments or so many devices
       latency     time of all segments, bytes handed over
       traffic     bytes handed over, segments

2. A *sum* key is minimised by best[k][j] = min over i of best[k-1][i] + cost(i, j), a *largest* one with max for +;
   k counts segments where their number or the device of each matters, else it is left out. O(n^2) spans of n places,
   times K where it counts, each row of spans computed once and in numpy.
3. Keys in turn: once a largest key is known to be v, spans above v are left out and the next key is minimised over
   the rest, which is exact. Two sum keys are minimised as one, the first times more than the second can be, which is
   exact as long as that fits into 64 bits; beyond (seams of terabytes) the second is left out.
4. A span competes if it is within the limits (graphcut.planning.span_costs) and no place to be cut lies inside it.

With candidates of several tensors the result is exact for the order of the nodes that is used.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from graphcut.planning.segment_limits import Limits
from graphcut.planning.span_costs import Ints, Row, Spans
from graphcut.prediction.device_profiles import DEFAULT, DeviceProfile
from graphcut.units import MIB

Objective = Literal["fewest", "balanced", "throughput", "latency", "traffic"]
BEYOND = 2**61
"""An infinite cost, for spans that do not compete."""
_Cost = Callable[[Row, DeviceProfile], Ints]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is asked for.

    Attributes:
        objective: statement 1.
        limits: of every segment.
        devices: of the segments in order, at most so many segments; empty for any number of ``default``.
        count: the exact number of segments; None for any number.
        most: the largest number of segments.
        pins: places where a cut must be.
        default: the device where none are listed.
    """

    objective: Objective
    limits: Limits = field(default_factory=Limits)
    devices: tuple[DeviceProfile, ...] = ()
    count: int | None = None
    most: int | None = None
    pins: frozenset[int] = frozenset()
    default: DeviceProfile = DEFAULT

    @property
    def layers(self) -> int | None:
        """The most segments that matter; None where their number does not."""
        if self.count is not None:
            return self.count
        known = [each for each in (self.most, len(self.devices) or None) if each is not None]
        return min(known) if known else None


class _Key(NamedTuple):
    """A quantity to minimise: the sum or the largest of a cost over the segments, with its name."""

    largest: bool
    cost: _Cost
    names: tuple[str, ...]
    scale: int = 1


class Phase(NamedTuple):
    """One minimisation, as recorded in a certificate (graphcut.planning.certificate).

    Attributes:
        keys: names of the keys, two where they were minimised as one.
        scale: what the first of two counts more than the second.
        largest: it is the largest over the segments, else the sum.
        caps: keys that no segment may pass, and the values.
        layers: number of segments and devices that were told apart; 0 where they were not.
        exactly: so many segments; None for the best number.
        table: the least value with which each place can be reached, by number of segments where that counts.
        value: of the best plan.
    """

    keys: tuple[str, ...]
    scale: int
    largest: bool
    caps: tuple[tuple[str, int], ...]
    layers: int
    exactly: int | None
    table: Ints
    value: int


class Optimum(NamedTuple):
    """The best cuts, the values of the keys (two sum keys as one), and how they were found."""

    cuts: tuple[int, ...]
    values: tuple[int, ...]
    phases: tuple[Phase, ...] = ()


def best(spans: Spans, request: Problem, fewest: int | None = None) -> Optimum | None:
    """The best cuts (see the module docstring); None if no choice of cuts satisfies the request.

    Args:
        spans: that compete.
        request: what is asked for.
        fewest: the fewest segments, if they are known.
    """
    solver = _Solver(spans, request)
    if request.objective == "fewest":
        least = solver.least() if fewest is None else fewest
        if least is None:
            return None
        solver = _Solver(spans, _counted(request, least))
        found = solver.minimise((_Key(True, _planned, ("planned",)), _Key(False, _seam, ("seam",))))
        return None if found is None else Optimum(found.cuts, (least, *found.values), found.phases)
    keys = {
        "balanced": (_Key(True, _planned, ("planned",)), _Key(False, _square, ("square",))),
        "throughput": (_Key(True, _micros, ("micros",)), _Key(False, _seam, ("seam",))),
        "latency": (_Key(False, _micros, ("micros",)), _Key(False, _seam, ("seam",))),
        "traffic": (_Key(False, _seam, ("seam",)), _Key(False, _one, ("one",))),
    }
    return solver.minimise(keys[request.objective])


def fewest_phase(spans: Spans, request: Problem) -> Phase | None:
    """How the fewest segments within limits, pins and devices are found."""
    solver = _Solver(spans, request)
    found = solver.solve_count()
    return None if found is None else found.phases[0]


def least(spans: Spans, request: Problem) -> int | None:
    """The fewest segments within limits, pins and devices; None if there is no choice of cuts."""
    return _Solver(spans, request).least()


def _counted(request: Problem, count: int) -> Problem:
    return Problem(
        objective=request.objective,
        limits=request.limits,
        devices=request.devices,
        count=count,
        pins=request.pins,
        default=request.default,
    )


class _Solver:
    """Minimises keys over the spans that compete."""

    def __init__(self, spans: Spans, request: Problem) -> None:
        self._spans = spans
        self._request = request
        self._kinds = tuple(dict.fromkeys(request.devices or (request.default,)))
        within = spans.first_within(request.limits, self._kinds)
        pins = sorted(request.pins)
        after_pin = [([0, *pins][bisect_left(pins, stop)]) for stop in range(spans.at.end + 1)]
        self._first = [[max(pair) for pair in zip(each, after_pin, strict=True)] for each in within]
        self._caps: list[tuple[_Key, int]] = []
        if request.limits.latency_us is not None:
            self._caps.append((_Key(True, _micros, ("micros",)), request.limits.latency_us))

    def solve_count(self) -> Optimum | None:
        """Minimise the number of segments."""
        return self._solve(_Key(False, _one, ("one",)))

    def least(self) -> int | None:
        """The fewest segments that satisfy the request."""
        found = self.solve_count()
        return None if found is None else len(found.cuts) + 1

    def minimise(self, keys: tuple[_Key, _Key]) -> Optimum | None:
        """Minimise the first key, then the second (statement 3)."""
        first, second = keys
        if not first.largest:
            return self._solve(self._joined(first, second) or first)
        found = self._solve(first)
        if found is None:
            return None
        self._caps.append((first, found.values[0]))
        best = self._solve(second)
        assert best is not None, "the plan with the first key's value competes"
        return Optimum(best.cuts, (*found.values, *best.values), (*found.phases, *best.phases))

    def _solve(self, key: _Key) -> Optimum | None:
        return self._layered(key) if self._request.layers else self._plain(key)

    def _joined(self, first: _Key, second: _Key) -> _Key | None:
        """Two sum keys as one; None where that would not fit into 64 bits."""
        scale = 1 + self._most(second.cost)
        if self._most(first.cost) * scale >= BEYOND:
            return None
        names = (*first.names, *second.names)
        return _Key(False, lambda row, device: first.cost(row, device) * scale + second.cost(row, device), names, scale)

    def _most(self, cost: _Cost) -> int:
        """An upper bound of any plan's sum of a cost."""
        end = self._spans.at.end
        if cost is _one:
            return end
        if cost is _seam:
            return sum(self._spans.seam_bytes(place) for place in range(1, end))
        parameters = int(self._spans.occupied[-1] + self._spans.streamed[-1])
        streaming = max(device.stream_ms_per_mib for device in self._kinds) * parameters / MIB
        blocks = sum(max(int(_micros(row, kind)[-1]) for kind in self._kinds) for row in self._spans.rows(_block))
        return blocks + math.ceil(1000 * streaming) + end

    def _costs(self, key: _Key, row: Row, number: int) -> Ints:
        """A key's costs of a row's spans on a device; infinite where a span does not compete."""
        device = self._kinds[number]
        found = np.minimum(key.cost(row, device), BEYOND)
        for cap, value in self._caps:
            found = np.where(cap.cost(row, device) > value, BEYOND, found)
        found[: max(0, self._first[number][row.stop] - row.first)] = BEYOND
        return found

    def _plain(self, key: _Key) -> Optimum | None:
        """Minimise over any number of segments on one kind of device."""
        end = self._spans.at.end
        value: Ints = np.full(end + 1, BEYOND, np.int64)
        came_from = [0] * (end + 1)
        value[0] = 0
        for row in self._spans.rows(self._first[0].__getitem__):
            if row.first == row.stop:
                continue
            costs = self._costs(key, row, 0)
            before = value[row.first : row.stop]
            found = np.maximum(before, costs) if key.largest else np.minimum(before + costs, BEYOND)
            place = int(found.argmin())
            value[row.stop], came_from[row.stop] = found[place], row.first + place
        if value[end] >= BEYOND:
            return None
        cuts = [end]
        while cuts[-1]:
            cuts.append(came_from[cuts[-1]])
        return Optimum(tuple(cuts[-2:0:-1]), (int(value[end]),), (self._phase(key, 0, value, int(value[end])),))

    def _layered(self, key: _Key) -> Optimum | None:
        """Minimise over so many segments, or up to so many, each on its own device."""
        end, layers = self._spans.at.end, self._request.layers or 0
        devices = self._request.devices[:layers] or (self._request.default,) * layers
        kinds = [self._kinds.index(device) for device in devices]
        value: Ints = np.full((layers + 1, end + 1), BEYOND, np.int64)
        came_from = np.zeros((layers + 1, end + 1), np.int32)
        value[0, 0] = 0
        first = [min(each) for each in zip(*(self._first[kind] for kind in set(kinds)), strict=True)]
        for row in self._spans.rows(first.__getitem__):
            if row.first == row.stop:
                continue
            by_kind = {kind: self._costs(key, row, kind) for kind in set(kinds)}
            costs = np.stack([by_kind[kind] for kind in kinds])
            before = value[:-1, row.first : row.stop]
            found = np.maximum(before, costs) if key.largest else np.minimum(before + costs, BEYOND)
            places = found.argmin(axis=1)
            value[1:, row.stop] = found[np.arange(layers), places]
            came_from[1:, row.stop] = row.first + places
        count = self._request.count or int(value[1:, end].argmin()) + 1
        if len(devices) < count or value[count, end] >= BEYOND:
            return None
        cuts = [end]
        for layer in range(count, 0, -1):
            cuts.append(int(came_from[layer, cuts[-1]]))
        reached = int(value[count, end])
        return Optimum(tuple(cuts[-2:0:-1]), (reached,), (self._phase(key, layers, value, reached),))

    def _phase(self, key: _Key, layers: int, table: Ints, value: int) -> Phase:
        caps = tuple((cap.names[0], most) for cap, most in self._caps)
        return Phase(key.names, key.scale, key.largest, caps, layers, self._request.count, table, value)


def _block(stop: int) -> int:
    return stop - 1


def _planned(row: Row, _device: DeviceProfile) -> Ints:
    return row.planned


def _square(row: Row, _device: DeviceProfile) -> Ints:
    return row.planned * row.planned


def _seam(row: Row, _device: DeviceProfile) -> Ints:
    return row.seam


def _one(row: Row, _device: DeviceProfile) -> Ints:
    return np.ones(row.stop - row.first, np.int64)


def _micros(row: Row, device: DeviceProfile) -> Ints:
    return row.micros(device)
