"""The supported tasks, and how int8 results are compared with float results and with the ground truth.

A task receives the outputs for one picture at a time, for every way of computing. It stores only what its figures need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError

from graphcut.errors import UsageError
from graphcut.evaluation.boxes import Boxes, matched
from graphcut.evaluation.figures import FLOAT, INT8, WORST, Index, Outcome, interval, ratio
from graphcut.evaluation.heads import Head, Size, boxes_of
from graphcut.evaluation.truth import Labelled, class_numbers
from graphcut.measurement.metrics import energy
from graphcut.measurement.output_parts import output_parts
from graphcut.records import Array, ClassChange, Figure, WorstPicture

TaskName = Literal["classification", "detection", "segmentation", "embedding", "values"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)

Outputs = Mapping[str, Sequence[Array]]
"""Way of computing -> the model's outputs for one picture: float32, batch 1, NHWC where the rank is 4."""

LOW_SCORE = 0.001
"""Mean average precision counts boxes down to this score."""
BOX_SCORE = 0.3
MASK_SCORE = 0.5
NMS_IOU = 0.45
MATCH_IOU = 0.5
NOT_JUDGED = 255
"""A pixel of a mask that counts nowhere."""
_KEPT_BYTES = 2**29


class Task(Protocol):
    """Collects results and computes figures from them."""

    def add(self, number: int, outputs: Outputs, /) -> None:
        """Add the outputs for a picture."""

    def outcome(self) -> Outcome:
        """Return the figures."""


class Classification:
    """Top-1 and top-5, agreement with float, and the classes that changed.

    Args:
        data: the pictures; their labels where they have some.
        labels: names of the model's classes; empty if unknown.
    """

    def __init__(self, *, data: Labelled, labels: Sequence[str]) -> None:
        self.data = data
        self.labels = labels
        self._best: dict[str, list[list[int]]] = {}
        self._lost: list[float] = []
        self._classes: int = 0

    def add(self, _number: int, outputs: Outputs, /) -> None:
        """Keep the five best classes."""
        scores = {way: values[0].reshape(-1) for way, values in outputs.items()}
        for way, values in scores.items():
            self._best.setdefault(way, []).append(np.argsort(-values, kind="stable")[:5].tolist())
        self._classes = len(scores[FLOAT])
        wanted = int(self._best[FLOAT][-1][0])
        chances = {way: probabilities(scores[way]) for way in (FLOAT, INT8)}
        self._lost.append(float(chances[FLOAT][wanted] - chances[INT8][wanted]))

    def outcome(self) -> Outcome:
        """Return top-1, top-5, agreement and changes."""
        count = len(self._lost)
        ones = np.ones(count, np.float32)
        figures = []
        if self.data.labels:
            numbers = class_numbers(sorted(set(self.data.labels)), self.labels, self._classes)
            right = [numbers[label] for label in self.data.labels]
            for name, most in (("top-1", 1), ("top-5", 5)):
                if self._classes > most:
                    hits = {
                        way: _array(r in b[:most] for r, b in zip(right, best, strict=True))
                        for way, best in self._best.items()
                    }
                    figures.append(ratio(name, hits, dict.fromkeys(hits, ones)))
        others = {way: best for way, best in self._best.items() if way != FLOAT}
        same = {
            way: _array(a[0] == b[0] for a, b in zip(best, self._best[FLOAT], strict=True))
            for way, best in others.items()
        }
        figures.append(ratio("top-1 as in float", same, dict.fromkeys(same, ones), of=count))
        pairs = [(a[0], b[0]) for a, b in zip(self._best[FLOAT], self._best[INT8], strict=True)]
        changed = Counter(pair for pair in pairs if pair[0] != pair[1])
        changes = [
            ClassChange(float_class=self._name(a), int8_class=self._name(b), pictures=times)
            for (a, b), times in changed.most_common()
        ]
        worst = []
        for at in np.argsort(-np.array(self._lost), kind="stable")[:WORST]:
            if self._lost[at] <= 0:
                break
            before, after = pairs[at]
            said = "" if before == after else f", int8 says {self._name(after)}"
            why = f"{self._name(before)} loses {100 * self._lost[at]:.1f} points of probability{said}"
            worst.append(WorstPicture(name=self.data.names[at], why=why))
        return Outcome(figures=tuple(figures), worst=tuple(worst), changes=tuple(changes))

    def _name(self, number: int) -> str:
        return label_of(number, self.labels)


class Detection:
    """Boxes that float and int8 agree on, and mean average precision where the right boxes are known.

    Args:
        data: the pictures; their boxes where they are known.
        labels: names of the model's classes; empty if unknown.
        head: decodes the outputs.
        size: of the model's input, height and width in pixels.
        score: boxes below it are not compared.
        iou: greatest overlap of two boxes of a class in one picture.
    """

    def __init__(
        self, *, data: Labelled, labels: Sequence[str], head: Head, size: Size, score: float, iou: float
    ) -> None:
        self.data = data
        self.labels = labels
        self.head = head
        self.size = size
        self.score = score
        self.iou = iou
        self._found: dict[str, list[Boxes]] = {}

    def add(self, _number: int, outputs: Outputs, /) -> None:
        """Keep the boxes."""
        for way, values in outputs.items():
            low = min(LOW_SCORE, self.score) if self.data.boxes else self.score
            boxes = boxes_of(self.head, values, self.size, score=low, iou=self.iou)
            self._found.setdefault(way, []).append(boxes)

    def outcome(self) -> Outcome:
        """Return agreement, and mean average precision."""
        figures: list[Figure] = []
        if self.data.boxes:
            from graphcut.evaluation.average_precision import average_precision

            figures += average_precision(self._truth(), self.data.crowds, self._found)
        shown = {way: [boxes.above(self.score) for boxes in found] for way, found in self._found.items()}
        counts = {way: _array(map(len, found)) for way, found in shown.items()}
        boxes = {way: float(each.sum()) for way, each in counts.items()}
        figures.append(Figure(name=f"boxes with a score of at least {self.score:g}", values=boxes, intervals={}))
        kept, true = {}, {}
        for way, found in shown.items():
            if way != FLOAT:
                kept[way] = _array(matched(a, b, MATCH_IOU) for a, b in zip(shown[FLOAT], found, strict=True))
                true[way] = _array(matched(b, a, MATCH_IOU) for a, b in zip(shown[FLOAT], found, strict=True))
        wanted = dict.fromkeys(kept, counts[FLOAT])
        figures.append(ratio("float's boxes kept", kept, wanted, of=int(counts[FLOAT].sum())))
        figures.append(ratio("boxes that float has too", true, counts, of=int(counts[INT8].sum())))
        missed, extra = counts[FLOAT] - kept[INT8], counts[INT8] - true[INT8]
        order = np.argsort(-(missed + extra), kind="stable")[:WORST]
        worst = tuple(
            WorstPicture(
                name=self.data.names[at],
                why=f"{missed[at]:.0f} of {counts[FLOAT][at]:.0f} boxes missed, {extra[at]:.0f} added",
            )
            for at in order
            if missed[at] + extra[at]
        )
        return Outcome(figures=tuple(figures), worst=worst)

    def _truth(self) -> list[Boxes]:
        """Return the ground-truth boxes with the model's class numbers."""
        if not self.data.categories or not self.labels:
            return list(self.data.boxes)
        numbers = class_numbers(self.data.categories, self.labels, len(self.labels))
        table = np.array([numbers[name] for name in self.data.categories])
        return [
            Boxes(corners=each.corners, scores=each.scores, classes=table[each.classes]) for each in self.data.boxes
        ]


class Segmentation:
    """Overlap of masks: with float's, and with the right ones where they are known.

    Args:
        data: the pictures; their masks where they are known.
        score: a single channel is foreground above it.
    """

    def __init__(self, *, data: Labelled, score: float) -> None:
        self.data = data
        self.score = score
        self._counts: dict[str, list[Array]] = {}
        self._classes: int = 0

    def add(self, number: int, outputs: Outputs, /) -> None:
        """Keep the intersection and union of two masks, by class."""
        masks = {way: mask_of(values[0], self.score) for way, values in outputs.items()}
        channels = outputs[FLOAT][0].shape[-1]
        self._classes = max(channels, 2)
        for way, mask in masks.items():
            if way != FLOAT:
                self._counts.setdefault(f"{way} float", []).append(_shared(masks[FLOAT], mask, self._classes))
            if self.data.masks:
                right = _read_mask(self.data.masks[number], mask.shape)
                self._counts.setdefault(f"{way} truth", []).append(_shared(right, mask, self._classes))

    def outcome(self) -> Outcome:
        """Return mean intersection over union."""
        figures = []
        for kind, name in (("truth", "mIoU"), ("float", "mIoU with float's masks")):
            stacked = {
                key.rpartition(" ")[0]: np.stack(counts)
                for key, counts in self._counts.items()
                if key.endswith(f" {kind}")
            }
            if stacked:
                figures.append(_overlap_figure(name, stacked, self._classes))
        each = np.array([_mean_overlap(counts, self._classes) for counts in self._counts[f"{INT8} float"]])
        worst = tuple(
            WorstPicture(name=self.data.names[at], why=f"IoU with float's mask {each[at]:.3f}")
            for at in np.argsort(each, kind="stable")[:WORST]
        )
        return Outcome(figures=tuple(figures), worst=worst)


class Embedding:
    """Cosine similarity of the float and int8 vectors."""

    def __init__(self, *, data: Labelled) -> None:
        self.data = data
        self._cosines: dict[str, list[float]] = {}

    def add(self, _number: int, outputs: Outputs, /) -> None:
        """Keep the cosine similarity."""
        wanted = outputs[FLOAT][0].reshape(-1).astype(np.float64)
        for way, values in outputs.items():
            if way != FLOAT:
                got = values[0].reshape(-1).astype(np.float64)
                lengths = float(np.linalg.norm(wanted) * np.linalg.norm(got))
                self._cosines.setdefault(way, []).append(float(wanted @ got) / lengths if lengths else 0.0)

    def outcome(self) -> Outcome:
        """Return the mean and the least cosine similarity."""
        cosines = {way: _array(values) for way, values in self._cosines.items()}
        mean = ratio("cosine with float, mean", cosines, {way: np.ones_like(each) for way, each in cosines.items()})
        least = {way: float(each.min()) for way, each in cosines.items()}
        worst = tuple(
            WorstPicture(name=self.data.names[at], why=f"cosine {cosines[INT8][at]:.4f}")
            for at in np.argsort(cosines[INT8], kind="stable")[:WORST]
        )
        return Outcome(figures=(mean, Figure(name="cosine with float, least", values=least, intervals={})), worst=worst)


class Values:
    """Signal-to-noise ratio of every part of every output; also part of every other task.

    Args:
        data: the pictures.
        layers: names of the outputs.
    """

    def __init__(self, *, data: Labelled, layers: Sequence[str], parts: bool = True) -> None:
        self.data = data
        self.layers = layers
        self.parts = parts
        self._signal: list[list[float]] = []
        self._noise: dict[str, list[list[float]]] = {}
        self._kept: list[Outputs] = []
        self._bytes: int = 0

    def add(self, _number: int, outputs: Outputs, /) -> None:
        """Keep energies, and values as long as there is room."""
        self._signal.append([energy(each) for each in outputs[FLOAT]])
        for way, values in outputs.items():
            if way != FLOAT:
                noise = [energy(got - wanted) for got, wanted in zip(values, outputs[FLOAT], strict=True)]
                self._noise.setdefault(way, []).append(noise)
        self._bytes += sum(each.nbytes for values in outputs.values() for each in values)
        if self.parts and self._bytes <= _KEPT_BYTES:
            self._kept.append(outputs)

    def outcome(self) -> Outcome:
        """Return the ratio of each output, and of each part where an output has several."""
        signal = np.array(self._signal)
        figures = []
        for at, layer in enumerate(self.layers):
            noise = {way: np.array(values)[:, at] for way, values in self._noise.items()}
            found = ratio(layer, dict.fromkeys(noise, signal[:, at]), noise)
            values = {way: _decibels(found.values.get(way, float("nan"))) for way in noise}
            intervals = {way: (_decibels(low), _decibels(high)) for way, (low, high) in found.intervals.items()}
            figures.append(Figure(name=f"dB of {layer}", values=values, intervals=intervals))
            figures += self._of_parts(at, layer)
        first = np.array(self._noise[INT8]).sum(axis=1)
        each = [_decibels(a / b) if b else 1000.0 for a, b in zip(signal.sum(axis=1), first, strict=True)]
        worst = tuple(
            WorstPicture(name=self.data.names[at], why=f"{each[at]:.1f} dB")
            for at in np.argsort(each, kind="stable")[:WORST]
        )
        return Outcome(figures=tuple(figures), worst=worst)

    def _of_parts(self, at: int, layer: str) -> list[Figure]:
        if not self._kept:
            return []
        wanted = np.concatenate([each[FLOAT][at] for each in self._kept])
        measured = {
            way: output_parts(layer, wanted, np.concatenate([each[way][at] for each in self._kept]))
            for way in self._noise
        }
        parts = measured[INT8]
        if len(parts) < 2:
            return []
        return [
            Figure(
                name=f"dB of {part.name}",
                values={way: _clipped(found[number].sqnr_db) for way, found in measured.items()},
                intervals={},
            )
            for number, part in enumerate(parts)
        ]


def label_of(number: int, labels: Sequence[str]) -> str:
    """Name a class: the first synonym of its label, or its number."""
    return labels[number].split(",")[0] if number < len(labels) else f"class {number}"


def _array(values: Iterable[float]) -> Array:
    return np.array(list(values), np.float32)


def probabilities(scores: Array) -> Array:
    """Leave probabilities as they are; apply a softmax to logits."""
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < 0.05:
        return scores
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def _decibels(value: float) -> float:
    """Return a ratio of energies in dB that JSON can hold; NaN (no noise at all) is 1000."""
    return 1000.0 if value != value else _clipped(10 * float(np.log10(value)) if value > 0 else -1000.0)


def _clipped(value: float) -> float:
    return max(-1000.0, min(1000.0, value))


def mask_of(output: Array, score: float) -> Array:
    """Return the class numbers (H, W) of a map (1, H, W, channels)."""
    values = output[0]
    return np.asarray(values[..., 0] > score, np.int64) if values.shape[-1] == 1 else values.argmax(axis=-1)


def _shared(wanted: Array, got: Array, classes: int) -> Array:
    """Return (classes, 2): the numbers of pixels in the intersection and the union of two masks, by class."""
    judged = wanted != NOT_JUDGED
    wanted, got = wanted[judged].astype(np.int64), got[judged].astype(np.int64)
    both = np.bincount(wanted[wanted == got], minlength=classes)
    either = np.bincount(wanted, minlength=classes) + np.bincount(got, minlength=classes) - both
    return np.stack([both, either], axis=1).astype(np.float64)


def _mean_overlap(counts: Array, classes: int) -> float:
    """Return the mean over the classes that occur; with two classes, the value of the second (foreground)."""
    kept = counts[1:] if classes == 2 else counts
    kept = kept[kept[:, 1] > 0]
    return float((kept[:, 0] / kept[:, 1]).mean()) if len(kept) else 1.0


def _overlap_of(counts: Array, classes: int, at: Index) -> float:
    return _mean_overlap(counts[at].sum(axis=0), classes)


def _overlap_figure(name: str, stacked: Mapping[str, Array], classes: int) -> Figure:
    values, intervals = {}, {}
    for way, counts in stacked.items():
        values[way] = _mean_overlap(counts.sum(axis=0), classes)
        ends = interval(partial(_overlap_of, counts, classes), len(counts))
        if ends is not None:
            intervals[way] = ends
    return Figure(name=name, values=values, intervals=intervals)


def _read_mask(path: Path, shape: Sequence[int]) -> Array:
    """Return class numbers, resized to the model's output."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode not in {"L", "P", "1"}:
                raise UsageError(f"{path} is not a mask of class numbers", "save it as grey or with a palette")
            resized = picture.resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} cannot be read as a PNG file", "pass a PNG file of class numbers") from error
    return np.asarray(resized, np.int64)
