"""The folder a split is shipped in: where each file lies, and how the folder appears whole or not at all.

1. Everything is written to a *staging folder* ``.OUT.partial-PID`` beside OUT, so on OUT's filesystem; the last
   act is one rename. An error, a full disk or Ctrl-C before it leaves OUT as it was and removes the staging folder.
2. An existing OUT is refused. With ``force`` an earlier result is kept as ``.OUT.old-PID`` until the new one stands
   in its place; a folder that this package did not write is never replaced.
3. Staging folders of processes that died (killed, power cut) are removed by the next run with the same OUT. Whether
   the owner lives is asked of a lock on the folder, which ends with the process, and not of the PID alone.
4. Same input, same bytes: no file holds a time, a process number or an absolute path.

Layout, K segments (files under ``pairs_k*`` and ``full_split`` that are the same are hard links of one file)::

    full_split/tflite/seg1_int8.tflite ..       the chain
    pairs_k2/tflite/seg1_int8.tflite            k = 2..K: seg1 .. seg(k-1), then one tail with the rest
    pairs_k2/tflite/tail_seg2_to_K_int8.tflite
    unsplit/unsplit_int8.tflite                 the whole model, the reference of the chain
    independent/whole_int8.tflite               the whole model converted in one piece, where that was asked for
    segments/seg1.onnx ..                       the float segments, for Netron
    samples.npz                                 the calibration samples
    certificate.json                            what shows that the plan is what it says
    meta.json, note.txt                         what all this is, for programs and for people
"""

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

import numpy as np

from graphcut.errors import OutputError, UsageError
from graphcut.records import Array, ConvertedSegment, Samples, Tail

MANIFEST = "meta.json"
NOTE = "note.txt"
SAMPLES = "samples.npz"
CERTIFICATE = "certificate.json"

# What the operating system says where a folder cannot be written; anything else is a bug and keeps its traceback.
_UNWRITABLE = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "ENAMETOOLONG", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
)


def segment_onnx(folder: Path, index: int) -> Path:
    """Name the float ONNX file of segment ``index`` (1 for the first)."""
    return folder / "segments" / f"seg{index}.onnx"


def segment_tflite(folder: Path, index: int) -> Path:
    """Name the int8 TFLite file of segment ``index`` in the chain."""
    return folder / "full_split" / "tflite" / f"seg{index}_int8.tflite"


def tail_tflite(folder: Path, first: int, last: int) -> Path:
    """Name the int8 TFLite file of segments first..last joined; ``first == 1`` is the unsplit model."""
    if first == 1:
        return folder / "unsplit" / "unsplit_int8.tflite"
    return folder / f"pairs_k{first}" / "tflite" / f"tail_seg{first}_to_{last}_int8.tflite"


def prefix_tflite(folder: Path, k: int, index: int) -> Path:
    """Name the int8 TFLite file of segment ``index < k`` in the combination k."""
    return folder / f"pairs_k{k}" / "tflite" / f"seg{index}_int8.tflite"


def independent_tflite(folder: Path) -> Path:
    """Name the int8 TFLite file of the whole model that was converted in one piece."""
    return folder / "independent" / "whole_int8.tflite"


def lay_out(
    folder: Path, segments: Sequence[ConvertedSegment], tails: Sequence[Tail], independent: Path | None = None
) -> None:
    """Put segments and tails where the layout says, as hard links where the filesystem has them.

    Files that lie in their place already stay. A tail of one segment alone (k == K), and the unsplit model when
    K == 1, are that segment's file.
    """
    last = len(segments)
    for converted in segments:
        index = converted.segment.index
        _place(converted.onnx_path, segment_onnx(folder, index))
        _place(converted.tflite_path, segment_tflite(folder, index))
    for tail in tails:
        _place(tail.tflite_path, tail_tflite(folder, tail.first, tail.last))
    _place(segment_tflite(folder, last), tail_tflite(folder, last, last))
    if independent is not None:
        _place(independent, independent_tflite(folder))
    for k in range(2, last + 1):
        for index in range(1, k):
            _place(segment_tflite(folder, index), prefix_tflite(folder, k, index))


def write_samples(folder: Path, samples: Samples) -> None:
    """Keep the samples in the folder, so that it can be verified by itself."""
    write_arrays(folder / SAMPLES, samples.arrays)


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
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
            "make room or choose another folder with -o",
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
        raise UsageError(f"{out} cannot be an output folder", "choose another with -o")
    return resolved


def _refuse_existing(out: Path, force: bool) -> None:
    if not os.path.lexists(out) or (out.is_dir() and _is_empty(out)):
        return
    if not out.is_dir():
        raise UsageError(f"{out} exists and is not a folder", "choose another with -o")
    if not force:
        raise UsageError(f"{out} exists", "choose another folder with -o, or replace it with --force")
    if not _is_result(out):
        raise UsageError(
            f"{out} holds something else than a result of graphcut, so --force does not replace it",
            "choose another folder with -o",
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
        raise OutputError(f"cannot write {out}: {error.strerror}", "choose another place with -o") from error


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
        raise OutputError(f"cannot make the folder {out.parent}", "choose another with -o") from error
    return tuple(reversed(missing))


def _make_staging(out: Path) -> Path:
    folder = _sibling(out, "partial")
    try:
        folder.mkdir()
    except FileNotFoundError as error:  # the parent exists and takes no folders: a place like /proc
        raise OutputError(f"cannot make a folder in {out.parent}", "choose another with -o") from error
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


def _place(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a copy where links are not to be had."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK}:
            raise
        shutil.copyfile(source, target)
