"""Evaluate a split on its task: run float, int8 and optionally a device on the same pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphcut import numpy_files
from graphcut import samples as sampling
from graphcut.errors import ModelError, UsageError, setting
from graphcut.evaluation.figures import FLOAT, INT8
from graphcut.evaluation.heads import Head, Size, head_named, head_of, require_fit, with_anchors
from graphcut.evaluation.tasks import (
    BOX_SCORE,
    MASK_SCORE,
    NMS_IOU,
    Classification,
    Detection,
    Embedding,
    Outputs,
    Segmentation,
    Task,
    TaskName,
    Values,
)
from graphcut.evaluation.truth import Labelled
from graphcut.measurement.metrics import to_nhwc
from graphcut.progress import Event, Report, silent
from graphcut.records import Array, Evaluation, ModelInput, Preprocessing, Samples
from graphcut.result import reopen
from graphcut.result.manifest import Manifest, read, read_samples
from graphcut.runtime.devices import Device

AT_ONCE = 16
"""Pictures in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """How to evaluate.

    Attributes:
        task: None to determine it from the data and the outputs' shapes.
        head: name of a detector's head; None to determine it.
        anchors: (n, 4) of an SSD, see :func:`graphcut.evaluation.heads.with_anchors`.
        labels: names of the model's classes, by number.
        score: boxes below it, and pixels of a mask with one channel below it, do not count; None for 0.3 and 0.5.
        iou: greatest overlap of two boxes of a class.
        preprocessing: from pixels to the model's input.
        devices: also run on these; empty for none.
    """

    task: TaskName | None = None
    head: str | None = None
    anchors: Array | None = None
    labels: Sequence[str] = ()
    score: float | None = None
    iou: float = NMS_IOU
    preprocessing: Preprocessing | None = None
    devices: Sequence[Device] = ()


def evaluate(folder: Path, data: Labelled, options: EvaluateOptions, report: Report = silent) -> Evaluation:
    """Evaluate a split.

    Args:
        folder: of the split.
        data: the pictures, and what is known about them.
        options: how.
        report: receives progress.

    Raises:
        UsageError: the task, the head or the labels do not fit the model or the data.
        CalibrationError: a picture cannot be read.
        RunError: a part cannot be opened or run.
    """
    opened = read(folder)
    layers = [tensor.layer for tensor in opened.tails[0].outputs]
    task: Task | None = None
    name: TaskName = "values"
    head: Head | None = None
    values = Values(data=data, layers=layers)
    seen = _Seen(opened)
    for number, outputs in enumerate(_answers(folder, opened, data, options, seen, report)):
        if task is None:
            size = image_size(opened.inputs)
            name, head = chosen(options, data, list(outputs[FLOAT]), size)
            task = task_of(name, head, options, data, size)
            values.parts = name == "values"
        task = values if name == "values" else task
        if task is not values:
            task.add(number, outputs)
        values.add(number, outputs)
    if task is None:
        raise UsageError("there are no pictures", "pass a folder of pictures")
    found, energies = task.outcome(), values.outcome()
    figures = found.figures if task is values else (*found.figures, *energies.figures)
    return Evaluation(
        task=name,
        head=head.name if head is not None else "",
        data=data.name,
        pictures=len(data),
        seen=seen.count,
        labelled=bool(data.labels or data.boxes or data.masks),
        figures=figures,
        worst=found.worst,
        changes=found.changes,
    )


def anchors_of(given: str | Path | Array | None) -> Array | None:
    """Return the anchors of an SSD: those given, or those of an ``.npy`` file; None for None.

    Returns:
        (n, 4) float32.

    Raises:
        UsageError: they are something else.
    """
    if given is None:
        return None
    try:
        read = numpy_files.mapped(Path(given)) if isinstance(given, str | Path) else given
        anchors = np.asarray(read, np.float32)
    except (numpy_files.BadArraysError, ValueError, TypeError) as error:
        raise UsageError(f"{given} cannot be read as anchors: {error}", "pass an .npy file") from error
    if anchors.ndim != 2 or anchors.shape[1] != 4 or not np.isfinite(anchors).all():
        shape = "x".join(map(str, anchors.shape))
        raise UsageError(f"{setting('anchors')} has the shape {shape}", "pass n x 4 finite numbers")
    return anchors


def chosen(
    options: EvaluateOptions, data: Labelled, outputs: Sequence[Array], size: Size
) -> tuple[TaskName, Head | None]:
    """Determine the task and the head, unless they are named.

    Args:
        options: may name them.
        data: labels, boxes or masks say what the task is.
        outputs: of the float model for one picture.
        size: of the model's input; height and width in pixels.

    Raises:
        UsageError: what was named does not fit.
    """
    named = with_anchors(options.anchors) if options.anchors is not None else None
    if options.head is not None and named is None:
        named = head_named(options.head)
    if named is not None:
        require_fit(named, outputs, size)
    found = named or head_of(outputs, size)
    known: TaskName | None = "classification" if data.labels else "detection" if data.boxes else None
    known = "segmentation" if data.masks else known
    task = options.task or known or ("detection" if found is not None else _by_shape(outputs))
    if task == "detection" and found is None:
        shown = ", ".join("x".join(map(str, output.shape)) for output in outputs)
        raise UsageError(f"the outputs ({shown}) fit no known head", f"specify one with {setting('head')}")
    _require_shape(task, outputs[0])
    return task, found if task == "detection" else None


def _by_shape(outputs: Sequence[Array]) -> TaskName:
    first = outputs[0]
    if first.ndim == 4 and first.shape[1] * first.shape[2] > 64:
        return "segmentation" if len(outputs) == 1 else "values"
    if first.size < 2 or first.size != first.shape[-1] or len(outputs) > 1:
        return "values"
    length = float(np.linalg.norm(first))
    return "embedding" if abs(length - 1) < 1e-3 and first.min() < 0 else "classification"


def _require_shape(task: TaskName, output: Array) -> None:
    shape = "x".join(map(str, output.shape))
    if task == "segmentation" and output.ndim != 4:
        raise UsageError(f"an output of {shape} is not a map of classes", f"choose another {setting('task')}")
    if task in ("classification", "embedding") and output.size != max(output.shape, default=0):
        raise UsageError(f"an output of {shape} is not a vector", f"choose another {setting('task')}")


def task_of(name: TaskName, head: Head | None, options: EvaluateOptions, data: Labelled, size: Size) -> Task:
    """Return the collector of results for the task and head that :func:`chosen` determined."""
    if head is not None:
        score = BOX_SCORE if options.score is None else options.score
        return Detection(data=data, labels=options.labels, head=head, size=size, score=score, iou=options.iou)
    if name == "segmentation":
        return Segmentation(data=data, score=MASK_SCORE if options.score is None else options.score)
    return Embedding(data=data) if name == "embedding" else Classification(data=data, labels=options.labels)


def image_size(inputs: Sequence[ModelInput]) -> Size:
    """Return height and width of a model's one image input.

    Raises:
        ModelError: the model takes something else.
    """
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4:
        raise ModelError("the model does not take one picture", "only models with one image input can be evaluated")
    return shape[2], shape[3]


class _Seen:
    """Counts the pictures that a split was calibrated with."""

    def __init__(self, opened: Manifest) -> None:
        self._known = set(_digests(read_samples(opened)))
        self.count = 0

    def add(self, taken: Samples) -> None:
        """Count the pictures of ``taken`` that it was calibrated with."""
        self.count += sum(digest in self._known for digest in _digests(taken))


def _digests(taken: Samples) -> Iterator[bytes]:
    for number in range(len(taken)):
        digest = hashlib.sha256()
        for name in sorted(taken.arrays):
            digest.update(np.ascontiguousarray(taken.arrays[name][number]).data)
        yield digest.digest()


def _answers(
    folder: Path, opened: Manifest, data: Labelled, options: EvaluateOptions, seen: _Seen, report: Report
) -> Iterator[Outputs]:
    """Yield the outputs for each picture, by way of computing."""
    image_size(opened.inputs)
    outputs = opened.tails[0].outputs
    for start in range(0, len(data), AT_ONCE):
        files = data.files[start : start + AT_ONCE]
        taken = sampling.of_several(files, opened.inputs, options.preprocessing or opened.preprocessing)
        seen.add(taken)
        whole = reopen.float_whole(opened.segments, outputs, taken)
        answers = {INT8: reopen.run(folder, taken, report=report)}
        if options.devices:
            way = ",".join(device.name for device in options.devices)
            answers[f"on {way}"] = reopen.run(folder, taken, devices=options.devices, report=report)
        for at in range(len(taken)):
            wanted = []
            for tensor in outputs:
                values = whole.outputs[tensor.layer]
                rows = len(values) // len(taken)
                wanted.append(to_nhwc(values[at * rows : (at + 1) * rows]))
            given = {way: [found[at][tensor.layer] for tensor in outputs] for way, found in answers.items()}
            yield {FLOAT: wanted, **given}
            report(Event(stage="evaluate", done=start + at + 1, total=len(data), detail=data.names[start + at]))
