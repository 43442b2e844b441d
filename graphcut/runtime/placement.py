"""Which parts run on which devices.

1. A *station* is a run of consecutive parts with one or more devices; each of its devices runs all of its parts.
2. As many devices as parts: one each, in order. More: each remaining device becomes a replica of the station that is
   slowest per device at that moment. Fewer: consecutive parts share a device so that the slowest station is as fast as
   possible (exact, by dynamic programming over the ends of stations, O(parts^2 * devices)).
3. Parts that share an Edge TPU evict each other's parameters: at every switch the next one's are loaded again. That
   costs ``reload_ms`` of each part in the group, per input, or per micro-batch where inputs are taken together.
4. A placement that was planned (graphcut.planning.fleet) is taken as it is: :func:`planned`.
5. ``notes`` describes devices that do more than run one part each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from graphcut.errors import UsageError
from graphcut.runtime.devices import CPU, Device, numbered

_Cost = Callable[[int, int, Device], float]


class Station(NamedTuple):
    """Parts[first:stop] on each of ``devices``."""

    first: int
    stop: int
    devices: tuple[Device, ...]


class Placement(NamedTuple):
    """Stations in order, and remarks for the user."""

    stations: tuple[Station, ...]
    notes: tuple[str, ...]


def planned(deployment: Mapping[str, Any], parts: int) -> Placement:
    """The placement that a manifest's deployment describes, with the first devices of each kind (statement 4).

    Args:
        deployment: as in ``meta.json``.
        parts: how many there are.

    Raises:
        ValueError: its stages do not cover the parts.
    """
    stations: list[Station] = []
    used: dict[str, int] = {}
    for stage in deployment["stages"]:
        kind, copies = str(stage["kind"]), int(stage["copies"])
        if kind not in ("usb", "pci", "cpu") or not 1 <= copies <= 2**10:
            raise ValueError(f"{copies} devices of the kind {kind!r}")
        devices = numbered(kind, copies, used.get(kind, 0))
        used[kind] = used.get(kind, 0) + copies
        stations.append(Station(int(stage["first"]), int(stage["stop"]), devices))
    ends = [0, *(station.stop for station in stations)]
    if [station.first for station in stations] != ends[:-1] or ends[-1] != parts or sorted(set(ends)) != ends:
        raise ValueError("the stages of its deployment do not cover the segments")
    return Placement(tuple(stations), ())


def on_cpu(placement: Placement) -> Placement:
    """The same stations with the host's processor in place of every device."""
    stations = tuple(station._replace(devices=(CPU,) * len(station.devices)) for station in placement.stations)
    return Placement(stations, ("nothing is compiled for the Edge TPU: the CPU stands in for every device",))


def place(
    labels: Sequence[str],
    devices: Sequence[Device],
    costs_ms: Sequence[float] = (),
    *,
    reload_ms: Sequence[float] = (),
    batch: int = 1,
) -> Placement:
    """Place parts on devices (statements 1 to 4).

    Args:
        labels: of the parts, for the remarks.
        devices: at least one.
        costs_ms: time of each part; empty if unknown (then all count the same).
        reload_ms: time to load each part's parameters into an Edge TPU; empty for none.
        batch: inputs that a station takes together.

    Raises:
        UsageError: no device, or lists of different lengths.
    """
    count = len(labels)
    if not devices:
        raise UsageError("there is no device to run on", "name at least one, such as cpu")
    costs = list(costs_ms) or [1.0] * count
    reloads = list(reload_ms) or [0.0] * count
    if len(costs) != count or len(reloads) != count:
        raise UsageError(f"{len(costs)} times and {len(reloads)} reloads for {count} parts", "pass one for each part")
    if len(devices) < count:
        return _grouped(labels, devices, costs, reloads, batch, known=bool(costs_ms))
    given = [[device] for device in devices[:count]]
    notes = []
    for device in devices[count:]:
        slowest = max(range(count), key=lambda index: (costs[index] / len(given[index]), -index))
        given[slowest].append(device)
        notes.append(f"{device} runs a second {labels[slowest]}, the slowest")
    stations = tuple(Station(index, index + 1, tuple(own)) for index, own in enumerate(given))
    return Placement(stations, tuple(notes))


def _grouped(
    labels: Sequence[str],
    devices: Sequence[Device],
    costs: Sequence[float],
    reloads: Sequence[float],
    batch: int,
    *,
    known: bool,
) -> Placement:
    def cost(first: int, stop: int, device: Device) -> float:
        shared = stop - first > 1 and device.is_tpu
        return sum(costs[first:stop]) + (sum(reloads[first:stop]) / batch if shared else 0.0)

    ends = _best_ends(len(labels), devices, cost)
    stations, notes, first = [], [], 0
    for stop, device in zip(ends, devices):
        stations.append(Station(first, stop, (device,)))
        if stop - first > 1:
            notes.append(
                _shared_note(labels[first:stop], device, cost(first, stop, device), reloads[first:stop], known)
            )
        first = stop
    return Placement(tuple(stations), tuple(notes))


def _best_ends(count: int, devices: Sequence[Device], cost: _Cost) -> list[int]:
    """The ends of stations that minimise the cost of the most expensive one; every device gets at least one part."""
    infinite = float("inf")
    best = [[infinite] * (count + 1) for _ in range(len(devices) + 1)]
    came = [[0] * (count + 1) for _ in range(len(devices) + 1)]
    best[0][0] = 0.0
    for used, device in enumerate(devices, start=1):
        for stop in range(used, count + 1):
            for first in range(used - 1, stop):
                worst = max(best[used - 1][first], cost(first, stop, device))
                if worst < best[used][stop]:
                    best[used][stop], came[used][stop] = worst, first
    ends, stop = [], count
    for used in range(len(devices), 0, -1):
        ends.append(stop)
        stop = came[used][stop]
    return ends[::-1]


def _shared_note(labels: Sequence[str], device: Device, cost_ms: float, reloads: Sequence[float], known: bool) -> str:
    said = f"{labels[0]} .. {labels[-1]} share {device}"
    if device.is_tpu and any(reloads):
        said += f": their parameters are loaded again at every switch, {sum(reloads):.1f} ms for one round"
    if known:
        said += f"; one input takes {cost_ms:.1f} ms there"
    return said
