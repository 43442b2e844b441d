"""A small real interpreter for the tests of chain and pipeline: int8 arithmetic, and faults on demand."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphcut.errors import RunError
from graphcut.runtime.devices import Device
from graphcut.runtime.interpreter import Edge, Part

SHAPE = (1, 4)


def edge(name: str) -> Edge:
    return Edge(name, SHAPE, "int8", 0.5, 0)


def parts(k: int) -> list[Part]:
    return [Part(f"segment {index}", Path(f"seg{index}_int8.tflite")) for index in range(1, k + 1)]


def image(number: int) -> np.ndarray:
    return np.array([[number % 120, number // 120 % 120, number // 14400 % 120, 7]], np.int8)


def computed(array: np.ndarray, k: int) -> np.ndarray:
    """What K segments in a row make of an input; each one mixes the values, so that an order shows."""
    for index in range(1, k + 1):
        array = (np.roll(array, 1, axis=1).astype(np.int16) * 3 + index).astype(np.int8)
    return array


@dataclass
class Bench:
    """Makes toy interpreters, and decides what happens in them.

    Attributes:
        act: called with (part index from 1, input array) before each computation; may sleep or raise.
        gone: devices that cannot be opened, by name.
        seconds: how long each part computes (sleeping, which releases the GIL).
        most_busy: how many parts computed at the same time, at most.
    """

    act: Callable[[int, np.ndarray], None] = lambda _index, _array: None
    gone: set[str] = field(default_factory=set)
    seconds: float | dict[int, float] = 0.0
    opened: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    open_now: int = 0
    busy_now: int = 0
    most_busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, part: Part, device: Device) -> Toy:
        if device.name in self.gone:
            raise RunError(f"device {device} did not answer")
        with self.lock:
            self.opened[part.label] += 1
            self.open_now += 1
        return Toy(self, part, device)


class Toy:
    """One part: ``tensor{i-1}`` -> ``tensor{i}``."""

    def __init__(self, bench: Bench, part: Part, device: Device) -> None:
        self.bench, self.device = bench, device
        self.label, self.index = part.label, int(part.label.split()[-1])
        self.inputs = (edge(f"tensor{self.index - 1}"),)
        self.outputs = (edge(f"tensor{self.index}"),)
        self.busy = threading.Lock()
        self.is_open = True

    def __call__(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        assert self.busy.acquire(blocking=False), "an interpreter is used by one thread at a time"
        try:
            if self.device.name in self.bench.gone:
                raise RuntimeError("the device went away")
            self.bench.act(self.index, arrays[0])
            seconds = self.bench.seconds
            wait = seconds.get(self.index, 0.0) if isinstance(seconds, dict) else seconds
            if wait:
                with self.bench.lock:
                    self.bench.busy_now += 1
                    self.bench.most_busy = max(self.bench.most_busy, self.bench.busy_now)
                time.sleep(wait)
                with self.bench.lock:
                    self.bench.busy_now -= 1
            array = np.roll(arrays[0], 1, axis=1).astype(np.int16) * 3 + self.index
            return (array.astype(np.int8),)
        finally:
            self.busy.release()

    def close(self) -> None:
        with self.bench.lock:
            if self.is_open:
                self.is_open = False
                self.bench.closed[self.label] += 1
                self.bench.open_now -= 1


class RandomFaults:
    """Raises, dies or hangs in a share of the calls, from a seed; counts what it did."""

    def __init__(self, share: float, hang_s: float, seed: int = 0) -> None:
        self.share, self.hang_s = share, hang_s
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.did: Counter[str] = Counter()

    def __call__(self, index: int, _array: np.ndarray) -> None:
        with self.lock:
            if self.random.random() >= self.share:
                return
            kind = self.random.choices(["raise", "die", "hang"], [45, 45, 10])[0]
            self.did[kind] += 1
        if kind == "hang":
            time.sleep(self.hang_s)
        elif kind == "die":
            raise SystemExit(f"segment {index} died")
        else:
            raise RuntimeError(f"segment {index} raised")
