"""A checker of plan certificates that does not plan: of what made them it shares the predicted sizes and costs.

:func:`attest` checks a certificate by itself (its statements follow from its numbers), :func:`attest_model` that these
numbers are those of a model. graphcut.planning.certificate explains what is checked and why that is enough. Findings
are sentences; a sound certificate has none.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.analysis.digest import digest, seal
from graphcut.edgetpu.caching import room_beside
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import Sizes
from graphcut.records import Graph
from graphcut.verification.check_fleet import fleet_findings

Json = Mapping[str, Any]
Ints = npt.NDArray[np.int64]
FORMAT = 2
OBJECTIVES = ("greedy", "fewest", "balanced", "throughput", "latency", "traffic", "range", "given")
_FIRST_KEY = {"fewest": "one", "balanced": "planned", "throughput": "micros", "latency": "micros", "traffic": "seam"}
_MIB = 2**20
_BEYOND = 2**61


def attest(document: object) -> tuple[str, ...]:
    """Check a certificate by itself; returns sentences on what is wrong, none if it is sound."""
    if not isinstance(document, Mapping):
        return ("it is not a certificate",)
    if document.get("format") != FORMAT:
        return (f"its format is {document.get('format')!r}; this checker supports {FORMAT}",)
    try:
        if document["seal"] != seal(document):
            return ("it has been changed: its seal does not match its content",)
        return tuple(_findings(document))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        return (f"it is damaged ({type(error).__name__}: {error})",)


def _findings(document: Json) -> Iterator[str]:
    wrong = list(_shape(document))
    yield from wrong
    if wrong:
        return
    yield from _segments(document)
    yield from _bounds(document)
    yield from _balanced(document)
    for exchange in document["exchanges"]:
        yield from _exchange(document, exchange)
    if document["phases"]:
        yield from _phases(document)
    elif "fleet" in document:
        yield from _fleet(document)
    elif "asked" in document and not document["left_out"]:
        yield "the proof of its objective is missing"


def _shape(document: Json) -> Iterator[str]:
    """Check that the tables fit each other."""
    positions, content, cuts = document["places"]["positions"], document["places"]["content"], document["cuts"]
    numbers = [*positions, *content, *cuts, *document["planned_bytes"], *document["tflite_bytes"]]
    if not all(type(each) is int for each in numbers):
        yield "it contains a value that is not an integer"
        return
    if document["objective"] not in OBJECTIVES:
        yield f"there is no objective {document['objective']!r}"
    if len(positions) != len(content) or len(positions) < 2:
        yield f"{len(positions)} positions and {len(content)} contents do not form a table of places"
        return
    if positions[0] != 0 or any(before >= after for before, after in pairwise(positions)):
        yield "its places do not increase from the beginning of the graph"
    if content[0] != 0 or any(before > after for before, after in pairwise(content)):
        yield "its contents do not increase from 0"
    bounds = [0, *cuts, len(positions) - 1]
    if any(before >= after for before, after in pairwise(bounds)):
        yield "its cuts do not increase between the beginning and the end"
    if not len(document["planned_bytes"]) == len(document["tflite_bytes"]) == len(cuts) + 1:
        yield f"{len(cuts)} cuts do not make {len(document['planned_bytes'])} segments"


def _size(document: Json, start: int, stop: int) -> int:
    content = document["places"]["content"]
    return int(document["base_bytes"] + content[stop] - content[start])


def _bounds_of(document: Json) -> list[int]:
    return [0, *document["cuts"], len(document["places"]["positions"]) - 1]


def _segments(document: Json) -> Iterator[str]:
    """Check every segment's bytes."""
    budget = document["budget_bytes"]
    rows = zip(pairwise(_bounds_of(document)), document["planned_bytes"], document["tflite_bytes"], strict=True)
    for index, ((start, stop), planned, predicted) in enumerate(rows, start=1):
        size = _size(document, start, stop)
        if planned != size:
            yield f"segment {index} is planned with {planned} bytes, but its places add up to {size}"
        if budget is not None and planned > budget:
            yield f"segment {index} is planned with {planned} bytes, above the budget of {budget}"
        if predicted <= 0:
            yield f"segment {index} is predicted with {predicted} bytes"


def _bounds(document: Json) -> Iterator[str]:
    """Check the lower bound, and that the numbers of segments are in order."""
    budget, bound, minimal = document["budget_bytes"], document["lower_bound"], document["minimal_k"]
    count = len(document["cuts"]) + 1
    if budget is None:
        if bound is not None or minimal is not None:
            yield "it states bounds without a budget"
        return
    base, content = document["base_bytes"], document["places"]["content"][-1]
    whole = base + content
    known = 1 if whole <= budget else math.ceil(content / (budget - base)) if budget > base else 0
    if bound != known:
        yield f"the lower bound is given as {bound}, but the contents give {known}"
    if not 1 <= bound <= minimal <= count:
        yield f"lower bound {bound}, least number {minimal} and {count} segments are not in order"
    if document["objective"] in ("greedy", "fewest") and minimal != count:
        yield f"{count} segments are given as the fewest, but {minimal} as sufficient"
    shown = [each for each in document["exchanges"] if each["limit_bytes"] == budget]
    if "asked" not in document and minimal > 1 and not any(each["more_than"] == minimal - 1 for each in shown):
        yield f"there is no proof that fewer than {minimal} segments are not sufficient"


def _balanced(document: Json) -> Iterator[str]:
    """Check the proof of a most even plan."""
    if document["objective"] == "balanced" and "asked" not in document:
        count, largest = len(document["cuts"]) + 1, max(document["planned_bytes"])
        shown = [each for each in document["exchanges"] if each["limit_bytes"] == largest - 1]
        if not any(each["more_than"] >= count for each in shown):
            yield "there is no proof that the largest segment cannot be smaller"


def _exchange(document: Json, exchange: Json) -> Iterator[str]:
    """Check that a given number of segments within a limit cannot reach the end."""
    limit, furthest, end = exchange["limit_bytes"], exchange["furthest"], len(document["places"]["positions"]) - 1
    if len(furthest) != exchange["more_than"] + 1 or furthest[0] != 0:
        yield f"the walk within {limit} bytes does not have {exchange['more_than']} steps from the beginning"
        return
    for start, stop in pairwise(furthest):
        if not start <= stop < end:
            yield f"the walk within {limit} bytes goes from place {start} to {stop} of {end}"
            return
        if _size(document, start, stop + 1) <= limit:
            yield f"the walk within {limit} bytes stops at place {stop}, although it could go on"


def _phases(document: Json) -> Iterator[str]:
    """Check that no plan is better by the objective."""
    asked, costs = document["asked"], _Costs(document)
    for firsts in document["first"]:
        if any(not 0 <= first <= stop for stop, first in enumerate(firsts)):
            yield "its first places within the limits are not places"
            return
    general = asked["limits"].get("tflite_bytes")
    allowed = [general if device["budget_bytes"] is None else device["budget_bytes"] for device in asked["devices"]]
    known = None if None in allowed else max(allowed)
    if document["budget_bytes"] != known:
        yield f"its budget is {document['budget_bytes']}, but {known} was requested"
    pins, bounds = set(asked["pins"]), _bounds_of(document)
    if not pins <= set(bounds):
        yield f"it is not cut at the pinned places {sorted(pins - set(bounds))}"
    count = len(bounds) - 1
    chain = asked["chain"] or [0] * count
    if asked["chain"] and count > len(chain):
        yield f"{count} segments do not match {len(chain)} devices"
        return
    for (start, stop), kind in zip(pairwise(bounds), chain, strict=False):
        if start < document["first"][kind][stop]:
            yield f"the segment from place {start} to {stop} is not within the limits"
    if (asked["count"] or count) != count or count > (asked["most"] or count):
        yield f"{count} segments are not what was requested"
    wanted = _FIRST_KEY.get(document["objective"])
    named = [phase["keys"][0] for phase in document["phases"]]
    if document["objective"] in ("greedy", "fewest"):
        wanted = "one"
    if wanted is not None and named[:1] != [wanted]:
        yield f"its first proof is of {named[0]!r}, but the objective is {wanted!r}"
    for phase in document["phases"]:
        yield from _phase(document, costs, phase, bounds, chain)
    yield from _chained_caps(document)


def _fleet(document: Json) -> Iterator[str]:
    """Check a plan for a fleet: its spans are within the limits, and the rest (graphcut.verification.check_fleet)."""
    if any(not 0 <= first <= stop for firsts in document["first"] for stop, first in enumerate(firsts)):
        yield "its first places within the limits are not places"
        return
    bounds = _bounds_of(document)
    if not set(document["asked"]["pins"]) <= set(bounds):
        yield "it is not cut at the pinned places"
    costs = _Costs(document)
    yield from fleet_findings(document, bounds, costs.alone)


def _chained_caps(document: Json) -> Iterator[str]:
    """Check that later minimisations were capped by the values of the earlier ones only."""
    known = (
        [["micros", document["asked"]["limits"]["latency_us"]]] if "latency_us" in document["asked"]["limits"] else []
    )
    for phase in document["phases"]:
        if [list(cap) for cap in phase["caps"]] != known:
            yield f"the proof of {phase['keys'][0]!r} omits spans that are allowed"
        if phase["largest"]:
            known.append([phase["keys"][0], phase["value"]])


def _phase(document: Json, costs: _Costs, phase: Json, bounds: Sequence[int], chain: Sequence[int]) -> Iterator[str]:
    """Check one table: no entry can be improved, and the plan costs the last one."""
    layers, largest = phase["layers"], phase["largest"]
    table = np.array([[_BEYOND if each is None else each for each in row] for row in phase["table"]], np.int64)
    end = len(document["places"]["positions"]) - 1
    if table.shape != (layers + 1 if layers else 1, end + 1):
        yield f"the table of {phase['keys'][0]!r} has the shape {table.shape}"
        return
    if table[0, 0] != 0 or (layers and (table[0, 1:] < _BEYOND).any()):
        yield f"the table of {phase['keys'][0]!r} does not begin with 0"
        return
    kinds = (document["asked"]["chain"] or [0] * layers)[:layers] if layers else [0]
    for stop in range(1, end + 1):
        for layer, kind in enumerate(kinds, start=1):
            own = costs.row(phase, stop, kind)
            before = table[layer - 1 if layers else 0, :stop]
            reached = np.maximum(before, own) if largest else np.minimum(before + own, _BEYOND)
            if (reached < table[layer if layers else 0, stop]).any():
                yield f"place {stop} can be reached with less {phase['keys'][0]!r} than the table says"
                return
    spans = list(pairwise(bounds))
    costed = [int(costs.row(phase, stop, kind)[start]) for (start, stop), kind in zip(spans, chain, strict=False)]
    paid = max(costed) if largest else sum(costed)
    last = table[:, end]
    least = int(last[phase["count"]] if phase["count"] is not None and layers else last.min())
    if phase["count"] is not None and layers and not phase["count"] < len(last):
        yield f"the table of {phase['keys'][0]!r} does not go up to {phase['count']} segments"
    if not paid == least == phase["value"]:
        yield f"the plan's {phase['keys'][0]!r} is {paid}, the least is {least}, and {phase['value']} is given"


def attest_model(
    document: Json, graph: Graph, sizes: Sizes, costs: Costs, border: int | None = None
) -> tuple[str, ...]:
    """Check that a sound certificate's numbers are those of a model; returns sentences on what is wrong.

    Args:
        document: that :func:`attest` found sound.
        graph: in the order of the plan.
        sizes: of its int8 files. Contents are compared where the plan was made with predicted sizes, not with measured.
        costs: of its runs of nodes.
        border: where the nodes begin that are left to the CPU; None for none.
    """
    if document["graph"] != digest(graph):
        return ("it belongs to another model, or to another order of its operators",)
    positions = document["places"]["positions"]
    end = len(graph.nodes) if border is None else border
    if positions[-1] != end:
        return (f"its places end at node {positions[-1]}, not {end}",)
    return tuple(_differences(document, graph, sizes, costs))


def _differences(document: Json, graph: Graph, sizes: Sizes, costs: Costs) -> Iterator[str]:
    positions = document["places"]["positions"]
    if document["sizes"] == "predicted":
        if document["base_bytes"] != sizes.base_bytes:
            yield f"a file has {sizes.base_bytes} bytes besides its nodes, not {document['base_bytes']}"
        for position, content in zip(positions, document["places"]["content"], strict=True):
            if content != sizes.prefix_bytes[position]:
                yield f"the nodes before {position} add {sizes.prefix_bytes[position]} bytes, not {content}"
        places = pairwise(positions[place] for place in _bounds_of(document))
        for (start, stop), said in zip(places, document["tflite_bytes"], strict=True):
            if said != sizes.file_bytes(start, stop):
                yield f"the file of nodes {start} .. {stop} does not have {said} bytes"
    if "costs" not in document:
        return
    known = _sums(positions, graph, costs)
    for name, values in document["costs"].items():
        if name not in known or known[name] != values:
            yield f"its table of {name} is not that of the model"
    yield from _limits(document, costs)


def _sums(positions: Sequence[int], graph: Graph, costs: Costs) -> dict[str, list[Any]]:
    """The sums and tensors by place, from the graph."""
    sums = costs.predicted.sums
    made = dict.fromkeys(graph.inputs, 0)
    reads: dict[str, list[int]] = {}
    for index, node in enumerate(graph.nodes):
        for name in dict.fromkeys(node.inputs):
            if name in made:
                reads.setdefault(name, []).append(index)
        made |= dict.fromkeys(filter(None, node.outputs), index + 1)
    entering: list[list[list[int]]] = []
    leaving: list[list[list[int]]] = []
    for position in positions:
        alive = [name for name, found in reads.items() if made[name] <= position <= found[-1]]
        following = {name: next(index for index in reads[name] if index >= position) for name in alive}
        sizes = {name: graph.tensors[name].elements for name in alive}
        rows = [[_first_after(positions, following[n]), sizes[n], int(n in graph.inputs)] for n in alive]
        entering.append([row for row in rows if row[0] < len(positions)])
        inner = [name for name in alive if name not in graph.inputs and position]
        leaving.append([[bisect_left(positions, made[name]), sizes[name]] for name in inner])
    given = [sum(graph.tensors[name].elements for name in graph.outputs if made[name] <= p) for p in positions]
    blocks = [max(sums.reserved[start:stop]) for start, stop in pairwise(positions)]
    return {
        "occupied": [sums.occupied[position] for position in positions],
        "streamed": [sums.streamed[position] for position in positions],
        "work": [sums.work[position] for position in positions],
        "host_out": given,
        "room": [room_beside(size) for size in blocks],
        "entering": [sorted(found) for found in entering],
        "leaving": [sorted(found) for found in leaving],
    }


def _first_after(positions: Sequence[int], index: int) -> int:
    """The first place after a node."""
    return bisect_left(positions, index + 1)


def _limits(document: Json, costs: Costs) -> Iterator[str]:
    """Check that exactly the spans that exceed a limit are excluded; limits are monotone, so two per row suffice."""
    asked, positions = document["asked"], document["places"]["positions"]
    limits = {name: limit for name, limit in asked["limits"].items() if name != "latency_us"}
    for device, firsts in zip(asked["devices"], document["first"], strict=True):
        for stop in range(1, len(positions)):
            first = firsts[stop]
            own = dict(limits)
            if device["budget_bytes"] is not None:
                own["tflite_bytes"] = device["budget_bytes"]
            if first > 0 and not any(_over(document, costs, device, own, first - 1, stop)):
                yield f"the span from place {first - 1} to {stop} is excluded but exceeds no limit"
            if first < stop and any(_over(document, costs, device, own, first, stop)):
                yield f"the span from place {first} to {stop} is included but exceeds a limit"


def _over(document: Json, costs: Costs, device: Json, limits: Json, start: int, stop: int) -> Iterator[bool]:
    """For every limit, whether a span exceeds it."""
    begin, end = document["places"]["positions"][start], document["places"]["positions"][stop]
    own = costs.predicted.segment(begin, end)
    room = own.fit.room_bytes if device["room_bytes"] is None else device["room_bytes"]
    sums = costs.predicted.sums
    occupied, streamed = (each[end] - each[begin] for each in (sums.occupied, sums.streamed))
    known = {
        "tflite_bytes": _size(document, start, stop),
        "compiled_bytes": own.compiled.expected_bytes,
        "parameter_bytes": own.parameter_bytes,
        "off_chip_bytes": streamed + max(0, occupied - room),
        "macs": own.macs,
        "activation_bytes": own.activation_bytes,
        "seam_bytes": sum(size for _, size in document["costs"]["leaving"][stop]),
    }
    for name, limit in limits.items():
        yield known[name] > limit


class _Costs:
    """Costs of the spans to a place, computed from a certificate's sums."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._sums = document["costs"]
        self._end = len(document["places"]["positions"]) - 1
        self._content: Ints = np.array(document["places"]["content"], np.int64)
        names = ("occupied", "streamed", "work", "host_out", "room")
        self._tables: dict[str, Ints] = {name: np.array(self._sums[name], np.int64) for name in names}
        self._rows: dict[tuple[str, int, int], Ints] = {}

    def row(self, phase: Json, stop: int, kind: int) -> Ints:
        """Costs of the spans from places 0 .. stop - 1 to ``stop``; infinite where they are excluded."""
        names = phase["keys"]
        found = self._key(names[0], stop, kind)
        if len(names) > 1:
            found = found * phase["scale"] + self._key(names[1], stop, kind)
        found = np.minimum(found, _BEYOND)
        for name, value in phase["caps"]:
            found = np.where(self._key(name, stop, kind) > value, _BEYOND, found)
        pins = [pin for pin in self._document["asked"]["pins"] if pin < stop]
        barred = max([self._document["first"][kind][stop], *pins])
        return np.where(np.arange(stop) < barred, _BEYOND, found)

    def alone(self, name: str, stop: int, kind: int) -> Ints:
        """Costs of the spans from places 0 .. stop - 1 by name; "barred" tells which are left out."""
        if name != "barred":
            return self._key(name, stop, kind)
        pins = [pin for pin in self._document["asked"]["pins"] if pin < stop]
        barred: Ints = (np.arange(stop) < max([self._document["first"][kind][stop], *pins])).astype(np.int64)
        return barred

    def _key(self, name: str, stop: int, kind: int) -> Ints:
        known = (name, stop, kind)
        if known not in self._rows:
            self._rows[known] = self._computed(name, stop, kind)
        return self._rows[known]

    def _computed(self, name: str, stop: int, kind: int) -> Ints:
        planned: Ints = self._document["base_bytes"] + self._content[stop] - self._content[:stop]
        if name == "planned":
            return planned
        if name == "square":
            return planned * planned
        if name == "one":
            return np.ones(stop, np.int64)
        if name == "seam":
            return self._handed_on(stop)
        if name in ("micros", "bus", "loading"):
            return self._micros(stop, self._document["asked"]["devices"][kind], name)
        raise ValueError(f"there is no key {name!r}")

    def _handed_on(self, stop: int) -> Ints:
        found = np.zeros(stop, np.int64)
        for until, size in self._sums["leaving"][stop]:
            found[:until] += size
        return found

    def _micros(self, stop: int, device: Json, name: str) -> Ints:
        """Microseconds by the formula in graphcut.prediction.segment_costs: all, those on the bus, or of loading."""
        seam_in: npt.NDArray[np.float64] = np.zeros(stop)
        host_in: npt.NDArray[np.float64] = np.zeros(stop)
        for place in range(stop):
            for until, size, given in self._sums["entering"][place]:
                if until <= stop:
                    (host_in if given else seam_in)[place] += size
        occupied = self._tables["occupied"][stop] - self._tables["occupied"][:stop]
        fixed = self._tables["streamed"][stop] - self._tables["streamed"][:stop]
        room: Any = device["room_bytes"]
        if room is None:
            room = np.minimum.accumulate(self._tables["room"][:stop][::-1])[::-1]
        if name == "loading":
            kept_ms = device["stream_ms_per_mib"] * np.minimum(occupied, room) / _MIB
            kept: Ints = np.rint(1000 * kept_ms).astype(np.int64)
            return kept
        streamed = (fixed + np.maximum(0, occupied - room)).astype(np.float64)
        work = (self._tables["work"][stop] - self._tables["work"][:stop]).astype(np.float64)
        host_out = (self._tables["host_out"][stop] - self._tables["host_out"][:stop]).astype(np.float64)
        seam_out = self._handed_on(stop).astype(np.float64)

        def side(size: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            found: npt.NDArray[np.float64] = device["handover_ms"] + device["handover_ms_per_mib"] * size / _MIB
            return found / 2 * (size > 0)

        if device.get("seams_at_rates", False):
            host_in, host_out = host_in + seam_in, host_out + seam_out
        incoming = 1000 * host_in / _MIB / device["to_device_mib_s"] + side(seam_in)
        computing = device["invoke_ms"] + device["compute_ms_per_gmac"] * work / 1e9
        outgoing = side(seam_out) + 1000 * host_out / _MIB / device["to_host_mib_s"]
        if name == "bus":
            total = incoming + device["stream_ms_per_mib"] * streamed / _MIB + outgoing
        else:
            total = incoming + computing + device["stream_ms_per_mib"] * streamed / _MIB + outgoing
        found: Ints = np.rint(total * 1000).astype(np.int64)
        return found
