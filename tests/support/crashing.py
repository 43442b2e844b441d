"""Functions for a worker that do what native libraries do with a hostile file."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import numpy as np

from graphcut.errors import ModelError
from graphcut.workers.service import ServiceError


def crash(number: int) -> None:
    """End the process as a fault in native code does."""
    ctypes.CDLL(None)["raise"](number)


def eat(size: int) -> int:
    """Allocate, and touch what was allocated."""
    return int(np.ones(size, np.uint8).sum())


def sleep(seconds: float) -> None:
    """Hang."""
    time.sleep(seconds)


def doubled(arrays: dict[str, Any]) -> dict[str, Any]:
    """Give arrays back, changed in place."""
    for array in arrays.values():
        array += array
    return arrays


def process_id(_: object) -> int:
    """Say which process this is."""
    return os.getpid()


def refuse(kind: str) -> None:
    """Raise one of the errors that a call may raise."""
    raise {"service": ServiceError("not valid"), "user": ModelError("no good", "another"), "bug": KeyError("k")}[kind]
