"""An export: a few steps in one worker process, which end in an ONNX file in the cache.

1. TensorFlow and PyTorch run in the worker only: their memory, their threads and their messages never meet the
   process that plans. What they print is kept in a log file where the export fails.
2. An export whose key holds everything that its bytes depend on is made once.
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """One call in the worker: "package.module:function", and what to tell the user meanwhile."""

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
        steps: each is called with ``argument``; what they make stays in the worker between them.
        argument: picklable; ``target`` is added to it: the file to write.
        subject: what is exported, for errors ("resnet8.h5").
        target: the file to come, whole or not at all; its folder is made, an older file is replaced. What the worker
            printed is kept beside it as ``NAME.log`` where the export fails.
        report: told of the steps.
        readable: what the worker may read beside Python and the system's libraries; it has no network then. None does
            not confine it, for code of the user's own.

    Returns:
        What the steps returned.

    Raises:
        ModelError: a step failed, took too long or took the worker down.
        GraphcutError: that a step raised.
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
            raise ModelError(error.message, f"the worker's messages are in {log}") from error
        except ForeignError as error:
            _keep_log(part.parent, log)
            raise ModelError(error.message, f"the whole message is in {log}") from error


def most_memory() -> int:
    """Bytes that an export may have in memory: three quarters of the machine's, before the kernel kills something."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4


def apart(function: str, argument: Mapping[str, Any], subject: str) -> Any:
    """Call one function in a worker of its own and return what it returns.

    A native library that a damaged file brings down takes only the worker with it.

    Raises:
        ModelError: it took the worker down, or too long.
        GraphcutError: that it raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        confinement = Confinement(readable=(Path(argument["path"]).resolve(),), home=Path(folder))
        try:
            with Pool(1, Path(folder), seconds=_CHECK_SECONDS, confinement=confinement) as pool:
                return pool.map([Call(function=function, argument=argument, subject=subject)])[0]
        except ConversionError as error:
            raise ModelError(error.message, "the file is damaged: save it again") from error


def cached(path: Path, name: str, report: Report) -> bool:
    """Say whether an export is there already and whole, and tell the user; a damaged one is made again."""
    if not path.is_file():
        return False
    if not cache.is_whole(path):
        report(Event(stage=STAGE, detail=f"{name} is damaged in the cache: it is exported again", note=True))
        return False
    report(Event(stage=STAGE, done=1, total=1, detail=f"{name} from the cache"))
    return True


def _keep_log(folder: Path, target: Path) -> None:
    for log in folder.glob("*.log"):
        with cache.writing(target):
            log.replace(target)
