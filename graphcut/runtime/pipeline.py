"""The parts of a split as a pipeline: each station in its own threads, with bounded queues between them.

1. Interpreters release the GIL, so stations run in parallel. Results are in the order of the inputs.
2. At most :attr:`Pipeline.capacity` inputs are in progress; callers with more wait (back-pressure).
3. An input that fails gives a :class:`graphcut.runtime.chain.SegmentError` in its place, with part and index; every
   other input gives its own result. Nothing is dropped, repeated or re-ordered.
4. Faults (:mod:`graphcut.runtime.station`): an interpreter that raises is opened again and the input is tried again;
   one that stops responding is abandoned and replaced; the pipeline waits for a device that is gone, and for a full
   queue, which is reported.
5. With ``rebalance``, devices move between stations as measured times say (:mod:`graphcut.runtime.rebalance`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Callable, Literal, NamedTuple

from graphcut.errors import RunError
from graphcut.runtime.bounded_queue import Lane, LaneClosedError, LaneCounts
from graphcut.runtime.chain import SegmentError, ends_of
from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import AnyArray, Edge, Interpreter, Opener, Part, in_order
from graphcut.runtime.placement import Placement, place
from graphcut.runtime.rebalance import Measure, choose, seconds_of
from graphcut.runtime.results import AsyncResults, Results
from graphcut.runtime.station import Item, Links, Patience, Tally, Worker
from graphcut.runtime.wiring import Flow, connect

Outputs = tuple[AnyArray, ...]


class PipelineClosedError(RunError):
    """The pipeline is closed, or was before the input was done."""


class Settings(NamedTuple):
    """Settings of a pipeline.

    Attributes:
        depth: inputs (or micro-batches) that wait before each station.
        batch: the most inputs that a station takes together.
        patience: how faults are handled.
        stall_s: a queue that is full for this many seconds is reported.
        rebalance_s: with ``rebalance``, how long is measured before a device moves.
    """

    depth: int = 2
    batch: int = 1
    patience: Patience = Patience()
    stall_s: float = 10.0
    rebalance_s: float = 2.0


DEFAULTS = Settings()


def unsaid(text: str) -> None:
    """Ignore a note."""


class StationCounts(NamedTuple):
    """Counters of a station since the pipeline started.

    Attributes:
        labels, devices: its parts and devices.
        done, failed: inputs that passed, and that failed here.
        retried, reopened, hung, stalled: further tries, reopened interpreters, abandoned calls, full queues.
        busy_s: seconds in calls, for each part.
        calls: number of calls, for each part.
        lane: of the queue before it.
    """

    labels: tuple[str, ...]
    devices: tuple[str, ...]
    done: int
    failed: int
    retried: int
    reopened: int
    hung: int
    stalled: int
    busy_s: tuple[float, ...]
    calls: tuple[int, ...]
    lane: LaneCounts


class _Served(NamedTuple):
    links: Links
    workers: list[Worker]


class Pipeline:
    """Parts ready to run in parallel.

    Args:
        parts: in order.
        opener: creates interpreters; called from several threads.
        devices: see :func:`graphcut.runtime.placement.place`; as many CPUs as there are parts by default.
        placement: used instead of ``devices``.
        inputs, outputs: names of the model's inputs and outputs, in order; empty where nobody wrote them down.
        settings: queues, micro-batches, faults.
        rebalance: move devices between stations when measured times say so.
        note: receives faults and full queues as one line, from any thread.

    Raises:
        RunError: a part cannot be opened, or two parts do not fit.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        opener: Opener,
        *,
        devices: Sequence[Device] = (),
        placement: Placement | None = None,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        settings: Settings = DEFAULTS,
        rebalance: bool = False,
        note: Callable[[str], None] = unsaid,
    ) -> None:
        self.placement = placement or place(
            [part.label for part in parts], tuple(devices) or (CPU,) * len(parts), batch=settings.batch
        )
        self._settings, self._note = settings, note
        self._closing = threading.Event()
        self._state = threading.Condition()
        self._next = self._flying = 0
        self._accepting = True
        self._bug: BaseException | None = None
        self._stations: list[_Served] = []
        opened = self._open_all(parts, opener)
        try:
            ends = {
                index: ends_of(parts[index], runner)
                for station, runners in zip(self.placement.stations, opened)
                for index, runner in enumerate(runners[0], start=station.first)
            }
            self.flow: Flow = connect([ends[index] for index in range(len(parts))], inputs, outputs)
        except BaseException:
            _close_all(opened)
            raise
        self._start(parts, opener, opened)
        self._measured: list[Measure] | None = None
        self._measured_at = time.monotonic()
        self._moving: tuple[_Served, Worker, _Served] | None = None
        self._rebalance = rebalance
        self._watch = threading.Thread(target=self._keep_watch, name="pipeline watch", daemon=True)
        self._watch.start()

    def _open_all(self, parts: Sequence[Part], opener: Opener) -> list[list[list[Interpreter]]]:
        """For each station and device, the interpreters of its parts."""
        opened: list[list[list[Interpreter]]] = []
        try:
            for station in self.placement.stations:
                opened.append([])
                for device in station.devices:
                    opened[-1].append([])
                    for part in parts[station.first : station.stop]:
                        opened[-1][-1].append(opener(part, device))
        except BaseException:
            _close_all(opened)
            raise
        return opened

    def _start(self, parts: Sequence[Part], opener: Opener, opened: list[list[list[Interpreter]]]) -> None:
        settings = self._settings
        lanes: list[Lane[Item]] = [Lane(settings.depth * settings.batch) for _ in self.placement.stations]
        for number, (station, runners) in enumerate(zip(self.placement.stations, opened)):
            following = number + 1
            links = Links(
                parts=tuple(parts[station.first : station.stop]),
                first=station.first,
                flow=self.flow,
                opener=opener,
                lane=lanes[number],
                batch=settings.batch,
                forward=self._finish if following == len(lanes) else self._passer(following),
                fail=self._fail,
                broken=self._break_down,
                note=self._note,
                closing=self._closing,
                tally=Tally(station.stop - station.first),
                patience=settings.patience,
            )
            workers = [Worker(links, device, own) for device, own in zip(station.devices, runners)]
            self._stations.append(_Served(links, workers))
        for served in self._stations:
            for worker in served.workers:
                worker.thread.start()

    # --- what callers use ---

    @property
    def inputs(self) -> tuple[Edge, ...]:
        """The model's inputs."""
        return self.flow.inputs

    @property
    def outputs(self) -> tuple[Edge, ...]:
        """The model's outputs."""
        return self.flow.outputs

    @property
    def capacity(self) -> int:
        """The most inputs in progress: in queues, and taken by workers."""
        batch = self._settings.batch
        return sum(served.links.lane.size + batch * len(served.workers) for served in self._stations)

    def submit(self, inputs: object, timeout_s: float | None = None) -> Future[Outputs]:
        """Submit one input; wait for room if there is none.

        Args:
            inputs: one array, a sequence in order or a mapping by name; int8 is used as is, floats are quantised.
            timeout_s: the longest wait in seconds; None for no limit.

        Returns:
            A future of the outputs, in order, or of :class:`graphcut.runtime.chain.SegmentError`.

        Raises:
            RunError: the input does not fit (with its number), or there was no room in time.
            PipelineClosedError: the pipeline is closed.
        """
        with self._state:
            if not self._accepting:
                raise self._closed_error()
            number, self._next = self._next, self._next + 1
            self._flying += 1
        try:
            try:
                arrays = in_order(inputs, self.flow.inputs)
            except RunError as error:
                raise RunError(f"input number {number}: {error.message}", error.way_out) from error
            item = Item(number, dict(zip((edge.name for edge in self.flow.inputs), arrays)))
            if not self._put(0, item, timeout_s):
                raise RunError(
                    f"input number {number}: the pipeline was full for {timeout_s:g} s", "send inputs more slowly"
                )
        except LaneClosedError:
            self._landed()
            raise self._closed_error() from None
        except BaseException:
            self._landed()
            raise
        return item.future

    def run(self, iterable: Iterable[object], *, failures: Literal["raise", "return"] = "raise") -> Results:
        """Results of many inputs, in order, while later ones are in progress.

        ``iterable`` is read in a separate thread, never further ahead than the pipeline's capacity.

        Args:
            iterable: inputs as :meth:`submit` takes them.
            failures: an input that fails raises its error in its place, and the iterator can continue ("raise"), or its
                error is one of the results ("return").
        """
        return Results(self.submit, iterable, self.capacity, failures, PipelineClosedError)

    def arun(
        self, iterable: Iterable[object] | AsyncIterable[object], *, failures: Literal["raise", "return"] = "raise"
    ) -> AsyncResults:
        """:meth:`run` for ``async for``; ``iterable`` may be asynchronous too. Call it inside a running loop."""
        loop = asyncio.get_running_loop()
        return AsyncResults(self.submit, iterable, self.capacity, failures, PipelineClosedError, loop)

    async def infer(self, inputs: object) -> Outputs:
        """Run one input; others may be in progress. Waiting for room does not block the event loop."""
        future = await asyncio.get_running_loop().run_in_executor(None, self.submit, inputs)
        return await asyncio.wrap_future(future)

    def counts(self) -> tuple[StationCounts, ...]:
        """The counters of each station."""
        counts = []
        for served in self._stations:
            tally = served.links.tally
            with tally.lock:
                counts.append(
                    StationCounts(
                        labels=tuple(part.label for part in served.links.parts),
                        devices=tuple(worker.device.name for worker in served.workers),
                        done=tally.done,
                        failed=tally.failed,
                        retried=tally.retried,
                        reopened=tally.reopened,
                        hung=tally.hung,
                        stalled=tally.stalled,
                        busy_s=tuple(tally.busy_s),
                        calls=tuple(tally.calls),
                        lane=served.links.lane.counts(),
                    )
                )
        return tuple(counts)

    def close(self, *, wait: bool = True, timeout_s: float = 5.0) -> None:
        """Accept no more inputs and stop.

        Args:
            wait: finish the inputs in progress; otherwise they fail with :class:`PipelineClosedError`.
            timeout_s: how long to wait for threads; one that is stuck in a call is abandoned.
        """
        with self._state:
            self._accepting = False
            if wait:
                self._state.wait_for(lambda: self._flying <= 0 or self._bug is not None)
        self._closing.set()
        left = [item for served in self._stations for item in served.links.lane.close()]
        deadline = time.monotonic() + timeout_s
        workers = [worker for served in self._stations for worker in served.workers]
        for worker in workers:
            if worker.thread is not threading.current_thread():
                worker.thread.join(max(0.0, deadline - time.monotonic()))
            left += worker.give_up()
            worker.close_runners()
        for item in left:
            self._fail(item, self._closed_error(item.number))

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(wait=error is None)

    # --- what workers use ---

    def _passer(self, following: int) -> Callable[[Item], None]:
        return lambda item: self._pass_on(following, item)

    def _pass_on(self, following: int, item: Item) -> None:
        try:
            self._put(following, item, None)
        except LaneClosedError:
            self._fail(item, self._closed_error(item.number))
            raise

    def _put(self, station: int, item: Item, timeout_s: float | None) -> bool:
        """Put an item into the queue of a station, and report a queue that is full for long."""
        links, stall_s = self._stations[station].links, self._settings.stall_s
        if timeout_s is not None and timeout_s <= stall_s:
            return links.lane.put(item, timeout_s)
        if links.lane.put(item, stall_s):
            return True
        links.tally.add(stalled=1)
        self._note(f"the queue before {links.parts[0].label} has been full for {stall_s:g} s: it is the bottleneck")
        return links.lane.put(item, None if timeout_s is None else timeout_s - stall_s)

    def _finish(self, item: Item) -> None:
        outputs = tuple(item.values[edge.name] for edge in self.flow.outputs)
        with self._state:
            if not item.future.done():
                item.future.set_result(outputs)
                self._land()

    def _fail(self, item: Item, error: BaseException) -> None:
        with self._state:
            if not item.future.done():
                item.future.set_exception(error)
                self._land()

    def _landed(self) -> None:
        with self._state:
            self._land()

    def _land(self) -> None:
        self._flying -= 1
        self._state.notify_all()

    def _break_down(self, error: BaseException) -> None:
        with self._state:
            self._bug = self._bug or error
            self._state.notify_all()
        self.close(wait=False, timeout_s=0.0)

    def _closed_error(self, number: int | None = None) -> PipelineClosedError:
        before = "" if number is None else f" before input {number} was done"
        made = PipelineClosedError(f"the pipeline was closed{before}")
        made.__cause__ = self._bug
        return made

    def _keep_watch(self) -> None:
        """Replace workers whose call exceeds its limit."""
        patience = self._settings.patience
        period_s = min(0.5, patience.limit_s / 4, patience.open_limit_s / 4)
        if self._rebalance:
            period_s = min(period_s, self._settings.rebalance_s / 4)
        try:
            while not self._closing.wait(period_s):
                for served in self._stations:
                    for position, worker in enumerate(served.workers):
                        late = worker.overdue(time.monotonic())
                        if late is not None:
                            self._replace(served, position, *late)
                if self._rebalance:
                    self._move_on()
        except BaseException as error:  # without a watch, a stuck call would block everything for ever
            self._break_down(error)

    def _move_on(self) -> None:
        """Start a move where measured times ask for one, or end the one under way."""
        if self._moving is not None:
            source, worker, target = self._moving
            if worker in source.workers:
                if worker.thread.is_alive():
                    return
                source.workers.remove(worker)
                arrived = Worker(target.links, worker.device)
                target.workers.append(arrived)
                arrived.thread.start()
                self.placement = self._placed()
            self._moving, self._measured = None, None  # a worker that hung was replaced, and stays
        now = [
            Measure(tuple(s.links.tally.busy_s), tuple(s.links.tally.calls), tuple(w.device for w in s.workers))
            for s in self._stations
        ]
        if self._measured is None:
            self._measured, self._measured_at = now, time.monotonic()
            return
        if time.monotonic() - self._measured_at < self._settings.rebalance_s:
            return
        seconds = seconds_of(self._measured, now)
        if seconds is None:
            return
        move = choose(seconds, [each.devices for each in now])
        self._measured = None
        if move is not None:
            source, target = self._stations[move.source], self._stations[move.target]
            worker = source.workers[move.position]
            self._note(f"{worker.device} moves from {source.links.parts[0].label} to {target.links.parts[0].label}")
            self._moving = source, worker, target
            worker.leave()

    def _placed(self) -> Placement:
        """The placement as it is now."""
        stations = tuple(
            station._replace(devices=tuple(worker.device for worker in served.workers))
            for station, served in zip(self.placement.stations, self._stations)
        )
        return self.placement._replace(stations=stations)

    def _replace(self, served: _Served, position: int, item: Item, items: list[Item], limit_s: float) -> None:
        links, old = served.links, served.workers[position]
        label = links.parts[min(item.position - links.first, len(links.parts) - 1)].label
        item.attempts += 1
        links.tally.add(hung=1)
        self._note(f"{label} on {old.device} did not respond within {limit_s:g} s (input {item.number}): replaced")
        if item.attempts > links.patience.retries:
            links.tally.add(failed=1)
            tries = f" ({item.attempts} tries)" if item.attempts > 1 else ""
            reason = f"no response within {limit_s:g} s on {old.device}{tries}"
            self._fail(item, SegmentError(label, item.number, reason))
        else:
            links.tally.add(retried=1)
        old.close_runners()
        worker = Worker(links, old.device)
        served.workers[position] = worker
        waiting = [each for each in items if not each.future.done()]
        if not links.lane.give_back(waiting):
            for each in waiting:
                self._fail(each, self._closed_error(each.number))
        worker.thread.start()


def is_chain(placement: Placement | None) -> bool:
    """Whether parts run one after the other in one thread: on one device, or nobody said where."""
    return placement is None or (len(placement.stations) == 1 and len(placement.stations[0].devices) == 1)


def _close_all(opened: list[list[list[Interpreter]]]) -> None:
    for runner in [runner for devices in opened for runners in devices for runner in runners]:
        runner.close()


__all__ = ["Pipeline", "PipelineClosedError", "Settings", "StationCounts", "is_chain"]
