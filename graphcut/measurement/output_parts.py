"""The parts of a model's outputs that have different ranges, and the quality of each in int8.

One figure for an output with boxes in pixels and scores in 0..1 says nothing about the scores: the boxes have all the
energy.

1. The *channels* of an output are the indices on one of its axes. Each has a *peak*, its largest absolute value in
   float over all samples. Sorted by peak, channels divide where one peak is more than ``GAP`` times the one before.
2. Each group is a *part*. Groups all of whose values are in [0, 1], to float32 rounding, are one part, *scores*: most
   classes are absent from most pictures, so their peaks differ.
3. The axis is the one whose parts lie together in the fewest runs of channels. An axis with more than ``MOST_RUNS``
   runs does not tell parts apart. Where no axis does, the output is one part, as is a map of one channel: its rows and
   columns are places, and nothing need be found at the margins.
4. A part whose peak is below ``SILENT`` of the output's peak carries no signal and is left out.
5. A vector of classes with a softmax is one part: its logits are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from graphcut.measurement.metrics import sqnr_db
from graphcut.records import Array, OutputPart

GAP = 8.0
"""int8 has 256 steps: a part with an eighth of another's range loses 3 of its 8 bits under one scale."""
MOST_RUNS = 6
SILENT = 1e-6
_ROUNDING = 1e-6
"""By which a sigmoid in float32 may pass 1."""
_MOST_CHANNELS = 4096

Runs = tuple[tuple[int, int], ...]


def output_parts(layer: str, wanted: Array, got: Array) -> tuple[OutputPart, ...]:
    """Measure the parts of an output.

    Args:
        layer: name of the output, for people.
        wanted, got: (N, ...) float and int8 values, in the same layout, NHWC where the rank is 4.
    """
    axis, groups = _divided(wanted)
    whole = float(np.abs(wanted).max(initial=0.0))
    parts = []
    for runs in groups:  # one empty run where the output is one part
        chosen = [channel for start, stop in runs for channel in range(start, stop)]
        float_values = np.take(wanted, chosen, axis) if len(groups) > 1 else wanted
        int8_values = np.take(got, chosen, axis) if len(groups) > 1 else got
        if len(groups) > 1 and float(np.abs(float_values).max(initial=0.0)) < SILENT * whole:
            continue
        low, high = float(float_values.min(initial=0.0)), float(float_values.max(initial=0.0))
        parts.append(
            OutputPart(
                name=_name(layer, runs, low, high) if len(groups) > 1 else layer,
                output=layer,
                axis=axis if len(groups) > 1 else None,
                channels=runs if len(groups) > 1 else (),
                sqnr_db=sqnr_db(float_values, int8_values),
                constant=_constant(float_values, int8_values),
                low=low,
                high=high,
            )
        )
    return tuple(parts)


def _constant(wanted: Array, got: Array) -> float | None:
    """The value that int8 gives everywhere where float does not; None otherwise."""
    return float(got.flat[0]) if got.size and np.ptp(got) == 0 and np.ptp(wanted) > 0 else None


def _divided(wanted: Array) -> tuple[int, tuple[Runs, ...]]:
    """The axis of the channels, and the runs of channels of each part (statements 1 to 3)."""
    best: tuple[int, int, tuple[Runs, ...]] | None = None
    is_plane = wanted.ndim == 4 and wanted.shape[-1] == 1
    for axis in range(1, 1 if is_plane else wanted.ndim):
        if not 2 <= wanted.shape[axis] <= _MOST_CHANNELS:
            continue
        groups = _groups(wanted, axis)
        runs = sum(map(len, groups))
        if len(groups) > 1 and runs <= MOST_RUNS and (best is None or runs < best[0]):
            best = runs, axis, groups
    return (1, ((),)) if best is None else best[1:]


def _groups(wanted: Array, axis: int) -> tuple[Runs, ...]:
    others = tuple(number for number in range(wanted.ndim) if number != axis)
    low, high = wanted.min(axis=others), wanted.max(axis=others)
    peaks = np.maximum(np.abs(low), np.abs(high))
    order = np.argsort(peaks, kind="stable")
    rising = np.maximum(peaks[order], np.finfo(np.float32).tiny)
    bounds = np.flatnonzero(rising[1:] > GAP * rising[:-1]) + 1
    divided: list[list[int]] = [group.tolist() for group in np.split(order, bounds)]
    scores = [group for group in divided if _is_share(low[group].min(), high[group].max())]
    rest = [group for group in divided if group not in scores]
    merged = [[channel for group in scores for channel in group]] if scores else []
    return tuple(_runs(sorted(group)) for group in (*merged, *rest))


def _is_share(low: float, high: float) -> bool:
    return low >= -_ROUNDING and high <= 1 + _ROUNDING


def _runs(channels: Sequence[int]) -> Runs:
    """Half-open runs of consecutive numbers."""
    found = []
    for _, members in groupby(enumerate(channels), lambda each: each[1] - each[0]):
        run = [number for _, number in members]
        found.append((run[0], run[-1] + 1))
    return tuple(found)


def _name(layer: str, runs: Sequence[tuple[int, int]], low: float, high: float) -> str:
    shown = ", ".join(f"{start}" if stop == start + 1 else f"{start}..{stop - 1}" for start, stop in runs)
    several = len(runs) > 1 or runs[0][1] > runs[0][0] + 1
    where = f"channel{'s' if several else ''} {shown} of {layer}"
    return f"scores ({where})" if _is_share(low, high) else where
