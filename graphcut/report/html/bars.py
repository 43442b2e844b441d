"""Segments against the budget: file, predicted compiled file with its interval, room on the chip, what streams.

The room of small models lies far outside of their bars; it is then written and not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphcut.report.html.report_facts import Facts, SegmentFacts
from graphcut.report.html.svg import WIDTH, Scale, byte_label, byte_ticks, figure, line, linear, rect, tag, text
from graphcut.units import format_bytes

_LEFT, _RIGHT, _TOP, _ROW = 88, 168, 30, 36


def segment_bars(facts: Facts, name: str = "segments") -> str:
    """Draw a row per segment.

    Args:
        facts: of a split or plan.
        name: of the figure.
    """
    rows = facts.segments
    longest = max(
        *(each.tflite_bytes for each in rows),
        *(each.compiled_high for each in rows),
        facts.budget_bytes or 0,
    )
    widest = max(each.room_bytes for each in rows)
    longest = max(longest, widest) if widest <= 1.5 * longest else longest
    x = linear(0.0, longest * 1.02, _LEFT, WIDTH - _RIGHT)
    bottom = _TOP + _ROW * len(rows)
    drawn = [part for number, each in enumerate(rows) for part in _row(each, _TOP + _ROW * number, x)]
    grid = [
        part
        for size in byte_ticks(longest)
        for part in (
            line(x(size), _TOP, x(size), bottom, "grid"),
            text(x(size), bottom + 16, byte_label(size), "tick", "middle"),
        )
    ]
    limit = facts.budget_bytes
    over = [] if limit is None else [each.index for each in rows if each.tflite_bytes > limit]
    budget = [] if limit is None else _budget(limit, x, bottom)
    streaming = [each.index for each in rows if each.off_chip_bytes]
    return figure(
        name,
        bottom + 28,
        f"{facts.model}: segments against the budget",
        f"{_within(limit, over)} {_streams(streaming)}",
        *grid,
        *drawn,
        line(_LEFT, _TOP, _LEFT, bottom, "axis"),
        *budget,
    )


def _row(each: SegmentFacts, top: float, x: Scale) -> list[str]:
    state = "" if each.measured else " predicted"
    streams = format_bytes(each.off_chip_bytes) if each.off_chip_bytes else ""
    kept = min(each.parameter_bytes, each.room_bytes)
    return [
        text(_LEFT - 8, top + 19, f"segment {each.index}", "label", "end"),
        rect(x(0), top + 5, x(each.tflite_bytes) - x(0), 12, f"file s{(each.index - 1) % 8}", ""),
        tag(
            "g",
            tag("title", f"segment {each.index}: parameters kept on the chip {format_bytes(kept)}"),
            rect(x(0), top + 20, x(kept) - x(0), 5, "kept"),
        ),
        *(
            [rect(x(kept), top + 20, x(each.parameter_bytes) - x(kept), 5, "streams", f"streams {streams}")]
            if streams
            else []
        ),
        *_room(each, x, top),
        line(x(each.compiled_low), top + 11, x(each.compiled_high), top + 11, "whisker"),
        line(x(each.compiled_low), top + 7, x(each.compiled_low), top + 15, "whisker"),
        line(x(each.compiled_high), top + 7, x(each.compiled_high), top + 15, "whisker"),
        tag("circle", cx=x(each.compiled_bytes), cy=top + 11, r=3.0, class_="compiled"),
        text(WIDTH - _RIGHT + 10, top + 15, f"{format_bytes(each.tflite_bytes)}{state}", "value"),
        text(
            WIDTH - _RIGHT + 10,
            top + 28,
            f"streams {streams}" if streams else f"room {format_bytes(each.room_bytes)}",
            "value warn" if streams else "value quiet",
        ),
    ]


def _room(each: SegmentFacts, x: Scale, top: float) -> list[str]:
    """Mark the room on the chip, as far as it lies in the figure."""
    place = x(each.room_bytes)
    if place > WIDTH - _RIGHT:
        return []
    return [
        line(place, top + 16, place, top + 29, "room"),
        *([line(x(each.parameter_bytes), top + 22.5, place, top + 22.5, "spare")] if not each.off_chip_bytes else []),
    ]


def _budget(limit: int, x: Scale, bottom: float) -> list[str]:
    return [
        line(x(limit), _TOP - 8, x(limit), bottom, "budget"),
        text(min(x(limit), WIDTH - _RIGHT), _TOP - 13, f"budget {format_bytes(limit)}", "budget-name", "end"),
    ]


def _within(limit: int | None, over: Sequence[int]) -> str:
    if limit is None:
        return "No budget was given."
    if over:
        return f"Segments {', '.join(map(str, over))} are above the budget of {format_bytes(limit)}."
    return f"Every file is within the budget of {format_bytes(limit)}."


def _streams(streaming: Sequence[int]) -> str:
    if not streaming:
        return "All parameters are expected to stay on the chip."
    return f"Segments {', '.join(map(str, streaming))} are expected to stream parameters at every inference."
