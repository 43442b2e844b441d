"""A bounded queue between two stations of a pipeline, with measurements.

``queue.Queue`` cannot be closed, cannot take several items at once, cannot give items back to the front, and does not
measure. One lock guards everything here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Callable, Generic, NamedTuple, TypeVar

KEPT_WAITS = 4096
"""Number of waits kept for percentiles; older ones are dropped, so that memory stays constant."""

T = TypeVar("T")


class LaneClosedError(Exception):
    """The lane is closed: no item can be added or taken."""


class LaneCounts(NamedTuple):
    """Measurements of a lane.

    Attributes:
        taken: items taken out.
        waited_s: total time that they waited in the lane.
        recent_waits_s: the same for each of the last ``KEPT_WAITS``.
        blocked_s: total time that producers waited for room.
        deepest: the most items in it at the same time.
    """

    taken: int
    waited_s: float
    recent_waits_s: tuple[float, ...]
    blocked_s: float
    deepest: int


class Lane(Generic[T]):
    """A queue of at most ``size`` items; several threads may put and take."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._items: deque[tuple[float, T]] = deque()
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._closed = False
        self._taken = self._deepest = 0
        self._waited_s = self._blocked_s = 0.0
        self._recent: deque[float] = deque(maxlen=KEPT_WAITS)

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, timeout_s: float | None = None) -> bool:
        """Add an item at the end, waiting for room; False if there was none in time.

        Raises:
            LaneClosedError: the lane is closed, or was while waiting.
        """
        with self._lock:
            if len(self._items) >= self.size and not self._closed:
                began = time.monotonic()
                self._emptied.wait_for(lambda: self._closed or len(self._items) < self.size, timeout_s)
                self._blocked_s += time.monotonic() - began
            if self._closed:
                raise LaneClosedError
            if len(self._items) >= self.size:
                return False
            self._items.append((time.monotonic(), item))
            self._deepest = max(self._deepest, len(self._items))
            self._filled.notify()
            return True

    def give_back(self, items: Sequence[T]) -> bool:
        """Put items at the front, in order, regardless of the size; False if the lane is closed."""
        with self._lock:
            if self._closed:
                return False
            now = time.monotonic()
            self._items.extendleft((now, item) for item in reversed(items))
            self._filled.notify_all()
            return True

    def wake(self) -> None:
        """Let all waiting takers ask again whether to leave."""
        with self._lock:
            self._filled.notify_all()

    def take(self, most: int, leaving: Callable[[], bool] = lambda: False) -> list[T]:
        """Take the available items, at most ``most``, waiting for the first; none once ``leaving`` is true.

        Raises:
            LaneClosedError: the lane is closed, or was while waiting.
        """
        with self._lock:
            if not self._items and not self._closed and not leaving():
                self._filled.wait_for(lambda: self._closed or bool(self._items) or leaving())
            if self._closed:
                raise LaneClosedError
            if leaving():
                self._filled.notify()  # what woke this one may be meant for another
                return []
            now = time.monotonic()
            taken: list[T] = []
            while self._items and len(taken) < most:
                since, item = self._items.popleft()
                self._recent.append(now - since)
                self._waited_s += now - since
                taken.append(item)
            self._taken += len(taken)
            self._emptied.notify(len(taken))
            if self._items:
                self._filled.notify()
            return taken

    def close(self) -> list[T]:
        """Close the lane, wake all waiting threads, and return the remaining items."""
        with self._lock:
            self._closed = True
            left = [item for _, item in self._items]
            self._items.clear()
            self._filled.notify_all()
            self._emptied.notify_all()
            return left

    def counts(self) -> LaneCounts:
        """The measurements so far."""
        with self._lock:
            return LaneCounts(self._taken, self._waited_s, tuple(self._recent), self._blocked_s, self._deepest)
