"""Compile a split for the Edge TPU: every segment and tail once, with the results next to the int8 files.

``full_split/tflite/seg3_int8.tflite`` becomes ``full_split/tpu/seg3_int8_edgetpu.tflite`` with its ``.log`` and
``.out.txt``; a file that is in several combinations is compiled once and linked into each. A compiled file of an
earlier run whose segment no longer compiles is removed. :func:`record` enters the results in ``meta.json``
(graphcut.result.compiled_entries). A last segment that is there for the CPU is not compiled.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from graphcut import codec, files, staging
from graphcut.edgetpu.compiler import DEFAULT_SECONDS, Compiler, CompileResult, CompileSuccess, compile_files
from graphcut.edgetpu.failures import CompileFailure
from graphcut.edgetpu.loop import Closed
from graphcut.errors import OutputError, UsageError
from graphcut.progress import Report, silent
from graphcut.result import manifest
from graphcut.result.compiled_entries import Compilation, entry_of
from graphcut.result.manifest_schema import FileEntry
from graphcut.runtime.job_folder import document
from graphcut.units import format_bytes

_SUFFIXES = (".tflite", ".log", ".out.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPart:
    """One int8 file of a split and the result of compiling it.

    Attributes:
        name: of the int8 file ("seg3_int8.tflite").
        result: its paths are those beside the first of ``places``.
        places: the ``tpu`` folders that hold the results.
    """

    name: str
    result: CompileResult
    places: tuple[Path, ...]

    @property
    def is_segment(self) -> bool:
        """It is a segment of the chain and not a tail."""
        return self.name.startswith("seg")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSplit:
    """A split folder, compiled: segments in order, then tails."""

    folder: Path
    compiler: Compiler
    parts: tuple[CompiledPart, ...]

    @property
    def failures(self) -> tuple[CompileFailure, ...]:
        """Files that were not compiled."""
        return tuple(part.result for part in self.parts if isinstance(part.result, CompileFailure))

    @property
    def streaming(self) -> tuple[CompiledPart, ...]:
        """Segments of the chain that stream parameters; tails are expected to."""
        return tuple(part for part in self.parts if part.is_segment and _streams(part.result))


def compile_split(
    folder: Path,
    compiler: Compiler,
    *,
    seconds: int = DEFAULT_SECONDS,
    jobs: int = 2,
    report: Report = silent,
) -> CompiledSplit:
    """Compile every segment and tail of a split folder; files are written atomically.

    Args:
        folder: as ``graphcut split`` wrote it.
        compiler: from :func:`graphcut.edgetpu.compiler.find`.
        seconds: time limit of one file.
        jobs: files at a time.
        report: receives progress, one step per file.

    Raises:
        UsageError: the folder is not a split.
        OutputError: the folder cannot be written to.
    """
    places = int8_files(folder)
    rest = _rest(folder)
    names = [name for name in places if name not in rest]
    try:
        files.sweep(folder / staging.COMPILING)
        with files.beside(folder / staging.COMPILING) as made:
            made.mkdir()
            sources = [places[name][0] for name in names]
            results = compile_files(compiler, sources, made, seconds=seconds, jobs=jobs, report=report)
            parts = tuple(
                _place(name, result, [path.parent.parent / "tpu" for path in places[name]])
                for name, result in zip(names, results, strict=True)
            )
    except OSError as error:
        raise OutputError(f"cannot write into {folder} ({error.strerror or error})", "free some space") from error
    return CompiledSplit(folder=folder, compiler=compiler, parts=parts)


def record(split: CompiledSplit, closed: Closed | None = None) -> Compilation:
    """Enter the result of compiling in the folder's ``meta.json``, with the new files, atomically.

    Args:
        split: as :func:`compile_split` returned it.
        closed: the rounds of planning and compiling that led there; None where the plan was fixed.

    Raises:
        UsageError: the folder has no manifest.
        OutputError: it cannot be written; the old one stays.
    """
    trouble = first_trouble(split)
    entered = Compilation(
        compiler=split.compiler.name,
        compiler_version=split.compiler.version,
        clean=not trouble,
        trouble=trouble,
        parts={
            part.name: entry_of(part.result, [place.relative_to(split.folder).as_posix() for place in part.places])
            for part in split.parts
        },
        rounds=None if closed is None else closed.rounds,
        reason=None if closed is None else closed.reason,
    )
    written = manifest.read_document(split.folder)
    listed = {name: entry for name, entry in written["files"].items() if "/tpu/" not in name}
    for folder in sorted({place for part in split.parts for place in part.places}):
        for each in folder.iterdir():
            if each.is_file():
                entry = FileEntry(bytes=each.stat().st_size, sha256=files.sha256_of(each))
                listed[each.relative_to(split.folder).as_posix()] = codec.to_json(entry)
    manifest.rewrite(
        split.folder, {**written, "edgetpu": codec.to_json(entered), "files": dict(sorted(listed.items()))}
    )
    return entered


def first_trouble(split: CompiledSplit) -> str:
    """Why a compiled split is not clean, in one line; "" if it is."""
    found = [str(each) for each in split.failures] or [
        file_trouble(part.result, part.name)
        for part in split.parts
        if part.is_segment and isinstance(part.result, CompileSuccess)
    ]
    troubles = [each for each in found if each]
    more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
    return f"{troubles[0]}{more}" if troubles else ""


def file_trouble(made: CompileSuccess, name: str) -> str:
    """Why one compiled file does not run entirely on the chip, in one line; "" if it does."""
    read = made.compiled
    if read.streamed_parameter_bytes:
        return f"{name} streams {format_bytes(read.streamed_parameter_bytes)} at every inference"
    if read.cpu_ops:
        said = ", ".join(f"{op} x{count}" if count > 1 else op for op, count in read.cpu_ops.items())
        return f"operators of {name} stay on the CPU ({said})"
    return ""


def int8_files(folder: Path) -> dict[str, list[Path]]:
    """Name -> paths of every int8 file to compile: segments in order, then tails; the unsplit model is not one.

    Raises:
        UsageError: the folder is not a split, or contains no segment.
    """
    if not (folder / staging.MANIFEST).is_file():
        raise UsageError(f"{folder} has no {staging.MANIFEST}", "pass a folder that graphcut split wrote")
    found: dict[str, list[Path]] = {}
    folders = [folder / "full_split", *sorted(folder.glob("pairs_k*"), key=lambda path: (len(path.name), path.name))]
    for each in folders:
        for path in sorted((each / "tflite").glob("*_int8.tflite"), key=lambda path: (len(path.name), path.name)):
            found.setdefault(path.name, []).append(path)
    if not any(name.startswith("seg") for name in found):
        raise UsageError(f"{folder} contains no int8 segment", "split the model again")
    for name in document(folder).get("files", ()):
        if name.startswith("full_split/tflite/") and not (folder / name).is_file():
            raise UsageError(f"{folder} lacks {name}", "split the model again")
    return dict(sorted(found.items(), key=lambda entry: not entry[0].startswith("seg")))


def _rest(folder: Path) -> tuple[str, ...]:
    """Names of files with nothing for the Edge TPU: the segment of a split that is there for the CPU, and its tail."""
    described = document(folder)
    count = len(described.get("segments", ()))
    if not described.get("plan", {}).get("on_cpu"):
        return ()
    return f"seg{count}_int8.tflite", f"tail_seg{count}_to_{count}_int8.tflite"


def segment_files(folder: Path, *, on_chip: bool = False) -> list[Path]:
    """The int8 file of each segment of a split, or of those for the chip, in order; see :func:`int8_files`."""
    left_out = _rest(folder) if on_chip else ()
    return [paths[0] for name, paths in int8_files(folder).items() if name.startswith("seg") and name not in left_out]


def _place(name: str, result: CompileResult, places: Sequence[Path]) -> CompiledPart:
    """Put a file's results into the ``tpu`` folders, as hard links where the filesystem has them."""
    stem = f"{Path(name).stem}_edgetpu"
    made = result.log_path.parent
    for place in places:
        place.mkdir(exist_ok=True)
        for suffix in _SUFFIXES:
            target, source = place / f"{stem}{suffix}", made / f"{stem}{suffix}"
            if source.is_file():
                _link(source, target)
            else:
                target.unlink(missing_ok=True)
    first = places[0]
    return CompiledPart(name=name, result=_moved(result, first), places=tuple(places))


def _link(source: Path, target: Path) -> None:
    between = target.with_name(f".{target.name}.new")
    between.unlink(missing_ok=True)
    try:
        with suppress(OSError):
            os.link(source, between)
        if not between.exists():
            shutil.copyfile(source, between)
        between.replace(target)
    finally:
        between.unlink(missing_ok=True)


def _moved(result: CompileResult, place: Path) -> CompileResult:
    log_path = place / result.log_path.name
    if isinstance(result, CompileFailure):
        return replace(result, log_path=log_path)
    return replace(
        result, path=place / result.path.name, log_path=log_path, output_path=place / result.output_path.name
    )


def _streams(result: CompileResult) -> bool:
    return isinstance(result, CompileSuccess) and result.compiled.streamed_parameter_bytes > 0
