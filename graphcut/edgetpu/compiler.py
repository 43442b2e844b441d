"""Find ``edgetpu_compiler`` and compile files with it, several at a time.

1. A file counts as compiled only if the exit status, "Compilation succeeded!" and our own reading of the file agree.
2. Each run has its own folder and process group; its output and its log are kept next to the compiled file, or alone if
   it failed: ``NAME_edgetpu.tflite``, ``NAME_edgetpu.log``, ``NAME_edgetpu.out.txt``.
3. Files are written atomically. A failure is a record with its kind, the compiler's line and a remedy.
4. The compiled file is compared byte for byte with the weights of its source (graphcut.edgetpu.byte_proof). The result
   is reported; it does not change the verdict, because no real pair covers some layouts.

5. "Internal compiler error" does not happen every time: such a file is tried again, RETRIES times, before it counts.

The compiler is a program for x86-64 Debian; in a container (``docker:IMAGE``) it also runs on other systems.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from graphcut import files
from graphcut.edgetpu import byte_proof, compiled, layers_of_file, output
from graphcut.edgetpu.byte_proof import ByteProof
from graphcut.edgetpu.compiled import CompiledFile
from graphcut.edgetpu.failures import NOT_INSTALLED, CompileFailure, classify, disagreement
from graphcut.edgetpu.output import Printed
from graphcut.errors import DependencyError, ModelError, OutputError, UsageError, setting
from graphcut.progress import Event, Report, silent
from graphcut.workers import process
from graphcut.workers.threads import threads

PROGRAM = "edgetpu_compiler"
OLDEST_VERSION = 16
"""Older versions do not have ``--timeout_sec``."""
DEFAULT_SECONDS = 180
RETRIES = 2
_PROBE_SECONDS = 20.0
_DOCKER_PROBE_SECONDS = 120.0
_GRACE_SECONDS = 20.0
"""The compiler has its own time limit; it is killed this many seconds later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """A compiler that runs.

    Attributes:
        program: the path of the program, or of ``docker``.
        image: the container image, "" if it runs directly.
        version: its own version ("16.0.384591198").
        options: given to it for every file, beside those that graphcut needs itself.
    """

    program: str
    image: str
    version: str
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name for messages."""
        where = f" in {self.image}" if self.image else ""
        return f"{PROGRAM} {self.version}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileSuccess:
    """One file compiled.

    Attributes:
        source: the int8 file.
        path, log_path, output_path: the compiled file, the compiler's log, its output.
        printed: the parsed output.
        compiled: the parsed compiled file.
        seconds: wall time.
        notes: remarks that do not affect the verdict.
        proof: the comparison of its parameters with the weights of ``source``; None where that cannot be read.
    """

    source: Path
    path: Path
    log_path: Path
    output_path: Path
    printed: Printed
    compiled: CompiledFile
    seconds: float
    notes: tuple[str, ...]
    proof: ByteProof | None


CompileResult = CompileSuccess | CompileFailure


def options_for(
    *,
    multiple_subgraphs: bool = False,
    search_delegate: bool = False,
    delegate_search_step: int | None = None,
    intermediate_tensors: Sequence[str] = (),
    min_runtime_version: int | None = None,
) -> tuple[str, ...]:
    """The compiler's own options as it takes them (``edgetpu_compiler --help``).

    Args:
        multiple_subgraphs: ``-a``: several Edge TPU subgraphs in a file.
        search_delegate: ``-d``: search for the delegate's end when compiling all of it fails.
        delegate_search_step: ``-k``: operators to go back at a time in that search.
        intermediate_tensors: ``-i``: tensors at which the delegate ends.
        min_runtime_version: ``-m``: the oldest runtime that is to run it.

    Raises:
        UsageError: a step without a search.
    """
    if delegate_search_step is not None and not search_delegate:
        raise UsageError("-k is the step of a search that -d asks for", "add -d")
    options = ["-a"] if multiple_subgraphs else []
    options += ["-d"] if search_delegate else []
    options += ["-k", str(delegate_search_step)] if delegate_search_step is not None else []
    options += ["-i", ",".join(intermediate_tensors)] if intermediate_tensors else []
    options += ["-m", str(min_runtime_version)] if min_runtime_version is not None else []
    return tuple(options)


def find(where: str | None = None) -> Compiler:
    """The compiler at ``where``: a path, ``docker:IMAGE``, or None for the one on PATH.

    Raises:
        UsageError: ``where`` is empty.
        DependencyError: there is none, it cannot be started, is another program, is too old, or does not respond.
    """
    if where is not None and where.removeprefix("docker:").strip() == "":
        raise UsageError(f"{setting('compiler', where)} is empty", f"pass the path of {PROGRAM}, or docker:IMAGE")
    if where is not None and where.startswith("docker:"):
        return _probe(_docker(), where.removeprefix("docker:"))
    if where is None:
        found = shutil.which(PROGRAM)
        if found is None:
            raise DependencyError(f"{PROGRAM} is not on PATH", NOT_INSTALLED)
        return _probe(found, "")
    path = Path(where)
    if path.is_dir():
        path = path / PROGRAM
        if not path.exists():
            raise DependencyError(f"the folder {where} contains no {PROGRAM}", f"pass its path; {NOT_INSTALLED}")
    if not path.exists():
        raise DependencyError(f"{where} does not exist", f"pass the path of {PROGRAM}; {NOT_INSTALLED}")
    return _probe(str(path.resolve()), "")


def compile_files(
    compiler: Compiler,
    files: Sequence[Path],
    out: Path,
    *,
    seconds: int = DEFAULT_SECONDS,
    jobs: int = 2,
    report: Report = silent,
) -> tuple[CompileResult, ...]:
    """Compile files into a folder, ``jobs`` at a time; one result per file, in their order.

    Args:
        compiler: from :func:`find`.
        files: int8 TFLite files with different names.
        out: an existing folder for the results.
        seconds: time limit of one file.
        jobs: number of files at a time.
        report: receives progress, one step per file.

    Raises:
        OutputError: the folder cannot be written to.
        KeyboardInterrupt: all running compilers have been stopped.
    """
    done = 0

    stop = threading.Event()

    def one(file: Path) -> CompileResult:
        return compile_file(compiler, file, out, seconds=seconds, stop=stop)

    report(Event(stage="compile", total=len(files)))
    results: list[CompileResult] = []
    with threads(max(min(jobs, len(files)), 1)) as pool:
        try:
            for future in [pool.submit(one, file) for file in files]:
                results.append(future.result())
                done += 1
                report(Event(stage="compile", done=done, total=len(files), detail=results[-1].source.name))
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return tuple(results)


def compile_file(
    compiler: Compiler, file: Path, out: Path, *, seconds: int = DEFAULT_SECONDS, stop: threading.Event | None = None
) -> CompileResult:
    """Compile one file into a folder; ``stop``, set by another thread, ends it.

    Raises:
        OutputError: the folder cannot be written to.
    """
    stem = f"{file.stem}_edgetpu"
    try:
        with tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=out) as name:
            folder = Path(name)
            result = _tried(compiler, file, folder, out, seconds, stop)
            for _ in range(RETRIES):
                if not _by_chance(result) or (stop is not None and stop.is_set()):
                    break
                result = _tried(compiler, file, folder, out, seconds, stop)
            for suffix in (".log", ".out.txt", *([".tflite"] if isinstance(result, CompileSuccess) else [])):
                if (folder / f"{stem}{suffix}").is_file():
                    (folder / f"{stem}{suffix}").replace(out / f"{stem}{suffix}")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"no space left to compile {file.name}", "free some space and compile again") from error
        raise OutputError(f"cannot compile into {out} ({error.strerror or error})", "choose another folder") from error
    return result


def _tried(
    compiler: Compiler, file: Path, folder: Path, out: Path, seconds: int, stop: threading.Event | None
) -> CompileResult:
    """Run the compiler once in an empty folder."""
    stem = f"{file.stem}_edgetpu"
    for left in folder.iterdir():
        left.unlink()
    finished = _run(compiler, file.resolve(), folder, seconds, stop)
    (folder / f"{stem}.out.txt").write_text(finished.output, encoding="utf-8")
    return _judge(file, folder, out, stem, finished)


def _by_chance(result: CompileResult) -> bool:
    """Statement 5."""
    return isinstance(result, CompileFailure) and "Internal compiler error" in result.line


def _judge(file: Path, folder: Path, out: Path, stem: str, finished: process.Finished) -> CompileResult:
    """Statement 1."""
    made, log = folder / f"{stem}.tflite", folder / f"{stem}.log"
    log_text = log.read_text(errors="replace") if log.is_file() else ""
    printed = output.parse(finished.output)
    kept = out / f"{stem}.log" if log_text else out / f"{stem}.out.txt"

    def failure(found: tuple[str, str, str]) -> CompileFailure:
        kind, line, way_out = found
        return CompileFailure(
            source=file, kind=kind, line=line, way_out=way_out, log_path=kept, seconds=finished.seconds
        )

    if finished.code != 0 or not printed.succeeded:
        return failure(
            classify(finished, log_text, made.stat().st_size if made.is_file() else None, succeeded=printed.succeeded)
        )
    if not made.is_file():
        return failure(("no output", "it reported success but wrote no file", "Run it by hand to see its output"))
    try:
        read = compiled.read(made)
    except ModelError as error:
        shown = error.message.replace(f"{folder}/", "")
        return failure(("stub", f"it reported success, but {shown}", "Run it by hand to see its output"))
    contradiction, notes = disagreement(printed, read)
    if contradiction:
        return failure(("disagreement", contradiction, "Keep the files and report this as a bug"))
    return CompileSuccess(
        source=file,
        path=out / f"{stem}.tflite",
        log_path=out / f"{stem}.log",
        output_path=out / f"{stem}.out.txt",
        printed=printed,
        compiled=read,
        seconds=finished.seconds,
        notes=notes,
        proof=_proof(read, file),
    )


def _proof(read: CompiledFile, file: Path) -> ByteProof | None:
    """Statement 4."""
    try:
        return byte_proof.prove_read(read, layers_of_file.uncompiled(file), file.name)
    except ModelError:
        return None


def _run(compiler: Compiler, file: Path, folder: Path, seconds: int, stop: threading.Event | None) -> process.Finished:
    def run(command: Sequence[str]) -> process.Finished:
        limit = seconds + _GRACE_SECONDS
        return _started(lambda: process.run(command, folder=folder, seconds=limit, stop=stop), compiler.program)

    options = ["--timeout_sec", str(seconds), *compiler.options]
    if not compiler.image:
        return run([compiler.program, "-s", "-o", str(folder), *options, str(file)])
    name = f"graphcut-{uuid.uuid4().hex[:12]}"
    user = f"{os.getuid()}:{os.getgid()}"
    command = [
        *(compiler.program, "run", "--rm", "--name", name, "--network", "none", "--user", user),
        *("--volume", f"{file.parent}:/in:ro", "--volume", f"{folder}:/out", "--workdir", "/out"),
        *("--entrypoint", PROGRAM, compiler.image, "-s", "-o", "/out", *options, f"/in/{file.name}"),
    ]
    try:
        finished = run(command)
    except BaseException:
        _stop_container(compiler.program, name, folder)
        raise
    if finished.timed_out:
        _stop_container(compiler.program, name, folder)
    return finished


def _stop_container(docker: str, name: str, folder: Path) -> None:
    """Stop the container; killing the client leaves it running."""
    with suppress(OSError):
        process.run([docker, "kill", name], folder=folder, seconds=_PROBE_SECONDS)


def _docker() -> str:
    found = shutil.which("docker")
    if found is None:
        raise DependencyError("docker is not on PATH", "install it, or give the path of edgetpu_compiler")
    return found


def _probe(program: str, image: str) -> Compiler:
    """Ask for the version: a program that does not answer like the compiler is another program."""
    command, limit, shown = [program, "-v"], _PROBE_SECONDS, program
    if image:
        command = [program, "run", "--rm", "--network", "none", "--entrypoint", PROGRAM, image, "-v"]
        limit, shown = _DOCKER_PROBE_SECONDS, f"{PROGRAM} in the image {image}"
    with files.scratch() as folder:
        finished = _started(lambda: process.run(command, folder=folder, seconds=limit), shown)
    if finished.timed_out:
        raise DependencyError(
            f"{shown} did not print its version within {limit:.0f} s", f"choose another one with {setting('compiler')}"
        )
    version = output.version_of(finished.output)
    if not version:
        said = output.line_with(finished.output, [""]) or "nothing"
        if image and "docker daemon" in finished.output.lower():
            raise DependencyError(
                f"the docker engine is not running (docker printed: {said})", "start it, then compile again"
            )
        if image:
            raise DependencyError(
                f"{shown} does not start (it printed: {said})", f"pass an image that contains {PROGRAM}"
            )
        raise DependencyError(f"{shown} is another program (for its version it printed: {said})", NOT_INSTALLED)
    if int(version.partition(".")[0]) < OLDEST_VERSION:
        raise DependencyError(f"{shown} is version {version}; {OLDEST_VERSION} or later is required", NOT_INSTALLED)
    return Compiler(program=program, image=image, version=version)


def _started(start: Callable[[], process.Finished], shown: str) -> process.Finished:
    try:
        return start()
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            raise DependencyError(f"{shown} is not a program for this machine", NOT_INSTALLED) from error
        if isinstance(error, PermissionError):
            raise DependencyError(f"{shown} is not executable", f"chmod +x {shown}") from error
        raise DependencyError(f"{shown} cannot be started ({error.strerror or error})", NOT_INSTALLED) from error
