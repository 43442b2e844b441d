"""Measures of the difference between int8 and float, used by all stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.records import Array

LEAST_SCALE = 1e-3
"""See :func:`relative_error`."""

MEANINGLESS_DB = 3.0
"""Below this the noise is half as strong as the signal, and an int8 output says nothing."""

AnyArray = npt.NDArray[Any]


def to_nhwc(values: AnyArray) -> AnyArray:
    """NCHW to NHWC where the rank is 4; anything else unchanged."""
    return np.ascontiguousarray(np.moveaxis(values, 1, -1)) if values.ndim == 4 else values


def to_nchw(values: AnyArray) -> AnyArray:
    """NHWC to NCHW where the rank is 4; anything else unchanged."""
    return np.ascontiguousarray(np.moveaxis(values, -1, 1)) if values.ndim == 4 else values


def relative_error(wanted: AnyArray, got: AnyArray) -> float:
    """Largest absolute difference over the largest absolute wanted value; inf where ``got`` is not finite.

    A largest value below ``LEAST_SCALE`` counts as that: next to it the rounding of two implementations of one function
    is no longer small (a sigmoid near 0 differs by 5e-8 between onnxruntime and TFLite).
    """
    if not np.isfinite(got).all():
        return float("inf")
    largest = float(np.abs(wanted).max(initial=0.0))
    difference = float(np.abs(got - wanted).max(initial=0.0))
    return difference / max(largest, LEAST_SCALE)


def sqnr_db(wanted: Array, got: Array) -> float:
    """Signal-to-quantisation-noise ratio in dB: 10 log10(sum wanted^2 / sum (got - wanted)^2), over all elements.

    Infinite for equal arrays, minus infinite where the signal is zero and the noise is not.
    """
    return decibels(energy(wanted), energy(got - wanted))


def energy(values: AnyArray) -> float:
    """Sum of the squares of all elements, in float64."""
    return float(np.square(values, dtype=np.float64).sum())


def decibels(signal: float, noise: float) -> float:
    """Ratio of two energies in dB; infinite where the noise is zero, minus infinite where only the signal is."""
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")
