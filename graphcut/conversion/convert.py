"""Convert all segments of a plan from ONNX to checked int8 TFLite, in worker processes.

1. The whole float model runs once on the samples; its values at the seams are the calibration inputs of each segment
   and the reference for its outputs.
2. A seam's range is the smallest and largest value over all samples, the same for both sides. Operators that keep their
   input's scale (MaxPool, Reshape, ...) use the range of their input.
3. Workers convert; meanwhile this process proves the float chain (:func:`float_chain_exact`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from graphcut.cache_folder import EarlierResults
from graphcut.conversion import reuse
from graphcut.conversion.job import ConversionJob, Converted, EdgeActivation
from graphcut.graph.conversion import SegmentProto, conversion_copy
from graphcut.graph.extraction import save
from graphcut.graph.model import Model
from graphcut.measurement.float_reference import range_sources
from graphcut.progress import Event, Report, silent
from graphcut.quant.kept import Kept
from graphcut.quant.ranges import meaningful
from graphcut.records import Array, ConvertedSegment, Plan, Segment
from graphcut.workers.pool import Call, Pool

FUNCTION = "graphcut.conversion.convert_segment:convert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversions:
    """The converted segments of a plan, and for each what it was quantised with."""

    segments: tuple[ConvertedSegment, ...]
    kept: tuple[Kept, ...]


def subject(segment: Segment) -> str:
    """A segment as errors name it: "segment 3 (conv4_block10_out .. conv4_block16_out)"."""
    return f"segment {segment.index} ({', '.join(segment.input_layers)} .. {', '.join(segment.output_layers)})"


def convert(
    model: Model,
    plan: Plan,
    protos: Sequence[SegmentProto],
    values: Mapping[str, Array],
    logits: Mapping[str, Array],
    pool: Pool,
    folder: Path,
    *,
    samples: int,
    per_channel: bool,
    kept: Sequence[Kept] = (),
    results: EarlierResults | None = None,
    report: Report = silent,
) -> Conversions:
    """Convert every segment of a plan.

    Args:
        model: the whole.
        plan: its segments.
        protos: the extracted ONNX segments, in order.
        values: tensor -> (N, ...) float values in the whole, for every edge tensor and all range sources.
        logits: output tensor -> (N, ...) values before its final softmax, arranged as the output is.
        samples: N.
        pool: the workers.
        folder: where ``seg1_int8.tflite``, ``seg1.onnx`` and scratch files go.
        per_channel: one weight scale per output channel.
        kept: as in :class:`graphcut.conversion.job.ConversionJob`.
        results: where results of earlier runs are; None to convert all.
        report: progress.

    Raises:
        ConversionError: names the segment.
    """
    layers = model.graph.layers
    ranges = {
        name: _said(model, name, found) or _range([values[each] for each in found])
        for name, found in range_sources(model, plan).items()
    }
    calls = []
    for segment, proto in zip(plan.segments, protos, strict=True):
        copy = conversion_copy(proto, layers)
        path = folder / f"convert{segment.index}.onnx"
        save(copy.proto, path)
        job = ConversionJob(
            subject=subject(segment),
            onnx_path=path,
            target=folder / f"seg{segment.index}_int8.tflite",
            scratch=folder,
            inputs=tuple(EdgeActivation(tensor=n, layer=layers[n], values=values[n]) for n in segment.inputs),
            outputs=tuple(EdgeActivation(tensor=n, layer=layers[n], values=values[n]) for n in segment.outputs),
            logits={layers[name]: logits[name] for name in segment.outputs if name in logits},
            samples=samples,
            endings=copy.endings,
            readers=copy.readers,
            ranges={layers[n]: ranges[n] for n in (*segment.inputs, *segment.outputs, *_parts(model, segment))},
            per_channel=per_channel,
            largest_weights={
                layers[n]: model.largest_weights[n] for n in _parts(model, segment) if n in model.largest_weights
            },
            kept=tuple(kept),
            said={
                layers[name]: model.said_ranges[name]
                for node in model.graph.nodes[segment.start : segment.stop]
                for name in node.outputs
                if name in model.said_ranges
            },
        )
        calls.append(Call(function=FUNCTION, argument=job, subject=job.subject))
    made = _converted(calls, pool, results, report)
    converted = []
    for segment, call, result in zip(plan.segments, calls, made, strict=True):
        call.argument.onnx_path.unlink(missing_ok=True)
        converted.append(
            ConvertedSegment(
                segment=replace(segment, tflite_bytes=result.tflite_bytes),
                onnx_path=folder / f"seg{segment.index}.onnx",
                tflite_path=call.argument.target,
                inputs=result.inputs,
                outputs=result.outputs,
                float_error=result.float_error,
                sqnr_db=result.sqnr_db,
                backend=result.backend,
                notes=result.notes,
                seconds=result.seconds,
            )
        )
    return Conversions(segments=tuple(converted), kept=tuple(result.kept for result in made))


def _converted(calls: Sequence[Call], pool: Pool, results: EarlierResults | None, report: Report) -> list[Converted]:
    """What workers make of the calls, or made of the same ones in an earlier run; the files are there."""
    keys = [_key(call.argument) for call in calls] if results is not None else []
    made: dict[int, Converted] = {}
    for place, key in enumerate(keys):
        taken = reuse.take(results, key, calls[place].argument.target.parent) if results is not None else None
        if taken is not None:
            made[place] = taken[0]
    missing = [place for place in range(len(calls)) if place not in made]
    finished = len(made)

    def done(position: int) -> None:
        nonlocal finished
        finished += 1
        report(Event(stage="convert", done=finished, total=len(calls), detail=f"segment {missing[position] + 1}"))

    reused = f"{finished} from an earlier run" if finished else ""
    report(Event(stage="convert", done=finished, total=len(calls), detail=reused))
    for place, result in zip(missing, pool.map([calls[place] for place in missing], done), strict=True):
        made[place] = result
        if results is not None:
            reuse.keep(results, keys[place], result)
    return [made[place] for place in range(len(calls))]


def _key(job: ConversionJob) -> str:
    """The key of a conversion: the name of the target is in the file's description."""
    what = {field.name: getattr(job, field.name) for field in fields(job) if field.name not in ("target", "scratch")}
    return reuse.key("convert", job.target.name, what)


def _parts(model: Model, segment: Segment) -> list[str]:
    """The activations of split layers that a segment makes."""
    nodes = model.graph.nodes[segment.start : segment.stop]
    return [name for node in nodes for name in node.outputs if name in model.range_sources]


def _said(model: Model, name: str, sources: Sequence[str]) -> tuple[float, float] | None:
    """The range that the author's file gives a tensor, or the one tensor whose scale it has; None without one."""
    if len(sources) != 1:
        return None
    return model.said_ranges.get(sources[0], model.said_ranges.get(name))


def _range(values: Sequence[Array]) -> tuple[float, float]:
    return meaningful(min(float(np.min(each)) for each in values), max(float(np.max(each)) for each in values))
