"""Threads that are known before they do anything.

Whoever starts a thread learns of it when its start returns. Ctrl-C in that moment leaves a thread that nobody waits
for: it went on writing into a folder that was being removed, and the folder stayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """An executor all of whose threads run, and are waited for at the end whatever happens in the block.

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
