"""Small pictures of samples, as the model gets them: the preparation of pictures turned round."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from graphcut.records import Array, Preprocessing

EDGE = 144
"""Longest edge in pixels."""
_QUALITY = 82


def thumbnail(values: Array, prepared: Preprocessing | None) -> bytes | None:
    """Make a JPEG file of one sample.

    Args:
        values: (C, H, W), as the model gets it.
        prepared: how it was made of pixels; None spreads its own range over the pixels'.

    Returns:
        The file; None where it has no 1 or 3 channels or holds what is no number.
    """
    if values.ndim != 3 or values.shape[0] not in (1, 3) or min(values.shape) < 1 or not np.isfinite(values).all():
        return None
    pixels = _spread(values) if prepared is None else _undone(values, prepared)
    if prepared is not None and prepared.colour == "bgr":
        pixels = pixels[::-1]
    whole = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    picture = Image.fromarray(whole[0] if len(whole) == 1 else np.ascontiguousarray(whole.transpose(1, 2, 0)))
    picture.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, format="JPEG", quality=_QUALITY)
    return stream.getvalue()


def _undone(values: Array, prepared: Preprocessing) -> Array:
    mean, std = (np.asarray(each, np.float32).reshape(-1, 1, 1) for each in (prepared.mean, prepared.std))
    if {len(mean), len(std)} <= {1, len(values)}:
        return np.asarray(values * std + mean, np.float32)
    return _spread(values)


def _spread(values: Array) -> Array:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) * (255 / ((high - low) or 1.0)), np.float32)
