"""The trade-off: number of segments against the largest file and the time per result. All of it is predicted.

1. The line is the best plan for every number of segments. Columns are shaded where that plan streams nothing.
2. Other objectives, and the rules of other tools, are numbered points; points that coincide stand beside each other.
3. Values that differ by a factor of 4 or more stand on a logarithmic axis, for the largest file falls with 1 / K;
   others on one from zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphcut.report.html.report_facts import Facts, Option
from graphcut.report.html.svg import (
    WIDTH,
    Scale,
    figure,
    line,
    linear,
    log_ticks,
    logarithmic,
    rect,
    tag,
    text,
    ticks,
)
from graphcut.units import MIB, format_bytes

SWEPT = "sweep"
"""Name of the options on the line."""

_FAR = 4
_LEFT, _RIGHT, _PANEL, _TOP, _BETWEEN, _RADIUS = 76, 20, 170, 22, 46, 8.5


def tradeoff(facts: Facts, name: str = "tradeoff") -> str:
    """Draw both panels.

    Args:
        facts: with at least two swept options.
        name: of the figure.
    """
    swept = sorted((each for each in facts.options if each.name == SWEPT), key=lambda each: each.k)
    others = [each for each in facts.options if each.name != SWEPT]
    first, last = swept[0].k, max(each.k for each in facts.options)
    half = (WIDTH - _LEFT - _RIGHT) / (last - first + 1) / 2
    x = linear(first, last, _LEFT + half, WIDTH - _RIGHT - half)
    lower = _TOP + _PANEL + _BETWEEN
    fits = [each.k for each in swept if not each.off_chip_bytes]
    return figure(
        name,
        lower + _PANEL + 40,
        f"{facts.model}: number of segments against size and time (ESTIMATED)",
        f"With {facts.k} segments the largest file has {format_bytes(facts.largest_bytes)}. "
        + (f"From {min(fits)} segments on nothing streams." if fits else "With every number of segments some stream."),
        *_panel("largest int8 file", swept, others, facts, x, half, _TOP, lambda each: each.largest_bytes / MIB, _mib),
        *_panel("time per result, ESTIMATED", swept, others, facts, x, half, lower, lambda each: each.interval_ms, _ms),
        *_numbers(swept, facts.k, x, half, lower + _PANEL + 16),
        text(WIDTH - _RIGHT, lower + _PANEL + 34, "number of segments K", "note", "end"),
    )


def _panel(
    heading: str,
    swept: Sequence[Option],
    others: Sequence[Option],
    facts: Facts,
    x: Scale,
    half: float,
    top: float,
    value: Callable[[Option], float],
    shown: Callable[[float], str],
) -> list[str]:
    values = [max(value(each), 1e-6) for each in (*swept, *others)]
    low, high = min(values) / 1.25, max(values) * 1.2
    far = max(values) >= _FAR * min(values)
    y = logarithmic(low, high, top + _PANEL, top) if far else linear(0.0, high, top + _PANEL, top)
    bands = [
        rect(x(each.k) - half, top, 2 * half, _PANEL, "band-streams" if each.off_chip_bytes else "band-fits")
        for each in swept
    ]
    grid = [
        part
        for tick in (log_ticks(low, high) if far else ticks(high))
        for part in (
            line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "grid"),
            text(_LEFT - 6, y(tick) + 4, shown(tick), "tick", "end"),
        )
    ]
    path = "M" + "L".join(f"{x(each.k):.1f} {y(value(each)):.1f}" for each in swept)
    dots = [
        tag(
            "circle",
            tag("title", f"K = {each.k}: {shown(value(each))}"),
            cx=x(each.k),
            cy=y(value(each)),
            r=5.5 if each.k == facts.k else 3.0,
            class_="dot chosen" if each.k == facts.k else "dot",
        )
        for each in swept
    ]
    mark = [line(x(facts.k), top, x(facts.k), top + _PANEL, "chosen-line")] if swept[0].k <= facts.k else []
    return [
        *bands,
        *grid,
        *mark,
        line(_LEFT, top + _PANEL, WIDTH - _RIGHT, top + _PANEL, "axis"),
        tag("path", d=path, class_="curve"),
        *dots,
        *_points(others, x, y, value),
        text(_LEFT, top - 8, f"{heading}, logarithmic" if far else heading, "panel"),
    ]


def _numbers(swept: Sequence[Option], chosen: int, x: Scale, half: float, y: float) -> list[str]:
    """Write the numbers of segments below their columns, as far as there is room; the chosen one always."""
    step = -(-24 // max(int(2 * half), 1))
    return [
        text(x(each.k), y, str(each.k), "tick chosen-name" if each.k == chosen else "tick", "middle")
        for each in swept
        if each.k == chosen or (each.k % step == 0 and abs(each.k - chosen) >= step)
    ]


def _points(others: Sequence[Option], x: Scale, y: Scale, value: Callable[[Option], float]) -> list[str]:
    """Draw numbered points, moved aside until none covers another (statement 2)."""
    placed: list[tuple[float, float]] = []
    drawn, leaders = [], []
    for number, each in enumerate(others, start=1):
        across, up = x(each.k), y(max(value(each), 1e-6))
        step = 2 * _RADIUS + 1
        for shift in (sign * step * index for index in range(1, 2 * len(others) + 2) for sign in (1, -1)):
            here = across + shift
            inside = _LEFT + _RADIUS <= here <= WIDTH - _RIGHT - _RADIUS
            if inside and all((here - a) ** 2 + (up - b) ** 2 >= step**2 - 1 for a, b in placed):
                break
        placed.append((here, up))
        leaders.append(line(across, up, here, up, "leader"))
        drawn.append(
            tag(
                "g",
                tag("title", f"{each.name}: K = {each.k}"),
                tag("circle", cx=here, cy=up, r=_RADIUS, class_="point"),
                text(here, up + 4, str(number), "point-number", "middle"),
            )
        )
    return [*leaders, *drawn]


def _mib(value: float) -> str:
    return f"{value:g} MiB"


def _ms(value: float) -> str:
    return f"{value:g} ms"
