"""How well a split does its task (graphcut.evaluation)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
