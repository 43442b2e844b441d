"""A bench as a table and as JSON: measurements first, estimates separately."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from graphcut.deploy.benchmark import Bench
from graphcut.deploy.simulation import Simulated
from graphcut.prediction.latency import Link
from graphcut.report.simulation_tables import ESTIMATED
from graphcut.report.tables import SYNTHETIC, Shown, TextTable, table
from graphcut.units import format_bytes


def bench_text(result: Bench, estimates: Mapping[str, tuple[Link, Simulated]]) -> Shown:
    """Show what was measured, then what is estimated.

    Args:
        result: measured.
        estimates: name of a way -> the link it stands for and its simulation; may be empty.
    """
    ways = table(
        ("way", "p50 ms", "p95 ms", "p99 ms", "first ms", "open ms", "results/s", "memory", "processors"),
        [
            (
                each.way,
                f"{each.p50_ms:.2f}",
                f"{each.p95_ms:.2f}",
                f"{each.p99_ms:.2f}",
                f"{each.first_ms:.1f}",
                f"{each.open_ms:.0f}",
                f"{each.throughput_per_s:.1f}",
                format_bytes(each.resident_bytes),
                f"{each.processors:.2f}",
            )
            for each in result.ways
        ],
        right=("p50 ms", "p95 ms", "p99 ms", "first ms", "open ms", "results/s", "memory", "processors"),
    )
    parts = table(
        ("part", "p50 ms", "p95 ms", "share"),
        [(part.label, f"{part.p50_ms:.2f}", f"{part.p95_ms:.2f}", f"{part.share:.0%}") for part in result.parts],
        right=("p50 ms", "p95 ms", "share"),
    )
    stations = table(
        ("station", "devices", "queue p50 ms", "queue p95 ms", "busy", "blocked s", "faults"),
        [
            (
                each.labels[0] if len(each.labels) == 1 else f"{each.labels[0]} .. {each.labels[-1]}",
                ",".join(each.devices),
                f"{each.wait_p50_ms:.2f}",
                f"{each.wait_p95_ms:.2f}",
                f"{each.busy:.0%}",
                f"{each.blocked_s:.2f}",
                str(each.faults),
            )
            for each in result.stations
        ],
        right=("queue p50 ms", "queue p95 ms", "busy", "blocked s", "faults"),
    )
    lines: list[str | TextTable] = [
        f"MEASURED: {result.name}, {result.way}, {result.inferences} inferences of each way, same bytes from all"
    ]
    lines += [result.runtime, result.machine]
    if result.synthetic:
        lines.append(SYNTHETIC)
    lines += ["", ways, ""]
    if result.overhead is not None:
        lines.append(f"chain over unsplit      {result.overhead:+.1%}  (rounds differ by {result.overhead_spread:.1%})")
    lines.append(f"pipeline over chain     {result.speedup:.2f}x  (rounds differ by {result.speedup_spread:.2f})")
    lines += ["", parts, "", stations]
    lines += [f"note: {remark}" for remark in result.remarks]
    if estimates:
        estimated = table(
            ("on Edge TPUs", "results/s", "p50 ms", "first ms", "bottleneck"),
            [
                (
                    name,
                    f"{each.throughput_per_s:.1f}",
                    f"{each.latency_ms[1]:.1f}",
                    f"{each.first_ms:.0f}",
                    each.bottleneck,
                )
                for name, (_, each) in estimates.items()
            ],
            right=("results/s", "p50 ms", "first ms"),
        )
        lines += ["", f"{ESTIMATED}; see graphcut simulate", "", estimated]
    return lines


def bench_json(result: Bench, estimates: Mapping[str, tuple[Link, Simulated]]) -> dict[str, Any]:
    """Everything that :func:`bench_text` shows, under ``measured`` and ``estimated``."""
    return {
        "measured": asdict(result),
        "estimated": {
            name: {
                "link": link.name,
                "throughput_per_s": each.throughput_per_s,
                "latency_p50_ms": each.latency_ms[1],
                "first_ms": each.first_ms,
                "bottleneck": each.bottleneck,
            }
            for name, (link, each) in estimates.items()
        },
    }
