"""Arrays from ``.npy`` and ``.npz`` files that anybody may have made: numbers, or one of few errors.

1. Nothing in a file is executed: pickles are refused, however they are named.
2. What a file declares is held against its size and ``MOST_BYTES`` before memory is taken for it: a few bytes can
   declare an array of any size, and a zip archive unpacks to a thousand times its size.
3. Whatever NumPy and zipfile raise for damage is a :class:`BadArraysError`.
"""

from __future__ import annotations

import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from graphcut.regular_file import opened

MOST_BYTES = 2**33
"""Of one array in an ``.npz``; an ``.npy`` is mapped and may be larger."""

_DAMAGED = (
    *(OSError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, SyntaxError, AttributeError),
    *(RuntimeError, MemoryError, RecursionError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(struct.error, tokenize.TokenError),
)


class BadArraysError(Exception):
    """The file contains no numeric arrays; gives the reason in a few words."""


def names(path: Path) -> tuple[str, ...] | None:
    """The names of the arrays in an ``.npz``; None for any other file.

    Raises:
        BadArraysError: it cannot be read.
    """
    try:
        with opened(path) as stream:
            if stream.read(2) != b"PK":
                return None
            with zipfile.ZipFile(stream) as archive:
                found = tuple(name.removesuffix(".npy") for name in archive.namelist())
        if len(set(found)) < len(found):
            raise BadArraysError("two arrays have the same name")
        return found
    except _DAMAGED as error:
        raise BadArraysError("truncated, or not a numeric .npz file") from error


def mapped(path: Path) -> npt.NDArray[Any]:
    """The array of an ``.npy``, mapped.

    Raises:
        BadArraysError: it is truncated, or not a numeric array.
    """
    try:
        opened(path).close()
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGED as error:
        raise BadArraysError("truncated, or not a numeric .npy file") from error
    return array


def members(path: Path, wanted: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Arrays of an ``.npz``, by name; each must be there (:func:`names`).

    Raises:
        BadArraysError: one is damaged, larger than ``MOST_BYTES``, or holds no numbers.
    """
    try:
        with opened(path) as stream, zipfile.ZipFile(stream) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            return [_member(archive, entries[name]) for name in wanted]
    except _DAMAGED as error:
        raise BadArraysError("truncated, or not a numeric .npz file that can be unpacked") from error


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> npt.NDArray[Any]:
    if entry.file_size > MOST_BYTES:
        raise BadArraysError(f"array {entry.filename!r} has {entry.file_size / 2**30:.1f} GiB")
    with archive.open(entry) as stream:
        declared = _declared_bytes(stream)
    if declared > entry.file_size:
        raise BadArraysError(f"array {entry.filename!r} declares more numbers than the file contains")
    with archive.open(entry) as stream:
        array: npt.NDArray[Any] = np.load(io.BytesIO(stream.read(entry.file_size + 1)), allow_pickle=False)
    return array


def _declared_bytes(stream: IO[bytes]) -> int:
    version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)  # type: ignore[no-untyped-call]
    if dtype.hasobject:
        raise BadArraysError("an array of Python objects")
    return int(prod(shape) * dtype.itemsize)
