"""Write a folder atomically, and never replace anything that graphcut did not write.

1. Everything is written to a *staging folder* under a partial name beside OUT (:mod:`graphcut.files`); the last act is
   one rename. An error, a full disk or Ctrl-C before it leaves OUT as it was and removes the staging folder.
2. What a process that died has left is removed by the next run with the same OUT, also inside OUT where it wrote one of
   ``UNLISTED``.
3. OUT is replaced, with ``force``, only if every file in it is one that its manifest lists, with the same size, or one
   of ``UNLISTED``. Anything else in it, a link or a file of the user, is named and refused.
4. If the system supports it, OUT and the staging folder are exchanged in one step (renameat2), so that there is a
   complete OUT at every moment. Otherwise OUT is renamed to ``.OUT.old-TOKEN`` first, and the next run restores it if
   the process dies before the second rename.
5. Files and folders are on the disk (fsync) before the rename.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from graphcut import files
from graphcut.errors import OutputError, UsageError, setting
from graphcut.files import writing
from graphcut.regular_file import text_of

MANIFEST = "meta.json"
"""Name of the file that lists what a folder of ours holds, with sizes and hashes."""
UNLISTED = frozenset({MANIFEST, "note.txt", "report.html"})
"""Files of a result that its manifest does not list, because they are made from it."""
COMPILING = "compile"
"""Files are compiled in a folder under a partial name of this one."""
_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h


def check_target(out: Path, force: bool, needed_bytes: int = 0) -> None:
    """Check before any work whether ``out`` will be writable.

    Args:
        out: the folder to write.
        force: an earlier result there may be replaced.
        needed_bytes: an estimate of what will be written; 0 where it is not known.

    Raises:
        UsageError: ``out`` exists and may not be replaced.
        OutputError: a folder cannot be made there, or the disk has less than ``needed_bytes`` left.
    """
    out = _resolved(out)
    with writing(out):
        _sweep(out)
        _refuse_existing(out, force)
        made = _make_parents(out)
        try:
            with _staging_folder(out):
                free_bytes = shutil.disk_usage(out.parent).free
        finally:
            _remove_empty(made)
    if free_bytes < needed_bytes:
        raise OutputError(
            f"{out.parent} has {free_bytes / 2**20:.0f} MiB left, but {out.name} needs about "
            f"{needed_bytes / 2**20:.0f} MiB",
            f"free space, or choose another folder with {setting('out')}",
        )


@contextmanager
def staging(out: Path, force: bool) -> Iterator[Path]:
    """Give a folder to write to that becomes ``out`` if the block ends well, and disappears if it does not.

    Args:
        out: the folder to come; parents are made.
        force: replace an earlier result (statement 3).

    Yields:
        The staging folder, empty.

    Raises:
        UsageError: ``out`` exists and may not be replaced.
        OutputError: it cannot be written, also when the block meets a full or read-only disk.
    """
    out = _resolved(out)
    with writing(out):
        _sweep(out)
        _refuse_existing(out, force)
        made = _make_parents(out)
        try:
            with _staging_folder(out) as folder:
                yield folder
                _settle(folder)
                _publish(folder, out, force)
        except BaseException:
            _remove_empty(made)
            raise


def _resolved(out: Path) -> Path:
    """``out`` without links and dots, so that its parent is the folder the rename happens in."""
    resolved = Path(os.path.realpath(out.expanduser()))  # of links in a circle Path.resolve makes an error
    if resolved == resolved.parent:
        raise UsageError(f"{out} cannot be an output folder", f"choose another with {setting('out')}")
    return resolved


def _refuse_existing(out: Path, force: bool) -> None:
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UsageError(f"{out} exists and is not a folder", f"choose another with {setting('out')}")
    if out.is_mount():
        raise UsageError(
            f"{out} is a mount point, which no folder can replace", f"choose a folder in it with {setting('out')}"
        )
    if _is_empty(out):
        return
    if not force:
        raise UsageError(
            f"{out} exists", f"choose another folder with {setting('out')}, or replace it with {setting('force')}"
        )
    elsewhere = f"choose another folder with {setting('out')}"
    for name in (*UNLISTED, COMPILING):
        files.sweep(out / name)
    listed = _listed(out)
    if listed is None:
        raise UsageError(
            f"{out} is not a result of graphcut, so {setting('force')} does not replace it",
            elsewhere,
        )
    others = sorted(_others(out, listed))
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UsageError(
            f"{out} contains files that are not part of the result, so {setting('force')} does not replace it: "
            f"{', '.join(others[:3])}{more}",
            f"move them away, or {elsewhere}",
        )


def _is_empty(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _listed(folder: Path) -> dict[str, int] | None:
    """Relative path -> bytes of the files that a manifest lists; None where the folder has no manifest of ours."""
    path = folder / MANIFEST
    try:
        if path.is_symlink():
            return None
        manifest = json.loads(text_of(path))
        if "schema_version" not in manifest or "graphcut_version" not in manifest:
            return None
        return {str(name): int(entry["bytes"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _others(folder: Path, listed: dict[str, int]) -> Iterator[str]:
    """Everything in a folder that the manifest does not list as it is (statement 3)."""
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        for name in [*folders, *names]:
            path = here / name
            relative = path.relative_to(folder).as_posix()
            with suppress(FileNotFoundError):  # another run has just replaced the folder
                if path.is_symlink() or (
                    name in names and relative not in UNLISTED and listed.get(relative) != path.stat().st_size
                ):
                    yield relative
                elif name in folders and _is_empty(path):
                    yield f"{relative}/"


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
        raise OutputError(f"cannot create the folder {out.parent}", f"choose another with {setting('out')}") from error
    return tuple(reversed(missing))


@contextmanager
def _staging_folder(out: Path) -> Iterator[Path]:
    """Make a staging folder, which is gone at the end unless it was published."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(files.beside(out))
        except FileNotFoundError as error:  # the parent exists and takes no files: a place like /proc
            raise OutputError(
                f"cannot create a folder in {out.parent}", f"choose another with {setting('out')}"
            ) from error
        folder.mkdir()
        yield folder


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def _settle(folder: Path) -> None:
    """Have everything in a folder on the disk (statement 5); hard links of one file once."""
    done: set[tuple[int, int]] = set()
    for parent, _, names in os.walk(folder):
        for name in (*names, "."):
            path = Path(parent) / name
            stat = path.stat()
            if (stat.st_dev, stat.st_ino) not in done:
                done.add((stat.st_dev, stat.st_ino))
                _sync(path)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # a filesystem that cannot
            raise
    finally:
        os.close(opened)


def _publish(folder: Path, out: Path, force: bool) -> None:
    """Put the staging folder in the place of ``out`` (statement 4); what was there lies in its place and is removed."""
    _refuse_existing(out, force)
    if not force or not out.exists() or _is_empty(out):
        try:
            folder.replace(out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _publish(folder, out, force)  # another run was faster
            return
    elif not _exchange(folder, out):
        old = folder.with_name(folder.name.replace(".partial-", ".old-"))
        out.replace(old)
        try:
            folder.replace(out)
        except BaseException:
            old.replace(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):
        _sync(out.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; returns whether the system supports it."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _sweep(out: Path) -> None:
    """Remove what dead processes left next to ``out``; restore a result if its replacement was interrupted."""
    for partial in files.orphans(out):
        old = partial.with_name(partial.name.replace(".partial-", ".old-"))
        if old.is_dir() and not old.is_symlink():
            if os.path.lexists(out):
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.replace(out)
        files.discard(partial)
