"""Decode the outputs of common detector heads into boxes. Heads are named, or determined from the outputs' shapes.

1. Outputs are float32, batch 1, NHWC where the rank is 4, in the model's order. Outputs that hold a part
   of each cell, as ``--split-outputs`` makes them, are joined first.
2. *Cells* are the positions of grids with strides 8, 16 and 32 over the input, the finest first, row by row.
3. Scores outside 0..1 are logits: a sigmoid is applied where classes are independent, a softmax for ``ssd``.

Sources: YOLOX (Ge et al. 2021, demo of the project), Ultralytics' export formats (YOLOv5 and YOLOv8), SSD (Liu et al.
2016, section 2.2 and the variances 0.1 and 0.2 of its code), CenterNet (Zhou et al. 2019, section 4), FastestDet (its
``test.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphcut.errors import UsageError, setting
from graphcut.evaluation.boxes import Boxes, suppressed
from graphcut.records import Array

STRIDES = (8, 16, 32)
ANCHORS_PER_CELL = 3
"""Of YOLOv5, v3 and v7."""
VARIANCES = (0.1, 0.2)
_CENTERNET_CANDIDATES = 1000

Size = tuple[int, int]
"""Height and width of the model's input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Decoded boxes before suppression.

    Attributes:
        corners: (n, 4) x1, y1, x2, y2 as fractions of width and height.
        scores: (n, classes).
    """

    corners: Array
    scores: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A kind of detector output.

    Attributes:
        name: for ``--head``.
        help: what its outputs are, in a few words.
        fits: says from shapes (without the batch axis) and the input's size whether outputs can be of this kind.
        decode: makes candidates of outputs (without the batch axis).
    """

    name: str
    help: str
    fits: Callable[[Sequence[tuple[int, ...]], Size], bool]
    decode: Callable[[Sequence[Array], Size], Candidates]


def boxes_of(head: Head, outputs: Sequence[Array], size: Size, *, score: float, iou: float) -> Boxes:
    """Decode the outputs of one picture.

    Args:
        head: the kind of output.
        outputs: as in statement 1.
        size: of the model's input, height and width in pixels.
        score: boxes below it are dropped.
        iou: greatest overlap of two boxes of the same class.
    """
    found = head.decode(_joined(outputs, size), size)
    return suppressed(found.corners, found.scores, score=score, iou=iou)


def head_named(name: str) -> Head:
    """Return a head by its name.

    Raises:
        UsageError: there is none.
    """
    known = {each.name: each for each in HEADS}
    if name not in known:
        raise UsageError(f"there is no head {name!r}", f"choose one of {', '.join(known)}")
    return known[name]


def head_of(outputs: Sequence[Array], size: Size) -> Head | None:
    """Determine the head from the outputs' shapes (for YOLOX, raw or decoded, from their values); None if none fits.

    Args:
        outputs: of one picture, or of several along the first axis.
        size: of the model's input, height and width in pixels.
    """
    joined = _joined([output[:1] for output in outputs], size)
    shapes = [output.shape for output in joined]
    found = next((head for head in HEADS if head.fits(shapes, size)), None)
    if found is not None and found.name == "yolox" and _is_in_pixels(outputs):
        return head_named("yolox-decoded")
    return found


def require_fit(head: Head, outputs: Sequence[Array], size: Size) -> None:
    """Raise an error if the outputs do not fit a head that the user named.

    Raises:
        UsageError: the shapes do not fit.
    """
    shapes = [output.shape for output in _joined([output[:1] for output in outputs], size)]
    if not head.fits(shapes, size):
        shown = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise UsageError(
            f"the outputs ({shown}) do not fit {head.name}: {head.help}", f"choose another {setting('head')}"
        )


def _is_in_pixels(outputs: Sequence[Array]) -> bool:
    """Return whether YOLOX outputs are decoded: positions in pixels instead of offsets within a cell."""
    return float(outputs[0][..., :2].max(initial=0.0)) > STRIDES[-1]


def _joined(outputs: Sequence[Array], size: Size) -> list[Array]:
    """Drop the batch axis, and join outputs that hold a part of each cell (statement 1)."""
    plain = [output.reshape(output.shape[1:]) for output in outputs]
    if len(plain) > 1 and all(each.ndim == 2 for each in plain):
        for axis in (0, 1):
            counts = {each.shape[axis] for each in plain}
            if counts <= {_cells(size)} or counts <= {ANCHORS_PER_CELL * _cells(size)}:
                return [np.concatenate(plain, axis=1 - axis)]
    return plain


def _cells(size: Size) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)


def _one(shapes: Sequence[tuple[int, ...]], rank: int) -> tuple[int, ...] | None:
    return shapes[0] if len(shapes) == 1 and len(shapes[0]) == rank else None


def _sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))), np.float32)


def _as_probabilities(values: Array) -> Array:
    """Apply a sigmoid to logits (statement 3)."""
    return _sigmoid(values) if values.size and (values.min() < -1e-3 or values.max() > 1.001) else values


def _from_centres(centres: Array, sizes: Array, scale: Sequence[float]) -> Array:
    """Return corners, as fractions, of boxes with (n, 2) centres and sizes, x before y, in units of ``scale``."""
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    return np.asarray(corners / np.asarray([*scale, *scale], np.float32), np.float32)


# --- YOLO ---


def _yolox(outputs: Sequence[Array], size: Size) -> Candidates:
    (values,) = outputs
    grids, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[0 : size[0] // stride, 0 : size[1] // stride]
        grids.append(np.stack([columns.reshape(-1), rows.reshape(-1)], axis=1))
        strides.append(np.full((grids[-1].shape[0], 1), stride))
    grid, stride_of = np.concatenate(grids), np.concatenate(strides)
    centres = (values[:, :2] + grid) * stride_of
    sizes = np.exp(np.clip(values[:, 2:4], -20, 20)) * stride_of
    return _with_objectness(centres, sizes, values[:, 4:], size)


def _decoded_rows(outputs: Sequence[Array], size: Size) -> Candidates:
    (values,) = outputs
    return _with_objectness(values[:, :2], values[:, 2:4], values[:, 4:], size)


def _with_objectness(centres: Array, sizes: Array, scores: Array, size: Size) -> Candidates:
    chances = _as_probabilities(scores)
    corners = _from_centres(centres, sizes, (size[1], size[0]))
    return Candidates(corners=corners, scores=chances[:, :1] * chances[:, 1:])


def _yolov8(outputs: Sequence[Array], size: Size) -> Candidates:
    (values,) = outputs
    rows = values if values.shape[0] == _cells(size) else values.T
    corners = _from_centres(rows[:, :2], rows[:, 2:4], (size[1], size[0]))
    return Candidates(corners=corners, scores=_as_probabilities(rows[:, 4:]))


def _end_to_end(outputs: Sequence[Array], size: Size) -> Candidates:
    (values,) = outputs
    classes = np.clip(values[:, 5].round(), 0, 10_000).astype(np.int64)
    scores = np.zeros((len(values), int(classes.max(initial=0)) + 1), np.float32)
    scores[np.arange(len(values)), classes] = values[:, 4]
    corners = np.asarray(values[:, :4] / np.array([size[1], size[0], size[1], size[0]]), np.float32)
    return Candidates(corners=corners, scores=scores)


def _fastestdet(outputs: Sequence[Array], _size: Size) -> Candidates:
    (values,) = outputs
    height, width, channels = values.shape
    rows, columns = np.mgrid[0:height, 0:width]
    flat = values.reshape(-1, channels)
    cells = np.stack([columns.reshape(-1), rows.reshape(-1)], axis=1)
    centres = np.asarray((cells + np.tanh(flat[:, 1:3])) / np.array([width, height]), np.float32)
    corners = _from_centres(centres, _sigmoid(flat[:, 3:5]), (1, 1))
    presence, classes = np.clip(flat[:, :1], 0, 1), np.clip(flat[:, 5:], 0, 1)
    return Candidates(corners=corners, scores=np.asarray(presence**0.6 * classes**0.4, np.float32))


# --- SSD and CenterNet ---


def _without_background(scores: Array) -> Array:
    """Return class probabilities without the background, which is the first class if each row sums to 1."""
    if scores.shape[1] == 1:
        return _as_probabilities(scores)
    if scores.min() < -1e-3 or scores.max() > 1.001:
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores = np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
    sums = scores.sum(axis=1)
    return scores[:, 1:] if float(np.abs(np.median(sums) - 1)) < 0.05 else scores


def _boxes_and_scores(outputs: Sequence[Array]) -> tuple[Array, Array]:
    first, second = outputs
    return (first, second) if first.shape[1] == 4 else (second, first)


def _ssd(outputs: Sequence[Array], _size: Size) -> Candidates:
    corners, scores = _boxes_and_scores(outputs)
    return Candidates(corners=corners, scores=_without_background(scores))


def with_anchors(anchors: Array) -> Head:
    """Return the head of an SSD whose boxes are offsets from anchors.

    Args:
        anchors: (n, 4) float32 centre x, centre y, width and height, as fractions of the picture.
    """

    def decode(outputs: Sequence[Array], _size: Size) -> Candidates:
        offsets, scores = _boxes_and_scores(outputs)
        centres = anchors[:, :2] + offsets[:, :2] * VARIANCES[0] * anchors[:, 2:]
        sizes = anchors[:, 2:] * np.exp(np.clip(offsets[:, 2:] * VARIANCES[1], -20, 20))
        return Candidates(corners=_from_centres(centres, sizes, (1, 1)), scores=_without_background(scores))

    def fits(shapes: Sequence[tuple[int, ...]], size: Size) -> bool:
        return _fits_ssd(shapes, size) and shapes[0][0] == len(anchors)

    return Head(
        name="ssd-anchors", help=f"offsets from {len(anchors)} anchors, and class scores", fits=fits, decode=decode
    )


def _fits_ssd(shapes: Sequence[tuple[int, ...]], _size: Size) -> bool:
    same = len(shapes) == 2 and len(shapes[0]) == len(shapes[1]) == 2 and shapes[0][0] == shapes[1][0]
    return same and 4 in (shapes[0][1], shapes[1][1])


def _centernet(outputs: Sequence[Array], _size: Size) -> Candidates:
    heat, extent, offset = outputs
    heat = _as_probabilities(heat)
    height, width, _ = heat.shape
    padded = np.pad(heat, ((1, 1), (1, 1), (0, 0)), constant_values=-1)
    around = np.stack([padded[row : row + height, column : column + width] for row in range(3) for column in range(3)])
    peaks = np.where(heat >= around.max(axis=0), heat, 0).reshape(height * width, -1)
    best = np.argsort(-peaks.max(axis=1), kind="stable")[:_CENTERNET_CANDIDATES]
    positions = np.stack([best % width, best // width], axis=1)
    centres = np.asarray(positions + offset.reshape(-1, 2)[best], np.float32)
    corners = _from_centres(centres, extent.reshape(-1, 2)[best], (width, height))
    return Candidates(corners=corners, scores=peaks[best])


def _fits_centernet(shapes: Sequence[tuple[int, ...]], _size: Size) -> bool:
    if len(shapes) != 3 or any(len(shape) != 3 for shape in shapes):
        return False
    return len({shape[:2] for shape in shapes}) == 1 and [shape[2] for shape in shapes[1:]] == [2, 2]


def _fits_rows(cells_of: Callable[[Size], int]) -> Callable[[Sequence[tuple[int, ...]], Size], bool]:
    def fits(shapes: Sequence[tuple[int, ...]], size: Size) -> bool:
        shape = _one(shapes, 2)
        return shape is not None and shape[0] == cells_of(size) and shape[1] > 5

    return fits


def _fits_yolov8(shapes: Sequence[tuple[int, ...]], size: Size) -> bool:
    shape = _one(shapes, 2)
    return shape is not None and _cells(size) in shape and min(shape) > 4


def _fits_end_to_end(shapes: Sequence[tuple[int, ...]], _size: Size) -> bool:
    shape = _one(shapes, 2)
    return shape is not None and shape[1] == 6


def _fits_fastestdet(shapes: Sequence[tuple[int, ...]], size: Size) -> bool:
    shape = _one(shapes, 3)
    return shape is not None and shape[:2] == (size[0] // 16, size[1] // 16) and shape[2] > 5


HEADS = (
    Head(
        name="yolox",
        help="one output 1 x cells x (5 + classes): offsets in cells, objectness, classes",
        fits=_fits_rows(_cells),
        decode=_yolox,
    ),
    Head(
        name="yolox-decoded",
        help="the same in pixels: centre x, centre y, width, height, objectness, classes",
        fits=_fits_rows(_cells),
        decode=_decoded_rows,
    ),
    Head(
        name="yolov5",
        help="one output 1 x 3 cells x (5 + classes) in pixels: centre, size, objectness, classes",
        fits=_fits_rows(lambda size: ANCHORS_PER_CELL * _cells(size)),
        decode=_decoded_rows,
    ),
    Head(
        name="yolov8",
        help="one output 1 x (4 + classes) x cells, or transposed, in pixels: centre, size, classes (also v11)",
        fits=_fits_yolov8,
        decode=_yolov8,
    ),
    Head(
        name="end-to-end",
        help="one output 1 x boxes x 6 in pixels: x1, y1, x2, y2, score, class (YOLOv10)",
        fits=_fits_end_to_end,
        decode=_end_to_end,
    ),
    Head(
        name="fastestdet",
        help="one map of 1/16 of the input's size with 5 + classes channels",
        fits=_fits_fastestdet,
        decode=_fastestdet,
    ),
    Head(
        name="ssd",
        help="boxes 1 x n x 4 (x1, y1, x2, y2 in 0..1) and scores 1 x n x classes",
        fits=_fits_ssd,
        decode=_ssd,
    ),
    Head(
        name="centernet",
        help="three maps of one size: classes, width and height, offset (2 channels each)",
        fits=_fits_centernet,
        decode=_centernet,
    ),
)
"""The first that fits is taken."""
