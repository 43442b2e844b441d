"""Open files that a user or a manifest names, if they are regular files.

A pipe in the place of a file would be waited for, and a device such as /dev/zero read, without end. What is not a
regular file, or is larger than allowed, is an OSError as one that is missing is.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST_TEXT_BYTES = 256 * 2**20
"""Of a document or a list; the manifest of the largest split in the tests has 2 MiB."""


def opened(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: it is missing, cannot be read, is no regular file, or has more than ``most_bytes``.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # Without waiting, should a pipe have taken its place.
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    status = os.fstat(stream.fileno())
    if stat.S_ISREG(status.st_mode) and (most_bytes is None or status.st_size <= most_bytes):
        return stream
    stream.close()
    if stat.S_ISREG(status.st_mode):
        raise OSError(errno.EFBIG, f"larger than {most_bytes} bytes", str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def text_of(path: Path, encoding: str = "utf-8") -> str:
    """The text of a document or list, with every end of line as ``\\n``.

    Raises:
        OSError: as :func:`opened` says, with ``MOST_TEXT_BYTES``.
        UnicodeDecodeError: it is not text in that encoding.
    """
    with opened(path, MOST_TEXT_BYTES) as stream:
        return stream.read().decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
