"""Check what a certificate claims about a fleet of devices, from the costs of spans alone.

graphcut.planning.certificate, statement 4, says what is checked and why that suffices. Times of spans that share a
device are computed again in another way: backwards from the end of a span, one more segment at a time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_Ints = npt.NDArray[np.int64]
_BEYOND = 2**61
_HALF = 2**31


class _Kind(NamedTuple):
    """Microseconds of every span on one kind of device: exclusive, on the bus, loading, and both where it is shared."""

    single: _Ints
    bus: _Ints
    loading: _Ints
    shared: _Ints | None
    shared_bus: _Ints | None


def fleet_findings(
    document: Mapping[str, Any], bounds: Sequence[int], costs: Callable[[str, int, int], _Ints]
) -> Iterator[str]:
    """Check the stages and the table of a fleet.

    Args:
        document: the certificate.
        bounds: places where its segments end, the first and the last one too.
        costs: name, place and number of a kind -> of the spans that end there, one for each earlier place.
    """
    asked, fleet = document["asked"], document["fleet"]
    end = bounds[-1]
    counts = asked["counts"]
    if len(counts) != len(asked["devices"]) or min(counts) < 1 or asked["batch"] < 1:
        yield "its counts of devices are none"
        return
    kinds = [_kind(asked, number, end, costs) for number in range(len(counts))]
    table = np.array([[_BEYOND if each is None else each for each in row] for row in fleet["table"]], np.int64)
    shape = (*(count + 1 for count in counts), end + 1)
    if table.size != math.prod(shape):
        yield f"the table of its fleet has {table.size} numbers in place of {math.prod(shape)}"
        return
    latency = document["objective"] == "latency"
    if not latency and fleet["below"] != fleet["value"] - 1:
        yield "its table is not that of one microsecond below its interval"
    yield from _stages(document, kinds, bounds)
    yield from _table(table.reshape(shape), kinds, counts, None if latency else fleet["value"] - 1)
    last = int(table.reshape(-1, end + 1)[:, end].min())
    if last < fleet["value"]:
        yield f"its table ends at {last} us, the plan is said to be best with {fleet['value']}"


def _kind(asked: Mapping[str, Any], number: int, end: int, costs: Callable[[str, int, int], _Ints]) -> _Kind:
    device = asked["devices"][number]
    single: _Ints = np.full((end + 1, end + 1), _BEYOND, np.int64)
    bus, loading = single.copy(), single.copy()
    for stop in range(1, end + 1):
        open_ = costs("barred", stop, number) == 0
        for matrix, name in ((single, "micros"), (bus, "bus"), (loading, "loading")):
            own = costs(name, stop, number)
            matrix[:stop, stop] = np.where(open_, own if name != "bus" or device["shared_bus"] else 0, _BEYOND)
    known = {(start, stop): micros for start, stop, kind, micros in asked["measured"] if kind == number}
    ratios = [micros / int(single[key]) for key, micros in known.items() if 0 < single[key] < _BEYOND]
    if ratios:
        scale = round(1_000_000 * statistics.median(ratios))
        single = np.where(single < _BEYOND, single * scale // 1_000_000, _BEYOND)
        for key, micros in known.items():
            single[key] = micros if single[key] < _BEYOND else _BEYOND
    limit = asked["limits"].get("latency_us")
    if limit is not None:
        single = np.where(single > limit, _BEYOND, single)
    if asked["batch"] == 1 or device["kind"] == "cpu":
        return _Kind(single, bus, loading, None, None)
    own = -(-loading // asked["batch"])
    moved = bus + (own if device["shared_bus"] else 0)
    pair = np.where(single < _BEYOND, (single + own) * _HALF + moved, _BEYOND)
    shared = np.full_like(pair, _BEYOND)
    for start in range(end):
        row = pair[start].copy()
        for stop in range(start + 2, end + 1):
            through = np.minimum(row[start + 1 : stop] + pair[start + 1 : stop, stop], _BEYOND)
            shared[start, stop] = through.min()
            row[stop] = min(row[stop], shared[start, stop])
    there = shared < _BEYOND
    return _Kind(
        single,
        bus,
        loading,
        np.where(there, shared // _HALF, _BEYOND),
        np.where(there, shared % _HALF, _BEYOND),
    )


def _stages(document: Mapping[str, Any], kinds: Sequence[_Kind], bounds: Sequence[int]) -> Iterator[str]:
    """Check that the stages are a plan for these devices, and that its times are those claimed."""
    asked, stages = document["asked"], document["fleet"]["stages"]
    here, used, rates, alone, moved = 0, [0] * len(kinds), [], 0, 0
    meeting = [0]
    for stage in stages:
        number, copies = stage["kind"], stage["copies"]
        if stage["start"] != here or copies < 1 or not 0 <= number < len(kinds):
            yield "its stages do not follow each other"
            return
        here = stage["stop"]
        used[number] += copies
        inner = [stage["start"], *stage["cuts"], here]
        if any(before >= after for before, after in pairwise(inner)) or bool(stage["cuts"]) != stage["shared"]:
            yield "the segments of a stage do not follow each other"
            return
        meeting += inner[1:]
        times, bus = _paid(kinds[number], list(pairwise(inner)), asked["batch"], asked["devices"][number])
        rates.append(-(-times // copies))
        alone += times
        moved += bus
    if here != bounds[-1] or meeting != list(bounds):
        yield "its stages are not those of its cuts"
    if any(each > count for each, count in zip(used, asked["counts"], strict=True)):
        yield f"it uses {used} devices of {asked['counts']}"
    paid = alone if document["objective"] == "latency" else max(*rates, moved)
    if paid != document["fleet"]["value"]:
        yield f"its stages take {paid} us, said to be {document['fleet']['value']}"


def _paid(kind: _Kind, spans: Sequence[tuple[int, int]], batch: int, device: Mapping[str, Any]) -> tuple[int, int]:
    """Return microseconds of one inference on a device with these segments, and those on the bus."""
    times, bus = sum(int(kind.single[span]) for span in spans), sum(int(kind.bus[span]) for span in spans)
    if len(spans) > 1:
        loading = sum(-(-int(kind.loading[span]) // batch) for span in spans)
        times += loading
        bus += loading if device["shared_bus"] else 0
    return times, bus


def _table(table: _Ints, kinds: Sequence[_Kind], counts: Sequence[int], cap: int | None) -> Iterator[str]:
    """Check that no way to run one more span improves an entry."""
    end = table.shape[-1] - 1
    if table[(0,) * table.ndim] != 0:
        yield "its table does not begin with nothing"
        return
    for number, kind in enumerate(kinds):
        ways = [(copies, kind.single, kind.bus) for copies in range(1, counts[number] + 1)]
        if cap is None:
            ways = ways[:1]
        elif kind.shared is not None and kind.shared_bus is not None:
            ways += [(copies, kind.shared, kind.shared_bus) for copies in range(1, counts[number] + 1)]
        for copies, times, bus in ways:
            before: list[Any] = [slice(None)] * len(counts)
            after = list(before)
            before[number], after[number] = slice(None, -copies), slice(copies, None)
            for stop in range(1, end + 1):
                own = times[:stop, stop]
                if cap is not None:
                    own = np.where(own > copies * cap, _BEYOND, bus[:stop, stop])
                source: Any = (*before, slice(None, stop))
                target: Any = (*after, stop)
                reached = np.minimum(table[source] + own, _BEYOND).min(axis=-1)
                if (reached < table[target]).any():
                    yield f"place {stop} can be reached with less than its table says"
                    return
