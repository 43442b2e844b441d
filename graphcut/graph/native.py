"""Run native libraries on a model, onnxruntime and onnx's C++, always in a separate process.

1. A file from an untrusted source can crash them or exhaust their memory, whatever is checked before. Then the worker
   process ends, not the program, and the caller gets a :class:`NativeError` of one line.
2. There is one worker. It starts when it is first needed and ends when it is no longer needed by a :func:`worker` block
   or a :class:`graphcut.graph.session.Session`. Weights and results are in shared memory, not copied through a pipe.
3. In a process that is already a worker, such as one that converts segments, everything runs in that process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from graphcut.workers import malloc
from graphcut.workers.service import Service, ServiceError, SharedService, is_worker

if TYPE_CHECKING:
    from onnx import ModelProto

NativeError = ServiceError
"""A native library refused a model, crashed on it or exceeded a limit; one line."""

STRUCTURE_MEMORY = 2**29
STRUCTURE_SECONDS = 60.0
"""Memory for a call that reads only nodes and shapes, in addition to eight times the size of the model."""

_WORKER = "graphcut.graph.native_worker"


_shared = SharedService((_WORKER,), malloc.ENVIRONMENT)


@contextmanager
def worker() -> Iterator[None]:
    """Start the worker, if it is not running yet, and keep it for the duration of the block."""
    service = acquire()
    try:
        yield
    finally:
        release(service)


def acquire() -> Service | None:
    """The worker, kept until :func:`release`; None in a process that is a worker itself (statement 3)."""
    return None if is_worker() else _shared.acquire()


def release(service: Service | None) -> None:
    """Release a worker from :func:`acquire`; it ends when it has no users."""
    if service is not None:
        _shared.release(service)


def check(model: ModelProto) -> None:
    """Run onnx.checker on a model whose weights are inside or declared as inputs.

    Raises:
        NativeError: the model is not valid ONNX.
    """
    _on_structure("check", model, "onnx's checker")


def inferred(model: ModelProto, *, strict: bool = True) -> ModelProto:
    """The model with inferred shapes, where inference can find them.

    Raises:
        NativeError: in strict mode, a node contradicts its inputs or its schema.
    """
    return _parsed(_on_structure("infer", model, "onnx's shape inference", strict))


def inlined(model: ModelProto) -> ModelProto:
    """The model with its local functions inlined.

    Raises:
        NativeError: the functions are not valid.
    """
    return _parsed(_on_structure("inline", model, "onnx's inliner"))


def converted(model: ModelProto, opset: int) -> ModelProto:
    """The model in another version of the default operator set.

    Raises:
        NativeError: an operator cannot be converted.
    """
    return _parsed(_on_structure("convert", model, "onnx's version converter", opset))


def _on_structure(function: str, model: ModelProto, subject: str, *more: Any) -> Any:
    content = model.SerializeToString()
    memory = STRUCTURE_MEMORY + 8 * len(content)
    return call(function, (content, *more), subject=subject, memory=memory, seconds=STRUCTURE_SECONDS)


def call(
    function: str, argument: Any, *, subject: str, memory: int, seconds: float, service: Service | None = None
) -> Any:
    """Call a function of :mod:`graphcut.graph.native_worker`.

    Args:
        function: its name.
        argument: its only argument.
        subject: the library, for errors.
        memory: memory limit in bytes.
        seconds: time limit.
        service: a worker from :func:`acquire`; None for the current one.

    Raises:
        NativeError: see the module's statement 1.
    """
    if is_worker():
        return getattr(import_module(_WORKER), function)(argument)
    kept = service or _shared.acquire()
    try:
        return kept.call(f"{_WORKER}:{function}", argument, subject=subject, memory=memory, seconds=seconds)
    finally:
        if service is None:
            _shared.release(kept)


def _parsed(content: bytes) -> ModelProto:
    from onnx import ModelProto

    model = ModelProto()
    model.ParseFromString(content)
    return model
