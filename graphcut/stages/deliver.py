"""Single files for the user, each written whole or not at all (folders: graphcut.stages.package)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from graphcut.errors import OutputError, UsageError
from graphcut.records import Array
from graphcut.stages.package import write_arrays, writing


def check_file(target: Path, force: bool) -> None:
    """Find out before any work whether a file may and can be written.

    Raises:
        UsageError: it exists and ``force`` is not given, or a folder is in its place.
        OutputError: its folder cannot be written to.
    """
    if target.is_dir():
        raise UsageError(f"{target} is a folder", "name a file with -o")
    if target.exists() and not force:
        raise UsageError(f"{target} exists", "choose another file with -o, or replace it with --force")
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


def write_outputs(target: Path, outputs: Mapping[str, Array]) -> None:
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
        raise UsageError(f"there is no folder {folder}", "make it, or choose another file with -o")
    return folder / f".{target.name}.partial-{os.getpid()}"
