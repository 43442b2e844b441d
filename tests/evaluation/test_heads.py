"""Decoders, against the arithmetic of each project's own code written out cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphcut.errors import UsageError
from graphcut.evaluation.boxes import Boxes, matched, overlaps, suppressed
from graphcut.evaluation.heads import HEADS, boxes_of, head_named, head_of, require_fit, with_anchors
from graphcut.records import Array

SIZE = (64, 96)
CELLS = [(8, row, column) for row in range(8) for column in range(12)]
CELLS += [(16, row, column) for row in range(4) for column in range(6)]
CELLS += [(32, row, column) for row in range(2) for column in range(3)]


def decoded(name: str, *outputs: Array, score: float = 0.3) -> Boxes:
    return boxes_of(head_named(name), [output[np.newaxis] for output in outputs], SIZE, score=score, iou=0.45)


def rows(columns: int) -> Array:
    return np.zeros((len(CELLS), columns), np.float32)


def near(boxes: Boxes, *corners: float) -> None:
    height, width = SIZE
    assert boxes.corners[0] == pytest.approx(np.array(corners) / [width, height, width, height], abs=1e-5)


@pytest.mark.parametrize("at", [0, 13, 100, len(CELLS) - 1])
def test_yolox_is_decoded_as_its_demo_does(at: int) -> None:
    stride, row, column = CELLS[at]
    values = rows(5 + 3)
    values[at] = (0.25, 0.75, math.log(2.0), math.log(1.5), 0.9, 0.1, 0.8, 0.2)
    boxes = decoded("yolox", values)
    x, y = (0.25 + column) * stride, (0.75 + row) * stride
    near(boxes, x - stride, y - 0.75 * stride, x + stride, y + 0.75 * stride)
    assert boxes.classes.tolist() == [1]
    assert boxes.scores[0] == pytest.approx(0.9 * 0.8)


def test_yolox_in_pixels_and_yolov5_are_centre_and_size() -> None:
    values = rows(7)
    values[5] = (40, 30, 20, 10, 1.0, 0.2, 0.5)
    assert head_of([np.tile(values[np.newaxis], (2, 1, 1))], SIZE) is head_named("yolox-decoded")
    near(decoded("yolox-decoded", values), 30, 25, 50, 35)
    anchored = np.concatenate([values, values, rows(7)])
    found = head_of([anchored[np.newaxis]], SIZE)
    assert found is head_named("yolov5")
    assert len(decoded("yolov5", anchored)) == 1, "the same box twice is one"


def test_yolov8_is_read_in_both_directions_and_in_parts() -> None:
    values = rows(4 + 3)
    values[7] = (40, 30, 20, 10, 0.1, 0.2, 0.6)
    for outputs in ([values], [values.T], [values.T[:4], values.T[4:]], [values[:, :4], values[:, 4:]]):
        given = [np.ascontiguousarray(each)[np.newaxis] for each in outputs]
        boxes = boxes_of(head_named("yolov8"), given, SIZE, score=0.3, iou=0.45)
        near(boxes, 30, 25, 50, 35)
        assert boxes.classes.tolist() == [2]
    assert head_of([values.T[np.newaxis]], SIZE) is head_named("yolov8")


def test_logits_get_a_sigmoid() -> None:
    values = rows(4 + 2) - 9
    values[3] = (40, 30, 20, 10, 2.0, -3.0)
    assert decoded("yolov8", values).scores[0] == pytest.approx(1 / (1 + math.exp(-2.0)))


def test_fastestdet_is_decoded_as_its_test_script_does() -> None:
    values = np.zeros((4, 6, 5 + 2), np.float32)
    values[2, 3] = (0.9, 0.5, -0.25, 0.0, 1.0, 0.8, 0.1)
    assert head_of([values[np.newaxis]], SIZE) is head_named("fastestdet")
    boxes = decoded("fastestdet", values)
    x, y = (3 + math.tanh(0.5)) / 6, (2 + math.tanh(-0.25)) / 4
    width, height = 0.5, 1 / (1 + math.exp(-1.0))
    assert boxes.corners[0] == pytest.approx([x - width / 2, y - height / 2, x + width / 2, y + height / 2], abs=1e-6)
    assert boxes.scores[0] == pytest.approx(0.9**0.6 * 0.8**0.4)


def test_ssd_leaves_the_background_out() -> None:
    corners = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.9, 0.9]], np.float32)
    scores = np.array([[0.2, 0.8], [0.95, 0.05]], np.float32)
    for outputs in ([scores, corners], [corners, scores]):
        assert head_of([each[np.newaxis] for each in outputs], SIZE) is head_named("ssd")
        boxes = decoded("ssd", *outputs)
        assert boxes.corners.tolist() == [pytest.approx([0.1, 0.2, 0.3, 0.4])]
        assert boxes.classes.tolist() == [0]


def test_anchors_are_moved_by_offsets() -> None:
    anchors = np.array([[0.5, 0.4, 0.2, 0.1]], np.float32)
    offsets = np.array([[1.0, -2.0, 0.0, math.log(2) / 0.2]], np.float32)
    scores = np.array([[0.1, 0.9]], np.float32)
    head = with_anchors(anchors)
    boxes = boxes_of(head, [offsets[np.newaxis], scores[np.newaxis]], SIZE, score=0.3, iou=0.45)
    x, y = 0.5 + 0.1 * 1.0 * 0.2, 0.4 - 0.1 * 2.0 * 0.1
    assert boxes.corners[0] == pytest.approx([x - 0.1, y - 0.1, x + 0.1, y + 0.1], abs=1e-6)
    with pytest.raises(UsageError, match="ssd-anchors"):
        require_fit(head, [np.zeros((1, 3, 4), np.float32), np.zeros((1, 3, 2), np.float32)], SIZE)


def test_centernet_takes_the_peaks() -> None:
    heat = np.full((16, 24, 2), 0.01, np.float32)
    heat[5, 7, 1], heat[5, 8, 1] = 0.9, 0.8
    extent, offset = np.full((16, 24, 2), (4.0, 6.0), np.float32), np.full((16, 24, 2), (0.5, 0.25), np.float32)
    assert head_of([each[np.newaxis] for each in (heat, extent, offset)], SIZE) is head_named("centernet")
    boxes = decoded("centernet", heat, extent, offset)
    assert len(boxes) == 1, "a neighbour of a peak is none"
    assert boxes.corners[0] == pytest.approx([5.5 / 24, 2.25 / 16, 9.5 / 24, 8.25 / 16])


def test_end_to_end_rows_are_taken_as_they_are() -> None:
    values = np.array([[10, 20, 30, 40, 0.7, 5], [0, 0, 1, 1, 0.1, 2]], np.float32)
    boxes = decoded("end-to-end", values)
    near(boxes, 10, 20, 30, 40)
    assert boxes.classes.tolist() == [5]


def test_shapes_of_no_head_are_none() -> None:
    assert head_of([np.zeros((1, 1000), np.float32)], SIZE) is None
    assert head_of([np.zeros((1, 64, 96, 21), np.float32)], SIZE) is None
    with pytest.raises(UsageError, match="no head 'yolo'"):
        head_named("yolo")
    with pytest.raises(UsageError, match="choose another head"):
        require_fit(head_named("yolov8"), [np.zeros((1, 5, 5), np.float32)], SIZE)
    assert len({head.name for head in HEADS}) == len(HEADS)


def test_values_that_are_no_numbers_make_no_boxes() -> None:
    corners = np.array([[0, 0, np.nan, 1], [0, 0, 1, 1], [0, 0, np.inf, 1]], np.float32)
    boxes = suppressed(corners, np.array([[0.9], [0.5], [0.8]], np.float32), score=0.3, iou=0.5)
    assert boxes.scores.tolist() == [0.5]


def test_suppression_is_by_class_and_by_overlap() -> None:
    corners = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    scores = np.array([[0.9, 0], [0.8, 0], [0, 0.7], [0.6, 0]], np.float32)
    boxes = suppressed(corners, scores, score=0.3, iou=0.5)
    assert boxes.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert overlaps(corners[:1], corners[1:])[0] == pytest.approx([0.9, 1.0, 0.0])


def test_one_box_is_matched_once() -> None:
    twice = Boxes(
        corners=np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.float32),
        scores=np.array([0.9, 0.8], np.float32),
        classes=np.array([3, 3]),
    )
    once = Boxes(corners=twice.corners[:1], scores=twice.scores[:1], classes=twice.classes[:1])
    assert matched(twice, once, 0.5) == 1
    assert matched(once, twice, 0.5) == 1
    other = Boxes(corners=once.corners, scores=once.scores, classes=np.array([2]))
    assert matched(once, other, 0.5) == 0
