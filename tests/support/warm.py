"""A worker process for conversions that one split after another uses.

Every split starts workers of its own unless it is given some, and importing the converter takes each of them two
seconds. What a test asserts about a result does not depend on which process made it; tests of the workers themselves
and of whole commands start their own.
"""

from __future__ import annotations

import atexit
from contextlib import ExitStack

from graphcut.conversion.workers import converters
from graphcut.workers.pool import Pool

_stack = ExitStack()
_pools: list[Pool] = []


def workers() -> Pool:
    """The pool of this test process, of one worker; a new one where the last one was closed after a failure."""
    if not _pools or not _pools[-1]._workers:
        _pools.append(_stack.enter_context(converters(1)))
    return _pools[-1]


atexit.register(_stack.close)
