"""The callback for progress, timing and logging.

Stages call ``report(Event(...))`` and do not depend on terminals; the command line turns events into bars on stderr. A
stage that takes longer than two seconds reports its steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One step of a stage.

    Attributes:
        stage: the stage's verb: "load", "samples", "plan", "convert", "combine", "refine", "verify", "package",
            "compile".
        done: steps finished.
        total: number of steps; 0 if unknown.
        detail: what was just finished or begun ("segment 3 of 7"), or a note for the user.
        note: True if ``detail`` is a note to keep for the user, not a step.
        begins: True for the first event of a stage that will say when it has ended.
        seconds: wall time of the stage, which has ended; None while it runs.
    """

    stage: str
    done: int = 0
    total: int = 0
    detail: str = ""
    note: bool = False
    begins: bool = False
    seconds: float | None = None


Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """A report that does nothing; the default of every stage."""


class Clock:
    """Wall time by stage; carries the report."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count what the block takes to a stage, whose beginning and end are reported."""
        start = time.perf_counter()
        self.report(Event(stage=stage, begins=True))
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + taken
        self.report(Event(stage=stage, seconds=taken))
