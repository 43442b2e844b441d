"""Single files for the user, each written whole or not at all (folders: graphcut.result.layout)."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.errors import OutputError, UsageError, setting

MANIFEST = "meta.json"
"""Name of the file that says what a folder of ours holds."""


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
    return folder / f".{target.name}.partial-{os.getpid()}"


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


def check_target(out: Path, force: bool, needed_bytes: int = 0) -> None:
    """Find out before any work whether ``out`` will be writable.

    Args:
        out: the folder to come.
        force: an earlier result there may be replaced.
        needed_bytes: an estimate of what will be written; 0 where it is not known.

    Raises:
        UsageError: ``out`` exists and may not be replaced.
        OutputError: a folder cannot be made there, or the disk has less than ``needed_bytes`` left.
    """
    out = _resolved(out)
    with writing(out):
        _refuse_existing(out, force)
        made = _make_parents(out)
        try:
            _make_staging(out).rmdir()
            free_bytes = shutil.disk_usage(out.parent).free
        finally:
            _remove_empty(made)
    if free_bytes < needed_bytes:
        raise OutputError(
            f"{out.parent} has {free_bytes / 2**20:.0f} MiB left and {out.name} needs about "
            f"{needed_bytes / 2**20:.0f} MiB",
            f"make room or choose another folder with {setting('out')}",
        )


@contextmanager
def staging(out: Path, force: bool) -> Iterator[Path]:
    """Give a folder to write to that becomes ``out`` if the block ends well, and disappears if it does not.

    Args:
        out: the folder to come; parents are made.
        force: replace an earlier result (statement 2).

    Yields:
        The staging folder, empty.

    Raises:
        UsageError: ``out`` exists and may not be replaced.
        OutputError: it cannot be written, also when the block meets a full or read-only disk.
    """
    out = _resolved(out)
    with writing(out):
        _refuse_existing(out, force)
        made = _make_parents(out)
        try:
            _sweep(out)
            folder = _sibling(out, "partial")
            try:
                _make_staging(out)
                with _held(folder):
                    yield folder
                _publish(folder, out, force)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except BaseException:
            _remove_empty(made)
            raise


def _resolved(out: Path) -> Path:
    """``out`` without links and dots, so that its parent is the folder the rename happens in."""
    resolved = out.expanduser().resolve()
    if resolved == resolved.parent:
        raise UsageError(f"{out} cannot be an output folder", f"choose another with {setting('out')}")
    return resolved


def _refuse_existing(out: Path, force: bool) -> None:
    if not os.path.lexists(out) or (out.is_dir() and _is_empty(out)):
        return
    if not out.is_dir():
        raise UsageError(f"{out} exists and is not a folder", f"choose another with {setting('out')}")
    if not force:
        raise UsageError(
            f"{out} exists", f"choose another folder with {setting('out')}, or replace it with {setting('force')}"
        )
    if not _is_result(out):
        raise UsageError(
            f"{out} holds something else than a result of graphcut, so {setting('force')} does not replace it",
            f"choose another folder with {setting('out')}",
        )


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _is_result(folder: Path) -> bool:
    """Whether the folder was written by this package: its manifest says so."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and "schema_version" in manifest and "graphcut_version" in manifest


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


def _sibling(out: Path, role: str) -> Path:
    return out.parent / f".{out.name}.{role}-{os.getpid()}"


def _make_parents(out: Path) -> tuple[Path, ...]:
    """Make the folders above ``out``; those made, outermost first."""
    missing = []
    for parent in out.parents:
        if parent.exists():
            break
        missing.append(parent)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError) as error:  # a file in the way; a place like /proc
        _remove_empty(missing[::-1])
        raise OutputError(f"cannot make the folder {out.parent}", f"choose another with {setting('out')}") from error
    return tuple(reversed(missing))


def _make_staging(out: Path) -> Path:
    folder = _sibling(out, "partial")
    try:
        folder.mkdir()
    except FileNotFoundError as error:  # the parent exists and takes no folders: a place like /proc
        raise OutputError(f"cannot make a folder in {out.parent}", f"choose another with {setting('out')}") from error
    return folder


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def _publish(folder: Path, out: Path, force: bool) -> None:
    """Rename the staging folder to ``out``; an earlier result leaves only after the new one is in place."""
    _refuse_existing(out, force)
    if not out.exists() or _is_empty(out):
        folder.replace(out)
        return
    old = _sibling(out, "old")
    out.replace(old)
    try:
        folder.replace(out)
    except BaseException:
        old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove what dead processes left beside ``out``; give back a result that died while being replaced."""
    pattern = re.compile(rf"\.{re.escape(out.name)}\.(partial|old)-(\d+)")
    for entry in sorted(out.parent.iterdir()):
        match = pattern.fullmatch(entry.name)
        if match is None or not entry.is_dir() or not _is_orphan(entry, int(match[2])):
            continue
        if match[1] == "old" and not out.exists():
            entry.replace(out)
        else:
            shutil.rmtree(entry, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock that says the folder's owner lives; shared with its workers, gone with the last of them."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a filesystem without locks: the PID alone speaks for us
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _is_orphan(folder: Path, pid: int) -> bool:
    """Whether the process that made the folder is gone and nobody holds its lock."""
    if pid != os.getpid() and _runs(pid):
        return False
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
