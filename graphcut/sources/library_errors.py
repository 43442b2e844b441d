"""Turn any exception of a third-party library that handles a user's model into one line.

Converters raise arbitrary exceptions for models that they cannot handle, so there is no list of types to catch.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from graphcut.errors import GraphcutError, ModelError, first_line


class ForeignError(ModelError):
    """A third-party library failed on the model; its traceback is in the worker's log."""


@contextmanager
def foreign(subject: str, doing: str, *, innermost: bool = False) -> Iterator[None]:
    """Turn exceptions of a third-party library into ForeignError; only in a worker, whose stderr is its log.

    Args:
        subject: the model ("resnet8.h5").
        doing: what failed ("tf2onnx").
        innermost: report the innermost cause, for libraries that wrap every error in advice of their own.

    Raises:
        ForeignError: the library raised an exception; one line.
    """
    try:
        yield
    except (GraphcutError, MemoryError):
        raise
    except Exception as error:
        traceback.print_exception(error)
        raise ForeignError(
            f"{subject}: {doing} failed: {first_line(_bottom(error) if innermost else error)}"
        ) from error


def _bottom(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
