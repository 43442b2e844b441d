"""The least slowest segment over all topological orders: a bound that no plan of the model can beat.

1. The nodes of the first k segments of any plan, in any order, form an *ideal*: with a node it has all that the node
   reads. A plan of K segments is a chain of K - 1 ideals, and a segment is the difference of two.
2. Tensors that dominate the outputs (graphcut.analysis.liveness) divide the nodes into blocks that are the same in
   every order. An ideal is all blocks before one, and a part of that one. So the ideals are enumerated block by block.
3. The cost of a segment is that of graphcut.prediction.segment_costs. If its ideals lie in different blocks, what it
   reads is all that crosses the first, and what it hands over all that crosses the second; within a block both are
   found tensor by tensor.
4. A node without multiplications and parameters, whose only input nothing else reads and whose output is not larger,
   belongs to the node before it: cutting behind both is no worse than cutting between the two, because the device
   holds no more for it. That may leave a segment empty, so the bound for K segments is the least for 1 .. K.
5. ``best[k, j]``, the least slowest of k segments that make up ideal j, is the minimum over ideals i in j of the larger
   of ``best[k - 1, i]`` and the time of the segment from i to j. With n ideals that takes O(K n^2) in numpy.

6. Where all ideals may be cut at, the result is a bound from below for every plan. Where only those may whose seam fits
   (graphcut.analysis.seams) and has at most N tensors, it is the optimum over all orders, and the chain of ideals gives
   an order that has it.
7. Graphs of more than MOST_IDEALS ideals get a weaker bound: every segment takes a call, every seam is handed over, and
   K segments cannot keep more than K times the largest room; the slowest is not below the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from graphcut.analysis.liveness import lifetimes
from graphcut.analysis.seams import activations, fits
from graphcut.edgetpu.caching import room_beside
from graphcut.prediction.device_profiles import DeviceProfile
from graphcut.prediction.segment_costs import Costs

MOST_IDEALS = 12_000
MOST_IN_BLOCK = 3_000
_BITS = 62
Ints = npt.NDArray[np.int64]
_UNLIMITED = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class _Group:
    """Nodes that no useful cut separates (statement 4), with the sums of their costs and their largest reserve."""

    nodes: tuple[int, ...]
    work: int
    occupied: int
    streamed: int
    host_out: int
    reserved: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a block: bytes, bit of its maker (-1 for what the block begins with), mask of its readers."""

    size: int
    maker: int
    readers: int
    given: bool
    fits: bool


@dataclass(frozen=True, slots=True)
class _Block:
    """The nodes between two dominating tensors: groups, what each needs before it as masks, tensors that end here."""

    groups: tuple[_Group, ...]
    needs: tuple[int, ...]
    tensors: tuple[_Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The least slowest segment of any plan with so many segments, in any order.

    Attributes:
        micros: microseconds.
        exact: a chain of ideals has it (statement 5); else it is the weaker bound of statement 7.
    """

    micros: int
    exact: bool


def interval_bound(costs: Costs, device: DeviceProfile, segments: int) -> Bound:
    """Bound the slowest segment of every plan from below, over all orders (statements 6 and 7).

    Args:
        costs: of the graph, in any topological order.
        device: that runs every segment.
        segments: of the plan, 1 or more.
    """
    search = _search(costs, device, None)
    if search is None:
        return Bound(micros=_mean_us(costs, device, segments), exact=False)
    return Bound(micros=min(search.run(count)[0] for count in range(1, segments + 1)), exact=True)


def best_order(costs: Costs, device: DeviceProfile, segments: int, most: int) -> tuple[int, ...] | None:
    """Find an order of the nodes in which a plan has the least slowest segment of all orders.

    Args:
        costs, device, segments: as for :func:`interval_bound`.
        most: tensors that a cut may hand over.

    Returns:
        Indices of the nodes; None where there is no such plan, or too many ideals.
    """
    search = _search(costs, device, most)
    if search is None:
        return None
    micros, chain = search.run(segments)
    return None if micros == _UNLIMITED else search.order(chain)


def _search(costs: Costs, device: DeviceProfile, most: int | None) -> _Search | None:
    blocks = _blocks(costs)
    masks: list[list[int]] = []
    for block in blocks:
        found = _ideals(block)
        if found is None:
            return None
        if most is not None:
            found = [mask for mask in found if mask == 0 or _fits(block, mask, most)]
        masks.append(found)
    return None if sum(map(len, masks)) > MOST_IDEALS else _Search(device, blocks, masks)


def _fits(block: _Block, mask: int, most: int) -> bool:
    """Whether an ideal inside a block may be cut at."""
    alive = _alive(block, mask)
    return 1 <= len(alive) <= most and all(each.fits for each in alive)


def _alive(block: _Block, mask: int) -> list[_Tensor]:
    """The tensors of a block that cross an ideal of it."""
    return [each for each in block.tensors if each.readers & ~mask and (each.maker < 0 or mask >> each.maker & 1)]


def _mean_us(costs: Costs, device: DeviceProfile, segments: int) -> int:
    """The weaker bound of statement 7, in microseconds, rounded down."""
    graph, sums = costs.graph, costs.predicted.sums
    largest = room_beside(0) if device.room_bytes is None else device.room_bytes
    cut = device.latency_ms(host_in=0.0, seam_in=1.0, work=0.0, off_chip=0.0, seam_out=1.0, host_out=0.0)
    whole = device.latency_ms(
        host_in=float(sum(graph.tensors[name].elements for name in graph.inputs)),
        seam_in=0.0,
        work=float(sums.work[-1]),
        off_chip=float(sums.streamed[-1] + max(0, sums.occupied[-1] - segments * largest)),
        seam_out=0.0,
        host_out=float(sum(graph.tensors[name].elements for name in graph.outputs)),
    )
    return int(1000 * (whole + (segments - 1) * cut) / segments)


def _blocks(costs: Costs) -> list[_Block]:
    graph = costs.graph
    life = lifetimes(graph)
    bounds = [0, *(place for place, count in enumerate(life.counts[1:-1], start=1) if count == 1), len(graph.nodes)]
    return [_block(costs, start, stop) for start, stop in pairwise(bounds)]


def _block(costs: Costs, start: int, stop: int) -> _Block:
    graph, sums = costs.graph, costs.predicted.sums
    own = range(start, stop)
    maker = {name: index for index in own for name in graph.nodes[index].outputs if name}
    readers: dict[str, list[int]] = {}
    for index in own:
        for name in activations(graph, graph.nodes[index]):
            readers.setdefault(name, []).append(index)
    group_of: dict[int, int] = {}
    members: list[list[int]] = []
    for index in own:
        before = _joins(costs, index, maker, readers)
        group_of[index] = len(members) if before is None else group_of[before]
        if before is None:
            members.append([])
        members[group_of[index]].append(index)

    def added(values: Sequence[int], nodes: Sequence[int]) -> int:
        return sum(values[index + 1] - values[index] for index in nodes)

    outputs = {name: graph.tensors[name].elements for name in graph.outputs}
    groups = tuple(
        _Group(
            nodes=tuple(nodes),
            work=added(sums.work, nodes),
            occupied=added(sums.occupied, nodes),
            streamed=added(sums.streamed, nodes),
            host_out=sum(outputs.get(name, 0) for index in nodes for name in graph.nodes[index].outputs),
            reserved=max(sums.reserved[index] for index in nodes),
        )
        for nodes in members
    )
    needs = []
    for number, nodes in enumerate(members):
        read = {group_of[maker[name]] for index in nodes for name in graph.nodes[index].inputs if name in maker}
        needs.append(sum(1 << each for each in read - {number}))
    tensors = []
    for name, found in readers.items():
        made = group_of[maker[name]] if name in maker else -1
        mask = 0
        for index in found:
            mask |= 1 << group_of[index]
        if made >= 0:
            mask &= ~(1 << made)
        if mask:
            tensors.append(
                _Tensor(graph.tensors[name].elements, made, mask, name in graph.inputs, fits(graph, name, 1))
            )
    return _Block(groups, tuple(needs), tuple(tensors))


def _joins(costs: Costs, index: int, maker: dict[str, int], readers: dict[str, list[int]]) -> int | None:
    """The node before which a node is one with (statement 4)."""
    graph, sums = costs.graph, costs.predicted.sums
    node = graph.nodes[index]
    read = activations(graph, node)
    if len(read) != 1 or read[0] not in maker or readers[read[0]] != [index] or read[0] in graph.outputs:
        return None
    before = maker[read[0]]
    free = all(each[index + 1] == each[index] for each in (sums.work, sums.occupied, sums.streamed))
    size = sum(graph.tensors[name].elements for name in node.outputs if name)
    smaller = size <= graph.tensors[read[0]].elements and sums.reserved[index] <= sums.reserved[before]
    return before if free and smaller else None


def _ideals(block: _Block) -> list[int] | None:
    """The ideals of a block but the whole of it, by rising number of groups; None where there are too many."""
    count = len(block.groups)
    if count > _BITS:
        return None
    layer, found = {0}, [0]
    while layer:
        grown = {
            mask | 1 << group
            for mask in layer
            for group in range(count)
            if not mask >> group & 1 and block.needs[group] & ~mask == 0
        }
        layer = grown - {(1 << count) - 1}
        found += sorted(layer)
        if len(found) > MOST_IN_BLOCK:
            return None
    return found


class _Search:
    """The ideals of all blocks as arrays, and the search over them (statement 5)."""

    def __init__(self, device: DeviceProfile, blocks: Sequence[_Block], masks: Sequence[Sequence[int]]) -> None:
        self._device, self._blocks, self._masks = device, blocks, masks
        self._first = np.cumsum([0, *map(len, masks)])
        sums: dict[str, list[Ints]] = {name: [] for name in ("work", "occupied", "streamed", "host_out")}
        crossing: list[Ints] = []
        given: list[Ints] = []
        rest: list[Ints] = []
        prefix: list[Ints] = []
        whole: list[int] = []
        totals = dict.fromkeys(sums, 0)
        for block, own in zip(blocks, masks, strict=True):
            bits = np.array([[mask >> group & 1 for group in range(len(block.groups))] for mask in own], np.int64)
            for name, parts in sums.items():
                values = np.array([getattr(group, name) for group in block.groups], np.int64)
                parts.append(totals[name] + bits @ values)
                totals[name] += int(values.sum())
            handed, inputs = self._crossing(block, own)
            crossing.append(handed)
            given.append(inputs)
            rooms = np.array([self._room(group.reserved) for group in block.groups], np.int64)
            rest.append(np.where(bits == 0, rooms, _UNLIMITED).min(axis=1))
            prefix.append(np.where(bits == 1, rooms, _UNLIMITED).min(axis=1))
            whole.append(int(rooms.min()))
        self._sums = {name: np.concatenate([*parts, [totals[name]]]) for name, parts in sums.items()}
        self._crossing_bytes = np.concatenate([*crossing, [0]])
        self._given = np.concatenate([*given, [0]])
        self._rest = np.concatenate([*rest, [_UNLIMITED]])
        self._prefix = np.concatenate([*prefix, [_UNLIMITED]])
        self._whole = whole

    def _room(self, reserved: int) -> int:
        return room_beside(reserved) if self._device.room_bytes is None else self._device.room_bytes

    @staticmethod
    def _crossing(block: _Block, masks: Sequence[int]) -> tuple[Ints, Ints]:
        """Bytes that cross each ideal: of tensors, and of the model's inputs."""
        handed, inputs = [], []
        for mask in masks:
            alive = _alive(block, mask)
            handed.append(sum(each.size for each in alive if not each.given))
            inputs.append(sum(each.size for each in alive if each.given))
        return np.array(handed, np.int64), np.array(inputs, np.int64)

    def run(self, segments: int) -> tuple[int, tuple[int, ...]]:
        """The least slowest of so many segments, and the ideals between them; unlimited where there are none."""
        end = len(self._sums["work"]) - 1
        best: Ints = np.full((segments + 1, end + 1), _UNLIMITED, np.int64)
        came: Ints = np.zeros((segments + 1, end + 1), np.int64)
        best[0, 0] = 0
        for number, own in enumerate((*self._masks, [0])):
            last = number == len(self._masks)
            first = end if last else int(self._first[number])
            between = self._between(number)
            inner = self._inside(number) if not last and len(own) > 1 else None
            for place in range(len(own)):
                stop = first + place
                if first:
                    _improve(best, came, stop, 0, self._across(first, stop, between))
                if inner is not None and place:
                    _improve(best, came, stop, first, inner[:place, place])
        chain, place = [], end
        for count in range(segments, 0, -1):
            place = int(came[count, place])
            chain.append(place)
        return int(best[segments, end]), tuple(chain[-2::-1])

    def order(self, chain: Sequence[int]) -> tuple[int, ...]:
        """An order of the nodes that has the ideals of a chain, the nodes between two in their own order."""
        order: list[int] = []
        done: set[int] = set()
        for ideal in (*chain, int(self._first[-1])):
            number = int(np.searchsorted(self._first, ideal, side="right")) - 1
            before = {node for block in self._blocks[:number] for group in block.groups for node in group.nodes}
            if number < len(self._blocks):
                mask = self._masks[number][ideal - int(self._first[number])]
                for place, group in enumerate(self._blocks[number].groups):
                    before.update(group.nodes if mask >> place & 1 else ())
            order += sorted(before - done)
            done = before
        return tuple(order)

    def _between(self, number: int) -> Ints:
        """For each ideal of the blocks before one, the room beside the whole blocks between."""
        found, least = [], _UNLIMITED
        for block in reversed(range(number)):
            found.append(np.full(len(self._masks[block]), least, np.int64))
            least = min(least, self._whole[block])
        return np.concatenate(found[::-1]) if found else np.zeros(0, np.int64)

    def _across(self, first: int, stop: int, between: Ints) -> Ints:
        """Microseconds of the segments from every ideal of the blocks before to one (statement 3)."""
        room = np.minimum(np.minimum(self._rest[:first], between), self._prefix[stop])
        part = {name: (values[stop] - values[:first]) for name, values in self._sums.items()}
        return self._micros(
            part,
            room,
            self._given[:first],
            self._crossing_bytes[:first],
            np.full(first, self._crossing_bytes[stop], np.int64),
        )

    def _inside(self, number: int) -> Ints:
        """Microseconds of the segments between any two ideals of a block; infinite where one is not in the other."""
        block, first = self._blocks[number], int(self._first[number])
        masks = np.array(self._masks[number], np.int64)
        before, behind = masks[:, None], masks[None, :]
        own = behind & ~before
        handed_in, given, handed_out = (np.zeros(own.shape, np.int64) for _ in range(3))
        for each in block.tensors:
            made_before = np.ones_like(before) if each.maker < 0 else before >> each.maker & 1
            read = ((own & each.readers) != 0) & (made_before == 1)
            target = given if each.given else handed_in
            target += each.size * read
            if each.maker >= 0:
                handed_out += each.size * (((own >> each.maker & 1) == 1) & ((each.readers & ~behind) != 0))
        room = np.full(own.shape, _UNLIMITED, np.int64)
        for place, group in enumerate(block.groups):
            np.minimum(room, np.where((own >> place & 1) == 1, self._room(group.reserved), _UNLIMITED), out=room)
        stop = first + len(masks)
        part = {name: values[None, first:stop] - values[first:stop, None] for name, values in self._sums.items()}
        micros = self._micros(part, room, given, handed_in, handed_out)
        contained = ((before & ~behind) == 0) & (before != behind)
        return np.where(contained, micros, _UNLIMITED)

    def _micros(self, part: dict[str, Ints], room: Ints, given: Ints, handed_in: Ints, handed_out: Ints) -> Ints:
        off_chip = part["streamed"] + np.maximum(0, part["occupied"] - room)
        found = self._device.latency_ms(
            host_in=given.astype(np.float64),
            seam_in=handed_in.astype(np.float64),
            work=part["work"].astype(np.float64),
            off_chip=off_chip.astype(np.float64),
            seam_out=handed_out.astype(np.float64),
            host_out=part["host_out"].astype(np.float64),
        )
        rounded: Ints = np.rint(found * 1000).astype(np.int64)
        return rounded


def _improve(best: Ints, came: Ints, stop: int, first: int, micros: Ints) -> None:
    """Let the segments from the ideals ``first`` .. to ``stop`` compete (statement 5)."""
    reached = np.maximum(best[:-1, first : first + len(micros)], micros)
    places = reached.argmin(axis=1)
    values = reached[np.arange(len(places)), places]
    better = values < best[1:, stop]
    best[1:, stop][better] = values[better]
    came[1:, stop][better] = places[better] + first
