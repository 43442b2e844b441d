"""Turn a correct float segment into a checked int8 file.

1. Dead channels and biases are corrected, the file is quantised, scales that operators require are corrected
   (:mod:`graphcut.quant.scale_rules`), and the int8 file is run and compared with float.
2. An output that is constant or noise is no error here: accuracy methods that see the whole chain come later, and the
   verdict (:mod:`graphcut.verification.verdict`) fails a split that they do not help.
3. Where an output is made by a softmax, the tensor before it is compared: the softmax of a thousand untrained classes
   is the same int8 zero for every input, which would hide errors.
4. Where int8 is not good enough, operators that divide stay in float (:mod:`graphcut.quant.fragile`), and a note says
   so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.conversion.job import ConversionJob, EdgeActivation, refused
from graphcut.errors import ConversionError, setting
from graphcut.measurement.metrics import sqnr_db, to_nhwc
from graphcut.quant import correct, fragile, l2_normalization, quantise, scale_rules, whole
from graphcut.quant.fit import FittedOperator, given
from graphcut.quant.ranges import Observed
from graphcut.quant.refine import Shifts, shifted
from graphcut.records import Array, SeamTensor
from graphcut.runtime import litert
from graphcut.tflite import edit, schema
from graphcut.tflite.final_softmax import FinalSoftmax
from graphcut.tflite.float_segment import FloatSegment
from graphcut.tflite.legacy_form import acceptable
from graphcut.tflite.schema_types import ModelT

GOOD_DB = 26.0
"""A segment as good as this is not changed."""


FARTHEST = 16.0
"""Steps of an output in one of an input from which scales can be why an operator is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An int8 file's edges, and by output layer its quality."""

    inputs: tuple[SeamTensor, ...]
    outputs: tuple[SeamTensor, ...]
    quality: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The lowest quality of an output, in dB."""
        return min(self.quality.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """An int8 file, its quality, and notes for the user."""

    data: bytes
    measured: Measured
    notes: tuple[str, ...]


def best_int8(
    job: ConversionJob,
    segment: FloatSegment,
    feeds: Sequence[Sequence[Array]],
    ranges: Mapping[str, Observed],
    shifts: Shifts,
    fits: Mapping[str, FittedOperator],
) -> Best:
    """The int8 file, with operators in float where that is needed and helps.

    Args:
        job, segment: what is converted.
        feeds: for each sample the inputs in the file's order, NHWC.
        ranges: activation name -> observed values.
        shifts: what was added to biases of other files with the same operators.
        fits: what operators of other files were fitted to.
    """
    int8, measured, notes = _first_good(job, segment, feeds, ranges)
    if shifts or fits:
        int8 = shifted(given(int8, fits), shifts)
        measured = _measure_int8(job, segment, int8, feeds)
    return Best(data=int8, measured=measured, notes=notes)


def _first_good(
    job: ConversionJob, segment: FloatSegment, feeds: Sequence[Sequence[Array]], ranges: Mapping[str, Observed]
) -> tuple[bytes, Measured, tuple[str, ...]]:
    """All of it in int8 if that is good, else with the fragile operators in float if that is better (statement 4)."""
    model = schema.read(segment.data)
    offered = fragile.choices(model)[int(fragile.near_zero(model, ranges)) :]
    ranges = scale_rules.symmetric(model, fragile.dividable(model, ranges))
    best: tuple[bytes, Measured, tuple[str, ...]] | None = None
    for in_float in offered:
        try:
            int8, notes = _quantise(job, segment, ranges, in_float)
            measured = _measure_int8(job, segment, int8, feeds)
        except ConversionError:
            if best is None and in_float == offered[-1]:
                raise
            continue
        if best is None or measured.worst > best[1].worst:
            best = int8, measured, notes
        if best[1].worst >= GOOD_DB:
            break
    assert best is not None
    return best


def _quantised(arrays: Sequence[Array], inputs: Sequence[SeamTensor]) -> list[npt.NDArray[np.int8]]:
    return [litert.quantise(a, t.scale, t.zero_point) for a, t in zip(arrays, inputs, strict=True)]


def _measure_int8(job: ConversionJob, segment: FloatSegment, int8: bytes, feeds: Sequence[Sequence[Array]]) -> Measured:
    try:
        runner = litert.Runner(int8, keep_all=True)
    except (ValueError, RuntimeError) as error:
        raise _refused_int8(job, int8, error) from error
    inputs = tuple(seam(entry, detail) for entry, detail in zip(job.inputs, runner.inputs, strict=True))
    outputs = tuple(seam(entry, detail) for entry, detail in zip(job.outputs, runner.outputs, strict=True))
    model = schema.read(int8)
    points: list[tuple[str, int, float, int, Array, FinalSoftmax | None]] = []
    for entry, tensor, detail in zip(job.outputs, outputs, runner.outputs, strict=True):
        final = segment.final_softmaxes.get(entry.layer)
        if final is not None and entry.layer in job.logits:
            index = edit.find(model, final.inner)
            points.append((entry.layer, index, *edit.scale_of(model, index), to_nhwc(job.logits[entry.layer]), final))
        else:
            index = int(detail["index"])
            points.append((entry.layer, index, tensor.scale, tensor.zero_point, to_nhwc(entry.values), None))
    got: dict[str, list[npt.NDArray[np.int8]]] = {layer: [] for layer, *_ in points}
    for arrays in feeds:
        try:
            runner(_quantised(arrays, inputs))
        except (ValueError, RuntimeError) as error:
            raise refused(job, "int8", error) from error
        for layer, index, *_, final in points:
            values = np.array(runner.tensor(index))
            got[layer].append(np.atleast_1d(values if final is None else final.arranged(values)))
    quality: dict[str, float] = {}
    for layer, _, scale, zero_point, wanted, _ in points:
        steps = np.concatenate(got[layer])
        quality[layer] = sqnr_db(wanted, litert.dequantise(steps, scale, zero_point))
    return Measured(inputs=inputs, outputs=outputs, quality=quality)


def _refused_int8(job: ConversionJob, int8: bytes, error: Exception) -> ConversionError:
    """The error for an int8 file that XNNPACK refuses; it names an operator whose scales are too far apart.

    XNNPACK limits the ratio of what goes in to what comes out (its ``requantization_scale`` is below 256).
    """
    model = schema.read(int8)
    graph = edit.graph_of(model)
    for operator in graph.operators:
        index = int(operator.outputs[0])
        try:
            litert.Runner(edit.alone(model, operator)[0])
        except (ValueError, RuntimeError):
            read = [graph.tensors[int(each)] for each in operator.inputs if each >= 0]
            activations = [each for each in read if schema.constant(model, each) is None]
            steps = [float(each.quantization.scale[0]) for each in activations if each.quantization is not None]
            made = graph.tensors[index].quantization
            if not steps or made is None or max(steps) < FARTHEST * float(made.scale[0]):
                continue
            layer = schema.tensor_name(graph.tensors[index]).removesuffix(edit.MAP_ENDING)
            return ConversionError(
                f"{job.subject}: {schema.op_name(model, operator)} ({layer}) does not run in int8: one step of what it "
                f"reads ({max(steps):.2g}) is far more than one of what it makes ({float(made.scale[0]):.2g})",
                "scale what it reads down, or end the model before it",
            )
    return refused(job, "int8", error)


def seam(entry: EdgeActivation, detail: Mapping[str, Any]) -> SeamTensor:
    """The record of one int8 input or output.

    Raises:
        ConversionError: the tensor is not int8 with one scale.
    """
    scale, zero_point = detail["quantization"]
    dtype = np.dtype(detail["dtype"]).name
    if dtype != "int8" or not scale > 0:
        raise ConversionError(
            f"{entry.layer} is {dtype} after quantisation, not int8: its operator has no int8 form",
            f"avoid this seam ({setting('avoid', entry.layer)})",
        )
    return SeamTensor(
        tensor=entry.tensor,
        layer=entry.layer,
        shape=tuple(int(n) for n in detail["shape"]),
        dtype=dtype,
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _quantise(
    job: ConversionJob, segment: FloatSegment, ranges: Mapping[str, Observed], in_float: Sequence[str]
) -> tuple[bytes, tuple[str, ...]]:
    model = schema.read(segment.data)
    largest = job.largest_weights
    cured = correct.correct(model, ranges, per_channel=job.per_channel, largest=largest)
    planted = whole.plant(model, largest, per_channel=job.per_channel)
    edit.compact(model)
    try:
        int8 = quantise.quantise(
            schema.write(model), ranges, segment.ranks, per_channel=job.per_channel, in_float=in_float
        )
    except (ValueError, RuntimeError) as error:
        raise refused(job, "quantised", error) from error
    final = schema.read(int8)
    whole.restore(final, planted)
    _int8_outputs(final)
    edges = (entry.layer for entry in (*job.inputs, *job.outputs))
    scale_rules.enforce(final, {layer: quantise.scale_of_range(*job.ranges[layer]) for layer in edges}, ranges)
    l2_normalization.in_int8(final)
    _name_edges(final, job)
    acceptable(final)
    edit.compact(final)
    final.description = f"graphcut {job.target.stem}".encode()
    notes = [f"{cured} dead channels got one small weight, so that their bias fits in int32"] if cured else []
    if in_float:
        makers = edit.producers(model)
        kinds = dict.fromkeys(schema.op_name(model, makers[edit.find(model, name)]) for name in in_float)
        notes.append(f"{' and '.join(kinds)} stay in float: {len(in_float)} operators run on the host")
    return schema.write(final), tuple(notes)


def _int8_outputs(model: ModelT) -> None:
    """Let an output that is a DEQUANTIZE of an int8 tensor be that tensor.

    The quantiser makes such an output of one that an operator left in float reads as well.
    """
    graph, makers = edit.graph_of(model), edit.producers(model)
    found = []
    for index in (int(i) for i in graph.outputs):
        maker = makers.get(index)
        direct = maker is None or schema.op_name(model, maker) != "DEQUANTIZE"
        found.append(index if maker is None or direct else int(maker.inputs[0]))
    graph.outputs = np.array(found, np.int32)


def _name_edges(model: ModelT, job: ConversionJob) -> None:
    """Restore the layer names of inputs and outputs: the quantiser renames an output of an operator left in float."""
    graph = edit.graph_of(model)
    edges = [*graph.inputs, *graph.outputs]
    names: dict[int, str] = {}
    for index, entry in zip(edges, (*job.inputs, *job.outputs), strict=True):
        names.setdefault(int(index), entry.layer)
    edit.rename(model, names)
    edit.set_interface(model, [int(index) for index in graph.inputs], [int(index) for index in graph.outputs])
