"""What an evaluation says: figures with confidence intervals, and the pictures where int8 does worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphcut.records import Array

FLOAT, INT8 = "float", "int8"
"""The two ways of computing that are always compared; a third is named after its devices."""

RESAMPLES = 1000
CONFIDENCE = 0.95
WORST = 5

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure for each way of computing.

    Attributes:
        name: what it is, with its unit.
        values: way -> value; only ``int8`` (and devices) where it compares with float.
        intervals: way -> lower and upper end of the 95 % bootstrap interval over pictures, where there is one.
        of: what a share is taken of (the boxes that float finds); None for other figures.
    """

    name: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstPicture:
    """A picture on which int8 is far from float.

    Attributes:
        name: of the picture.
        why: in a few words.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """Pictures whose best class is another one in int8.

    Attributes:
        float_class, int8_class: names, or numbers where there are no names.
        pictures: how many.
    """

    float_class: str
    int8_class: str
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a task found."""

    figures: tuple[Figure, ...]
    worst: tuple[WorstPicture, ...] = ()
    changes: tuple[ClassChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How well a split does its task.

    Attributes:
        task: "classification", "detection", "segmentation", "embedding" or "values".
        head: the kind of detector output; "" for other tasks.
        data: what it was measured on.
        pictures: how many.
        labelled: whether the right answers were known; float was the yardstick otherwise.
        seen: how many of them the split was calibrated with: on these int8 does better than on others.
        figures, worst, changes: see there.
    """

    task: str
    head: str
    data: str
    pictures: int
    seen: int
    labelled: bool
    figures: tuple[Figure, ...]
    worst: tuple[WorstPicture, ...] = ()
    changes: tuple[ClassChange, ...] = ()


def interval(statistic: Callable[[Index], float], count: int, resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """Percentile bootstrap (Efron 1979) over pictures, seeded.

    Args:
        statistic: takes (n,) picture numbers, some of them repeatedly, and returns a figure; NaN is left out.
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
        ends = interval(lambda at, p=part, w=whole: _divided(p[at], w[at]), len(part))  # type: ignore[misc]
        if ends is not None:
            intervals[way] = ends
    return Figure(name=name, values=values, intervals=intervals, of=of)


def _divided(part: Array, whole: Array) -> float:
    total = float(whole.sum())
    return float(part.sum()) / total if total else float("nan")
