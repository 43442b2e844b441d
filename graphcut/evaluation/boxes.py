"""Boxes of detectors: overlap, non-maximum suppression, and matching of two sets.

Coordinates are fractions of the picture's width and height, so they are valid for the resized and the original picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphcut.records import Array

Classes = npt.NDArray[np.int64]

MOST_CANDIDATES = 3000
"""Before suppression, the best first; detectors keep between 1000 and 3000."""
MOST_BOXES = 100
"""Kept of one picture, as COCO counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Boxes in one picture, the highest score first.

    Attributes:
        corners: (n, 4) float32 x1, y1, x2, y2, as fractions of width and height; may exceed 0..1.
        scores: (n,) float32.
        classes: (n,) int64, from 0.
    """

    corners: Array
    scores: Array
    classes: Classes

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> Boxes:
        """Return the boxes with at least this score."""
        kept = self.scores >= score
        return Boxes(corners=self.corners[kept], scores=self.scores[kept], classes=self.classes[kept])


def overlaps(first: Array, second: Array) -> Array:
    """Intersection over union of every box with every other.

    Args:
        first, second: (n, 4) and (m, 4) corners.

    Returns:
        (n, m) values in 0..1; 0 if a box has no area.
    """
    low = np.maximum(first[:, np.newaxis, :2], second[np.newaxis, :, :2])
    high = np.minimum(first[:, np.newaxis, 2:], second[np.newaxis, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = _areas(first)[:, np.newaxis] + _areas(second)[np.newaxis] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def _areas(corners: Array) -> Array:
    return np.asarray(np.prod(np.clip(corners[:, 2:] - corners[:, :2], 0, None), axis=-1))


def suppressed(corners: Array, class_scores: Array, *, score: float, iou: float) -> Boxes:
    """Take the best class of each candidate and keep no two boxes of a class that overlap by more than ``iou``.

    Args:
        corners: (n, 4), not ordered.
        class_scores: (n, classes).
        score: candidates below it are dropped first.
        iou: greatest overlap of two boxes of the same class.
    """
    classes = class_scores.argmax(axis=1).astype(np.int64)
    scores = class_scores[np.arange(len(classes)), classes]
    usable = np.isfinite(corners).all(axis=1) & np.isfinite(scores) & (scores >= score)
    order = np.flatnonzero(usable)
    order = order[np.argsort(-scores[order], kind="stable")][:MOST_CANDIDATES]
    corners, scores, classes = corners[order].astype(np.float32), scores[order].astype(np.float32), classes[order]
    kept: list[int] = []
    alive = np.ones(len(order), bool)
    for at in range(len(order)):
        if not alive[at]:
            continue
        kept.append(at)
        if len(kept) == MOST_BOXES:
            break
        rivals = alive & (classes == classes[at])
        rivals[: at + 1] = False
        others = np.flatnonzero(rivals)
        alive[others] = overlaps(corners[at : at + 1], corners[others])[0] <= iou
    return Boxes(corners=corners[kept], scores=scores[kept], classes=classes[kept])


def matched(wanted: Boxes, found: Boxes, iou: float) -> int:
    """Count the wanted boxes that match a found box of the same class with an overlap of at least ``iou``.

    Each found box matches at most one wanted box. Boxes are matched in order of score, each to the largest overlap.
    """
    shared = overlaps(wanted.corners, found.corners)
    shared[wanted.classes[:, np.newaxis] != found.classes[np.newaxis]] = 0
    count = 0
    for row in shared:
        if len(row) and row.max() >= iou:
            count += 1
            shared[:, int(row.argmax())] = 0
    return count
