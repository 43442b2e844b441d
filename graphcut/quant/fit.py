"""Fit weights and biases to the int8 results of the layers before, where plain int8 is poor.

1. Operator by operator, in order, each weighted operator gets the weights with which its result on the *int8* values
   that reach it comes closest to its result on float's: least squares, in closed form, on rows of its input (one row a
   position of the output, all taps and channels of it). So it makes up for the errors of the layers before, and
   relies less on channels that are mostly noise. Source: Hubara et al., "Accurate Post Training Quantization With Small
   Calibration Sets", ICML 2021, arXiv 2006.10518, section 3 (there by gradient steps); ridge regression: Hoerl and
   Kennard, Technometrics 12, 1970.
2. The difference to the trained weights is what is penalised. Every ``GUARD_EVERY``-th sample is not fitted to: on
   these the penalty is chosen, and a layer that does not gain ``LEAST_GAIN`` there keeps its weights. It may still get
   a bias that takes the mean difference away, where that gains on them.
3. A layer needs ``ROWS_A_COLUMN`` rows for every weight of an output channel, and has at most ``MOST_COLUMNS`` of
   these: a dense layer after a pool has one row per sample, so only its bias is looked at.
4. Sizes, operators and scales of activations stay. The scale of a weight channel grows where its largest weight did.

Cost: every operator runs once on every sample in float and in int8, a fitted one twice; and n rows x m^2 for m columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphcut.quant.refine import Values, run_operator
from graphcut.runtime.litert import dequantise
from graphcut.tflite import edit, schema, windows
from graphcut.tflite.scales import LARGEST_BIAS
from graphcut.tflite.schema_types import ModelT, OperatorT

GUARD_EVERY = 4
LEAST_GAIN = 0.02
PENALTIES = (1e-3, 1e-2, 1e-1)
"""In units of the mean square of a column."""

ROWS_A_COLUMN = 2
MOST_ROWS = 2048
MOST_COLUMNS = 640


Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedOperator:
    """What an operator got: int8 weights and int32 bias, with their scales."""

    weights: npt.NDArray[np.int8]
    weight_scales: npt.NDArray[np.float32]
    bias: npt.NDArray[np.int32]
    bias_scales: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted file.

    Attributes:
        data: the file.
        fits: name of what an operator makes -> what it got.
        outputs, float_outputs: for each output of the file its values by sample.
    """

    data: bytes
    fits: Mapping[str, FittedOperator]
    outputs: tuple[Values, ...]
    float_outputs: tuple[Values, ...]


def fit(
    int8: bytes,
    float_model: bytes,
    inputs: Sequence[Values],
    float_inputs: Sequence[Values],
    *,
    threads: int = 1,
) -> Fitted:
    """The same file with fitted weights and biases.

    Args:
        int8: the file.
        float_model: the float file it was quantised from; activations have the same names.
        inputs: for each input in the file's order what it holds, by sample (int8, NHWC).
        float_inputs: the same in float.
        threads: of each interpreter.

    Raises:
        ConversionError: an operator does not run in a file of its own.
    """
    model, exact = schema.read(int8), schema.read(float_model)
    graph, float_graph = edit.graph_of(model), edit.graph_of(exact)
    count = len(inputs[0])
    values = _Alive(model, inputs)
    floats = _Alive(exact, float_inputs)
    waiting = list(float_graph.operators)
    fits: dict[str, FittedOperator] = {}
    for number, operator in enumerate(graph.operators):
        name = schema.tensor_name(graph.tensors[int(operator.outputs[0])])
        twin = _twin(exact, waiting, model, operator, name)
        if twin is not None:
            _run_until(exact, waiting, twin, floats, count, threads)
            found = _fitted(model, operator, exact, twin, values.held, floats.held)
            if found is not None:
                _give(model, operator, found)
                fits[name] = found
        values.made(number, operator, run_operator(model, operator, values.held, count, threads))
    _run_until(exact, waiting, None, floats, count, threads)
    outputs = tuple(values.held[int(index)] for index in graph.outputs)
    float_outputs = tuple(floats.held[int(index)] for index in float_graph.outputs)
    edit.compact(model)
    return Fitted(data=schema.write(model), fits=fits, outputs=outputs, float_outputs=float_outputs)


class _Alive:
    """What the tensors of a file hold, by sample, as long as an operator still reads them."""

    def __init__(self, model: ModelT, inputs: Sequence[Values]) -> None:
        graph = edit.graph_of(model)
        self.held: dict[int, Values] = {int(i): list(each) for i, each in zip(graph.inputs, inputs, strict=True)}
        self._ends = {int(index) for index in graph.outputs}
        self._last = {int(index): number for number, op in enumerate(graph.operators) for index in op.inputs}

    def made(self, number: int, operator: OperatorT, results: Sequence[Values]) -> None:
        """Keep what operator ``number`` made, drop what nobody reads after it."""
        self.held |= zip((int(index) for index in operator.outputs), results, strict=True)
        for index in {int(each) for each in operator.inputs} - self._ends:
            if self._last[index] == number:
                self.held.pop(index, None)


def _twin(
    exact: ModelT, waiting: Sequence[OperatorT], model: ModelT, operator: OperatorT, name: str
) -> OperatorT | None:
    """The float operator that makes the same tensor, for a weighted one with a bias that was not run yet."""
    if (
        schema.op_name(model, operator) not in schema.WEIGHTED
        or len(operator.inputs) < 3
        or int(operator.inputs[2]) < 0
    ):
        return None
    tensors = edit.graph_of(exact).tensors
    named = [each for each in waiting if schema.tensor_name(tensors[int(each.outputs[0])]) == name]
    same = [each for each in named if schema.op_name(exact, each) == schema.op_name(model, operator)]
    return same[0] if same and len(same[0].inputs) == len(operator.inputs) else None


def _run_until(
    exact: ModelT, waiting: list[OperatorT], end: OperatorT | None, floats: _Alive, count: int, threads: int
) -> None:
    """Run the float operators up to ``end``, which stays; all of them where it is None."""
    total = len(edit.graph_of(exact).operators)
    while waiting and waiting[0] is not end:
        operator = waiting.pop(0)
        floats.made(total - len(waiting) - 1, operator, run_operator(exact, operator, floats.held, count, threads))


def _fitted(
    model: ModelT,
    operator: OperatorT,
    exact: ModelT,
    twin: OperatorT,
    values: Mapping[int, Values],
    floats: Mapping[int, Values],
) -> FittedOperator | None:
    graph, float_graph = edit.graph_of(model), edit.graph_of(exact)
    source, weight_tensor, bias_tensor = (graph.tensors[int(index)] for index in operator.inputs[:3])
    weights = schema.constant(exact, float_graph.tensors[int(twin.inputs[1])])
    bias = schema.constant(exact, float_graph.tensors[int(twin.inputs[2])])
    stored = schema.constant(model, weight_tensor)
    if weights is None or bias is None or stored is None or weights.dtype != np.float32 or stored.dtype != np.int8:
        return None
    if schema.TYPE_NAMES[source.type] != "INT8" or stored.shape != weights.shape:
        return None
    depthwise = schema.op_name(model, operator) == "DEPTHWISE_CONV_2D"
    kernel = (weights.shape[1], weights.shape[2]) if weights.ndim == 4 else (1, 1)
    scale, zero_point = edit.scale_of(model, int(operator.inputs[0]))
    held, wanted = values[int(operator.inputs[0])], floats[int(twin.inputs[0])]
    each = max(1, MOST_ROWS // len(held))
    got_rows = [windows.rows(model, operator, dequantise(one, scale, zero_point), kernel, each) for one in held]
    float_rows = [windows.rows(exact, twin, np.asarray(one, np.float32), kernel, each) for one in wanted]
    guard = np.concatenate(
        [np.full(len(one), number % GUARD_EVERY == GUARD_EVERY - 1) for number, one in enumerate(got_rows)]
    )
    got, floating = np.concatenate(got_rows), np.concatenate(float_rows)
    if depthwise:
        if got.shape[-1] != weights.shape[-1]:
            return None
        taps = weights.reshape(-1, weights.shape[-1]).T.astype(np.float64)
        fitted, shift = _fit_depthwise(taps, _by_channel(got), _by_channel(floating), guard)
        mean = _by_channel(got).mean(axis=1)
    else:
        taps = weights.reshape(len(weights), -1).astype(np.float64)
        if got[0].size != taps.shape[1]:
            return None
        flat = got.reshape(len(got), -1)
        fitted, shift = _fit_dense(taps, flat, floating.reshape(len(got), -1), guard)
        mean = np.broadcast_to(flat.mean(axis=0, dtype=np.float64), taps.shape)
    old = np.broadcast_to(np.asarray(schema.quantization(weight_tensor).scale, np.float64), len(taps))
    largest = np.abs(fitted).max(axis=1)
    if len(schema.quantization(weight_tensor).scale) == 1:
        largest = np.full(len(taps), largest.max())
    scales = np.maximum(old, largest / 127).astype(np.float32).astype(np.float64)
    steps = np.clip(np.rint(fitted / scales[:, np.newaxis]), -127, 127)
    rounding = ((fitted - steps * scales[:, np.newaxis]) * mean).sum(axis=1)
    bias_scales = np.float64(np.float32(scale)) * scales
    bias_steps = np.rint((bias + shift + rounding) / bias_scales)
    if np.abs(bias_steps).max(initial=0.0) > LARGEST_BIAS:
        return None
    restored = steps.T.reshape(weights.shape) if depthwise else steps.reshape(weights.shape)
    one_scale = slice(0, len(schema.quantization(weight_tensor).scale))
    return FittedOperator(
        weights=restored.astype(np.int8),
        weight_scales=scales[one_scale].astype(np.float32),
        bias=bias_steps.astype(np.int32),
        bias_scales=bias_scales[: len(schema.quantization(bias_tensor).scale)].astype(np.float32),
    )


def _by_channel(found: npt.NDArray[np.float32]) -> Floats:
    """Rows (positions, height, width, channels) as (channels, positions, taps)."""
    return found.reshape(len(found), -1, found.shape[-1]).transpose(2, 0, 1).astype(np.float64)


def _fit_dense(
    taps: Floats, got: npt.NDArray[np.float32], floating: npt.NDArray[np.float32], guard: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Weights (O, columns) and what is added to the bias."""
    missing = (floating - got) @ taps.T.astype(np.float32)
    learn = ~guard
    shift = missing[learn].mean(axis=0, dtype=np.float64)
    nothing = float(np.square(missing[guard], dtype=np.float64).sum())
    by_shift = float(np.square(missing[guard] - shift, dtype=np.float64).sum())
    best, fitted, added = nothing, taps, np.zeros(len(taps))
    if by_shift < (1 - LEAST_GAIN) * best:
        best, added = by_shift, shift
    columns = taps.shape[1]
    if columns > MOST_COLUMNS or int(learn.sum()) < ROWS_A_COLUMN * columns:
        return fitted, added
    with_one = np.concatenate([got, np.ones((len(got), 1), np.float32)], axis=1)
    square = (with_one[learn].T @ with_one[learn]).astype(np.float64)
    product = (with_one[learn].T @ missing[learn]).astype(np.float64)
    unit = float(np.trace(square[:-1, :-1])) / columns
    penalised = np.append(np.ones(columns), 1e-6) * max(unit, 1e-12)
    for penalty in PENALTIES:
        change = np.linalg.solve(square + np.diag(penalty * penalised), product)
        left = missing[guard] - with_one[guard] @ change.astype(np.float32)
        error = float(np.square(left, dtype=np.float64).sum())
        if error < (1 - LEAST_GAIN) * best:
            best, fitted, added = error, taps + change[:-1].T, change[-1]
    return fitted, added


def _fit_depthwise(taps: Floats, got: Floats, floating: Floats, guard: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The same channel by channel: weights (C, taps) and what is added to the bias."""
    missing = np.einsum("cpt,ct->cp", floating - got, taps)
    learn = ~guard
    shift = missing[:, learn].mean(axis=1)
    best = np.square(missing[:, guard]).sum(axis=1)
    by_shift = np.square(missing[:, guard] - shift[:, np.newaxis]).sum(axis=1)
    gains = by_shift < (1 - LEAST_GAIN) * best
    best, added, fitted = np.where(gains, by_shift, best), np.where(gains, shift, 0.0), taps.copy()
    columns = taps.shape[1]
    if int(learn.sum()) < ROWS_A_COLUMN * columns:
        return fitted, added
    with_one = np.concatenate([got, np.ones((*got.shape[:2], 1))], axis=2)
    square = np.einsum("cpt,cpu->ctu", with_one[:, learn], with_one[:, learn], optimize=True)
    product = np.einsum("cpt,cp->ct", with_one[:, learn], missing[:, learn], optimize=True)
    unit = np.maximum(np.einsum("ctt->c", square[:, :-1, :-1]) / columns, 1e-12)
    penalised = np.diag(np.append(np.ones(columns), 1e-6))
    for penalty in PENALTIES:
        change = np.linalg.solve(square + penalty * unit[:, None, None] * penalised, product[..., None])[..., 0]
        left = missing[:, guard] - np.einsum("cpt,ct->cp", with_one[:, guard], change)
        error = np.square(left).sum(axis=1)
        gains = error < (1 - LEAST_GAIN) * best
        best = np.where(gains, error, best)
        fitted = np.where(gains[:, np.newaxis], taps + change[:, :-1], fitted)
        added = np.where(gains, change[:, -1], added)
    return fitted, added


def _give(model: ModelT, operator: OperatorT, found: FittedOperator) -> None:
    """Put what was fitted into an operator."""
    tensors = edit.graph_of(model).tensors
    weights, bias = tensors[int(operator.inputs[1])], tensors[int(operator.inputs[2])]
    schema.set_constant(model, weights, found.weights)
    schema.set_constant(model, bias, found.bias)
    schema.quantization(weights).scale, schema.quantization(bias).scale = found.weight_scales, found.bias_scales


def given(int8: bytes, fits: Mapping[str, FittedOperator]) -> bytes:
    """The file with what operators of other files, that make what is called the same, were fitted to."""
    model = schema.read(int8)
    tensors = edit.graph_of(model).tensors
    for operator in edit.graph_of(model).operators:
        found = fits.get(schema.tensor_name(tensors[int(operator.outputs[0])]))
        if found is None or schema.op_name(model, operator) not in schema.WEIGHTED or len(operator.inputs) < 3:
            continue
        weights = schema.constant(model, tensors[int(operator.inputs[1])])
        if weights is not None and weights.shape == found.weights.shape:
            _give(model, operator, found)
    edit.compact(model)
    return schema.write(model)
