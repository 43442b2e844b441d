"""Sessions of onnxruntime with all optimisations off, in the worker of :mod:`graphcut.graph.native`.

onnxruntime 1.26's default optimisation fuses Pad(0) + MaxPool into MaxPool(pads), which is wrong for negative inputs.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from graphcut.graph import native
from graphcut.graph.native import NativeError
from graphcut.graph.protobuf import NumpyArray
from graphcut.workers.service import Service

DEFAULT_MEMORY = 8 * 2**30
DEFAULT_SECONDS = 300.0

ORT_ERRORS: tuple[type[Exception], ...] = (NativeError,)
"""Raised for a model or an input that onnxruntime cannot handle or that crashes it."""

_numbers = count(1)
_closed: deque[int] = deque()


class Session:
    """One model that can be run on the CPU.

    Args:
        model: the bytes of a model, or the path of its file.
        threads: threads of one run; their number affects the last bits of the result (:mod:`graphcut.graph.reference`).
        external: values of the weights that the model declares as external data; not copied.
        memory: memory limit of the session and of each run, in bytes.
        seconds: time limit of each call.

    Attributes:
        inputs: name -> shape, with symbolic dimensions unchanged.
        outputs: names.

    Raises:
        NativeError: the model is not valid or contains an operator that onnxruntime does not support.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int,
        external: Mapping[str, NumpyArray] | None = None,
        memory: int = DEFAULT_MEMORY,
        seconds: float = DEFAULT_SECONDS,
    ) -> None:
        self._number = next(_numbers)
        self._memory, self._seconds = memory, seconds
        self._service = native.acquire()
        content = np.frombuffer(model, np.uint8) if isinstance(model, bytes) else str(model.resolve())
        self._finalizer = weakref.finalize(self, _forget, self._number, self._service)
        argument = (self._number, content, threads, dict(external or {}), _drained())
        self.inputs: Mapping[str, tuple[Any, ...]]
        self.outputs: tuple[str, ...]
        self.inputs, self.outputs = self._call("open_session", argument)

    def run(self, names: Sequence[str], inputs: Mapping[str, NumpyArray]) -> list[Any]:
        """Run the session; several threads may do so at the same time.

        Args:
            names: the outputs to return.
            inputs: all inputs by name.

        Raises:
            NativeError: an input does not fit, or a node fails.
        """
        argument = (self._number, list(names), dict(inputs), _drained())
        results: list[Any] = self._call("run_session", argument)
        return results

    def close(self) -> None:
        """Free its memory; the session cannot be used afterwards."""
        self._finalizer()

    def _call(self, function: str, argument: object) -> Any:
        return native.call(
            function,
            argument,
            subject="onnxruntime",
            memory=self._memory,
            seconds=self._seconds,
            service=self._service,
        )


def session(
    model: bytes | Path,
    *,
    threads: int,
    external: Mapping[str, NumpyArray] | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Session:
    """A :class:`Session`; see there."""
    return Session(model, threads=threads, external=external, memory=memory)


def _forget(number: int, service: Service | None) -> None:
    """Release a session: the worker closes it with the next call, or ends."""
    _closed.append(number)
    native.release(service)


def _drained() -> list[int]:
    numbers = []
    while _closed:
        numbers.append(_closed.popleft())
    return numbers


def external_values(model: ModelProto, weights: Mapping[str, NumpyArray]) -> dict[str, NumpyArray]:
    """The values of the weights that a model declares as external data.

    Weights that no node reads are omitted: onnxruntime drops them before it looks for their values.
    """
    read = {name for node in model.graph.node for name in node.input}
    return {
        tensor.name: weights[tensor.name]
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL and tensor.name in read
    }
