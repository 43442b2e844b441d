"""Mean average precision of detections, by COCO's own code (pycocotools; Lin et al. 2014)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from graphcut.evaluation.boxes import MOST_BOXES, Boxes
from graphcut.evaluation.figures import Index, interval
from graphcut.records import Figure

RESAMPLES = 200
"""Each one accumulates all classes anew."""
_SIDE = 1000.0
"""Boxes are fractions of the picture; COCO's code wants lengths, and areas above 0."""


def average_precision(
    truth: Sequence[Boxes], crowds: Sequence[Sequence[bool]], found: Mapping[str, Sequence[Boxes]]
) -> tuple[Figure, Figure]:
    """Compare detected boxes with the ground truth.

    Args:
        truth: the ground-truth boxes of each picture.
        crowds: for each of them, whether it represents a crowd.
        found: way of computing -> the boxes detected in each picture, including low scores.

    Returns:
        mAP at an overlap of 0.5, and the mean over 0.5, 0.55 .. 0.95; over the classes that occur in the truth.
    """
    classes = sorted({int(each) for boxes in truth for each in boxes.classes})
    images = [{"id": number + 1} for number in range(len(truth))]
    right = [
        _annotation(box, number, int(label), crowd)
        for number, (boxes, flags) in enumerate(zip(truth, crowds, strict=True))
        for box, label, crowd in zip(boxes.corners, boxes.classes, flags, strict=True)
    ]
    values: dict[str, dict[str, float]] = {"mAP50": {}, "mAP50-95": {}}
    intervals: dict[str, dict[str, tuple[float, float]]] = {"mAP50": {}, "mAP50-95": {}}
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = _coco(images, right, classes)
        for way, boxes_of in found.items():
            evaluated = _evaluated(wanted, images, boxes_of, classes)
            for name, thresholds in (("mAP50", slice(0, 1)), ("mAP50-95", slice(None))):
                values[name][way] = _mean(evaluated, thresholds, np.arange(len(truth)))
                ends = interval(partial(_mean, evaluated, thresholds), len(truth), RESAMPLES)
                if ends is not None:
                    intervals[name][way] = ends
    first, second = (Figure(name=name, values=values[name], intervals=intervals[name]) for name in values)
    return first, second


def _annotation(box: Any, picture: int, label: int, crowd: bool) -> dict[str, Any]:
    left, top, right, bottom = (float(value) * _SIDE for value in box)
    width, height = max(right - left, 0.0), max(bottom - top, 0.0)
    return {
        "image_id": picture + 1,
        "category_id": label,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": int(crowd),
    }


def _coco(images: Sequence[Mapping[str, Any]], annotations: Sequence[dict[str, Any]], classes: Sequence[int]) -> Any:
    made = COCO()
    made.dataset = {
        "images": list(images),
        "annotations": [{**each, "id": number} for number, each in enumerate(annotations, 1)],
        "categories": [{"id": each} for each in classes],
    }
    made.createIndex()
    return made


def _evaluated(
    wanted: Any, images: Sequence[Mapping[str, Any]], found: Sequence[Boxes], classes: Sequence[int]
) -> COCOeval:
    known = set(classes)
    detections = [
        {**_annotation(box, number, int(label), False), "score": float(score)}
        for number, boxes in enumerate(found)
        for box, label, score in zip(boxes.corners, boxes.classes, boxes.scores, strict=True)
        if int(label) in known
    ]
    evaluated = COCOeval(wanted, _coco(images, detections, classes), "bbox")
    evaluated.params.areaRng, evaluated.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluated.params.maxDets = [MOST_BOXES]
    evaluated.evaluate()
    return evaluated


def _mean(evaluated: COCOeval, thresholds: slice, pictures: Index) -> float:
    """Mean precision over classes and recalls, for pictures drawn with replacement."""
    kept = evaluated.evalImgs
    count = len(evaluated.params.imgIds)
    try:
        evaluated.evalImgs = [kept[start + at] for start in range(0, len(kept), count) for at in pictures]
        evaluated.accumulate()
    finally:
        evaluated.evalImgs = kept
    precision = evaluated.eval["precision"][thresholds, :, :, 0, 0]
    usable = precision[precision > -1]
    return float(usable.mean()) if usable.size else float("nan")
