"""One segment from ONNX to a checked int8 TFLite file; runs in a worker process.

1. onnx2tf makes a float32 file; its throw-away endings are dropped (:mod:`graphcut.tflite.float_segment`). Where that
   fails or gives a wrong result, its other backends are tried in turn, and a note says so.
2. The float file is run on the activations at the segment's own input and compared with onnxruntime's at its
   outputs. A difference larger than rounding is an error: a conversion without an exception proves nothing. Where a
   model magnifies rounding, the limit follows from what moving its inputs by one unit in the last place changes.
3. The same runs give the ranges. Ranges at seams come from the float reference, so both sides of a seam share them.
   A whole model that is converted to compare a chain with takes those of the chain's segments where it has the tensor.
4. The file is quantised and checked again (:mod:`graphcut.conversion.quantise_segment`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from graphcut.conversion.first_wrong_operator import float_culprit
from graphcut.conversion.job import ConversionJob, Converted, refused
from graphcut.conversion.quantise_segment import best_int8
from graphcut.conversion.tensorflow_backend import convert_apart
from graphcut.errors import ConversionError, setting
from graphcut.graph.conversion import simplified, with_beginnings
from graphcut.graph.float_chain import inner_values
from graphcut.measurement.metrics import LEAST_SCALE, relative_error, to_nhwc
from graphcut.quant.fit import FittedOperator
from graphcut.quant.kept import Kept
from graphcut.quant.ranges import Observed, observe, rounded
from graphcut.records import Array
from graphcut.tflite import from_onnx
from graphcut.tflite.float_segment import FloatSegment, finish

FLOAT_TOLERANCE = 2e-3
"""Largest difference of the float file to onnxruntime, relative to the largest value (float32 rounding over a few
dozen layers stays below 1e-5; a wrong layout, pad or operator is of order 1)."""

MARGIN = 8.0
"""Rounding in every operator moves an output by a few times as much as rounding of the inputs alone."""
MOST_TOLERANCE = 0.05
"""No model is so sensitive that a larger difference is rounding."""
_MOVED_SAMPLES = 4

_CONVERTER_MARKS = ("_output_nhwc", "__to_nhwc")
"""Suffix that onnx2tf appends to a layer's name for a tensor in another layout."""


def convert(job: ConversionJob) -> Converted:
    """Convert, check, quantise and check again.

    Raises:
        ConversionError: the file cannot be written, or its results are wrong.
    """
    start = time.monotonic()
    feeds = [[to_nhwc(entry.values[n : n + 1]) for entry in job.inputs] for n in range(job.samples)]
    made, passed_over = first_right(from_onnx.backends(), lambda backend: _float(job, feeds, backend))
    segment = made.segment
    ranges = _share(job, segment, made.observed)
    for position, entry in enumerate(job.inputs):
        ranges[entry.layer] = rounded(ranges[entry.layer], [arrays[position] for arrays in feeds])
    shifts: dict[str, npt.NDArray[np.int64]] = {}
    fits: dict[str, FittedOperator] = {}
    for known in job.kept:
        ranges |= {name: seen for name, seen in known.ranges.items() if name in ranges}
        shifts |= known.shifts
        fits |= known.fits
    best = best_int8(job, segment, feeds, ranges, shifts, fits)
    measured = best.measured
    job.target.write_bytes(best.data)
    float_path = job.target.with_name(f"{job.target.stem}_float.tflite")
    float_path.write_bytes(segment.data)
    return Converted(
        target=job.target,
        inputs=measured.inputs,
        outputs=measured.outputs,
        tflite_bytes=len(best.data),
        float_error=made.error,
        sqnr_db=measured.quality,
        backend=made.backend,
        notes=(*passed_over, *best.notes),
        seconds=time.monotonic() - start,
        kept=Kept(ranges=ranges, shifts=shifts, fits=fits, float_path=float_path),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Float:
    """A correct float segment: its observed ranges, its error and the backend."""

    segment: FloatSegment
    observed: Mapping[str, Observed]
    error: float
    backend: str


def first_right(backends: Sequence[str], attempt: Callable[[str], Float]) -> tuple[Float, tuple[str, ...]]:
    """The first backend whose float file is correct, and a note for each one that failed.

    Raises:
        ConversionError: that of the first backend, if none is correct.
    """
    notes: list[str] = []
    first: ConversionError | None = None
    for backend in backends:
        try:
            return attempt(backend), tuple(notes)
        except ConversionError as error:
            first = first or error
            notes.append(f"{backend} failed: {error.message}")
    assert first is not None
    tried = f"; tried {', '.join(backends)}" if len(backends) > 1 else ""
    raise ConversionError(f"{first.message}{tried}", first.way_out)


def _float(job: ConversionJob, feeds: Sequence[Sequence[Array]], backend: str) -> Float:
    """Make the float file with one backend, run it and compare it with onnxruntime."""
    flat = [entry.layer for entry in job.inputs if entry.values.ndim != 4]
    scratch = job.scratch / f"worker-{os.getpid()}"
    rewrite = {from_onnx.BEGUN: with_beginnings, from_onnx.SIMPLIFIED: simplified}.get(backend)
    path = job.onnx_path if rewrite is None else rewrite(job.onnx_path)
    if backend == from_onnx.TENSORFLOW:
        data = convert_apart(path, scratch, job.subject, keep_shape=flat)
    else:
        data = from_onnx.convert(path, scratch, job.subject, backend=backend, keep_shape=flat)
    segment = finish(
        data,
        job.subject,
        inputs=[entry.layer for entry in job.inputs],
        outputs=[entry.layer for entry in job.outputs],
        endings=job.endings,
        readers=job.readers,
    )
    try:
        observed, produced = observe(segment.data, feeds, dict(segment.activations))
    except (ValueError, RuntimeError) as error:
        raise refused(job, "float", error) from error
    error_found = _check_float(job, segment, produced)
    return Float(segment=segment, observed=observed, error=error_found, backend=backend)


def _share(job: ConversionJob, segment: FloatSegment, observed: Mapping[str, Observed]) -> dict[str, Observed]:
    """The observed ranges with those that the author's file says and those of seams put in (statement 3).

    An output that an operator hands on with its input's scale (RESHAPE) takes it from there, so that tensor gets the
    seam's range too: what two runtimes observed there differs in the last bits.
    """
    ranges = dict(observed)
    for layer, (minimum, maximum) in job.said.items():
        for name in (layer, *(f"{layer}{marked}" for marked in _CONVERTER_MARKS)):
            if name in ranges:
                ranges[name] = replace(ranges[name], minimum=minimum, maximum=maximum)
    for layer, (minimum, maximum) in job.ranges.items():
        for name in (layer, *segment.scale_givers.get(layer, ())):
            if name in ranges:
                ranges[name] = replace(ranges[name], minimum=minimum, maximum=maximum)
    return ranges


def _check_float(
    job: ConversionJob, segment: FloatSegment, produced: Sequence[tuple[npt.NDArray[np.float32], ...]]
) -> float:
    worst = 0.0
    for position, entry in enumerate(job.outputs):
        wanted = to_nhwc(entry.values)
        got = np.concatenate([np.atleast_1d(outputs[position]) for outputs in produced])
        if got.shape != wanted.shape:
            raise ConversionError(
                f"{job.subject}: output {entry.layer} has shape {got.shape} after conversion instead of {wanted.shape}",
                f"choose other cuts ({setting('cuts')})",
            )
        error = relative_error(wanted, got)
        if not error <= FLOAT_TOLERANCE and not error <= (limit := own_rounding(job, entry.layer, wanted, got)):
            first = {given.layer: given.values[:1] for given in job.inputs}
            where = float_culprit(job.onnx_path, first, segment.data, FLOAT_TOLERANCE)
            raise ConversionError(
                f"{job.subject}: output {entry.layer} of the converted float file differs from onnxruntime by "
                f"{error:.2g} of its largest value (limit {limit:.2g}){where}",
                f"onnx2tf converts this operator wrongly; rewrite it, or cut around it ({setting('cuts')})",
            )
        worst = max(worst, error)
    return worst


def own_rounding(job: ConversionJob, layer: str, wanted: Array, got: Array) -> float:
    """The difference at an output that is rounding in this model, measured on the samples that differ most.

    Their inputs are moved up or down by one unit in the last place (statement 2).
    """
    if got.shape != wanted.shape or not np.isfinite(got).all():
        return FLOAT_TOLERANCE
    apart = np.abs(got - wanted).reshape(job.samples, -1).max(axis=1)
    generator = np.random.default_rng(0)
    moved = 0.0
    for number in np.argsort(-apart, kind="stable")[:_MOVED_SAMPLES]:
        inputs = {each.layer: each.values[number : number + 1] for each in job.inputs}
        up_or_down = {
            name: (values * (1 + generator.choice([-1, 1], values.shape) * 2.0**-23)).astype(np.float32)
            for name, values in inputs.items()
        }
        one, other = (inner_values(job.onnx_path, each).get(layer) for each in (inputs, up_or_down))
        if one is None or other is None:
            return FLOAT_TOLERANCE
        moved = max(moved, float(np.abs(other - one).max(initial=0.0)))
    scale = max(float(np.abs(wanted).max(initial=0.0)), LEAST_SCALE)
    return min(max(FLOAT_TOLERANCE, MARGIN * moved / scale), MOST_TOLERANCE)
