"""Write single files atomically (for folders see graphcut.staging).

1. A file or folder is made under a *partial name* ``.NAME.partial-TOKEN`` beside its place, so on the same filesystem.
   TOKEN is random: process numbers come again, in a container after every start.
2. Beside it lies ``.NAME.partial-TOKEN.lock``, which says that the partial file is ours and is locked while its owner
   lives. One whose lock nobody holds was left by a process that died: the next run that writes NAME removes it, and no
   other. What has no such lock is somebody else's and stays.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.errors import OutputError, UsageError, setting


def check_file(target: Path, force: bool) -> None:
    """Check before any work whether a file may and can be written.

    Raises:
        UsageError: it exists and ``force`` is not given, or a folder is in its place.
        OutputError: its folder cannot be written to.
    """
    if target.is_dir():
        raise UsageError(f"{target} is a folder", f"choose a file with {setting('out')}")
    if target.exists() and not force:
        raise UsageError(
            f"{target} exists", f"choose another file with {setting('out')}, or replace it with {setting('force')}"
        )
    with _whole(target, replace=False) as partial:
        partial.touch()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a path that :func:`check_file` accepted; an existing file there is replaced.

    Raises:
        OutputError: it cannot be written.
    """
    with _whole(target) as partial:
        shutil.copyfile(source, partial)


def write_outputs(target: Path, outputs: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write one output as ``.npy``, or several as ``.npz`` by name; an existing file is replaced.

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
    """Replace the text of a file atomically.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with _whole(target) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {target} ({error.strerror or error})", "free space and run again") from error


def json_text(document: Mapping[str, Any]) -> str:
    """Return the text of a JSON file as every file of graphcut has it: indented, in UTF-8, without NaN.

    Raises:
        ValueError: the document contains NaN or an infinity.
    """
    return f"{json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)}\n"


def write_bytes(target: Path, data: bytes) -> None:
    """Write a file atomically; an old one is replaced.

    Raises:
        UsageError: its folder does not exist.
        OutputError: it cannot be written.
    """
    with _whole(target) as partial:
        partial.write_bytes(data)


@contextmanager
def _whole(target: Path, *, replace: bool = True) -> Iterator[Path]:
    place = Path(os.path.realpath(target))  # a link stays, and the file that it names is replaced
    if (target.exists() or os.path.lexists(place)) and not place.is_file():
        raise UsageError(f"{target} is not a regular file", f"choose another file with {setting('out')}")
    if not place.parent.is_dir():
        raise UsageError(
            f"there is no folder {place.parent}", f"create it, or choose another file with {setting('out')}"
        )
    with writing(place):
        sweep(place)
        with beside(place) as partial:
            yield partial
            if replace:
                partial.replace(place)


_LOCK = b"graphcut staging\n"


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a name beside ``target`` to make a file or folder under (statements 1 and 2); it is gone at the end.

    Raises:
        OSError: its folder takes no files.
    """
    partial, held = _locked(target)
    try:
        os.write(held, _LOCK)
        yield partial
    finally:
        discard(partial)
        os.close(held)


def _locked(target: Path) -> tuple[Path, int]:
    """A partial name beside ``target`` and its lock, held.

    Another run that sweeps may take an empty lock for an orphan before it is locked here: then it is made again.
    """
    while True:
        partial = target.parent / f".{target.name}.partial-{secrets.token_hex(6)}"
        lock = _lock_of(partial)
        held = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            lock.unlink(missing_ok=True)
            continue
        except OSError:  # a filesystem without locks
            return partial, held
        if os.fstat(held).st_nlink:
            return partial, held
        os.close(held)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder among the system's temporary files; it is gone at the end.

    Folders of this user that killed processes left there are removed first.

    Raises:
        OutputError: no folder can be made there.
    """
    root = Path(tempfile.gettempdir())
    target = root / f"graphcut-{os.getuid()}"
    with ExitStack() as stack:
        try:
            sweep(target)
            folder = stack.enter_context(beside(target))
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise OutputError(
                f"cannot create a temporary folder in {root}: {error.strerror}", "free space, or set TMPDIR"
            ) from error
        yield folder


def orphans(target: Path) -> Iterator[Path]:
    """The partial names beside ``target`` that dead processes left (statement 2)."""
    if not target.parent.is_dir():
        return
    pattern = re.compile(rf"\.{re.escape(target.name)}\.partial-[0-9a-f]{{12}}\.lock")
    for lock in sorted(target.parent.iterdir()):
        if pattern.fullmatch(lock.name) and _is_orphan(lock):
            yield lock.with_suffix("")


def sweep(target: Path) -> None:
    """Remove what dead processes left beside ``target``."""
    for partial in orphans(target):
        discard(partial)


def discard(partial: Path) -> None:
    """Remove a partial file or folder, if it is there, and then its lock."""
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)
    _lock_of(partial).unlink(missing_ok=True)


def _lock_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.lock")


def _is_orphan(lock: Path) -> bool:
    """Whether a file is a lock of ours that nobody holds; an empty one was made by a process that died at once."""
    try:
        held = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        said = os.read(held, len(_LOCK) + 1)
        if said != _LOCK and (said or os.path.lexists(lock.with_suffix(""))):
            return False
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(held)
    return True


# Errors of the operating system if a folder cannot be written; anything else is a bug and keeps its traceback.
_UNWRITABLE = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES",
        "EBUSY",
        "EDQUOT",
        "EFBIG",
        "EIO",
        "ENAMETOOLONG",
        "ENOSPC",
        "ENOTDIR",
        "EPERM",
        "EROFS",
        "EXDEV",
    )
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
    """Turn an error of the operating system about ``out`` or its parents into one line; anything else is a bug."""
    out = out if out.is_absolute() else out.resolve()
    try:
        yield
    except OSError as error:
        # A copy that fails names its source first and its target second.
        named = [Path(os.fsdecode(each)) for each in (error.filename, error.filename2) if each is not None]
        ours = not named or any(where.is_relative_to(out.parent) or where in out.parents for where in named)
        if error.errno not in _UNWRITABLE or not ours:
            raise
        another = f"choose another path with {setting('out')}"
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        raise OutputError(
            f"cannot write {out}: {error.strerror}", f"free space and run again, or {another}" if full else another
        ) from error
