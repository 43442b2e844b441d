"""Keep freed memory in the process, for programs that allocate and free the same large arrays repeatedly.

1. glibc maps every array above 32 MiB anew and gives the end of its heap back whenever it is free: the kernel then
   zeroes the same pages again and again. Without that, in alternating runs, ResNet101 took 18.2 s instead of 20.2 s,
   4.2 s instead of 5.9 s of them in the kernel.
2. glibc's own settings keep the pages: for workers in their environment, which the user's own settings go before; for
   a running process by mallopt(3). Elsewhere than with glibc nothing happens.
3. The process keeps no more than it had at its peak. This does not suit a program that runs for days, and a library
   should not decide it: only ``graphcut split`` and its workers do it.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD = 2**30
_TRIM_THRESHOLD = 2**31 - 1  # mallopt takes an int

ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(_MMAP_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": str(_TRIM_THRESHOLD),
    # Heaps in pages of 2 MiB, where the kernel gives them on demand (madvise): fewer to fault in.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""For a process that is started (statement 2)."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep() -> bool:
    """Have this process keep its pages; whether its C library knows how."""
    with suppress(AttributeError, OSError, TypeError):  # no mallopt, or no C library to look into
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD))
    return False
