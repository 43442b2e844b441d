"""One segment from ONNX to a checked int8 TFLite file; runs in a worker process.

1. onnx2tf makes a float32 file; its throw-away endings are dropped (:mod:`graphcut.tflite.float_segment`).
2. The float file is run on the activations at the segment's own input and compared with onnxruntime's at its
   outputs. A difference larger than rounding is an error: a clean return of the converter means nothing.
3. The same runs give the ranges. Ranges at seams come from the float reference, so both sides of a seam share them.
4. Dead channels and biases are corrected, the file is quantised, and the int8 file is run and compared with float.
   Where that is not good yet, biases are refined on the int8 file itself (:mod:`graphcut.quant.refine`). A constant
   or saturated output is an error, not a result.
5. Where an output is made by a softmax, the tensor before it is compared: the softmax of a thousand untrained
   classes is the same int8 zero for every input and would hide anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.errors import ConversionError
from graphcut.quant import correct, quantise
from graphcut.quant.ranges import Observed, observe, rounded
from graphcut.quant.refine import refine
from graphcut.records import Array, SeamTensor
from graphcut.runtime import litert
from graphcut.stages.diagnose import float_culprit, int8_culprit
from graphcut.stages.measure import relative_error, sqnr_db, to_nhwc
from graphcut.tflite import edit, from_onnx, schema
from graphcut.tflite.float_segment import FloatSegment, finish

FLOAT_TOLERANCE = 2e-3
"""Largest difference of the float file to onnxruntime, relative to the largest value (float32 rounding over a few
dozen layers stays below 1e-5; a wrong layout, pad or operator is of order 1)."""

REFINE_BELOW_DB = 26.0
"""Segments worse than this get their biases refined layer by layer, which costs a run of all samples a layer."""

MEANINGLESS_DB = 3.0
"""Below this the noise is half as strong as the signal and an int8 output says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A tensor at the segment's edge with what it holds on every sample.

    Attributes:
        tensor, layer: its ONNX name and its layer name.
        values: (N, *shape[1:]) float32, NCHW where the rank is 4.
    """

    tensor: str
    layer: str
    values: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker needs to convert one segment.

    Attributes:
        subject: the segment, for errors.
        onnx_path: the conversion copy.
        target: where the int8 file goes.
        scratch: a folder in which the worker may make one of its own.
        inputs, outputs: the segment's edge in its order.
        logits: output layer -> the float values before its final softmax.
        endings, readers: of the conversion copy.
        ranges: layer name -> (minimum, maximum) of seam tensors, shared by both sides.
        per_channel: one weight scale an output channel.
    """

    subject: str
    onnx_path: Path
    target: Path
    scratch: Path
    inputs: tuple[Activation, ...]
    outputs: tuple[Activation, ...]
    logits: Mapping[str, Array]
    endings: Mapping[str, str]
    readers: Mapping[str, str]
    ranges: Mapping[str, tuple[float, float]]
    per_channel: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a worker sends back; fields as in :class:`graphcut.records.ConvertedSegment`."""

    inputs: tuple[SeamTensor, ...]
    outputs: tuple[SeamTensor, ...]
    tflite_bytes: int
    float_error: float
    sqnr_db: Mapping[str, float]
    backend: str
    notes: tuple[str, ...]
    seconds: float


def convert(job: Job) -> Converted:
    """Convert, check, quantise and check again.

    Raises:
        ConversionError: the file cannot be made, or what it computes is wrong.
    """
    start = time.monotonic()
    flat = [entry.layer for entry in job.inputs if entry.values.ndim != 4]
    data = from_onnx.convert(job.onnx_path, job.scratch / f"worker-{os.getpid()}", job.subject, keep_shape=flat)
    segment = finish(
        data,
        job.subject,
        inputs=[entry.layer for entry in job.inputs],
        outputs=[entry.layer for entry in job.outputs],
        endings=job.endings,
        readers=job.readers,
    )
    feeds = [[to_nhwc(entry.values[n : n + 1]) for entry in job.inputs] for n in range(len(job.inputs[0].values))]
    try:
        observed, produced = observe(segment.data, feeds, dict(segment.activations))
    except (ValueError, RuntimeError) as error:
        raise _refused(job, "float", error) from error
    float_error = _check_float(job, segment, produced)
    ranges = _share(job, segment, observed)
    for position, entry in enumerate(job.inputs):
        ranges[entry.layer] = rounded(ranges[entry.layer], [arrays[position] for arrays in feeds])
    int8, measured, notes = _best_int8(job, segment, feeds, ranges)
    _require_meaning(job, segment, int8, measured, feeds[0], ranges)
    job.target.write_bytes(int8)
    return Converted(
        inputs=measured.inputs,
        outputs=measured.outputs,
        tflite_bytes=len(int8),
        float_error=float_error,
        sqnr_db=measured.quality,
        backend=from_onnx.BACKEND,
        notes=notes,
        seconds=time.monotonic() - start,
    )


def _share(job: Job, segment: FloatSegment, observed: Mapping[str, Observed]) -> dict[str, Observed]:
    """The observed ranges with those of seams put in (statement 3).

    An output that an operator hands on with its input's scale (RESHAPE) takes it from there, so that tensor gets the
    seam's range too: what two runtimes observed there differs in the last bits.
    """
    ranges = dict(observed)
    for layer, (minimum, maximum) in job.ranges.items():
        for name in (layer, *segment.scale_givers.get(layer, ())):
            if name in ranges:
                ranges[name] = replace(ranges[name], minimum=minimum, maximum=maximum)
    return ranges


def _refused(job: Job, kind: str, error: Exception) -> ConversionError:
    reason = str(error).strip().splitlines()
    return ConversionError(
        f"{job.subject}: the {kind} TFLite file does not run ({reason[0][:300] if reason else error})",
        "cut elsewhere (--cuts) so that the operator named stands in another segment",
    )


def _check_float(job: Job, segment: FloatSegment, produced: Sequence[tuple[npt.NDArray[np.float32], ...]]) -> float:
    worst = 0.0
    for position, entry in enumerate(job.outputs):
        wanted = to_nhwc(entry.values)
        got = np.concatenate([outputs[position] for outputs in produced])
        if got.shape != wanted.shape:
            raise ConversionError(
                f"{job.subject}: output {entry.layer} has shape {got.shape} after conversion, expected {wanted.shape}",
                "cut elsewhere (--cuts)",
            )
        error = relative_error(wanted, got)
        if not error <= FLOAT_TOLERANCE:
            first = {given.layer: given.values[:1] for given in job.inputs}
            where = float_culprit(job.onnx_path, first, segment.data, FLOAT_TOLERANCE)
            raise ConversionError(
                f"{job.subject}: output {entry.layer} of the converted float file differs from onnxruntime by "
                f"{error:.2g} of its largest value (limit {FLOAT_TOLERANCE:g}){where}",
                "onnx2tf gets this operator wrong; write it differently in the model, or cut around it (--cuts)",
            )
        worst = max(worst, error)
    return worst


def _quantise(job: Job, segment: FloatSegment, ranges: Mapping[str, Observed]) -> tuple[bytes, tuple[str, ...]]:
    model = schema.read(segment.data)
    cured = correct.correct(model, ranges, per_channel=job.per_channel)
    edit.compact(model)
    try:
        int8 = quantise.quantise(schema.write(model), ranges, segment.ranks, per_channel=job.per_channel)
    except (ValueError, RuntimeError) as error:
        raise _refused(job, "quantised", error) from error
    final = schema.read(int8)
    edit.compact(final)
    final.description = f"graphcut {job.target.stem}".encode()
    notes = (f"{cured} dead channels got one weight so that their bias fits",) if cured else ()
    return schema.write(final), notes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """An int8 file's edges, and by output layer its quality and whether it is one number for every input."""

    inputs: tuple[SeamTensor, ...]
    outputs: tuple[SeamTensor, ...]
    quality: Mapping[str, float]
    constant: frozenset[str]

    @property
    def worst(self) -> float:
        return min(self.quality.values())


def _best_int8(
    job: Job, segment: FloatSegment, feeds: Sequence[Sequence[Array]], ranges: Mapping[str, Observed]
) -> tuple[bytes, _Measured, tuple[str, ...]]:
    """The int8 file, with biases refined layer by layer where it needs that and gains by it."""
    int8, notes = _quantise(job, segment, ranges)
    measured = _measure_int8(job, segment, int8, feeds)
    if not job.per_channel or measured.worst >= REFINE_BELOW_DB:
        return int8, measured, notes
    refined = refine(int8, [_quantised(arrays, measured.inputs) for arrays in feeds], ranges)
    again = _measure_int8(job, segment, refined, feeds)
    if not again.worst > measured.worst:
        return int8, measured, notes
    gain = f"biases refined layer by layer ({measured.worst:.1f} dB before, {again.worst:.1f} dB after)"
    return refined, again, (*notes, gain)


def _quantised(arrays: Sequence[Array], inputs: Sequence[SeamTensor]) -> list[npt.NDArray[np.int8]]:
    return [litert.quantise(a, t.scale, t.zero_point) for a, t in zip(arrays, inputs, strict=True)]


def _measure_int8(job: Job, segment: FloatSegment, int8: bytes, feeds: Sequence[Sequence[Array]]) -> _Measured:
    try:
        runner = litert.Runner(int8, keep_all=True)
    except (ValueError, RuntimeError) as error:
        raise _refused(job, "int8", error) from error
    inputs = tuple(seam(entry, detail) for entry, detail in zip(job.inputs, runner.inputs, strict=True))
    outputs = tuple(seam(entry, detail) for entry, detail in zip(job.outputs, runner.outputs, strict=True))
    model = schema.read(int8)
    points: list[tuple[str, int, float, int, Array]] = []
    for entry, tensor, detail in zip(job.outputs, outputs, runner.outputs, strict=True):
        inner = segment.before_softmax.get(entry.layer)
        if inner is not None and entry.layer in job.logits:
            index = edit.find(model, inner)
            points.append((entry.layer, index, *edit.scale_of(model, index), to_nhwc(job.logits[entry.layer])))
        else:
            points.append((entry.layer, int(detail["index"]), tensor.scale, tensor.zero_point, to_nhwc(entry.values)))
    got: dict[str, list[npt.NDArray[np.int8]]] = {layer: [] for layer, *_ in points}
    for arrays in feeds:
        runner(_quantised(arrays, inputs))
        for layer, index, *_ in points:
            got[layer].append(np.array(runner.tensor(index)))
    quality: dict[str, float] = {}
    constant = set()
    for layer, _, scale, zero_point, wanted in points:
        steps = np.concatenate(got[layer])
        quality[layer] = sqnr_db(wanted, litert.dequantise(steps, scale, zero_point))
        if steps.min() == steps.max() and float(np.ptp(wanted)) > 0:
            constant.add(layer)
    return _Measured(inputs=inputs, outputs=outputs, quality=quality, constant=frozenset(constant))


def _require_meaning(
    job: Job,
    segment: FloatSegment,
    int8: bytes,
    measured: _Measured,
    feed: Sequence[Array],
    ranges: Mapping[str, Observed],
) -> None:
    for layer, quality in measured.quality.items():
        if layer in measured.constant:
            what = "the same number for every input"
        elif quality < MEANINGLESS_DB and job.per_channel:
            what = f"noise ({quality:.1f} dB against float)"
        else:
            continue
        where = int8_culprit(segment.data, int8, feed, ranges, MEANINGLESS_DB)
        raise ConversionError(
            f"{job.subject}: int8 output {layer} is {what}{where}",
            "calibrate with more and real samples (--calibration FOLDER), or cut around this operator (--cuts)",
        )


def seam(entry: Activation, detail: Mapping[str, Any]) -> SeamTensor:
    """The record of one int8 input or output.

    Raises:
        ConversionError: the tensor is not int8 with one scale.
    """
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"]).name
    if dtype != "int8" or not scale > 0:
        raise ConversionError(
            f"{entry.layer} is {dtype} after quantisation, not int8",
            "cut elsewhere (--cuts): the operator at this seam has no int8 form",
        )
    return SeamTensor(
        tensor=entry.tensor,
        layer=entry.layer,
        shape=tuple(int(n) for n in detail["shape"]),
        dtype=dtype,
        scale=float(scale),
        zero_point=int(zero_point),
    )
