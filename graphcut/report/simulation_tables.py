"""A simulation as a table and as JSON. Every figure in it is an estimate, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphcut.deploy.simulation import Simulated
from graphcut.prediction.latency import Link, PartCost, first_ms, reload_ms, steady_ms
from graphcut.report.tables import Shown, TextTable, table
from graphcut.runtime.placement import Placement
from graphcut.units import format_bytes, format_rate

ESTIMATED = "ESTIMATED from published measurements of other models, not measured"


def simulation_text(
    result: Simulated, parts: Sequence[PartCost], placement: Placement, link: Link, notes: Sequence[str]
) -> Shown:
    """Show throughput, latency, use and the bottleneck."""
    mean, p50, p95, p99 = result.latency_ms
    costs = table(
        ("part", "compute ms", "on chip", "streamed", "alone ms", "first adds ms"),
        [
            (
                part.label,
                f"{part.compute_ms:.2f}",
                format_bytes(part.on_chip_bytes),
                format_bytes(part.off_chip_bytes),
                f"{steady_ms(part, link):.2f}",
                f"{reload_ms(part, link):.2f}",
            )
            for part in parts
        ],
        right=("compute ms", "on chip", "streamed", "alone ms", "first adds ms"),
    )
    stations = table(
        ("station", "devices", "service ms", "busy", "waits for bus", "blocked", "queue ms"),
        [
            (
                " + ".join(use.labels),
                ",".join(use.devices),
                f"{use.service_ms:.2f}",
                f"{use.busy:.0%}",
                f"{use.bus_wait:.0%}",
                f"{use.blocked:.0%}",
                f"{use.queue_ms:.2f}",
            )
            for use in result.stations
        ],
        right=("service ms", "busy", "waits for bus", "blocked", "queue ms"),
    )
    lines: list[str | TextTable] = [
        f"{ESTIMATED}",
        f"{link.what}, {result.inputs} inputs",
        "",
        costs,
        "",
        stations,
        "",
        f"throughput   {format_rate(result.throughput_per_s)}",
        f"latency ms   mean {mean:.2f}, p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f}; the first input "
        f"{result.first_ms:.1f} (alone, each part on its own device: {first_ms(parts, link):.1f})",
        f"bottleneck   {result.bottleneck}",
    ]
    if link.shared:
        lines.append(f"shared bus   busy {result.bus_busy:.0%}")
    lines += [f"note         {note}" for note in (*placement.notes, *notes)]
    return lines


def simulation_json(
    result: Simulated, parts: Sequence[PartCost], placement: Placement, link: Link, notes: Sequence[str]
) -> dict[str, Any]:
    """Everything that :func:`simulation_text` shows, with keys."""
    mean, p50, p95, p99 = result.latency_ms
    return {
        "estimated": True,
        "link": link._asdict(),
        "inputs": result.inputs,
        "throughput_per_s": result.throughput_per_s,
        "latency_ms": {"mean": mean, "p50": p50, "p95": p95, "p99": p99, "first": result.first_ms},
        "bottleneck": result.bottleneck,
        "bus_busy": result.bus_busy,
        "parts": [{**part._asdict(), "alone_ms": steady_ms(part, link)} for part in parts],
        "stations": [use._asdict() for use in result.stations],
        "notes": [*placement.notes, *notes],
    }
