"""Weights that are too large for tf2onnx, which keeps about ten copies of every constant in memory.

The kernels of large dense layers are given to a Keras model as inputs while it is traced, so that tf2onnx never sees
their values; the ONNX model gets them afterwards. VGG16 needed more than 23 GiB before, and needs 7 now. A MatMul reads
them unchanged. Convolution kernels are transposed and multiplied by factors, so tf2onnx has to see those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from graphcut.records import Array

HEAVY_BYTES = 16 * 2**20


def heavy(model: Any) -> tuple[Any, ...]:
    """The large kernels of a Keras 3 model's dense layers; Keras 2 has no way to pass their values."""
    import keras

    if not isinstance(model, keras.Model):
        return ()
    return tuple(
        variable
        for variable in model.weights
        if variable.dtype == "float32" and len(variable.shape) == 2 and 4 * prod(variable.shape) >= HEAVY_BYTES
    )


@contextmanager
def in_place_of(variables: Sequence[Any], values: Sequence[Any]) -> Iterator[None]:
    """Let a Keras model compute with these values instead of those of its variables, if there are any."""
    if not values:
        yield
        return
    import keras

    with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
        yield


def signature(variables: Sequence[Any]) -> list[Any]:
    """The variables as further inputs of a function."""
    import tensorflow as tf

    return [tf.TensorSpec(tuple(each.shape), tf.float32, name=_name(n)) for n, each in enumerate(variables)]


def values(variables: Sequence[Any]) -> dict[str, Array]:
    """The values of those inputs, by name."""
    return {_name(number): np.asarray(each) for number, each in enumerate(variables)}


def _name(number: int) -> str:
    return f"heavy_{number}"
