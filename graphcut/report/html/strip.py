"""The graph as a strip: a bar an operator in execution order, coloured by segment, dB, processor or time.

1. Width is proportional to parameter bytes, with a least width so that operators without any are seen. Height goes with
   the square root of activation bytes, so that small ones are seen beside large ones; the axis has the bytes.
2. Each bar has a class for every way of colouring; the page shows one of them at a time.
3. Neighbours of one segment are taken together where there are more operators than a page can hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from graphcut.report.html.report_facts import Facts, OperatorFacts
from graphcut.report.html.svg import (
    CHARACTER,
    WIDTH,
    byte_label,
    byte_ticks,
    figure,
    lanes,
    line,
    linear,
    rect,
    shown,
    tag,
    text,
)
from graphcut.units import format_bytes

COLOURS = 8
"""Segments get so many colours in turn."""
DB_LIMITS = (10.0, 20.0, 30.0, 40.0)
TIME_LIMITS = (0.01, 0.05, 0.15, 0.4)
"""Shares of the slowest operator's time that bound the classes."""
MOST_BARS = 1500

_LEFT, _RIGHT, _TOP, _PLOT, _LANE = 64, 12, 26, 190, 17
_LONGEST_NAME = 30


def strip(facts: Facts, name: str = "strip") -> str:
    """Draw the strip.

    Args:
        facts: of a split or plan with at least one operator.
        name: of the figure.
    """
    operators = together(facts.operators)
    room = WIDTH - _LEFT - _RIGHT
    places = _places(operators, room)
    tallest = max(each.activation_bytes for each in operators) or 1
    height = linear(0.0, math.sqrt(tallest), 0.0, _PLOT)
    base = _TOP + _PLOT
    slowest = max((each.time_ms or 0.0 for each in operators), default=0.0)
    bars = [
        rect(
            _LEFT + start,
            base - max(height(math.sqrt(each.activation_bytes)), 1.5),
            stop - start,
            max(height(math.sqrt(each.activation_bytes)), 1.5),
            classes(each, slowest),
            described(each, by_operator=facts.by_operator),
        )
        for each, (start, stop) in zip(operators, places, strict=True)
    ]
    axis = [
        part
        for size in _axis(tallest)
        for part in (
            line(_LEFT, base - height(math.sqrt(size)), WIDTH - _RIGHT, base - height(math.sqrt(size)), "grid"),
            text(_LEFT - 6, base - height(math.sqrt(size)) + 4, byte_label(size), "tick", "end"),
        )
    ]
    cuts, depth = _cuts(facts.cuts, _bounds(operators, places), base)
    total = sum(each.parameter_bytes for each in operators)
    return figure(
        name,
        base + depth + 24,
        f"{facts.model}: operators in execution order",
        f"{len(facts.operators)} operators in {facts.k} segments. A bar's width is its parameter bytes of "
        f"{format_bytes(total)} in all, its height its activation bytes, {format_bytes(tallest)} at most.",
        *axis,
        tag("g", *bars, class_="bars"),
        line(_LEFT, base, WIDTH - _RIGHT, base, "axis"),
        *_segment_names(facts, _bounds(operators, places)),
        *cuts,
        text(_LEFT, base + depth + 18, f"width: parameters, {format_bytes(total)} in all", "note"),
        text(WIDTH - _RIGHT, base + depth + 18, "height: activations (square-root scale)", "note", "end"),
    )


def together(operators: Sequence[OperatorFacts], most: int = MOST_BARS) -> tuple[OperatorFacts, ...]:
    """Take neighbours of a segment together until there are about ``most`` (statement 3)."""
    step = -(-len(operators) // most)
    if step == 1:
        return tuple(operators)
    merged = []
    for _, group in groupby(operators, key=lambda each: each.segment):
        own = list(group)
        merged += [_merged(own[index : index + step]) for index in range(0, len(own), step)]
    return tuple(merged)


def classes(operator: OperatorFacts, slowest_ms: float) -> str:
    """Name the classes of a bar (statement 2)."""
    db, time = operator.sqnr_db, operator.time_ms
    return " ".join(
        (
            "op",
            f"s{(operator.segment - 1) % COLOURS}",
            "dn" if db is None else f"d{sum(db >= limit for limit in DB_LIMITS)}",
            "pt" if operator.on_chip else "pc",
            "tn"
            if time is None
            else f"t{sum(time >= limit * slowest_ms for limit in TIME_LIMITS) if slowest_ms else 0}",
        )
    )


def described(operator: OperatorFacts, *, by_operator: bool) -> str:
    """Say in a line what a bar is."""
    parts = [
        operator.layer,
        operator.op,
        f"segment {operator.segment}",
        f"{format_bytes(operator.parameter_bytes)} parameters",
        f"{format_bytes(operator.activation_bytes)} activations",
        f"{operator.macs / 1e6:,.1f} M MACs",
        ("on the chip, streams" if operator.streams else "on the chip")
        if operator.on_chip
        else f"on the CPU: {operator.reason}",
    ]
    if operator.time_ms is not None:
        parts.append(f"about {operator.time_ms:.3f} ms (ESTIMATED)")
    if operator.sqnr_db is not None:
        parts.append(f"{operator.sqnr_db:.1f} dB{'' if by_operator else ' at the next seam'}")
    return " · ".join(parts)


def _merged(own: Sequence[OperatorFacts]) -> OperatorFacts:
    if len(own) == 1:
        return own[0]
    kinds = ", ".join(dict.fromkeys(each.op for each in own))
    left_out = next((each for each in own if not each.on_chip), None)
    decibels = [each.sqnr_db for each in own if each.sqnr_db is not None]
    return replace(
        own[0],
        layer=f"{own[0].layer} .. {own[-1].layer}",
        op=shown(kinds, 60),
        parameter_bytes=sum(each.parameter_bytes for each in own),
        activation_bytes=max(each.activation_bytes for each in own),
        macs=sum(each.macs for each in own),
        on_chip=left_out is None,
        reason="" if left_out is None else left_out.reason,
        streams=any(each.streams for each in own),
        sqnr_db=min(decibels, default=None),
        time_ms=None if own[0].time_ms is None else sum(each.time_ms or 0.0 for each in own),
    )


def _places(operators: Sequence[OperatorFacts], room: float) -> list[tuple[float, float]]:
    """Where each bar starts and stops (statement 1)."""
    least = min(2.0, 0.5 * room / len(operators))
    total = sum(each.parameter_bytes for each in operators) or 1
    spare = room - least * len(operators)
    places, at = [], 0.0
    for each in operators:
        width = least + spare * each.parameter_bytes / total
        places.append((at, at + width))
        at += width
    return places


def _bounds(operators: Sequence[OperatorFacts], places: Sequence[tuple[float, float]]) -> list[float]:
    """Where segments begin and the last one ends."""
    starts = [
        place[0]
        for before, each, place in zip((None, *operators), operators, places, strict=False)
        if before is None or before.segment != each.segment
    ]
    return [*starts, places[-1][1]]


def _segment_names(facts: Facts, bounds: Sequence[float]) -> list[str]:
    """Number the segments over the strip, as far as there is room."""
    written = []
    for each, (start, stop) in zip(facts.segments, pairwise(bounds), strict=False):
        long = f"segment {each.index}"
        words = long if stop - start > 8 * len(long) else str(each.index)
        if stop - start >= 8 * len(words):
            written.append(text(_LEFT + (start + stop) / 2, _TOP - 10, words, "segment-name", "middle"))
    return written


def _cuts(cuts: Sequence[str], bounds: Sequence[float], base: float) -> tuple[list[str], float]:
    """Draw the cuts with their names below the strip, each in a lane where it overlaps no other."""
    names = [shown(each, _LONGEST_NAME) for each in cuts]
    spans = []
    for name, place in zip(names, bounds[1:-1], strict=False):
        width = CHARACTER * len(name)
        start = min(max(_LEFT + place - width / 2, _LEFT), WIDTH - _RIGHT - width)
        spans.append((start, start + width))
    order = sorted(range(len(spans)), key=lambda index: spans[index][0])
    chosen = dict(zip(order, lanes([spans[index] for index in order]), strict=True))
    drawn, written = [], []
    for index, (name, span) in enumerate(zip(names, spans, strict=True)):
        place, below = _LEFT + bounds[index + 1], base + 18 + _LANE * chosen[index]
        drawn.append(line(place, _TOP - 4, place, below - 11, "cut"))
        written.append(tag("rect", x=span[0] - 3, y=below - 11, width=span[1] - span[0] + 6, height=15, class_="paper"))
        written.append(text(span[0], below, name, "name"))
    return [*drawn, *written], _LANE * (1 + max(chosen.values(), default=-1)) + 8


def _axis(tallest: int) -> list[float]:
    """Choose sizes for an axis by square roots: a quarter as many bytes are half as high."""
    top = byte_ticks(tallest)[-1]
    return [each for each in (top, top / 4, top / 16) if each >= 1]
