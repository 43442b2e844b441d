"""The best plans for a fleet of devices, side by side, and which of them is recommended."""

from __future__ import annotations

from typing import Any

from graphcut.codec import to_json
from graphcut.records import Deployment, Plan
from graphcut.report.tables import Shown, TextTable, table
from graphcut.units import format_bytes


def fleet_json(plan: Plan, command: str) -> dict[str, Any]:
    """Write the alternatives and the command that makes the recommended one."""
    return {
        "alternatives": [to_json(each) for each in plan.alternatives],
        "recommended": {"cuts": list(plan.cuts), "command": command},
    }


def fleet_text(plan: Plan, command: str) -> Shown:
    """Show the alternatives, and recommend one."""
    assert plan.deployment is not None, "the plan is for a fleet"
    facts = ("a result every", "a second", "latency", "streams", "bus busy")
    headers = ("best by", "segments", "devices", "segments x copies, in order", *facts)
    rows = [_row(each, plan.deployment) for each in plan.alternatives]
    said: list[str | TextTable] = [table(headers, rows, right=("segments", "devices", *facts))]
    shared = any(stage.stop - stage.first > 1 for each in plan.alternatives for stage in each.stages)
    if shared:
        most = max(each.batch for each in plan.alternatives)
        said.append(f"a+b share a device: it takes {most} inputs together; latency is that of all of them")
    best = plan.deployment
    said.append(
        f"recommended: {_layout(best)}, a result every {best.interval_us / 1000:.2f} ms "
        f"({1e6 / best.interval_us:.1f} a second), {best.latency_us / 1000:.2f} ms each: "
        f"`{command}`"
    )
    return said


def _row(each: Deployment, chosen: Deployment) -> tuple[str, ...]:
    return (
        f"{each.objective}{' *' if each == chosen else ''}",
        str(len(each.cuts) + 1),
        str(each.devices),
        _layout(each),
        f"{each.interval_us / 1000:.2f} ms",
        f"{1e6 / each.interval_us:.1f}",
        f"{each.latency_us / 1000:.2f} ms",
        format_bytes(each.streamed_bytes) if each.streamed_bytes else "none",
        f"{each.bus_us / each.interval_us:.0%}" if each.bus_us else "-",
    )


def _layout(each: Deployment) -> str:
    """Segments and copies: "1 | 2 x 3 | 3+4": 2 on three devices, 3 and 4 together on one; kinds where they differ."""
    kinds = {stage.device for stage in each.stages}
    shown = []
    for stage in each.stages:
        text = "+".join(str(number + 1) for number in range(stage.first, stage.stop))
        text += f" x {stage.copies}" if stage.copies > 1 else ""
        shown.append(f"{text} ({stage.device})" if len(kinds) > 1 else text)
    return " | ".join(shown)
