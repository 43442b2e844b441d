"""The pipeline: what every device does with the first inputs, and when. Estimated or measured, never both."""

from __future__ import annotations

from graphcut.report.html.report_facts import Kind, Timeline
from graphcut.report.html.svg import CHARACTER, WIDTH, figure, line, linear, rect, shown, text, ticks

KINDS: dict[Kind, str] = {
    "transfer": "transfer",
    "waiting": "waiting for the bus",
    "computing": "computing",
    "streaming": "streaming parameters",
}
"""What a device does, in words."""

_RIGHT, _TOP, _ROW = 16, 30, 30
_LONGEST_NAME = 16


def gantt(timeline: Timeline, name: str = "pipeline") -> str:
    """Draw a row per device.

    Args:
        timeline: with at least one span.
        name: of the figure.
    """
    labels = [shown(each, _LONGEST_NAME) for each in timeline.rows]
    left = 16 + CHARACTER * max(map(len, labels))
    end = max(each.stop_ms for each in timeline.spans)
    x = linear(0.0, end, left, WIDTH - _RIGHT)
    bottom = _TOP + _ROW * len(labels)
    grid = [
        part
        for tick in ticks(end, 8)
        for part in (
            line(x(tick), _TOP, x(tick), bottom, "grid"),
            text(x(tick), bottom + 16, f"{tick:g}", "tick", "middle"),
        )
    ]
    bars, measured = [], timeline.stamp == "MEASURED"
    for each in timeline.spans:
        top = _TOP + _ROW * each.row
        waits = each.kind == "waiting"
        bars.append(
            rect(
                x(each.start_ms),
                top + (10 if waits else 4),
                x(each.stop_ms) - x(each.start_ms),
                10 if waits else 22,
                f"g-{each.kind} {'odd' if each.item % 2 else 'even'}",
                f"input {each.item + 1}, {timeline.rows[each.row]}: {'a call' if measured else KINDS[each.kind]} "
                f"{each.start_ms:.2f} to {each.stop_ms:.2f} ms",
            )
        )
        words = str(each.item + 1)
        if each.kind == "computing" and x(each.stop_ms) - x(each.start_ms) > 9 * len(words) + 4:
            bars.append(text((x(each.start_ms) + x(each.stop_ms)) / 2, top + 19, words, "item", "middle"))
    rows = [text(left - 8, _TOP + _ROW * row + 19, label, "name", "end") for row, label in enumerate(labels)]
    inputs = len({each.item for each in timeline.spans})
    return figure(
        name,
        bottom + 40,
        f"The first {inputs} inputs in the pipeline ({timeline.stamp})",
        f"{timeline.stamp}: {timeline.what}. When the pipeline is full a result comes every "
        f"{timeline.interval_ms:.2f} ms; one input takes {timeline.latency_ms:.2f} ms.",
        *grid,
        *rows,
        *bars,
        line(left, bottom, WIDTH - _RIGHT, bottom, "axis"),
        text(left, _TOP - 12, f"{timeline.stamp}: {timeline.what}", "stamp"),
        text(WIDTH - _RIGHT, bottom + 34, "milliseconds since the first input", "note", "end"),
    )
