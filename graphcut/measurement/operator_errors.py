"""How far every operator of the int8 chain is from float, by itself and accumulated from the model's input.

1. Float values come from the ONNX segments as a chain, int8 values from the TFLite segments as a chain, with all inner
   tensors kept. Both run on the same samples, so an *accumulated* figure holds all noise made up to that operator.
2. An output of the TFLite file and a tensor of the ONNX segment correspond where they have the same layer name, without
   the ending that the converter adds, and the same shape. Operators of the converter's own (pads, transposes,
   rescaling) have no counterpart and no figure.
3. *Alone*: the operator runs in a file of its own, on float's values rounded to the int8 of its inputs. An input that
   has no counterpart is what the operators before it make of float's values. The figure holds the rounding of the
   inputs and all that the operator does itself.
4. The converter folds factors into operators and keeps the names. A tensor with more noise than signal although what is
   computed from it has ten times more signal than noise is not the layer of its name, and has no figure.
5. *At the output*: the float model runs once more with the noise of one operator added to its result, for the
   ``MOST_EFFECTS`` operators that lose most by themselves, on the first sample. The figure is that of the worst part
   of the outputs (what goes into a final softmax): noise that later layers drop counts little. The noise is the
   operator's alone, or the chain's where that is less: weights are fitted to the noise of the operators before.
6. An output of the model whose channels have ranges of their own (:mod:`graphcut.measurement.output_parts`) has the
   figures of its worst part: over all channels the largest hide the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graphcut.graph import load
from graphcut.graph.float_chain import NoisySegment, inner_values, logits_or
from graphcut.measurement.int8_chain import quantised_input
from graphcut.measurement.metrics import AnyArray, decibels, energy, sqnr_db, to_nchw, to_nhwc
from graphcut.measurement.output_parts import output_parts
from graphcut.progress import Event, Report, silent
from graphcut.records import Array, ConvertedSegment, OperatorError, Samples
from graphcut.runtime import litert
from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT, OperatorT

FOLDED_DB = 10.0
"""See statement 4."""

MOST_EFFECTS = 12
"""See statement 5; each costs a run of the float model from its segment on."""

MOST_SAMPLES = 4
"""The default number of samples: the figures change little with more."""


def operator_errors(
    segments: Sequence[ConvertedSegment],
    samples: Samples,
    *,
    most: int = MOST_SAMPLES,
    output: str | None = None,
    report: Report = silent,
) -> tuple[OperatorError, ...]:
    """Measure every operator that has a counterpart in float (statements 1 to 6), in the order in which they run.

    Args:
        segments: in order, with their files.
        samples: the model's inputs (NCHW).
        most: samples to run.
        output: layer name of the output at which effects are measured; None for all.
        report: receives progress.

    Raises:
        ModelError: a float segment cannot be read or run.
    """
    count = min(most, len(samples))
    float_values: list[dict[str, Array]] = [
        {name: array[number : number + 1] for name, array in samples.arrays.items()} for number in range(count)
    ]
    int8_values: list[dict[str, AnyArray]] = [{} for _ in range(count)]
    read = {name for part in segments for name in part.segment.inputs}
    found: list[OperatorError] = []
    for done, part in enumerate(segments):
        report(Event(stage="operators", done=done, total=len(segments), detail=f"segment {part.segment.index}"))
        run = _Segment(part, {tensor.layer for tensor in part.outputs if tensor.tensor not in read})
        for number in range(count):
            run(float_values[number], int8_values[number], samples, number)
        found += run.errors()
    report(Event(stage="operators", done=len(segments), total=len(segments), detail="effects at the outputs"))
    return _with_effects(found, segments, samples, output)


def own_db(error: OperatorError) -> float:
    """What an operator loses itself: alone, or in the chain where that is less (statement 5)."""
    return max(error.alone_db, error.sqnr_db)


def severity(error: OperatorError) -> tuple[bool, float]:
    """The key that sorts operators, the worst first: by their effect at the outputs where it was measured."""
    return (True, own_db(error)) if error.output_db is None else (False, error.output_db)


def _with_effects(
    errors: Sequence[OperatorError], segments: Sequence[ConvertedSegment], samples: Samples, output: str | None
) -> tuple[OperatorError, ...]:
    """Put in the effect at the outputs of the operators that lose most (statement 5)."""
    lossy = [each for each in errors if (each.low, each.high) != (0, 0)]
    chosen = {(each.segment, each.layer): each for each in sorted(lossy, key=own_db)[:MOST_EFFECTS]}
    if not chosen:
        return tuple(errors)
    whole = [NoisySegment(part.onnx_path) for part in segments]
    read = {name for part in segments for name in part.segment.inputs}
    ends = [each for part in segments for each in part.outputs if each.tensor not in read]
    ends = [each for each in ends if output in (None, each.layer)] or ends
    exact: list[dict[str, Array]] = [{name: array[:1] for name, array in samples.arrays.items()}]
    for run in whole:
        exact.append(exact[-1] | run(exact[-1]))
    int8_values: dict[str, AnyArray] = {}
    effects: dict[tuple[int, str], float] = {}
    for place, part in enumerate(segments):
        kept = {layer for segment, layer in chosen if segment == part.segment.index}
        once = _Segment(part, (), keep_noise=kept)
        once(dict(exact[place]), int8_values, samples, 0)
        noisy = NoisySegment(part.onnx_path, {tensor: noise.shape for tensor, noise in once.noise.values()})
        for layer, (tensor, noise) in once.noise.items():
            values = exact[place] | noisy(exact[place], {tensor: noise})
            for later in whole[place + 1 :]:
                values |= later(values)
            pairs = [(each.layer, logits_or(exact[-1], each.tensor), logits_or(values, each.tensor)) for each in ends]
            parts = [part for name, *pair in pairs for part in output_parts(name, *map(to_nhwc, pair))]
            effects[part.segment.index, layer] = min(each.sqnr_db for each in parts)
    return tuple(replace(each, output_db=effects.get((each.segment, each.layer))) for each in errors)


def worst_operator(
    errors: Sequence[OperatorError], segments: Sequence[ConvertedSegment], layer: str
) -> OperatorError | None:
    """The operator with the worst effect at an output among those that it is computed from (statement 5).

    A softmax that makes the output is left out: what it reads is what is judged.

    Args:
        errors: from :func:`operator_errors`.
        segments: that they were measured on.
        layer: name of the output.
    """
    wanted = {layer}
    behind: set[tuple[int, str]] = set()
    for part in reversed(segments):
        model = schema.read(part.tflite_path.read_bytes())
        graph = edit.graph_of(model)
        names = [schema.tensor_name(tensor) for tensor in graph.tensors]
        for operator in reversed(graph.operators):
            made = {names[int(index)] for index in operator.outputs}
            if made & wanted:
                wanted |= {names[int(index)] for index in operator.inputs if index >= 0}
                behind |= {(part.segment.index, name) for name in made}
    judged = [
        each
        for each in errors
        if (each.segment, each.layer) in behind
        and not (each.op == "SOFTMAX" and each.layer == layer)
        and (each.low, each.high) != (0, 0)  # no signal that could be lost
    ]
    return min(judged, key=severity, default=None)


@dataclass(slots=True, kw_only=True)
class _Sums:
    """What is known of one operator's output after the samples so far."""

    low: float = float("inf")
    high: float = float("-inf")
    signal: float = 0.0
    alone: float = 0.0
    accumulated: float = 0.0
    kept: list[tuple[Array, Array, Array]] = field(default_factory=list)

    def add(self, plain: Array, alone: Array, accumulated: Array, *, keep: bool) -> None:
        self.low, self.high = min(self.low, float(plain.min())), max(self.high, float(plain.max()))
        self.signal += energy(plain)
        self.alone += energy(alone - plain)
        self.accumulated += energy(accumulated - plain)
        if keep:
            self.kept.append((plain, alone, accumulated))


class _Segment:
    """One segment in float and in int8, and each of its int8 operators alone, ready to run.

    Args:
        part: the segment.
        ends: layer names of those of its outputs that nothing reads.
        keep_noise: names of outputs of operators whose noise is kept.

    Attributes:
        noise: those names -> the ONNX tensor, and the noise that the operator adds to it (NCHW), of the last sample.
    """

    def __init__(self, part: ConvertedSegment, ends: Collection[str], keep_noise: Collection[str] = ()) -> None:
        self._part, self._ends, self._keep_noise = part, ends, keep_noise
        self.noise: dict[str, tuple[str, Array]] = {}
        layers = load.load(part.onnx_path).graph.layers
        self._tensors = {layer: tensor for tensor, layer in layers.items()}
        data = part.tflite_path.read_bytes()
        self._model = schema.read(data)
        self._graph = edit.graph_of(self._model)
        self._runner = litert.Runner(data, keep_all=True)
        self._alone = [_alone(self._model, operator) for operator in self._graph.operators]
        self._others: set[int] | None = None
        self._sums: dict[int, _Sums] = {}
        self._kinds: dict[int, str] = {}

    def __call__(
        self, float_values: dict[str, Array], int8_values: dict[str, AnyArray], samples: Samples, number: int
    ) -> None:
        """Run one sample. Edges are added to both kinds of values."""
        part = self._part
        wanted = inner_values(part.onnx_path, {name: float_values[name] for name in part.segment.inputs})
        for tensor in part.inputs:
            if tensor.layer not in int8_values:
                int8_values[tensor.layer] = quantised_input(tensor, samples, number)
        results = self._runner([int8_values[tensor.layer] for tensor in part.inputs])
        int8_values |= {tensor.layer: result for tensor, result in zip(part.outputs, results, strict=True)}
        exact = {
            edit.find(self._model, each.layer): self._rounded(float_values[each.tensor], each.layer)
            for each in part.inputs
        }
        float_values |= {name: wanted[name] for name in part.segment.outputs if name in wanted}
        self._compare(wanted, exact)

    def _compare(self, wanted: Mapping[str, Array], exact: dict[int, AnyArray]) -> None:
        """Hold every operator beside float; ``exact`` has what it reads in a run on its own, by tensor."""
        counterparts = self._counterparts(wanted)
        for operator, (runner, read) in zip(self._graph.operators, self._alone, strict=True):
            results = runner([exact[index] for index in read])
            kind = schema.op_name(self._model, operator)
            # What rearranges loses nothing itself: the operator whose result it hands on is the one to be named.
            if kind in schema.REARRANGING and read and read[0] not in self._sums:
                kind = self._kinds.get(read[0], kind)
            self._kinds |= {int(index): kind for index in operator.outputs}
            for index, result in zip((int(each) for each in operator.outputs), results, strict=True):
                exact[index] = result
                if index not in counterparts:
                    continue
                name, plain = schema.tensor_name(self._graph.tensors[index]), counterparts[index]
                alone, accumulated = (self._as_float(values, index) for values in (result, self._runner.tensor(index)))
                sums = self._sums.setdefault(index, _Sums())
                sums.add(plain, alone, accumulated, keep=name in self._ends)
                if name in self._keep_noise:
                    less = min(alone, accumulated, key=lambda values: energy(values - plain))
                    self.noise[name] = self._tensor_of(name, wanted), to_nchw(np.asarray(less - plain, np.float32))
                exact[index] = self._rounded(plain, name, is_nhwc=True)

    def _counterparts(self, wanted: Mapping[str, Array]) -> dict[int, Array]:
        """The float values of every tensor that has them (statements 2, and 4 by the first sample)."""
        found = {}
        for index in (int(each) for operator in self._graph.operators for each in operator.outputs):
            tensor = self._graph.tensors[index]
            plain = self._counterpart(schema.tensor_name(tensor), wanted)
            shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
            if plain is not None and plain.shape == shape and schema.TYPE_NAMES[tensor.type] in _VALUES:
                found[index] = plain
        if self._others is None:
            self._others = self._not_their_name(found)
        return {index: plain for index, plain in found.items() if index not in self._others}

    def _not_their_name(self, found: Mapping[int, Array]) -> set[int]:
        quality = {
            index: sqnr_db(plain, self._as_float(self._runner.tensor(index), index)) for index, plain in found.items()
        }
        after: dict[int, float] = {}
        for operator in self._graph.operators:
            best = max((quality.get(int(index), -np.inf) for index in operator.outputs), default=-np.inf)
            for index in (int(each) for each in operator.inputs):
                after[index] = max(after.get(index, -np.inf), best)
        return {index for index, value in quality.items() if value < 0 and after.get(index, -np.inf) > FOLDED_DB}

    def errors(self) -> list[OperatorError]:
        """Return what all runs came to."""
        found = []
        for operator in self._graph.operators:
            for index in (int(each) for each in operator.outputs):
                if index in self._sums:
                    found.append(self._error(index, self._kinds[index], self._sums[index]))
        return found

    def _error(self, index: int, op: str, sums: _Sums) -> OperatorError:
        name = schema.tensor_name(self._graph.tensors[index])
        is_int8 = schema.TYPE_NAMES[self._graph.tensors[index].type] in schema.BYTE_TYPES
        scale, zero_point = edit.scale_of(self._model, index) if is_int8 else (None, None)
        shown, alone, accumulated = "", decibels(sums.signal, sums.alone), decibels(sums.signal, sums.accumulated)
        if sums.kept:
            plain, *others = (np.concatenate(values) for values in zip(*sums.kept, strict=True))
            by_itself, in_chain = (output_parts(name, plain, values) for values in others)
            if by_itself and by_itself[0].axis is not None:
                worst = min(range(len(in_chain)), key=lambda each: in_chain[each].sqnr_db)
                shown, alone = in_chain[worst].name, by_itself[worst].sqnr_db
                accumulated = in_chain[worst].sqnr_db
        return OperatorError(
            segment=self._part.segment.index,
            layer=name,
            op=op,
            part=shown,
            low=sums.low,
            high=sums.high,
            scale=scale,
            zero_point=zero_point,
            alone_db=alone,
            sqnr_db=accumulated,
        )

    def _as_float(self, values: AnyArray, index: int) -> Array:
        if values.dtype not in (np.int8, np.uint8):
            return np.asarray(values, np.float32)
        return np.asarray(litert.dequantise(values, *edit.scale_of(self._model, index)), np.float32)

    def _rounded(self, values: Array, name: str, *, is_nhwc: bool = False) -> AnyArray:
        """Float values as a tensor of the file holds them."""
        index = edit.find(self._model, name)
        values = np.asarray(values if is_nhwc else to_nhwc(values), np.float32)
        kind = schema.TYPE_NAMES[self._graph.tensors[index].type]
        if kind not in schema.BYTE_TYPES:
            return values
        return litert.quantise(values, *edit.scale_of(self._model, index), kind.lower())

    def _counterpart(self, name: str, wanted: Mapping[str, Array]) -> Array | None:
        """The float values of a layer, NHWC (statement 2)."""
        tensor = self._tensor_of(name, wanted)
        return np.asarray(to_nhwc(wanted[tensor]), np.float32) if tensor else None

    def _tensor_of(self, name: str, wanted: Mapping[str, Array]) -> str:
        """The ONNX tensor of a layer; "" where there is none."""
        layers = (name, name.removesuffix(edit.MAP_ENDING))
        return next((tensor for tensor in (self._tensors.get(each, each) for each in layers) if tensor in wanted), "")


_VALUES = schema.BYTE_TYPES | {"FLOAT32"}


def _alone(model: ModelT, operator: OperatorT) -> tuple[litert.Runner, list[int]]:
    """An operator in a file of its own, and the tensors that it reads."""
    data, read = edit.alone(model, operator)
    try:
        return litert.Runner(data), read
    except (RuntimeError, ValueError):  # XNNPACK refuses some operators that it takes in a whole graph
        return litert.Runner(data, kernels="builtin"), read
