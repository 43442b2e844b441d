"""One station of a pipeline: workers that take items from its lane and run its parts on them.

1. A worker is one thread with its own interpreters on one device. It is *claimed* by the items that it took.
2. An interpreter that raised is closed and opened again, with waits if the device is gone, and the item is tried again
   as often as :class:`Patience` allows; then only this item fails, with part and index.
3. A call that exceeds its time limit cannot be stopped: the worker is *abandoned* with its interpreters, a new one
   takes its place and its items, and later results of the old one are dropped. One lock per worker decides which of the
   two an item belongs to, so that no item is done twice or lost.
4. A worker that *leaves* finishes the items that it took, closes its interpreters and ends; its device is then free for
   another station (graphcut.runtime.rebalance).
5. Items that are taken together (a micro-batch) pass each part together: parts that share a device are switched once
   for all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Callable, NamedTuple, Protocol, TypeVar, runtime_checkable

from graphcut.errors import GraphcutError, RunError
from graphcut.runtime.bounded_queue import Lane, LaneClosedError
from graphcut.runtime.chain import SegmentError, ends_of, reason_of
from graphcut.runtime.devices import Device
from graphcut.runtime.interpreter import AnyArray, Interpreter, Opener, Part
from graphcut.runtime.wiring import Ends, Flow

_T = TypeVar("_T")


class Patience(NamedTuple):
    """How faults are handled.

    Attributes:
        limit_s: time limit of one call of an interpreter.
        open_limit_s: time limit of opening one.
        retries: further tries of an item at a part that failed on it.
        reopen_waits_s: waits between tries to open an interpreter again.
    """

    limit_s: float = 30.0
    open_limit_s: float = 120.0
    retries: int = 1
    reopen_waits_s: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 5.0)


@runtime_checkable
class _Closable(Protocol):
    def close(self) -> None: ...


class Item:
    """One input in progress."""

    __slots__ = ("attempts", "future", "number", "position", "values")

    def __init__(self, number: int, values: dict[str, AnyArray]) -> None:
        self.number = number
        self.values = values
        self.position = 0
        self.attempts = 0
        self.future: Future[tuple[AnyArray, ...]] = Future()
        self.future.set_running_or_notify_cancel()


class AbandonedError(Exception):
    """The worker was abandoned during a call."""


class Tally:
    """Counters of a station; changed under its lock."""

    def __init__(self, parts: int) -> None:
        self.lock = threading.Lock()
        self.done = self.failed = self.retried = self.reopened = self.hung = self.stalled = 0
        self.busy_s = [0.0] * parts
        self.calls = [0] * parts

    def add(self, **changes: int) -> None:
        """Add to counters by name."""
        with self.lock:
            for name, amount in changes.items():
                setattr(self, name, getattr(self, name) + amount)

    def called(self, offset: int, seconds: float) -> None:
        """Count one call of the part ``offset`` of the station."""
        with self.lock:
            self.busy_s[offset] += seconds
            self.calls[offset] += 1


class Links(NamedTuple):
    """What a worker needs from its pipeline.

    Attributes:
        parts: the station's parts.
        first: position of the first one in the flow.
        flow: of the whole model.
        opener: creates interpreters.
        lane: the source of items.
        batch: the most items taken together.
        forward: passes an item on; waits for room, raises LaneClosedError.
        fail: settles an item with an error.
        broken: receives an error that is a bug, not caused by an input.
        note: receives faults as text.
        closing: set when the pipeline closes.
        tally: counters.
        patience: how faults are met.
    """

    parts: tuple[Part, ...]
    first: int
    flow: Flow
    opener: Opener
    lane: Lane[Item]
    batch: int
    forward: Callable[[Item], None]
    fail: Callable[[Item, BaseException], None]
    broken: Callable[[BaseException], None]
    note: Callable[[str], None]
    closing: threading.Event
    tally: Tally
    patience: Patience


class Worker:
    """One thread of a station on one device (statement 1).

    Args:
        links: its pipeline.
        device: of its interpreters.
        runners: opened interpreters, one for each part; empty to open them when they are needed.
    """

    def __init__(self, links: Links, device: Device, runners: Sequence[Interpreter] = ()) -> None:
        self.device = device
        self._links = links
        self._runners: list[Interpreter | None] = list(runners) or [None] * len(links.parts)
        self._lock = threading.Lock()
        self._claimed: list[Item] = []
        self._busy: tuple[Item, float, float] | None = None
        self._abandoned = False
        self._leaving = False
        self.thread = threading.Thread(target=self._serve, name=f"{links.parts[0].label} on {device}", daemon=True)

    def leave(self) -> None:
        """Take no more items, and end (statement 4)."""
        self._leaving = True
        self._links.lane.wake()

    def overdue(self, now: float) -> tuple[Item, list[Item], float] | None:
        """Abandon the worker if its call exceeds its limit; returns the item in the call, all its items, the limit."""
        with self._lock:
            if self._busy is None or now < self._busy[1] or self._abandoned:
                return None
            item, _, limit_s = self._busy
            return item, self._give_up(), limit_s

    def give_up(self) -> list[Item]:
        """Abandon the worker unconditionally; returns its items."""
        with self._lock:
            return self._give_up()

    def _give_up(self) -> list[Item]:
        self._abandoned = True
        items, self._claimed = self._claimed, []
        return items

    def close_runners(self) -> None:
        """Close the interpreters; also from outside, for an abandoned worker."""
        for position, runner in enumerate(self._runners):
            self._runners[position] = None
            if runner is not None:
                with suppress(RuntimeError, OSError, ValueError):  # it is abandoned anyway
                    runner.close()

    def _serve(self) -> None:
        links = self._links
        try:
            while True:
                items = links.lane.take(links.batch, lambda: self._leaving)
                if not items:
                    return
                with self._lock:
                    self._claimed = list(items)
                self._work(items)
        except (LaneClosedError, AbandonedError):
            pass
        except (
            BaseException
        ) as error:  # a bug here would leave callers waiting for ever, so it is raised in all of them
            links.broken(error)
        finally:
            self.close_runners()

    def _work(self, items: list[Item]) -> None:
        links = self._links
        for offset in range(len(links.parts)):
            for item in items:
                if item.position == links.first + offset and not item.future.done():
                    self._run_part(item, offset)
                if item.position == links.first + len(links.parts) and not item.future.done():
                    links.tally.add(done=1)
                    links.forward(item)  # still claimed: if this raises, the item is settled elsewhere
                    self._release(item)
        with self._lock:
            self._claimed = []

    def _release(self, item: Item) -> None:
        with self._lock:
            if item in self._claimed:
                self._claimed.remove(item)

    def _run_part(self, item: Item, offset: int) -> None:
        """Run one part on one item, with further tries if it fails (statement 2)."""
        links = self._links
        part, ends = links.parts[offset], links.flow.parts[links.first + offset]
        arrays = [item.values[edge.name] for edge in ends.inputs]
        while True:
            error: BaseException
            try:
                made = self._call(item, offset, self._opened(item, offset), arrays)
                _check(made, ends)
            except (AbandonedError, LaneClosedError):
                raise
            except BaseException as caught:  # any exception of an interpreter is raised in the caller, with its input
                error = caught
            else:
                _keep(item, links.flow, links.first + offset, made)
                return
            item.attempts += 1
            self._drop(offset)
            reason = error.message if isinstance(error, GraphcutError) else reason_of(error)
            if item.attempts <= links.patience.retries and not isinstance(error, DeviceGoneError):
                links.tally.add(retried=1)
                links.note(f"{part.label} on {self.device}, input {item.number}: {reason}; tried again")
                continue
            links.tally.add(failed=1)
            tries = f" ({item.attempts} tries)" if item.attempts > 1 else ""
            failure = SegmentError(part.label, item.number, f"{reason} on {self.device}{tries}")
            failure.__cause__ = error
            links.fail(item, failure)
            return

    def _drop(self, offset: int) -> None:
        """Drop a part's interpreter; on an Edge TPU, all that share the device, because they share its state."""
        for position, runner in enumerate(self._runners):
            if runner is not None and (position == offset or self.device.is_tpu):
                self._runners[position] = None
                with suppress(RuntimeError, OSError, ValueError):  # it has failed already
                    runner.close()

    def _opened(self, item: Item, offset: int) -> Interpreter:
        """The part's interpreter, opened again with waits if it was lost.

        Raises:
            DeviceGoneError: every try failed.
        """
        runner = self._runners[offset]
        if runner is not None:
            return runner
        links = self._links
        part, wanted = links.parts[offset], links.flow.parts[links.first + offset]
        reason = ""
        for wait_s in (0.0, *links.patience.reopen_waits_s):
            if wait_s and links.closing.wait(wait_s):
                raise LaneClosedError
            try:
                runner = self._timed(item, links.patience.open_limit_s, lambda: links.opener(part, self.device))
            except (GraphcutError, RuntimeError, ValueError, OSError) as error:
                reason = error.message if isinstance(error, GraphcutError) else reason_of(error)
                continue
            if ends_of(part, runner) != wanted:
                raise RunError(f"{part.path.name} has changed since it was opened", "start again")
            self._runners[offset] = runner
            links.tally.add(reopened=1)
            links.note(f"{part.label} on {self.device} was opened again")
            return runner
        raise DeviceGoneError(f"{self.device} is gone ({reason})", "check the device")

    def _call(self, item: Item, offset: int, runner: Interpreter, arrays: Sequence[AnyArray]) -> Sequence[AnyArray]:
        began = time.perf_counter()
        made = self._timed(item, self._links.patience.limit_s, lambda: runner(arrays))
        self._links.tally.called(offset, time.perf_counter() - began)
        return made

    def _timed(self, item: Item, limit_s: float, call: Callable[[], _T]) -> _T:
        """Make a call with a time limit, which the pipeline's watch enforces (statement 3).

        Raises:
            AbandonedError: the limit was exceeded, and the item belongs to another worker.
        """
        with self._lock:
            if self._abandoned:
                raise AbandonedError
            self._busy = (item, time.monotonic() + limit_s, limit_s)
        result: _T | None = None
        try:
            result = call()
            return result
        finally:
            with self._lock:
                self._busy = None
                late = self._abandoned
            if late:
                if isinstance(result, _Closable):
                    result.close()  # opened too late: no one else uses it
                raise AbandonedError


class DeviceGoneError(RunError):
    """The device does not come back: another try would only wait again."""


def _check(made: Sequence[AnyArray], ends: Ends) -> None:
    """Check that an interpreter returned what its file declares.

    Raises:
        RunError: it did not.
    """
    if len(made) != len(ends.outputs):
        raise RunError(f"returned {len(made)} arrays instead of {len(ends.outputs)}")
    for array, edge in zip(made, ends.outputs):
        if array.shape != edge.shape or array.dtype.name != edge.dtype:
            raise RunError(f"returned {edge.name} as {array.dtype} {array.shape} instead of {edge}")


def _keep(item: Item, flow: Flow, position: int, made: Sequence[AnyArray]) -> None:
    """Store a part's outputs and drop tensors that are no longer needed."""
    values: Mapping[str, AnyArray] = dict(zip((edge.name for edge in flow.parts[position].outputs), made))
    alive = flow.alive[position]
    item.values = {name: array for name, array in {**item.values, **values}.items() if name in alive}
    item.position = position + 1
    item.attempts = 0
