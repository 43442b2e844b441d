"""Run TFLite files with numpy and one interpreter package, nothing else.

1. ``ai-edge-litert`` where it is installed, ``tflite-runtime`` (its predecessor, what devices have) otherwise, or the
   requested one. An Edge TPU is used through its delegate with either.
2. Results are compared byte for byte only within one interpreter, version and kernel set: the XNNPACK kernels and
   the built-in ones disagree by several int8 steps on the same file. :func:`describe` names all three.
"""

from __future__ import annotations

import importlib
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from graphcut.errors import DependencyError, RunError, first_line, setting
from graphcut.runtime import devices
from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import AnyArray, Edge, Interpreter, Part, dequantise, quantise

__all__ = [
    "PACKAGE",
    "PACKAGES",
    "LiteRtOpener",
    "Runner",
    "Running",
    "dequantise",
    "describe",
    "package_named",
    "quantise",
    "resized",
]

PACKAGES = ("ai-edge-litert", "tflite-runtime")
"""Interpreter packages, best first."""

Kernels = Literal["xnnpack", "builtin"]


def _module_name(package: str) -> str:
    return package.replace("-", "_")


def _installed() -> str:
    return next((package for package in PACKAGES if find_spec(_module_name(package)) is not None), PACKAGES[0])


PACKAGE = _installed()
"""The default interpreter package."""


def package_named(name: str = "auto") -> str:
    """The interpreter package to use: ``name`` if it is one, the best installed one for "auto".

    Raises:
        DependencyError: it is not installed, or cannot be imported.
    """
    package = PACKAGE if name == "auto" else name
    _load(package)
    return package


def describe(kernels: Kernels = "xnnpack", package: str = PACKAGE) -> str:
    """Interpreter, version and kernel set, as written to the manifest ("ai-edge-litert 2.1.2, xnnpack kernels")."""
    try:
        number = version(package)
    except PackageNotFoundError:
        number = "unknown version"
    return f"{package} {number}, {kernels} kernels"


def _load(package: str) -> Any:
    """Import the interpreter's module.

    A numpy that is too new for tflite-runtime shows as ImportError or AttributeError, depending on the release.
    """
    if package not in PACKAGES:
        raise DependencyError(f"there is no interpreter {package}", f"use {' or '.join(PACKAGES)}")
    try:
        return importlib.import_module(f"{_module_name(package)}.interpreter")
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"the interpreter {package} is not installed", f"pip install {package} (or {_other(package)})"
        ) from error
    except (ImportError, AttributeError) as error:
        way_out = (
            'it needs numpy older than 2: pip install "numpy<2"' if package == "tflite-runtime" else "reinstall it"
        )
        raise DependencyError(
            f"{package} cannot be imported with numpy {np.__version__} ({first_line(error)})", way_out
        ) from error


def _other(package: str) -> str:
    return PACKAGES[1] if package == PACKAGES[0] else PACKAGES[0]


_STDERR = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep messages of native code ("INFO: Created TensorFlow Lite XNNPACK delegate") off stderr.

    Errors are raised as well. If stderr is closed, there is nothing to do.
    """
    with _STDERR:
        try:
            kept = os.dup(2)
        except OSError:
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class Running(Protocol):
    """A file that is ready to run; see :class:`Runner` for what each member means."""

    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]

    def __call__(self, inputs: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        """Run once."""

    def tensor(self, index: int) -> AnyArray:
        """The values of any tensor after a run."""


class TfliteInterpreter(Protocol):
    """What is used of the interpreter of either package."""

    def allocate_tensors(self) -> None:
        """Make room for the tensors."""

    def get_input_details(self) -> Sequence[dict[str, Any]]:
        """Describe the inputs."""

    def get_output_details(self) -> Sequence[dict[str, Any]]:
        """Describe the outputs."""

    def set_tensor(self, tensor_index: int, value: AnyArray) -> None:
        """Give an input its values."""

    def invoke(self) -> None:
        """Run."""

    def get_tensor(self, tensor_index: int) -> AnyArray:
        """Copy a tensor out."""


class Runner:
    """One TFLite file ready to run.

    Args:
        model: the bytes of the file, kept for the life of the runner, or its path, which is mapped.
        threads: threads of the interpreter.
        kernels: "xnnpack" (the default delegate) or "builtin".
        keep_all: make every inner tensor readable after a run, with :meth:`tensor`.
        package: the interpreter package.
        delegates: loaded delegates; they outlive the interpreter.

    Raises:
        ValueError, RuntimeError: the interpreter refuses the file.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int = 1,
        kernels: Kernels = "xnnpack",
        keep_all: bool = False,
        package: str = PACKAGE,
        delegates: Sequence[Any] = (),
    ) -> None:
        tfl = _load(package)
        resolver = tfl.OpResolverType.BUILTIN
        if kernels == "builtin":
            resolver = tfl.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        content = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        self._delegates = tuple(delegates)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*preserve_all_tensors.*")
            self._interpreter: TfliteInterpreter = tfl.Interpreter(
                **content,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
                experimental_preserve_all_tensors=keep_all,
                experimental_delegates=list(self._delegates) or None,
            )
        with _quiet():
            self._interpreter.allocate_tensors()
        self.inputs: tuple[dict[str, Any], ...] = tuple(self._interpreter.get_input_details())
        self.outputs: tuple[dict[str, Any], ...] = tuple(self._interpreter.get_output_details())
        self._input_indices = [detail["index"] for detail in self.inputs]
        self._output_indices = [detail["index"] for detail in self.outputs]

    def __call__(self, inputs: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        """Run once. Inputs and outputs have the file's order, layout and dtype (NHWC, int8).

        Raises:
            ValueError: another number of arrays, or one of another shape or dtype.
        """
        if len(inputs) != len(self._input_indices):
            raise ValueError(f"the file has {len(self._input_indices)} inputs, but {len(inputs)} arrays were passed")
        for index, array in zip(self._input_indices, inputs):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(index) for index in self._output_indices)

    def tensor(self, index: int) -> AnyArray:
        """The values of any tensor after a run (needs ``keep_all``), by its index in the file."""
        values: AnyArray = self._interpreter.get_tensor(index)
        return values


def resized(model: bytes, shapes: Mapping[int, Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """The shapes of a file's tensors when its inputs have other shapes, by index in the file.

    The file is run once on zeros, so that shapes which are computed inside it are known too.

    Args:
        model: the file's bytes.
        shapes: position of an input -> its new shape.

    Raises:
        ValueError, RuntimeError: the interpreter refuses the file or the shapes.
    """
    tfl = _load(PACKAGE)
    interpreter = tfl.Interpreter(
        model_content=model, experimental_op_resolver_type=tfl.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    for position, shape in shapes.items():
        interpreter.resize_tensor_input(interpreter.get_input_details()[position]["index"], list(shape), strict=False)
    with _quiet():
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()
    return {
        int(detail["index"]): tuple(int(size) for size in detail["shape"])
        for detail in interpreter.get_tensor_details()
    }


class _OnePart:
    """A part's file in a :class:`Runner`, as an :class:`graphcut.runtime.interpreter.Interpreter`."""

    def __init__(self, runner: Running) -> None:
        self._runner: Running | None = runner
        self.inputs = tuple(_edge(detail) for detail in runner.inputs)
        self.outputs = tuple(_edge(detail) for detail in runner.outputs)

    def __call__(self, arrays: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        runner = self._runner
        if runner is None:
            raise RuntimeError("the interpreter is closed")
        return runner(arrays)

    def close(self) -> None:
        self._runner = None


def _edge(detail: Any) -> Edge:
    scale, zero_point = detail["quantization"]
    return Edge(
        name=str(detail["name"]),
        shape=tuple(int(size) for size in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )


class LiteRtOpener:
    """Opens parts in this process; an :data:`graphcut.runtime.interpreter.Opener`.

    Args:
        package: the interpreter package, "auto" for the best installed one.
        threads: threads of each interpreter (CPU).
        kernels: "xnnpack" or "builtin" (CPU).
        library: the Edge TPU delegate's library.
        waits_s: waits between tries to load it.

    Raises:
        DependencyError: no such interpreter.
    """

    def __init__(
        self,
        package: str = "auto",
        *,
        threads: int = 1,
        kernels: Kernels = "xnnpack",
        library: str = devices.LIBRARY,
        waits_s: Sequence[float] = devices.WAITS_S,
    ) -> None:
        self.package = package_named(package)
        self.threads = threads
        self.kernels: Kernels = kernels
        self._library = library
        self._waits_s = tuple(waits_s)

    def describe(self) -> str:
        """Interpreter, version, kernels and threads."""
        return f"{describe(self.kernels, self.package)}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def __call__(self, part: Part, device: Device = CPU) -> Interpreter:
        """Open a part on a device.

        Raises:
            RunError: the file does not exist or is refused, or the device does not respond.
            DependencyError: the Edge TPU library is not installed.
        """
        path = _file_for(part, device)
        delegates = []
        if device.is_tpu:
            devices.require_library(self._library)
            load_delegate = _load(self.package).load_delegate
            delegates = [devices.attach(load_delegate, device, library=self._library, waits_s=self._waits_s)]
        try:
            runner = self._runner(path, delegates)
        except (ValueError, RuntimeError) as error:
            way_out = "split the model again"
            if "edgetpu-custom-op" in str(error):
                way_out = f"a compiled file runs on an Edge TPU only: use {setting('devices', 'usb:0')}"
            raise RunError(
                f"{part.label} ({path.name}) is refused by {self.package} ({first_line(error)})", way_out
            ) from error
        return _OnePart(runner)

    def _runner(self, path: Path, delegates: Sequence[Any]) -> Running:
        return Runner(path, threads=self.threads, kernels=self.kernels, package=self.package, delegates=delegates)


def _file_for(part: Part, device: Device) -> Path:
    path = part.compiled if device.is_tpu else part.path
    if path is None:
        raise RunError(
            f"{part.label} is not compiled, but {device} is an Edge TPU",
            "compile it with graphcut compile, or run on cpu",
        )
    if not path.is_file():
        raise RunError(f"{part.label}: {path} does not exist", "split the model again")
    return path
