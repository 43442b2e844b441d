"""How much memory a process has, on every system: the limit on workers and the figures of ``bench`` stand on it."""

from __future__ import annotations

from contextlib import suppress


def resident_bytes(process: int | None = None) -> int:
    """Return the resident set of a process in bytes.

    Args:
        process: its number; None for this process.

    Returns:
        0 where the process has ended.
    """
    import psutil  # here, because a device has this package without it

    with suppress(psutil.NoSuchProcess):
        return int(psutil.Process(process).memory_info().rss)
    return 0
