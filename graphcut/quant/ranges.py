"""Observe the activations of a float TFLite file over the calibration samples.

1. Each sample is run by itself and minima and maxima are merged; a moving average over samples would clip values of
   single samples (18.8 dB instead of 20.4 dB on the logits of a trained MobileNetV2).
2. Every inner tensor is read after each run; nothing is inferred from neighbours.
3. The channel means serve bias correction (:mod:`graphcut.quant.correct`).
4. An activation that is 0 on every sample (a ReLU that never fires, after the pool of a squeeze-and-excite block) gives
   no range. A tiny scale would overflow the requantisation before it, which XNNPACK refuses to prepare: such a tensor
   gets the range 0 .. 1, in which 0 is exact.
5. The shrinkage of a range without its rarest values is recorded too (:class:`Histogram`): a search over ranges
   (:mod:`graphcut.quant.clipping`) chooses among these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.runtime.litert import Runner, dequantise, quantise

MEANS = 32
"""Samples whose own channel means are kept: those that biases are refined on, which holds all their activations."""

CUT_SHARES = (1e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
"""Shares of an activation's values that a range may leave out at either end, smallest first."""

COUNTED = 1 << 17
"""Values of one activation and sample that are counted at most, evenly spaced ones."""

NOTHING = 1e-9
"""Activations that stay below it are 0 (statement 4)."""


def meaningful(minimum: float, maximum: float) -> tuple[float, float]:
    """The range of an activation: the same, or 0 .. 1 where it is 0 on every sample (statement 4)."""
    return (0.0, 1.0) if max(abs(minimum), abs(maximum)) < NOTHING else (minimum, maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Range and channel means of one activation over all samples.

    Attributes:
        minimum, maximum: over all elements and samples.
        channel_mean: mean per last dimension (channels, NHWC), float64.
        rounded_mean: the same after rounding to int8, where it was measured.
        sample_means: the channel means of single samples (n, channels), of the first ``MEANS`` samples; empty where
            they were not kept.
        cuts: for each of ``CUT_SHARES`` the range without that share of the values at either end (levels, 2); empty
            where values were not counted.
    """

    minimum: float
    maximum: float
    channel_mean: npt.NDArray[np.float64]
    rounded_mean: npt.NDArray[np.float64] | None = None
    sample_means: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    cuts: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def scale_and_zero_point(self) -> tuple[float, int]:
        """The asymmetric int8 scale and zero point of the range, which is widened to hold zero."""
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        scale = max(high - low, NOTHING) / 255.0
        return scale, round(-128 - low / scale)


class Histogram:
    """How often the values of an activation occur, by the upper half of their float32 bits: to 0.8% of a value.

    Counting is exact and independent of the order of samples; it costs one pass over the values, at most ``COUNTED`` of
    a sample.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 16, np.int64)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count the values of one sample."""
        flat: npt.NDArray[np.float32] = np.ascontiguousarray(values, np.float32).reshape(-1)
        step = -(-flat.size // COUNTED)
        if step > 1:
            flat = flat[:: step + (step % 2 == 0)]  # odd, so that it is no divisor of an even number of channels
        self._counts += np.bincount(np.ascontiguousarray(flat).view(np.uint32) >> 16, minlength=1 << 16)

    def cuts(self) -> npt.NDArray[np.float64]:
        """The range without each of ``CUT_SHARES`` of the values at either end (levels, 2)."""
        bins = np.flatnonzero(self._counts)
        values = (bins.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        order = np.argsort(values, kind="stable")
        values, reached = values[order], np.cumsum(self._counts[bins][order])
        shares = np.asarray(CUT_SHARES) * reached[-1]
        low = values[np.searchsorted(reached, shares, side="right").clip(0, len(values) - 1)]
        high = values[np.searchsorted(reached, reached[-1] - shares, side="left").clip(0, len(values) - 1)]
        # A bin holds magnitudes from its value to 2^-7 more.
        return np.stack([low * (1 + 2.0**-7), high * (1 + 2.0**-7)], axis=1)


def channel_mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean per last dimension, float64."""
    flat = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    mean: npt.NDArray[np.float64] = flat.mean(axis=0, dtype=np.float64)
    return mean


def rounded(seen: Observed, samples: Sequence[npt.NDArray[Any]]) -> Observed:
    """The same with the mean its values have once they are rounded to int8."""
    scale, zero_point = seen.scale_and_zero_point
    means = [channel_mean(dequantise(quantise(values, scale, zero_point), scale, zero_point)) for values in samples]
    return replace(seen, rounded_mean=np.mean(means, axis=0))


def observe(
    float_model: bytes, samples: Sequence[Sequence[npt.NDArray[Any]]], indices: dict[str, int]
) -> tuple[dict[str, Observed], list[tuple[npt.NDArray[Any], ...]]]:
    """Run a float TFLite file on every sample.

    Args:
        float_model: the file's bytes.
        samples: for each sample the input arrays in the file's order, NHWC float32.
        indices: activation name -> tensor index in the file.

    Returns:
        The ranges by name, and each sample's outputs in the file's order.
    """
    runner = Runner(float_model, keep_all=True)
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    means: dict[str, list[npt.NDArray[np.float64]]] = {}
    total: dict[str, npt.NDArray[np.float64]] = {}
    counted: dict[str, Histogram] = {}
    outputs = []
    for arrays in samples:
        outputs.append(tuple(np.array(value) for value in runner(arrays)))
        for name, index in indices.items():
            values = runner.tensor(index)
            if not np.issubdtype(values.dtype, np.floating):
                continue
            low[name] = min(low.get(name, np.inf), float(values.min()))
            high[name] = max(high.get(name, -np.inf), float(values.max()))
            counted.setdefault(name, Histogram()).add(values)
            mean = channel_mean(values)
            total[name] = total[name] + mean if name in total else mean
            if len(outputs) <= MEANS:
                means.setdefault(name, []).append(mean)
    ranges = {}
    for name in low:
        minimum, maximum = meaningful(low[name], high[name])
        ranges[name] = Observed(
            minimum=minimum,
            maximum=maximum,
            channel_mean=total[name] / len(samples),
            sample_means=np.stack(means[name]),
            cuts=counted[name].cuts(),
        )
    return ranges, outputs
