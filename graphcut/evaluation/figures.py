"""Results of an evaluation: figures with confidence intervals, and the pictures where int8 is worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from graphcut.records import Array, ClassChange, Figure, WorstPicture

FLOAT, INT8 = "float", "int8"
"""The two ways of computing that are always compared; a third is named after its devices."""

RESAMPLES = 1000
CONFIDENCE = 0.95
WORST = 5

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of a task."""

    figures: tuple[Figure, ...]
    worst: tuple[WorstPicture, ...] = ()
    changes: tuple[ClassChange, ...] = ()


def interval(statistic: Callable[[Index], float], count: int, resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """Percentile bootstrap (Efron 1979) over pictures, seeded.

    Args:
        statistic: takes (n,) picture numbers, some of them repeatedly, and returns a figure; NaN is ignored.
        count: number of pictures.
        resamples: how many times pictures are drawn.

    Returns:
        The ends of the 95 % interval; None for fewer than two pictures.
    """
    if count < 2:
        return None
    rng = np.random.default_rng(0)
    drawn = np.array([statistic(rng.integers(0, count, count)) for _ in range(resamples)])
    usable = drawn[np.isfinite(drawn)]
    if not len(usable):
        return None
    low, high = np.percentile(usable, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def ratio(name: str, parts: Mapping[str, Array], wholes: Mapping[str, Array], of: int | None = None) -> Figure:
    """Return a figure that is a sum over pictures divided by another one.

    Args:
        name: of the figure.
        parts, wholes: way -> (pictures,) values.
        of: see :class:`Figure`.
    """
    values, intervals = {}, {}
    for way, part in parts.items():
        whole = wholes[way]
        if whole.sum() > 0:
            values[way] = float(part.sum() / whole.sum())
        ends = interval(partial(_divided, part, whole), len(part))
        if ends is not None:
            intervals[way] = ends
    return Figure(name=name, values=values, intervals=intervals, of=of)


def _divided(part: Array, whole: Array, at: Index) -> float:
    total = float(whole[at].sum())
    return float(part[at].sum()) / total if total else float("nan")
