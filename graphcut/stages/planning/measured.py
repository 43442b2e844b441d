"""Sizes put right by what was really written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphcut.records import Plan
from graphcut.stages.sizes import Sizes


def corrected(sizes: Sizes, plan: Plan, measured: Sequence[int]) -> Sizes:
    """Scale the bytes of every node so that each segment of the plan has its measured size.

    Inside a segment all nodes are scaled alike, rounded so that the sum is exact. A segment that was predicted to hold
    nothing gets what was measured at its last node. A file smaller than ``base_bytes`` lowers the base to its size.

    Args:
        sizes: that the plan was made with.
        plan: whose segments were converted.
        measured: bytes of the written files, one a segment.

    Raises:
        ValueError: not one size a segment (a bug).
    """
    if len(measured) != plan.k:
        raise ValueError(f"{len(measured)} measured sizes for {plan.k} segments")
    base = min(sizes.base_bytes, *measured)
    prefix = [0]
    for segment, size in zip(plan.segments, measured, strict=True):
        before, begin = prefix[-1], sizes.prefix_bytes[segment.start]
        content = sizes.prefix_bytes[segment.stop] - begin
        prefix += [
            before + (sizes.prefix_bytes[position] - begin) * (size - base) // content if content else before
            for position in range(segment.start + 1, segment.stop)
        ]
        prefix.append(before + size - base)
    return replace(sizes, prefix_bytes=tuple(prefix), base_bytes=base, files=None)
