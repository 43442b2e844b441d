"""The worker's side of :mod:`graphcut.graph.native`: the only user of onnxruntime and of onnx's own C++."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import onnx.checker
import onnx.inliner
import onnx.shape_inference
import onnxruntime
from onnx import version_converter
from onnxruntime.capi import onnxruntime_pybind11_state as state

from graphcut.errors import first_line
from graphcut.graph.protobuf import NumpyArray
from graphcut.workers.service import ServiceError

_ORT_ERRORS: tuple[type[Exception], ...] = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
    ValueError,
    RuntimeError,
)
"""The exceptions of onnxruntime for a model or an input that it cannot handle; they have no common base class."""

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")

_sessions: dict[int, onnxruntime.InferenceSession] = {}


def check(argument: tuple[bytes]) -> None:
    """:func:`graphcut.graph.native.check`."""
    (content,) = argument
    with _refused(onnx.checker.ValidationError, RuntimeError, ValueError):
        onnx.checker.check_model(content)


def infer(argument: tuple[bytes, bool]) -> bytes:
    """:func:`graphcut.graph.native.inferred`."""
    content, strict = argument
    with _refused(onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        model = onnx.shape_inference.infer_shapes(content, check_type=strict, strict_mode=strict, data_prop=True)
        made: bytes = model.SerializeToString()
    return made


def inline(argument: tuple[bytes]) -> bytes:
    """:func:`graphcut.graph.native.inlined`."""
    (content,) = argument
    with _refused(RuntimeError, ValueError, TypeError):
        made: bytes = onnx.inliner.inline_local_functions(onnx.load_from_string(content)).SerializeToString()
    return made


def convert(argument: tuple[bytes, int]) -> bytes:
    """:func:`graphcut.graph.native.converted`."""
    content, opset = argument
    with _refused(RuntimeError, ValueError):
        made: bytes = version_converter.convert_version(onnx.load_from_string(content), opset).SerializeToString()
    return made


def open_session(
    argument: tuple[int, NumpyArray | str, int, Mapping[str, NumpyArray], Sequence[int]],
) -> tuple[dict[str, tuple[Any, ...]], tuple[str, ...]]:
    """Create a session with a number; returns its inputs (name -> shape) and the names of its outputs."""
    number, model, threads, external, closed = argument
    _close(closed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with _refused(*_ORT_ERRORS):
        if external:
            names = list(external)
            options.add_external_initializers(
                names, [onnxruntime.OrtValue.ortvalue_from_numpy(external[name]) for name in names]
            )
        content = model if isinstance(model, str) else model.tobytes()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    _sessions[number] = session
    inputs = {each.name: tuple(each.shape) for each in session.get_inputs()}
    return inputs, tuple(each.name for each in session.get_outputs())


def run_session(argument: tuple[int, list[str], dict[str, NumpyArray], Sequence[int]]) -> list[NumpyArray]:
    """Run a session once."""
    number, names, inputs, closed = argument
    _close(closed)
    with _refused(*_ORT_ERRORS):
        values: list[NumpyArray] = _sessions[number].run(names, inputs)
    return values


def _close(numbers: Sequence[int]) -> None:
    for number in numbers:
        _sessions.pop(number, None)


@contextmanager
def _refused(*errors: type[Exception]) -> Iterator[None]:
    """The error of a native library about a model, as one line."""
    try:
        yield
    except errors as error:
        if "bad_alloc" in str(error) or "Failed to allocate memory" in str(error):
            raise MemoryError from error
        raise ServiceError(_PREFIX.sub("", first_line(error))) from error
