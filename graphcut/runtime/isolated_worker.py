"""The worker's side of :mod:`graphcut.runtime.isolated`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphcut.runtime.interpreter import AnyArray
from graphcut.runtime.isolated import views
from graphcut.runtime.litert import Kernels, Runner
from graphcut.workers.service import ServiceError
from graphcut.workers.sharing import Block

_LONGEST = 300

_runners: dict[int, Runner] = {}
_shared: dict[int, list[AnyArray]] = {}

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
    _shared[number] = views(block, [*opened.inputs, *opened.outputs])


def run(argument: tuple[int, Sequence[int]]) -> list[AnyArray | None]:
    """Run a file once; outputs that came out in another shape than was said, in place of None."""
    number, closed = argument
    _close(closed)
    opened, arrays = _runners[number], _shared[number]
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
        _shared.pop(number, None)


@contextmanager
def _refused() -> Iterator[None]:
    """What the interpreter says of a file, as one line."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ServiceError(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") from error
