"""An export: steps in one worker process that write an ONNX file to the cache.

1. TensorFlow and PyTorch run in the worker only, so their memory, threads and messages do not affect the main process.
   If the export fails, their output is kept in a log file.
2. An export is made once; its key includes everything that its bytes depend on.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphcut import files
from graphcut.errors import ConversionError, ModelError
from graphcut.progress import Event, Report
from graphcut.sources import cache
from graphcut.sources.library_errors import ForeignError
from graphcut.workers.confinement import Confinement
from graphcut.workers.pool import Call, Pool

STAGE = "export"
_CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call in the worker: "package.module:function", and its progress text."""

    function: str
    says: str


def in_worker(
    steps: Sequence[Step],
    argument: Mapping[str, Any],
    subject: str,
    target: Path,
    report: Report,
    *,
    readable: Sequence[Path] | None = (),
) -> tuple[Any, ...]:
    """Run steps one after the other in one worker; the last has written ``argument["target"]``.

    Args:
        steps: each is called with ``argument``; their results stay in the worker between the steps.
        argument: picklable; ``target``, the file to write, is added.
        subject: the model, for errors ("resnet8.h5").
        target: the file to write, atomically; its folder is created, an existing file is replaced. If the export fails,
            the output of the worker is kept next to it as ``NAME.log``.
        report: receives progress and notes.
        readable: what the worker may read in addition to Python and the system's libraries; it then has no network.
            None does not confine the worker, for the user's own code.

    Returns:
        The results of the steps.

    Raises:
        ModelError: a step failed, took too long or crashed the worker.
        GraphcutError: raised by a step.
        OutputError: the file cannot be written.
    """
    says = [*(step.says for step in steps), "done"]
    log = target.with_suffix(".log")

    def done(position: int) -> None:
        report(Event(stage=STAGE, done=position + 1, total=len(steps), detail=says[position + 1]))

    with cache.staging(target) as part:
        calls = [
            Call(function=step.function, argument={**argument, "target": str(part)}, subject=subject) for step in steps
        ]
        report(Event(stage=STAGE, done=0, total=len(steps), detail=says[0]))
        try:
            # TensorFlow and PyTorch reserve far more address space than they use, so there is no limit on that.
            confinement = None if readable is None else Confinement(readable=tuple(readable), home=part.parent)
            with Pool(
                1, part.parent, memory=resource.RLIM_INFINITY, resident=most_memory(), confinement=confinement
            ) as pool:
                return tuple(pool.map(calls, done))
        except ConversionError as error:
            _keep_log(part.parent, log)
            raise ModelError(error.message, f"the output of the worker is in {log}") from error
        except ForeignError as error:
            _keep_log(part.parent, log)
            raise ModelError(error.message, f"the full message is in {log}") from error


def most_memory() -> int:
    """Memory limit of an export in bytes: three quarters of the machine's memory, before the kernel kills a process."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4


def apart(function: str, argument: Mapping[str, Any], subject: str) -> Any:
    """Call one function in a separate worker and return its result.

    If a damaged file crashes a native library, only that worker ends.

    Raises:
        ModelError: it crashed the worker, or took too long.
        GraphcutError: raised by the function.
    """
    with files.scratch() as folder:
        confinement = Confinement(readable=(Path(argument["path"]).resolve(),), home=folder)
        try:
            with Pool(1, folder, seconds=_CHECK_SECONDS, confinement=confinement) as pool:
                return pool.map([Call(function=function, argument=argument, subject=subject)])[0]
        except ConversionError as error:
            raise ModelError(error.message, "the file is damaged; save it again") from error


def cached(path: Path, name: str, report: Report) -> bool:
    """Return whether an undamaged export exists, and report it; a damaged one is made again."""
    if not path.is_file():
        return False
    if not cache.is_whole(path):
        report(Event(stage=STAGE, detail=f"{name} is damaged in the cache; exporting it again", note=True))
        return False
    report(Event(stage=STAGE, done=1, total=1, detail=f"using {name} from the cache"))
    return True


def _keep_log(folder: Path, target: Path) -> None:
    for log in folder.glob("*.log"):
        with cache.writing(target):
            log.replace(target)
