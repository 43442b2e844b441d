"""The int8 error: along the chain, the worst places first, and over the samples.

The unit is dB of signal over quantisation noise: 6 dB more halve the noise amplitude. Infinite values (no noise at all)
are drawn at the end of the axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from graphcut.report.html.report_facts import Facts, SampleSet
from graphcut.report.html.strip import DB_LIMITS
from graphcut.report.html.svg import (
    CHARACTER,
    WIDTH,
    Scale,
    figure,
    line,
    linear,
    rect,
    shown,
    tag,
    text,
    ticks,
)

MOST_BARS = 24
_LONGEST_NAME = 34
_RIGHT, _TOP, _ROW = 70, 14, 22


def places(facts: Facts) -> list[tuple[str, str, float]]:
    """List what was measured: name, role ("seam", "output" or the operator's kind) and dB, the worst first."""
    found: list[tuple[str, str, float]] = [(each.layer, each.role, each.sqnr_db) for each in facts.seams]
    if facts.by_operator:
        known = {layer for layer, _, _ in found}
        found += [
            (each.layer, each.op, each.sqnr_db)
            for each in facts.operators
            if each.sqnr_db is not None and each.layer not in known
        ]
    return sorted(found, key=lambda each: each[2])


def worst(facts: Facts, name: str = "worst") -> str:
    """Draw the worst places as bars.

    Args:
        facts: with at least one seam or output.
        name: of the figure.
    """
    rows = places(facts)[:MOST_BARS]
    labels = [shown(layer, _LONGEST_NAME) for layer, _, _ in rows]
    left = 16 + CHARACTER * max(map(len, labels))
    high = max((value for _, _, value in rows if math.isfinite(value)), default=40.0)
    low = min(0.0, min((value for _, _, value in rows if math.isfinite(value)), default=0.0))
    x = linear(low, max(high, 10.0) * 1.02, left, WIDTH - _RIGHT)
    bottom = _TOP + _ROW * len(rows)
    grid = _axis(x, max(high, 10.0), _TOP, bottom)
    bars = []
    for number, ((layer, role, value), label) in enumerate(zip(rows, labels, strict=True)):
        top = _TOP + _ROW * number
        end = x(value) if math.isfinite(value) else (WIDTH - _RIGHT if value > 0 else x(low))
        start = x(min(0.0, low) if value >= 0 else 0.0)
        bars += [
            text(left - 8, top + 15, label, "name", "end"),
            rect(
                min(start, end),
                top + 5,
                abs(end - start),
                12,
                f"db {level(value)}",
                f"{layer} ({role}): {decibels(value)}",
            ),
            text(max(start, end) + 6, top + 15, decibels(value), "value"),
        ]
    return figure(
        name,
        bottom + 26,
        f"{facts.model}: the largest int8 errors",
        f"The weakest of {len(places(facts))} measured places is {shown(rows[0][0])} with {decibels(rows[0][2])}.",
        *grid,
        *bars,
        line(left, _TOP, left, bottom, "axis"),
    )


def samples(sets: Sequence[SampleSet], name: str = "samples") -> str:
    """Draw a dot a sample, a row a set of samples.

    Args:
        sets: with at least one sample in all.
        name: of the figure.
    """
    found = [each.sqnr_db for one in sets for each in one.samples if math.isfinite(each.sqnr_db)]
    high, low = max(found, default=40.0), min(found, default=0.0)
    left = 110
    x = linear(low - 1, high + 1, left, WIDTH - _RIGHT)
    drawn: list[str] = []
    top = float(_TOP)
    for one in sets:
        heights = _stacked([x(_finite(each.sqnr_db, low, high)) for each in one.samples])
        tall = 14 + 9 * (1 + max(heights, default=0))
        base = top + tall - 8
        drawn += [
            text(left - 8, base, shown(one.name, 14), "label", "end"),
            line(left, base + 5, WIDTH - _RIGHT, base + 5, "axis"),
        ]
        drawn += [
            tag(
                "circle",
                tag("title", escape(f"{shown(each.name)}: {decibels(each.sqnr_db)}")),
                cx=x(_finite(each.sqnr_db, low, high)),
                cy=base - 9 * height,
                r=4.0,
                class_=f"sample {level(each.sqnr_db)}",
            )
            for each, height in zip(one.samples, heights, strict=True)
        ]
        top += tall + 12
    said = "; ".join(f"{one.name}: {len(one.samples)} samples, worst {decibels(_least(one))}" for one in sets)
    return figure(
        name,
        top + 26,
        "Distribution of the error over the samples",
        f"{said}.",
        *_axis(x, high + 1, _TOP, top, low - 1),
        *drawn,
    )


def level(value: float) -> str:
    """Name the class of a dB value."""
    return f"d{sum(value >= limit for limit in DB_LIMITS)}"


def decibels(value: float) -> str:
    """Write a dB value."""
    if math.isfinite(value):
        return f"{value:.1f} dB"
    return "no noise" if value > 0 else "no signal"


def _least(one: SampleSet) -> float:
    return min((each.sqnr_db for each in one.samples), default=math.inf)


def _finite(value: float, low: float, high: float) -> float:
    return value if math.isfinite(value) else (high + 1 if value > 0 else low - 1)


def _axis(x: Scale, high: float, top: float, bottom: float, low: float = 0.0) -> list[str]:
    return [
        part
        for tick in _between(low, high)
        for part in (
            line(x(tick), top, x(tick), bottom, "grid"),
            text(x(tick), bottom + 16, f"{tick:g} dB", "tick", "middle"),
        )
    ]


def _between(low: float, high: float) -> list[float]:
    """Choose round numbers within ``low``..``high``."""
    step = ticks(high - low, 6)[1]
    first = math.ceil(low / step)
    return [step * number for number in range(first, math.floor(high / step) + 1)]


def _stacked(centres: Sequence[float]) -> list[int]:
    """Put dots that would cover one another on top of each other; heights in the order of ``centres``."""
    placed: list[tuple[float, int]] = []
    heights = []
    for centre in centres:
        near = {height for other, height in placed if abs(other - centre) < 9}
        height = next(number for number in range(len(near) + 1) if number not in near)
        placed.append((centre, height))
        heights.append(height)
    return heights
