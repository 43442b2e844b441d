"""The first inputs in the pipeline, measured: the split runs, and every call of an interpreter is timed.

A call on an Edge TPU holds transfer, computing and streaming together, so a measured timeline has calls alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from graphcut.records import Samples
from graphcut.report.html.report_facts import Span, Timeline
from graphcut.report.html.timeline import INPUTS
from graphcut.result import manifest, reopen
from graphcut.runtime.devices import Device
from graphcut.runtime.interpreter import AnyArray, Edge, Interpreter, Opener, Part

WARM_UP = 2
"""Inputs before the ones that are shown: the first calls of an interpreter take longer."""


class Stopwatch:
    """An opener that times the calls of what another one opens.

    Args:
        opener: opens files.

    Attributes:
        calls: part, number of its call from 0, start and stop in seconds.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._counts: Counter[str] = Counter()
        self.calls: list[tuple[str, int, float, float]] = []

    def __call__(self, part: Part, device: Device) -> Interpreter:
        """Open a part."""
        return _Timed(self._opener(part, device), part.label, self)

    def called(self, label: str, start: float, stop: float) -> None:
        """Keep a call; a part is used by one thread at a time."""
        self.calls.append((label, self._counts[label], start, stop))
        self._counts[label] += 1


class _Timed:
    def __init__(self, inner: Interpreter, label: str, watch: Stopwatch) -> None:
        self._inner, self._label, self._watch = inner, label, watch

    @property
    def inputs(self) -> Sequence[Edge]:
        return self._inner.inputs

    @property
    def outputs(self) -> Sequence[Edge]:
        return self._inner.outputs

    def __call__(self, arrays: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
        start = time.perf_counter()
        made = self._inner(arrays)
        self._watch.called(self._label, start, time.perf_counter())
        return made

    def close(self) -> None:
        self._inner.close()


def measured(folder: Path, opener: Opener, devices: Sequence[Device], runtime: str) -> Timeline:
    """Run a split on its kept samples, over and over, and time it.

    Args:
        folder: of the split.
        opener: opens its files.
        devices: one for each segment, or one for all.
        runtime: what runs it, for people.

    Raises:
        UsageError, VerificationError: the folder holds no split, or a file has changed.
        RunError: a part cannot be opened or run.
    """
    split = manifest.read(folder)
    watch = Stopwatch(opener)
    reopen.run(folder, _repeated(manifest.read_samples(split), WARM_UP + INPUTS), opener=watch, devices=devices)
    rows = tuple(dict.fromkeys(f"segment {part.segment.index}" for part in split.segments))
    shown = [call for call in watch.calls if WARM_UP <= call[1] < WARM_UP + INPUTS]
    began = min(start for _, _, start, _ in shown)
    spans = tuple(
        Span(
            row=rows.index(label),
            item=number - WARM_UP,
            kind="computing",
            start_ms=1000 * (start - began),
            stop_ms=1000 * (stop - began),
        )
        for label, number, start, stop in shown
    )
    entered = {each.item: each.start_ms for each in spans if each.row == 0}
    left = {each.item: each.stop_ms for each in spans if each.row == len(rows) - 1}
    counts = Counter(device.name for device in devices)
    names = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())
    return Timeline(
        stamp="MEASURED",
        what=f"on {names}, {runtime}, on this machine",
        rows=rows,
        spans=spans,
        interval_ms=(left[INPUTS - 1] - left[0]) / (INPUTS - 1),
        latency_ms=median(left[item] - entered[item] for item in left),
    )


def _repeated(samples: Samples, count: int) -> Samples:
    """The samples in turn until there are ``count``."""
    chosen = [number % len(samples) for number in range(count)]
    return replace(
        samples,
        arrays={name: np.ascontiguousarray(array[chosen]) for name, array in samples.arrays.items()},
        names=tuple(samples.names[number] for number in chosen),
    )
