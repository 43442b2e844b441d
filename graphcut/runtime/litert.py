"""Running TFLite files: numpy and one interpreter, nothing else.

``ai-edge-litert`` where it is installed, ``tflite-runtime`` (its predecessor, what devices have) otherwise.

Results are compared byte for byte only within one interpreter, version and kernel set: the XNNPACK kernels and
the built-in ones disagree by several int8 steps on the same file. :func:`describe` names all three.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

try:
    from ai_edge_litert import interpreter as _tfl

    PACKAGE = "ai-edge-litert"
except ImportError:
    from tflite_runtime import interpreter as _tfl

    PACKAGE = "tflite-runtime"

AnyArray = npt.NDArray[Any]
Kernels = Literal["xnnpack", "builtin"]


def describe(kernels: Kernels = "xnnpack") -> str:
    """Interpreter, version and kernel set, as the manifest names them ("ai-edge-litert 2.1.2, xnnpack kernels")."""
    try:
        number = version(PACKAGE)
    except PackageNotFoundError:
        number = "unknown version"
    return f"{PACKAGE} {number}, {kernels} kernels"


class Runner:
    """One TFLite file ready to run.

    Args:
        model: the bytes of the file; kept for the life of the runner.
        threads: threads of the interpreter.
        kernels: "xnnpack" (the default delegate) or "builtin".
        keep_all: make every inner tensor readable after a run, with :meth:`tensor`.

    Raises:
        ValueError, RuntimeError: the interpreter refuses the file.
    """

    def __init__(
        self, model: bytes, *, threads: int = 1, kernels: Kernels = "xnnpack", keep_all: bool = False
    ) -> None:
        resolver = _tfl.OpResolverType.BUILTIN
        if kernels == "builtin":
            resolver = _tfl.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*preserve_all_tensors.*")
            self._interpreter = _tfl.Interpreter(
                model_content=model,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
                experimental_preserve_all_tensors=keep_all,
            )
        self._interpreter.allocate_tensors()
        self.inputs: tuple[dict[str, Any], ...] = tuple(self._interpreter.get_input_details())
        self.outputs: tuple[dict[str, Any], ...] = tuple(self._interpreter.get_output_details())

    def __call__(self, inputs: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        """Run once. Arrays go in and come out in the file's order, layout and dtype (NHWC; int8 as it is)."""
        for detail, array in zip(self.inputs, inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(detail["index"]) for detail in self.outputs)

    def tensor(self, index: int) -> AnyArray:
        """The values of any tensor after a run (needs ``keep_all``), by its index in the file."""
        values: AnyArray = self._interpreter.get_tensor(index)
        return values


def quantise(values: AnyArray, scale: float, zero_point: int) -> npt.NDArray[np.int8]:
    """Float to int8 by ``round(values / scale) + zero_point``, halves to even, clipped to -128..127."""
    steps = np.rint(values / np.float32(scale)) + zero_point
    result: npt.NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
    return result


def dequantise(values: AnyArray, scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Int8 to float by ``scale * (values - zero_point)``."""
    result: npt.NDArray[np.float32] = (values.astype(np.float32) - zero_point) * np.float32(scale)
    return result
