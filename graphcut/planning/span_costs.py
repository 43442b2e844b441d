"""Costs of every span between two places, as arrays of all spans that end at a place.

1. A *span* runs from place i to place j (graphcut.planning.places). Its costs are those of
   graphcut.prediction.segment_costs, computed from the same sums by the same formula.
2. What a span reads of earlier ones depends on both its ends where several tensors cross a cut: a tensor alive at place
   i counts from the first place before which it is read. What it hands on counts the tensors produced after i.
3. :meth:`Spans.rows` walks the places once; a row takes O(j) numbers, so all of them O(n^2) for n places.
4. Limits are *monotone*: a part of a span within them is within them. So for every place there is a first place from
   which on spans that end there are within, found by bisection in O(log n) questions. A limit on time is not monotone
   (an inner cut may hand over more); it is checked span by span.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.edgetpu.caching import room_beside
from graphcut.planning.places import Places
from graphcut.planning.segment_limits import Limits
from graphcut.prediction.device_profiles import DeviceProfile, Floats
from graphcut.prediction.segment_costs import Costs

Ints = npt.NDArray[np.int64]


class Row:
    """All spans from the places ``first`` .. ``stop - 1`` to ``stop``; arrays with one entry per span.

    Attributes:
        first, stop: places.
        planned: bytes that plans count for the int8 file.
        seam: bytes handed on.
    """

    def __init__(self, spans: Spans, first: int, stop: int, seam_in: Ints, host_in: Ints, room: Ints) -> None:
        self.first, self.stop = first, stop
        self._spans, self._seam_in, self._host_in, self._room = spans, seam_in, host_in, room
        starts = slice(first, stop)
        self.planned: Ints = spans.base + spans.content[stop] - spans.content[starts]
        self.seam: Ints = spans.handed_on(first, stop)

    def micros(self, device: DeviceProfile) -> Ints:
        """Microseconds of one inference on a device, rounded."""
        spans = self._spans
        work = (spans.work[self.stop] - spans.work[self.first : self.stop]).astype(np.float64)
        return _rounded(device.latency_ms(work=work, **self._moved(device)))

    def bus_micros(self, device: DeviceProfile) -> Ints:
        """Microseconds of one inference in which the device's link is in use, rounded."""
        return _rounded(device.bus_ms(**self._moved(device)))

    def cached_bytes(self, device: DeviceProfile) -> Ints:
        """Bytes of parameters that stay on a device."""
        occupied = self._spans.occupied[self.stop] - self._spans.occupied[self.first : self.stop]
        found: Ints = np.minimum(occupied, self._room_on(device))
        return found

    def _room_on(self, device: DeviceProfile) -> Ints | int:
        return self._room if device.room_bytes is None else device.room_bytes

    def _moved(self, device: DeviceProfile) -> dict[str, Floats]:
        """Bytes that pass the link."""
        spans, starts = self._spans, slice(self.first, self.stop)
        occupied = spans.occupied[self.stop] - spans.occupied[starts]
        streamed = spans.streamed[self.stop] - spans.streamed[starts]
        moved = {
            "host_in": self._host_in,
            "seam_in": self._seam_in,
            "off_chip": streamed + np.maximum(0, occupied - self._room_on(device)),
            "seam_out": self.seam,
            "host_out": spans.host_out[self.stop] - spans.host_out[starts],
        }
        return {name: sizes.astype(np.float64) for name, sizes in moved.items()}


def _rounded(found_ms: Floats) -> Ints:
    rounded: Ints = np.rint(found_ms * 1000).astype(np.int64)
    return rounded


class Spans:
    """The spans of a graph's places.

    Attributes:
        base, content, occupied, streamed, work, host_out: sums up to each place, as arrays.
    """

    def __init__(self, at: Places, costs: Costs) -> None:
        self.at = at
        self.costs = costs
        graph, sums = costs.graph, costs.predicted.sums
        self._positions = list(at.positions)
        positions = np.array(self._positions, np.int64)
        self.base = at.base
        self.content: Ints = np.array(at.content, np.int64)
        self.occupied: Ints = np.array(sums.occupied, np.int64)[positions]
        self.streamed: Ints = np.array(sums.streamed, np.int64)[positions]
        self.work: Ints = np.array(sums.work, np.int64)[positions]
        reserved: Ints = np.array(sums.reserved, np.int64)
        # The room of a span is that of the operator whose activations take most, so blocks give it for spans.
        most = np.maximum.reduceat(reserved, positions[:-1])
        self._room: Ints = np.array([room_beside(int(size)) for size in most], np.int64)
        made = dict.fromkeys(graph.inputs, 0)
        made |= {name: index for index, node in enumerate(graph.nodes, start=1) for name in node.outputs if name}
        outputs: Ints = np.zeros(len(graph.nodes) + 1, np.int64)
        for name in graph.outputs:
            outputs[made[name]] += graph.tensors[name].elements
        self.host_out: Ints = np.cumsum(outputs)[positions]
        self._within: dict[tuple[Limits, DeviceProfile], list[int]] = {}
        self._entering: list[list[tuple[int, int, bool]]] = [[] for _ in positions]
        self._leaving: list[list[tuple[int, int]]] = [[] for _ in positions]
        self._read_tensors(made)

    def rows(self, first: Callable[[int], int]) -> Iterator[Row]:
        """Yield the row of every place but the first, in order.

        Args:
            first: the first place from which spans to a place are wanted.
        """
        end = self.at.end
        seam_in: Ints = np.zeros(end, np.int64)
        host_in: Ints = np.zeros(end, np.int64)
        room: Ints = np.full(end, np.iinfo(np.int64).max, np.int64)
        for stop in range(1, end + 1):
            for start, size, given in self._entering[stop]:
                (host_in if given else seam_in)[start] += size
            begin = first(stop)
            np.minimum(room[:stop], self._room[stop - 1], out=room[:stop])
            yield Row(self, begin, stop, seam_in[begin:stop].copy(), host_in[begin:stop].copy(), room[begin:stop])

    def handed_on(self, first: int, stop: int) -> Ints:
        """Bytes that the spans first .. stop - 1 to stop hand to later ones (statement 2)."""
        found: Ints = np.zeros(stop - first, np.int64)
        for until, size in self._leaving[stop]:
            found[: max(0, until - first)] += size
        return found

    def tables(self) -> dict[str, list[Any]]:
        """The sums and tensors from which all costs follow, as plain numbers, by place or by block between two.

        ``entering[p]`` lists what is alive at place p: the first place before which it is read, bytes, whether it is
        an input of the model. ``leaving[p]`` lists what is made before and read after p: the first place after its
        maker, bytes.
        """
        entering: list[list[list[int]]] = [[] for _ in self._positions]
        for until, found in enumerate(self._entering):
            for place, size, given in found:
                entering[place].append([until, size, int(given)])
        return {
            "occupied": self.occupied.tolist(),
            "streamed": self.streamed.tolist(),
            "work": self.work.tolist(),
            "host_out": self.host_out.tolist(),
            "room": self._room.tolist(),
            "entering": [sorted(found) for found in entering],
            "leaving": [sorted(list(each) for each in found) for found in self._leaving],
        }

    def seam_bytes(self, place: int) -> int:
        """Bytes that cross a place."""
        return sum(size for _, size in self._leaving[place])

    def first_within(self, limits: Limits, devices: Sequence[DeviceProfile] = ()) -> list[list[int]]:
        """For each device and place the first place from which on spans to it are within the limits (statement 4).

        The place itself where not even the block before it is. ``devices`` may have budgets of their own for the int8
        file, and rooms.
        """
        found = []
        for device in devices:
            known = self._within.get((limits, device))
            if known is None:
                known = [self._first(limits, device, stop) if stop else 0 for stop in range(self.at.end + 1)]
                self._within[limits, device] = known
            found.append(known)
        return found

    def value(self, name: str, start: int, stop: int, device: DeviceProfile) -> int:
        """The value of a span that a limit applies to; what is handed on is what crosses the place after it."""
        begin, end = self._positions[start], self._positions[stop]
        if name == "tflite_bytes":
            return self.at.size(start, stop)
        if name == "compiled_bytes":
            return self.costs.predicted.compiled_bytes(begin, end).expected_bytes
        if name == "seam_bytes":
            return self.seam_bytes(stop)
        predicted = self.costs.predicted
        if name == "off_chip_bytes":
            room = self.costs.room_bytes(predicted.reserved_bytes(begin, end), device)
            return predicted.off_chip_bytes(begin, end, room)
        return {
            "parameter_bytes": predicted.parameter_bytes,
            "macs": predicted.macs,
            "activation_bytes": predicted.activation_bytes,
        }[name](begin, end)

    def _first(self, limits: Limits, device: DeviceProfile, stop: int) -> int:
        low = 0
        for name, limit in limits.given().items():
            if name == "seam_bytes":
                low = max(low, stop if self.seam_bytes(stop) > limit else 0)
            elif name == "tflite_bytes":
                own = limit if device.budget_bytes is None else device.budget_bytes
                low = max(low, self.at.first(stop, own))
            elif name != "latency_us":
                within = _Within(self, name, limit, stop, device)
                low = max(low, bisect_left(range(stop), True, lo=min(low, stop), key=within))
        if device.budget_bytes is not None and limits.tflite_bytes is None:
            low = max(low, self.at.first(stop, device.budget_bytes))
        return low

    def _read_tensors(self, made: dict[str, int]) -> None:
        """Note for every place what is alive there: from where on it is read, and up to where it is made."""
        graph, positions = self.costs.graph, self._positions
        reads: dict[str, list[int]] = {}
        for index, node in enumerate(graph.nodes):
            for name in dict.fromkeys(node.inputs):
                if name in made:
                    reads.setdefault(name, []).append(index)
        given = set(graph.inputs)
        for name, found in reads.items():
            size = graph.tensors[name].elements
            # Places from the one after its maker to the last before its last reader.
            first, last = bisect_left(positions, made[name]), bisect_right(positions, found[-1]) - 1
            for place in range(first, last + 1):
                following = bisect_right(positions, found[bisect_left(found, positions[place])])
                if following < len(positions):  # else only nodes that the CPU runs read it
                    self._entering[following].append((place, size, name in given))
                if name not in given and place:
                    self._leaving[place].append((bisect_left(positions, made[name]), size))


@dataclass(frozen=True, slots=True)
class _Within:
    """Whether a span from a place is within a limit; false, then true as the place rises."""

    spans: Spans
    name: str
    limit: int
    stop: int
    device: DeviceProfile

    def __call__(self, start: int) -> bool:
        return self.spans.value(self.name, start, self.stop, self.device) <= self.limit
