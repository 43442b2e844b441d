"""Plans with what they cost, as JSON values and as text. Times and what streams are estimates, and say so."""

from __future__ import annotations

from collections.abc import Sequence

from graphcut.codec import to_json
from graphcut.planning.compare import Compared
from graphcut.prediction.segment_costs import PlanCost, SegmentCost
from graphcut.record_schema import Json
from graphcut.records import Plan
from graphcut.report.tables import Shown, TextTable, plan_lines, segments_table, table
from graphcut.units import MIB, format_bytes, format_number, format_rate

ESTIMATED = "times and what streams are ESTIMATED from published measurements of other models, not measured"


def plan(record: Plan, cost: PlanCost) -> Json:
    """Write a plan with what its segments cost."""
    document = to_json(record, without=("candidates",))
    for written, own in zip(document["segments"], cost.segments, strict=True):
        written |= to_json(own, without=("predicted_tflite_bytes",))  # the segment's own
    return {**document, "predicted": to_json(cost)}


def plan_text(record: Plan, cost: PlanCost) -> Shown:
    """Show a plan: files, chip and time, and how near to the least K it is."""
    lines: list[str | TextTable] = [segments_table(record.segments), "", costs_table(cost), "", plan_lines(record)]
    # For so many devices the table of deployments says what comes of it (graphcut.report.fleet_tables).
    return [*lines, *([summary(cost)] if record.deployment is None else [])]


def costs_table(cost: PlanCost) -> TextTable:
    """Show what the segments take on the chip and in time."""
    rows = [
        (
            str(index),
            format_bytes(each.parameter_bytes),
            _interval(each),
            format_bytes(each.off_chip_bytes) if each.off_chip_bytes else f"none ({each.fit.probability:.0%})",
            f"{each.macs / 1e6:.0f}",
            format_bytes(each.seam_bytes),
            f"{each.latency_ms:.2f}",
            each.device,
        )
        for index, each in enumerate(cost.segments, start=1)
    ]
    headers = ("segment", "parameters", "compiled MiB", "streams", "M MACs", "hands over", "ms", "device")
    return table(headers, rows, right=headers[:-1])


def summary(cost: PlanCost) -> str:
    """Say what follows for the pipeline."""
    streams = format_bytes(cost.off_chip_bytes) if cost.off_chip_bytes else "nothing"
    return (
        f"estimated: {format_rate(1000 / cost.interval_ms)}, latency {cost.latency_ms:.2f} ms, {streams} streamed and "
        f"{format_bytes(cost.seam_bytes)} handed over at every inference"
    )


def _interval(cost: SegmentCost) -> str:
    expected, low, high = (
        size / MIB for size in (cost.compiled.expected_bytes, cost.compiled.low_bytes, cost.compiled.high_bytes)
    )
    return f"{expected:.3f} ({low:.2f}..{high:.2f})"


def compared_text(rows: Sequence[Compared], first: str) -> Shown:
    """Show ways to cut side by side; ``first`` heads the first column."""
    headers = (first, "asked for", "K", "largest file", "max/mean", "hands over", "streams", "results/s", "latency")
    lines = [
        (
            row.name,
            row.asked,
            str(len(row.segments)),
            format_bytes(max(each.tflite_bytes for each in row.segments)),
            f"{row.cost.balance:.3f}",
            format_bytes(row.cost.seam_bytes),
            format_bytes(row.cost.off_chip_bytes) if row.cost.off_chip_bytes else "none",
            format_number(1000 / row.cost.interval_ms),
            f"{row.cost.latency_ms:.2f} ms",
        )
        for row in rows
        if row.cost is not None
    ]
    refused = [f"{row.name} ({row.asked}): {row.refused}" for row in rows if row.cost is None]
    return [table(headers, lines, right=headers[2:]), *(["", *refused] if refused else []), "", ESTIMATED]
