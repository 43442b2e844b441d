"""Weights that are too heavy for tf2onnx: it holds some ten copies of every constant at a time.

The kernels of large dense layers are given to a Keras model as inputs while it is traced, so that tf2onnx never sees
their values; the ONNX model gets them afterwards. VGG16 took more than 23 GiB, and takes 7. A MatMul reads them as they
are; a convolution's kernel is turned and takes factors in, so those go through tf2onnx.
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
    """The kernels of a Keras 3 model's dense layers that are large; other Keras has no way of giving their values."""
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
    """Let a Keras model compute with values in the place of its variables' own, if there are any."""
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
