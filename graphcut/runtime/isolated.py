"""Files of unknown origin in an interpreter that can neither take the program down nor read or send anything.

1. The interpreter is foreign native code, and a file from a stranger can crash it, hang it or exhaust the memory. Here
   it runs in one process for all files (:mod:`graphcut.workers.service`), which opens no file and has no network.
2. A file's bytes are handed over once. Its inputs and outputs lie in memory that both processes share, so that a run
   costs one short message each way, and a copy of the arrays.
3. Whatever goes wrong there is a RuntimeError of one line, as if the interpreter had said it itself.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.errors import RunError
from graphcut.runtime.interpreter import AnyArray, Opener, Part
from graphcut.runtime.litert import PACKAGE, Kernels, LiteRtOpener, Runner, Running
from graphcut.workers.service import CONNECTIONS, Service, ServiceError, SharedService, is_worker
from graphcut.workers.sharing import Block, aligned

MEMORY = 4 * 2**30
"""Bytes that a file may take, beside eight times its own size."""
OPEN_SECONDS = 60.0
RUN_SECONDS = 300.0

_WORKER = "graphcut.runtime.isolated"

_shared = SharedService((_WORKER,), connections=max(CONNECTIONS, os.cpu_count() or 1), confined=True)
_numbers = count(1)
_closed: deque[int] = deque()


class IsolatedRunner:
    """A :class:`graphcut.runtime.litert.Runner` in another process; arguments and attributes are those of one.

    Raises:
        RuntimeError: the interpreter refuses the file, crashes on it, or passes a limit.
        RunError: somebody outside killed the process.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int = 1,
        kernels: Kernels = "xnnpack",
        keep_all: bool = False,
        package: str = PACKAGE,
    ) -> None:
        content = np.frombuffer(model, np.uint8) if isinstance(model, bytes) else np.fromfile(model, np.uint8)
        self._number = next(_numbers)
        self._memory = MEMORY + 8 * content.nbytes
        self._service = _shared.acquire()
        self._finalizer = weakref.finalize(self, _forget, self._number, self._service)
        argument = (self._number, content, threads, kernels, keep_all, package, _drained())
        self.inputs: tuple[dict[str, Any], ...]
        self.outputs: tuple[dict[str, Any], ...]
        self.inputs, self.outputs = self._call("open_file", argument, OPEN_SECONDS)
        self._block, self._views = laid_out([*self.inputs, *self.outputs])
        self._call("share", (self._number, self._block), OPEN_SECONDS)

    def __call__(self, inputs: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        """Run once; see :meth:`graphcut.runtime.litert.Runner.__call__`."""
        if len(inputs) != len(self.inputs):
            raise ValueError(f"the file reads {len(self.inputs)} arrays, {len(inputs)} were given")
        for view, array, detail in zip(self._views, inputs, self.inputs):
            if array.shape != view.shape or array.dtype != view.dtype:
                raise ValueError(
                    f"input {detail['name']} is {view.dtype} {view.shape}, {array.dtype} {array.shape} was given"
                )
            view[...] = array
        others = self._call("run", (self._number, _drained()), RUN_SECONDS)
        made = self._views[len(self.inputs) :]
        return tuple(view.copy() if other is None else other for view, other in zip(made, others))

    def tensor(self, index: int) -> AnyArray:
        """The values of any tensor after a run; see :meth:`graphcut.runtime.litert.Runner.tensor`."""
        values: AnyArray = self._call("tensor", (self._number, index), RUN_SECONDS)
        return values

    def _call(self, function: str, argument: object, seconds: float) -> Any:
        try:
            return self._service.call(
                f"{_WORKER}:{function}", argument, subject="the interpreter", memory=self._memory, seconds=seconds
            )
        except ServiceError as error:
            raise RuntimeError(str(error)) from error


def runner(model: bytes | Path, *, threads: int = 1, kernels: Kernels = "xnnpack") -> Running:
    """A file in a process of its own, or in this one where it is a worker already."""
    return (Runner if is_worker() else IsolatedRunner)(model, threads=threads, kernels=kernels)


class IsolatedOpener(LiteRtOpener):
    """A :class:`graphcut.runtime.litert.LiteRtOpener` whose CPU interpreters run in another process.

    An Edge TPU's delegate stays in this one, which owns the device.
    """

    def _runner(self, path: Path, delegates: Sequence[Any]) -> Running:
        if delegates or is_worker():
            return super()._runner(path, delegates)
        return IsolatedRunner(path, threads=self.threads, kernels=self.kernels, package=self.package)


def try_out(parts: Sequence[Part], opener: Opener) -> None:
    """Run files once on zeros in another process, before they are opened in this one.

    Args:
        parts: whose CPU files are tried.
        opener: what will open them; one that does not run them in this process itself needs no try.

    Raises:
        RunError: a file is refused, crashes the interpreter or takes too much; names the part.
    """
    if type(opener) is not LiteRtOpener or is_worker():
        return
    isolated = IsolatedOpener(opener.package, threads=opener.threads, kernels=opener.kernels)
    service = _shared.acquire()  # one process for all of them
    try:
        for part in parts:
            tried = isolated(part)
            try:
                tried([np.zeros(edge.shape, edge.dtype) for edge in tried.inputs])
            except (RuntimeError, ValueError) as error:
                raise RunError(f"{part.label} ({part.path.name}) fails ({error})", "split the model again") from error
            finally:
                tried.close()
    finally:
        _shared.release(service)


def laid_out(details: Sequence[dict[str, Any]]) -> tuple[Block, list[AnyArray]]:
    """Memory for the tensors that an interpreter describes, and a view of each.

    Raises:
        RuntimeError: one holds no numbers, or they are too large.
    """
    size = 0
    for detail in details:
        dtype, shape = np.dtype(detail["dtype"]), [int(each) for each in detail["shape"]]
        if dtype.hasobject or not dtype.itemsize or min(shape, default=0) < 0:
            raise RuntimeError(f"tensor {detail['name']} is {dtype} {shape}, which is no array of numbers")
        size += aligned(prod(shape) * dtype.itemsize)
        if size > MEMORY:
            raise RuntimeError(f"inputs and outputs have more than the {MEMORY / 2**30:.0f} GiB they may have")
    block = Block(size)
    return block, views(block, details)


def views(block: Block, details: Sequence[dict[str, Any]]) -> list[AnyArray]:
    """The tensors that lie in a block one after the other."""
    found: list[AnyArray] = []
    place = 0
    for detail in details:
        shape, dtype = tuple(int(each) for each in detail["shape"]), np.dtype(detail["dtype"])
        found.append(np.ndarray(shape, dtype, block.memory, place))
        place += aligned(found[-1].nbytes)
    return found


def _forget(number: int, service: Service) -> None:
    """A file is not needed any more: the worker is told with the next call, or ends."""
    _closed.append(number)
    _shared.release(service)


def _drained() -> list[int]:
    numbers = []
    while _closed:
        numbers.append(_closed.popleft())
    return numbers


# --- the worker's side ---

_LONGEST = 300

_runners: dict[int, Runner] = {}
_arrays: dict[int, list[AnyArray]] = {}

Details = tuple[dict[str, Any], ...]


def open_file(argument: tuple[int, AnyArray, int, Kernels, bool, str, Sequence[int]]) -> tuple[Details, Details]:
    """Open a file under a number; what it reads and makes."""
    number, content, threads, kernels, keep_all, package, closed = argument
    _close(closed)
    with _refused():
        opened = Runner(content.tobytes(), threads=threads, kernels=kernels, keep_all=keep_all, package=package)
    _runners[number] = opened
    return opened.inputs, opened.outputs


def share(argument: tuple[int, Block]) -> None:
    """Take the memory of a file's inputs and outputs."""
    number, block = argument
    opened = _runners[number]
    _arrays[number] = views(block, [*opened.inputs, *opened.outputs])


def run(argument: tuple[int, Sequence[int]]) -> list[AnyArray | None]:
    """Run a file once; outputs that came out in another shape than was said, in place of None."""
    number, closed = argument
    _close(closed)
    opened, arrays = _runners[number], _arrays[number]
    inputs = len(opened.inputs)
    with _refused():
        made = opened(arrays[:inputs])
    others: list[AnyArray | None] = []
    for array, view in zip(made, arrays[inputs:]):
        fits = array.shape == view.shape and array.dtype == view.dtype
        if fits:
            view[...] = array
        others.append(None if fits else array)
    return others


def tensor(argument: tuple[int, int]) -> AnyArray:
    """The values of any tensor after a run."""
    number, index = argument
    with _refused():
        return _runners[number].tensor(index)


def _close(numbers: Sequence[int]) -> None:
    for number in numbers:
        _runners.pop(number, None)
        _arrays.pop(number, None)


@contextmanager
def _refused() -> Iterator[None]:
    """What the interpreter says of a file, as one line."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ServiceError(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") from error
