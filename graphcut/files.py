"""Single files for the user, each written whole or not at all (folders: graphcut.staging)."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.errors import OutputError, UsageError, setting


def check_file(target: Path, force: bool) -> None:
    """Find out before any work whether a file may and can be written.

    Raises:
        UsageError: it exists and ``force`` is not given, or a folder is in its place.
        OutputError: its folder cannot be written to.
    """
    if target.is_dir():
        raise UsageError(f"{target} is a folder", f"name a file with {setting('out')}")
    if target.exists() and not force:
        raise UsageError(
            f"{target} exists", f"choose another file with {setting('out')}, or replace it with {setting('force')}"
        )
    with writing(target):
        partial = _partial(target)
        partial.touch()
        partial.unlink()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a place that :func:`check_file` found good; an older file there is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    with _whole(target) as partial:
        shutil.copyfile(source, partial)


def write_outputs(target: Path, outputs: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write one output as ``.npy``, or several as ``.npz`` by name; an older file is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    with _whole(target) as partial:
        if target.suffix == ".npz":
            write_arrays(partial, outputs)
            return
        (values,) = outputs.values()
        with partial.open("wb") as stream:
            np.save(stream, values, allow_pickle=False)


def rewrite(target: Path, text: str) -> None:
    """Put a new text in the place of a file of ours, or leave the old one.

    Raises:
        OutputError: it cannot be written.
    """
    partial = _partial(target)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target} ({error.strerror or error})", "make room and run again") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    with writing(target):
        partial = _partial(target)
        try:
            yield partial
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def _partial(target: Path) -> Path:
    folder = target.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", f"make it, or choose another file with {setting('out')}")
    return folder / f".{target.name}.partial-{secrets.token_hex(6)}"


# What the operating system says where a folder cannot be written; anything else is a bug and keeps its traceback.
_UNWRITABLE = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "ENAMETOOLONG", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
)


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an uncompressed ``.npz`` whose bytes depend on the arrays and their names alone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.save(stream, np.ascontiguousarray(array), allow_pickle=False)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Say in one line what the operating system refuses beside or above ``out``; anything else is a bug."""
    out = out if out.is_absolute() else out.resolve()
    try:
        yield
    except OSError as error:
        # A copy that fails names its source first and its target second.
        named = [Path(os.fsdecode(each)) for each in (error.filename, error.filename2) if each is not None]
        ours = not named or any(where.is_relative_to(out.parent) or where in out.parents for where in named)
        if error.errno not in _UNWRITABLE or not ours:
            raise
        raise OutputError(
            f"cannot write {out}: {error.strerror}", f"choose another place with {setting('out')}"
        ) from error
