"""Threads that are registered before they start to work.

A thread is known to its starter only when its start returns. Ctrl-C at that moment leaves a thread that is not waited
for: it continued to write to a folder that was being removed, and the folder stayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """An executor with all threads running, which are waited for at the end in any case.

    Args:
        count: of threads.
    """
    with ThreadPoolExecutor(count) as pool:
        started = Barrier(count + 1)
        try:
            for _ in range(count):
                pool.submit(started.wait)
            started.wait()
        except BaseException:
            started.abort()
            raise
        yield pool
