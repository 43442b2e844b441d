"""The interface of all interpreters.

1. An :class:`Interpreter` runs one file on one device: arrays in, arrays out, in the file's order, layout (NHWC)
   and dtype. It is used by one thread at a time.
2. An *opener* creates interpreters. It is the only replaceable function here: chain and pipeline do not depend on
   files, delegates or processes otherwise.
3. Tensors are known by name, which is the layer's name; an :class:`Edge` is everything that two segments must agree on.

This module and those it imports run on a device: Python 3.9 and up, numpy, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from graphcut.errors import RunError
from graphcut.runtime.devices import Device

AnyArray = npt.NDArray[Any]


class Edge(NamedTuple):
    """An input or output of a file: name, NHWC shape, numpy dtype name, scale and zero point (0.0, 0: none)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def __str__(self) -> str:
        """Format shape, dtype and quantisation for errors."""
        size = "x".join(map(str, self.shape))
        return f"{self.dtype} {size}, scale {self.scale:.9g}, zero point {self.zero_point}"


class Part(NamedTuple):
    """One file to run.

    Attributes:
        label: its name in errors and tables ("segment 3", "tail 4..7", "unsplit").
        path: the TFLite file for CPUs.
        compiled: the same file compiled for the Edge TPU; None if it was not compiled.
    """

    label: str
    path: Path
    compiled: Path | None = None


class Interpreter(Protocol):
    """One file on one device (statement 1)."""

    @property
    def inputs(self) -> Sequence[Edge]:
        """The file's inputs, in order."""

    @property
    def outputs(self) -> Sequence[Edge]:
        """The file's outputs, in order."""

    def __call__(self, arrays: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        """Run once."""

    def close(self) -> None:
        """Release the device and memory; a running call may fail."""


Opener = Callable[[Part, Device], Interpreter]


def fit(array: object, edge: Edge) -> AnyArray:
    """Convert one input for the file: arrays of its dtype are unchanged, floats are quantised with its scale.

    Raises:
        RunError: not an array, another shape, or a dtype that cannot be converted.
    """
    if not isinstance(array, np.ndarray):
        raise RunError(f"input {edge.name} is a {type(array).__name__}, not a numpy array", f"pass {edge}")
    if array.shape != edge.shape and array.shape == edge.shape[1:]:
        array = array[np.newaxis]
    if array.shape != edge.shape:
        raise RunError(
            f"input {edge.name} has shape {_size(array.shape)}", f"pass {_size(edge.shape)}{_hint(array, edge)}"
        )
    if array.dtype.name == edge.dtype:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and edge.dtype in ("int8", "uint8") and edge.scale:
        if not np.isfinite(array).all():
            raise RunError(f"input {edge.name} contains NaN or infinity", "pass finite numbers")
        return quantise(array, edge.scale, edge.zero_point, edge.dtype)
    raise RunError(f"input {edge.name} has dtype {array.dtype}", f"pass {edge.dtype}, or float32, which is quantised")


def in_order(inputs: object, edges: Sequence[Edge]) -> list[AnyArray]:
    """A model's inputs in the order of the edges, each converted by :func:`fit`.

    Args:
        inputs: one array where there is one input, a sequence in order, or a mapping by name.
        edges: the model's inputs.

    Raises:
        RunError: an input is missing, unknown, or does not fit.
    """
    names = [edge.name for edge in edges]
    if isinstance(inputs, Mapping):
        unknown = [str(name) for name in inputs if name not in names]
        missing = [name for name in names if name not in inputs]
        if unknown or missing:
            what = f"input {', '.join(missing)} is missing" if missing else f"unknown input {', '.join(unknown)}"
            raise RunError(what, f"the model reads {', '.join(names)}")
        return [fit(inputs[edge.name], edge) for edge in edges]
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if len(given) != len(names):
        raise RunError(f"{len(given)} inputs were given", f"the model reads {len(names)}: {', '.join(names)}")
    return [fit(array, edge) for array, edge in zip(given, edges)]


HALF_TOLERANCE = 2.0**-10
"""Steps below a half that still round up (float32 noise on 255 steps is about 2**-16)."""


def quantise(values: AnyArray, scale: float, zero_point: int, dtype: str = "int8") -> AnyArray:
    """Float to int8 or uint8 by ``round(values / scale) + zero_point``, halves up, clipped to what the type holds.

    Pixels as ``x / 127.5 - 1`` are exactly half-way between the steps of their range [-1, 1]. So what counts as a half
    is slightly wider than float rounding, and all of them round the same way, whatever computed them.
    """
    steps = np.floor(values / np.float32(scale) + np.float32(0.5 + HALF_TOLERANCE)) + zero_point
    limits = np.iinfo(dtype)
    result: AnyArray = np.clip(steps, limits.min, limits.max).astype(dtype)
    return result


def dequantise(values: AnyArray, scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Int8 or uint8 to float by ``scale * (values - zero_point)``."""
    result: npt.NDArray[np.float32] = (values.astype(np.float32) - zero_point) * np.float32(scale)
    return result


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _hint(array: AnyArray, edge: Edge) -> str:
    if array.ndim == 4 and len(edge.shape) == 4 and array.transpose(0, 2, 3, 1).shape == edge.shape:
        return " (channels last)"
    return ""
