"""Correct float weights and biases before quantisation.

1. *Dead channels.* A channel whose weights are all (nearly) zero but whose bias is not gets a weight scale so small
   that its int32 bias saturates to garbage. One weight of such a channel is set to the smallest value with which
   the bias fits in 30 bits; its effect is far below one step of the output.
2. *Bias correction.* Rounding weights and inputs shifts a channel's mean by sum(W_q * E[x_q] - W * E[x]); with the
   channel means of the calibration samples the shift is known and taken from the bias. Source: Nagel et al.,
   "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV 2019, section 4.2.

Both work on a float TFLite model in place, before it is quantised. Weight layouts are TFLite's: CONV_2D
[O, H, W, I / groups], DEPTHWISE_CONV_2D [1, H, W, C * multiplier], FULLY_CONNECTED [O, I].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from graphcut.quant.ranges import Observed
from graphcut.quant.whole import largest_of
from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT

_BIAS_LIMIT = 2.0**29

Floats = npt.NDArray[np.float32]


def correct(
    model: ModelT, ranges: Mapping[str, Observed], *, per_channel: bool, largest: Mapping[str, float] | None = None
) -> int:
    """Fix dead channels and correct biases in place.

    Args:
        model: the float ``ModelT``.
        ranges: activation name -> what was observed.
        per_channel: weights will get one scale per channel (else one per tensor).
        largest: activation made by a part of a layer -> the whole's largest absolute weight, which decides the scale
            where there is one per tensor (:mod:`graphcut.quant.whole`).

    Returns:
        The number of fixed dead channels.
    """
    graph = edit.graph_of(model)
    cured = 0
    for operator in graph.operators:
        name = schema.op_name(model, operator)
        if name not in schema.WEIGHTED or len(operator.inputs) < 3 or operator.inputs[2] < 0:
            continue
        source, weight_tensor, bias_tensor = (graph.tensors[int(i)] for i in operator.inputs[:3])
        seen = ranges.get(schema.tensor_name(source))
        weights, bias = schema.constant(model, weight_tensor), schema.constant(model, bias_tensor)
        if seen is None or weights is None or bias is None or weights.dtype != np.float32:
            continue
        columns = _by_channel(name, weights)
        scaled_by_channel = per_channel and name != "FULLY_CONNECTED"
        if scaled_by_channel:
            columns, count = _revive(columns, bias, seen.scale_and_zero_point[0])
            if count:
                cured += count
                schema.set_constant(model, weight_tensor, _restore(name, columns, weights.shape))
        made = schema.tensor_name(graph.tensors[int(operator.outputs[0])])
        least = 0.0 if scaled_by_channel else largest_of(made, largest or {})
        shift = _mean_shift(name, columns, seen, per_channel=scaled_by_channel, largest=least)
        if shift is not None:
            schema.set_constant(model, bias_tensor, (bias - shift).astype(np.float32))
    return cured


def _by_channel(name: str, weights: Floats) -> Floats:
    """Weights as [O, taps, columns]: columns are input channels, 1 for depthwise."""
    if name == "DEPTHWISE_CONV_2D":
        _, height, width, channels = weights.shape
        return np.ascontiguousarray(weights.reshape(height * width, channels).T)[:, :, np.newaxis]
    return weights.reshape(weights.shape[0], -1, weights.shape[-1])


def _restore(name: str, columns: Floats, shape: tuple[int, ...]) -> Floats:
    if name == "DEPTHWISE_CONV_2D":
        return np.ascontiguousarray(columns[:, :, 0].T).reshape(shape)
    return columns.reshape(shape)


def _revive(columns: Floats, bias: Floats, input_scale: float) -> tuple[Floats, int]:
    """Give each dead channel one weight of the smallest size with which its bias fits."""
    largest = np.abs(columns).max(axis=(1, 2))
    needed = 127.0 * np.abs(bias) / (input_scale * _BIAS_LIMIT)
    dead = np.flatnonzero(largest < needed)
    if dead.size:
        columns = columns.copy()
        columns[dead, 0, 0] = needed[dead]
    return columns, int(dead.size)


def _mean_shift(
    name: str, columns: Floats, seen: Observed, *, per_channel: bool, largest: float = 0.0
) -> npt.NDArray[np.float64] | None:
    """Shift of each output channel's mean by rounding; None where the shapes do not say it."""
    axes = (1, 2) if per_channel else None
    least = np.float32(max(largest, 1e-9))
    scale = np.maximum(np.abs(columns).max(axis=axes, keepdims=True), least) / np.float32(127)
    rounded = (np.rint(columns / scale) * scale).sum(axis=1, dtype=np.float64)
    exact = columns.sum(axis=1, dtype=np.float64)
    wanted = _product(name, exact, seen.channel_mean)
    got = _product(name, rounded, seen.channel_mean if seen.rounded_mean is None else seen.rounded_mean)
    return None if wanted is None or got is None else got - wanted


def _product(name: str, taps: npt.NDArray[np.float64], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Mean of each output channel for weights summed over taps [O, columns]; None where the shapes do not fit."""
    outputs, inputs = taps.shape
    if name == "DEPTHWISE_CONV_2D":
        if outputs % mean.size:
            return None
        return np.asarray(taps[:, 0] * np.repeat(mean, outputs // mean.size))
    if mean.size == inputs:
        return np.asarray(taps @ mean)
    groups = mean.size // inputs if inputs and mean.size % inputs == 0 else 0
    if name == "CONV_2D" and groups and outputs % groups == 0:
        per_group = np.repeat(mean.reshape(groups, inputs), outputs // groups, axis=0)
        return np.asarray((taps * per_group).sum(axis=1))
    return None
