"""A bench as a picture: a small SVG, written without a plotting library.

Left: latency of each way (p50 as a bar, p99 as a whisker). Right: time of each part in the chain. Nothing estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from graphcut.deploy.benchmark import Bench

_WIDTH, _ROW, _TOP, _LABEL = 860, 24, 78, 150
_PANEL = (_WIDTH - 40) // 2
_COLOURS = {"unsplit": "#7a869a", "chain": "#2d7dd2", "pipeline": "#2a9d57"}
_PART_COLOUR, _INK, _FAINT = "#e08a1e", "#1c2430", "#c9d0da"


def bench_svg(result: Bench) -> str:
    """Return the text of an SVG file."""
    rows = max(len(result.ways), len(result.parts))
    height = _TOP + _ROW * rows + 62
    overhead = "" if result.overhead is None else f"chain {result.overhead:+.1%} over unsplit, "
    body = [
        _text(20, 24, f"{result.name}: {result.way}", size=16, bold=True),
        _text(20, 43, f"{result.runtime}; {result.machine}", size=11),
        *_panel(
            20,
            "latency, ms: p50 (bar) to p99 (whisker)",
            [(each.way, each.p50_ms, each.p99_ms, _COLOURS[each.way]) for each in result.ways],
        ),
        *_panel(
            20 + _PANEL,
            "parts in the chain, ms: p50 to p95",
            [(part.label, part.p50_ms, part.p95_ms, _PART_COLOUR) for part in result.parts],
        ),
        _text(20, height - 34, f"{overhead}pipeline {result.speedup:.2f}x the chain's throughput", size=13, bold=True),
        _text(20, height - 14, _footnote(result), size=11),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" fill="{_INK}">\n<rect width="{_WIDTH}" height="{height}" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _footnote(result: Bench) -> str:
    rates = ", ".join(f"{each.way} {each.throughput_per_s:.1f}" for each in result.ways)
    doubts = [remark.split(":")[0] for remark in result.remarks if remark.startswith(("NOISY", "STARVED"))]
    return f"results/s: {rates}" + "".join(f"; {doubt}" for doubt in doubts)


def _panel(left: int, title: str, bars: Sequence[tuple[str, float, float, str]]) -> list[str]:
    longest = max((high for _, _, high, _ in bars), default=0.0) or 1.0
    room = _PANEL - _LABEL - 70
    lines = [_text(left, _TOP - 12, title, size=12, bold=True)]
    for number, (label, middle, high, colour) in enumerate(bars):
        top = _TOP + number * _ROW
        start, width, reach = left + _LABEL, room * middle / longest, room * high / longest
        lines.append(_text(left + _LABEL - 8, top + 15, label, size=11, anchor="end"))
        lines.append(f'<rect x="{start}" y="{top + 4}" width="{width:.1f}" height="15" fill="{colour}"/>')
        lines.append(
            f'<path d="M{start + width:.1f} {top + 11.5} H{start + reach:.1f} m0 -5 v10" stroke="{_INK}" fill="none"/>'
        )
        lines.append(_text(start + round(reach) + 6, top + 15, f"{middle:.2f}", size=11))
    lines.append(f'<path d="M{left + _LABEL} {_TOP} v{_ROW * len(bars)}" stroke="{_FAINT}" fill="none"/>')
    return lines


def _text(x: int, y: int, words: str, *, size: int, bold: bool = False, anchor: str = "start") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
