"""Moving devices between the stations of a running pipeline when measured times say so.

1. Over a window each station's time for one input is measured: time in calls over calls, summed over its parts.
2. A station of n devices takes an input every t / n. The *bottleneck* has the largest of these. A device moves to it
   from the station that is fastest without it, if that is at least THRESHOLD below the bottleneck's. Moves of one
   device at a time end at an assignment that minimises the largest t / n: while that is larger than it need be, some
   station has more devices than the best assignment gives it, and can spare one.
3. A station keeps one device at least, and a device only goes where one of its kind runs already: what a part takes on
   another kind is not known.
4. A moving device finishes what it took, and its station's interpreters are closed before the next one's are opened.
   Nothing is lost or done twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphcut.runtime.devices import Device

THRESHOLD = 0.03
LEAST_CALLS = 8
"""Inputs of a station in a window below which its time is not known."""


class Measure(NamedTuple):
    """What a station did up to now: seconds in calls, and calls, for each part; its devices."""

    busy_s: tuple[float, ...]
    calls: tuple[int, ...]
    devices: tuple[Device, ...]


class Move(NamedTuple):
    """A device, by its place in station ``source``, goes to station ``target``."""

    source: int
    position: int
    target: int


def seconds_of(before: Sequence[Measure], now: Sequence[Measure]) -> list[float] | None:
    """Seconds that each station took for an input between two measures; None where one is not known (statement 1)."""
    found = []
    for old, new in zip(before, now):
        calls = [after - earlier for earlier, after in zip(old.calls, new.calls)]
        if min(calls) < LEAST_CALLS:
            return None
        found.append(sum((b - a) / count for a, b, count in zip(old.busy_s, new.busy_s, calls)))
    return found


def choose(seconds: Sequence[float], devices: Sequence[Sequence[Device]]) -> Move | None:
    """The device that should move, by the time of an input at each station; None where none should (statement 2)."""
    rates = [taken / len(own) for taken, own in zip(seconds, devices)]
    target = max(range(len(rates)), key=lambda station: (rates[station], -station))
    kinds = {device.kind for device in devices[target]}
    best: tuple[float, Move] | None = None
    for source, own in enumerate(devices):
        if source == target or len(own) < 2:
            continue
        position = next((at for at in reversed(range(len(own))) if own[at].kind in kinds), None)
        left = seconds[source] / (len(own) - 1)
        if position is not None and (best is None or left < best[0]):
            best = left, Move(source, position, target)
    if best is None or best[0] >= (1 - THRESHOLD) * rates[target]:
        return None
    return best[1]
