"""The distance of outputs from float as one number that weights outputs, and parts of different size, equally.

1. A *part* of an output is one entry of its last axis (NHWC) where there are many positions for each: boxes and scores
   of a detector are in one tensor and differ in size by orders of magnitude. A vector (N, classes) is one part.
2. The information of a part is the logarithm of one plus its signal over its noise (the capacity of a channel with that
   noise). The signal is the variance around its mean over samples and positions; a part that hardly varies counts as if
   it had ``LEAST_SHARE`` of the mean signal of all parts. A vector's signal is its power, as in a signal-to-noise
   ratio. A mean over parts of logarithms keeps a few parts with large values from deciding alone.
3. The loss is minus the mean over outputs of the mean over their parts: a tenth of it is 1 dB.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphcut.records import Array

LEAST_SHARE = 1e-3
MOST_PARTS = 4096
LEAST_POSITIONS = 16
"""Positions of a part in one sample below which the output is one part."""

LEAST_NOISE = 1e-6
"""Noise below this share of the signal (60 dB) counts as this much: nothing is gained past it."""

_LEAST_POWER = 1e-12


def loss(wanted: Sequence[Array], got: Sequence[Array]) -> float:
    """The loss of outputs (statement 3); lower is better.

    Args:
        wanted: float's outputs, each (N, ...), NHWC where the rank is 4.
        got: the int8 outputs as float, of the same shapes.
    """
    return -float(np.mean([_said(one, other) for one, other in zip(wanted, got, strict=True)]))


def _said(wanted: Array, got: Array) -> float:
    parts = wanted.shape[-1] if wanted.ndim > 2 else 1
    if parts == 1 or parts > MOST_PARTS or wanted[0].size // parts < LEAST_POSITIONS:
        power = max(float(np.square(wanted, dtype=np.float64).mean()), _LEAST_POWER)
        noise = float(np.square(got - wanted, dtype=np.float64).mean())
        return float(np.log10(1 + power / max(noise, LEAST_NOISE * power)))
    flat, other = wanted.reshape(-1, parts), got.reshape(-1, parts)
    signal = flat.var(axis=0, dtype=np.float64)
    noise_by_part = np.square(other - flat, dtype=np.float64).mean(axis=0)
    signal = np.maximum(signal, max(LEAST_SHARE * float(signal.mean()), _LEAST_POWER))
    return float(np.mean(np.log10(1 + signal / np.maximum(noise_by_part, LEAST_NOISE * signal))))
