"""The worker processes that convert segments, started before they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from graphcut import files
from graphcut.workers import malloc
from graphcut.workers.pool import Pool

_PRELOAD = ("graphcut.conversion.convert_segment", "onnx2tf.onnx2tf")
"""``onnx2tf`` itself imports next to nothing: what converts is imported by its first call."""

_ENVIRONMENT = {**malloc.ENVIRONMENT, "TQDM_DISABLE": "1"}
"""onnx2tf draws progress bars for a log that is read where something failed only."""


@contextmanager
def converters(jobs: int) -> Iterator[Pool]:
    """Start workers that import the converter (two seconds each) while the caller reads and plans.

    Args:
        jobs: number of workers at most; no more than the machine has processors (or two) are started.
    """
    jobs = min(jobs, max(2, os.cpu_count() or 2))  # more workers would only wait for each other
    with (
        files.scratch() as logs,
        Pool(jobs, logs, preload=_PRELOAD, environment=_ENVIRONMENT) as pool,
    ):
        yield pool
