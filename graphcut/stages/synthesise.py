"""Pictures out of nothing: smooth seeded noise with the range and smoothness of photographs.

For models that no data exists for (untrained weights). Ranges taken from it let everything run; they say little about
what real pictures would need, and results made with it are marked.
"""

from __future__ import annotations

import numpy as np

from graphcut.records import Array, Shape


def noise_picture(rng: np.random.Generator, shape: Shape) -> Array:
    """Sum noise of falling strength over rising detail, as in photographs; pixels (C, H, W) in 0..255.

    Most of the brightness is shared by the channels, as it is in photographs. Linear in the number of pixels.
    """
    channels, height, width = shape
    total = np.zeros(shape, np.float32)
    cells, strength = 2, 1.0
    while cells <= min(64, max(2, height, width)):
        shared = rng.random((1, cells + 1, cells + 1), np.float32)
        own = rng.random((channels, cells + 1, cells + 1), np.float32)
        total += np.float32(strength) * _enlarged(0.7 * shared + 0.3 * own, height, width)
        cells, strength = 2 * cells, 0.6 * strength
    low, high = float(total.min()), float(total.max())
    return (total - low) * np.float32(255 / max(high - low, 1e-6))


def _enlarged(grid: Array, height: int, width: int) -> Array:
    """Interpolate (C, h, w) linearly to (C, height, width)."""
    for axis, size in ((1, height), (2, width)):
        at = np.linspace(0, grid.shape[axis] - 1, size, dtype=np.float32)
        below = np.minimum(at.astype(np.intp), max(grid.shape[axis] - 2, 0))
        part = (at - below).astype(np.float32).reshape(-1, 1) if axis == 1 else (at - below).astype(np.float32)
        grid = np.take(grid, below, axis) * (1 - part) + np.take(grid, below + 1, axis) * part
    return grid
