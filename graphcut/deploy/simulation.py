"""A discrete-event simulation of the pipeline (:mod:`graphcut.runtime.pipeline`) over a cost model.

1. Time is virtual and everything is deterministic, except for random arrivals (seeded), which are optional.
2. Each device of a station is a process: take up to ``batch`` inputs from the station's queue, run each of its parts on
   all of them, put them into the next queue, which holds ``depth`` times ``batch`` and makes it wait when it is full.
3. A phase on the bus waits for its turn, first come first served, where devices share one; the device waits with it.
4. Without a shared bus, with one device per station and constant costs, the line settles to one result per time of the
   slowest station: :func:`analytic`. A test compares the two.

The heap of events and processes as generators follow the textbook (Law, Simulation Modeling and Analysis, ch. 2);
one event costs O(log n).
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import NamedTuple

from graphcut.errors import UsageError
from graphcut.prediction.latency import (
    FIRST_EXTRA_MS,
    Doing,
    Link,
    PartCost,
    Stretch,
    phases,
    reload_ms,
    steady_ms,
)
from graphcut.runtime.devices import Device
from graphcut.runtime.placement import Placement, Station

FEW_INPUTS = 20


class Load(NamedTuple):
    """The inputs that are sent through.

    Attributes:
        inputs: how many.
        interval_ms: between arrivals; 0 for as fast as they are taken.
        jitter: arrivals at random (exponential intervals of that mean) instead of even ones.
        seed: for the jitter.
    """

    inputs: int = 1000
    interval_ms: float = 0.0
    jitter: bool = False
    seed: int = 0


class StationUse(NamedTuple):
    """One station in the simulation: parts, devices, share of the time its devices were busy or waiting.

    Attributes:
        labels, devices: of the station.
        service_ms: one input, alone.
        busy: share of the time in which its devices worked, bus included.
        bus_wait: share in which they waited for the bus.
        blocked: share in which they waited for room in the next queue.
        queue_ms: mean time an input waited before it.
    """

    labels: tuple[str, ...]
    devices: tuple[str, ...]
    service_ms: float
    busy: float
    bus_wait: float
    blocked: float
    queue_ms: float


class Simulated(NamedTuple):
    """The outcome.

    Attributes:
        inputs: how many went through.
        throughput_per_s: in the second half, when the line is full.
        latency_ms: from entering the first queue to the result: mean, p50, p95, p99 of all but the first input.
        first_ms: the first input's latency, parameters loaded.
        stations: in order.
        bus_busy: share of the time the shared bus was in use; 0 where there is none.
        bottleneck: what limits the throughput, for people.
        total_ms: all of it.
    """

    inputs: int
    throughput_per_s: float
    latency_ms: tuple[float, float, float, float]
    first_ms: float
    stations: tuple[StationUse, ...]
    bus_busy: float
    bottleneck: str
    total_ms: float


class Occupied(NamedTuple):
    """A period in which a device did one thing with one input.

    Attributes:
        station, device: which.
        item: number of the input, from 0; the first of a batch where parameters are loaded for it.
        doing: what.
        start_ms, stop_ms: since the first input entered.
    """

    station: int
    device: str
    item: int
    doing: Doing
    start_ms: float
    stop_ms: float


class _Item:
    __slots__ = ("entered", "number", "queued")

    def __init__(self, number: int, now: float) -> None:
        self.number, self.entered, self.queued = number, now, now


Trace = Callable[[Occupied], None]
"""Receives everything that a device does."""

_Process = Generator[None, None, None]
_Body = Callable[["list[_Process]"], _Process]
"""Makes a process from the box that will hold it: a process names itself when it waits."""


class _Clock:
    """Virtual time: a heap of (when, order, process to go on with)."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = 0
        self._events: list[tuple[float, int, _Process]] = []

    def later(self, process: _Process, delay_ms: float = 0.0) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.now + delay_ms, self._order, process))

    def run(self) -> None:
        while self._events:
            self.now, _, process = heapq.heappop(self._events)
            next(process, None)


class _Bus:
    """One transfer at a time, first come first served."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._taken = False
        self._waiting: deque[_Process] = deque()
        self.busy_ms = 0.0

    def enter(self, process: _Process) -> bool:
        """Take the bus; False where the process must pause until it is its turn."""
        if not self._taken:
            self._taken = True
            return True
        self._waiting.append(process)
        return False

    def leave(self, held_ms: float) -> None:
        self.busy_ms += held_ms
        if self._waiting:
            self._clock.later(self._waiting.popleft())  # the bus stays taken, by the next one
        else:
            self._taken = False


class _Queue:
    def __init__(self, clock: _Clock, size: int) -> None:
        self._clock, self.size = clock, size
        self.items: deque[_Item] = deque()
        self.takers: deque[_Process] = deque()
        self.putters: deque[_Process] = deque()

    def put(self, item: _Item) -> None:
        item.queued = self._clock.now
        self.items.append(item)
        if self.takers:
            self._clock.later(self.takers.popleft())

    def take(self, most: int) -> list[_Item]:
        taken = [self.items.popleft() for _ in range(min(most, len(self.items)))]
        for _ in range(min(len(taken), len(self.putters))):
            self._clock.later(self.putters.popleft())
        return taken


class _Watch:
    """What a station's devices did, summed."""

    def __init__(self) -> None:
        self.busy_ms = self.bus_wait_ms = self.blocked_ms = self.queue_ms = 0.0
        self.taken = 0


class _Line:
    """Queues and devices of one simulation."""

    def __init__(
        self,
        parts: Sequence[PartCost],
        placement: Placement,
        link: Link,
        batch: int,
        depth: int,
        warm: bool,
        trace: Trace | None,
    ) -> None:
        self.clock = _Clock()
        self._warm, self._trace = warm, trace or (lambda _: None)
        self.parts, self.link, self.batch = parts, link, batch
        self.stations = placement.stations
        self.bus = _Bus(self.clock) if link.shared else None
        self.queues = [_Queue(self.clock, depth * batch) for _ in self.stations]
        self.watches = [_Watch() for _ in self.stations]
        self.latencies: list[float] = []
        self.finished: list[float] = []
        for number, station in enumerate(self.stations):
            for device in station.devices:
                self._start(partial(self._device, number=number, station=station, device=device))

    def _start(self, body: _Body) -> None:
        box: list[_Process] = []
        process = body(box)
        box.append(process)
        self.clock.later(process)

    def feed(self, load: Load) -> None:
        """Start the source."""
        self._start(partial(self._source, load=load))

    def _source(self, own: list[_Process], load: Load) -> _Process:
        chance = random.Random(load.seed)
        queue = self.queues[0]
        due = 0.0
        for number in range(load.inputs):
            if load.interval_ms:
                due += chance.expovariate(1 / load.interval_ms) if load.jitter else load.interval_ms if number else 0.0
                if due > self.clock.now:
                    self.clock.later(own[0], due - self.clock.now)
                    yield
            item = _Item(number, self.clock.now)
            while len(queue.items) >= queue.size:
                queue.putters.append(own[0])
                yield
            if not load.interval_ms:
                item.entered = self.clock.now
            queue.put(item)

    def _device(self, own: list[_Process], number: int, station: Station, device: Device) -> _Process:
        queue, watch = self.queues[number], self.watches[number]
        loaded: int | None = station.first if self._warm else None
        while True:
            while not queue.items:
                queue.takers.append(own[0])
                yield
            items = queue.take(self.batch)
            watch.taken += len(items)
            watch.queue_ms += sum(self.clock.now - item.queued for item in items)
            for index in range(station.first, station.stop):
                part = self.parts[index]
                if device.is_tpu and loaded != index:
                    extra = FIRST_EXTRA_MS if loaded is None else 0.0
                    loaded = index
                    loading = Stretch(reload_ms(part, self.link) + extra, True, "loading")
                    yield from self._work(own, number, device, items[0], loading)
                for item in items:
                    steps = phases(part, self.link) if device.is_tpu else (Stretch(part.compute_ms, False),)
                    for step in steps:
                        yield from self._work(own, number, device, item, step)
            for item in items:
                yield from self._hand_on(own, number, item, watch)

    def _work(self, own: list[_Process], number: int, device: Device, item: _Item, step: Stretch) -> _Process:
        if step.ms <= 0:
            return
        watch = self.watches[number]
        bus = self.bus if step.on_bus else None
        began = self.clock.now
        if bus is not None and not bus.enter(own[0]):
            yield
            watch.bus_wait_ms += self.clock.now - began
            self._trace(Occupied(number, device.name, item.number, "waiting", began, self.clock.now))
        began = self.clock.now
        self.clock.later(own[0], step.ms)
        yield
        watch.busy_ms += step.ms
        self._trace(Occupied(number, device.name, item.number, step.doing, began, self.clock.now))
        if bus is not None:
            bus.leave(step.ms)

    def _hand_on(self, own: list[_Process], number: int, item: _Item, watch: _Watch) -> _Process:
        if number + 1 == len(self.stations):
            self.latencies.append(self.clock.now - item.entered)
            self.finished.append(self.clock.now)
            return
        queue = self.queues[number + 1]
        began = self.clock.now
        while len(queue.items) >= queue.size:
            queue.putters.append(own[0])
            yield
        watch.blocked_ms += self.clock.now - began
        queue.put(item)


def simulate(
    parts: Sequence[PartCost],
    placement: Placement,
    link: Link,
    load: Load | None = None,
    *,
    batch: int = 1,
    depth: int = 2,
    warm: bool = False,
    trace: Trace | None = None,
) -> Simulated:
    """Simulate inputs that pass through a pipeline.

    Args:
        parts: what each part costs, in order.
        placement: which devices run which parts. A part on "cpu" takes its ``compute_ms`` and no link.
        link: of the Edge TPUs.
        load: what is sent; as fast as it is taken by default.
        batch, depth: as :class:`graphcut.runtime.pipeline.Settings` has them.
        warm: every device holds its first part's parameters when the first input comes.
        trace: receives everything that devices do, in the order in which it ends.

    Raises:
        UsageError: fewer than 20 inputs (too few for a steady state), or a batch or depth below 1.
    """
    load = load or Load()
    if load.inputs < FEW_INPUTS or batch < 1 or depth < 1:
        raise UsageError(
            f"cannot simulate {load.inputs} inputs in batches of {batch} with queues of {depth}",
            f"use at least {FEW_INPUTS} inputs, batches of 1 and queues of 1",
        )
    line = _Line(parts, placement, link, batch, depth, warm, trace)
    line.feed(load)
    line.clock.run()
    total_ms = line.finished[-1]
    half = load.inputs // 2
    steady_s = (line.finished[-1] - line.finished[half - 1]) / 1000
    rest = sorted(line.latencies[1:])
    uses = tuple(_use(line, number, parts, total_ms) for number in range(len(line.stations)))
    bus_busy = 0.0 if line.bus is None else line.bus.busy_ms / total_ms
    return Simulated(
        inputs=load.inputs,
        throughput_per_s=(load.inputs - half) / steady_s if steady_s else float("inf"),
        latency_ms=(sum(rest) / len(rest), _percentile(rest, 0.50), _percentile(rest, 0.95), _percentile(rest, 0.99)),
        first_ms=line.latencies[0],
        stations=uses,
        bus_busy=bus_busy,
        bottleneck=_bottleneck(uses, bus_busy, load),
        total_ms=total_ms,
    )


def analytic(parts: Sequence[PartCost], placement: Placement, link: Link, *, batch: int = 1) -> tuple[float, float]:
    """Most results a second, and the latency in ms of an input alone, in closed form (statement 4).

    The throughput is that of the slowest station, or of the bus where that is slower; with a shared bus it is an upper
    bound, for transfers also wait for each other.
    """
    slowest = max(_per_input_ms(parts, station, link, batch) for station in placement.stations)
    if link.shared:
        slowest = max(slowest, sum(_bus_ms(parts, station, link, batch) for station in placement.stations))
    alone = sum(
        _per_input_ms(parts, station._replace(devices=station.devices[:1]), link, 1) for station in placement.stations
    )
    return 1000 / slowest, alone


def _per_input_ms(parts: Sequence[PartCost], station: Station, link: Link, batch: int) -> float:
    """Time of a station for one input when it is full; replicas share the inputs."""
    rates = 0.0
    for device in station.devices:
        own = parts[station.first : station.stop]
        if device.is_tpu:
            once = sum(steady_ms(part, link) for part in own)
            once += sum(reload_ms(part, link) for part in own) / batch if len(own) > 1 else 0.0
        else:
            once = sum(part.compute_ms for part in own)
        if not once:  # a part for the CPU without multiplications
            return 0.0
        rates += 1 / once
    return 1 / rates


def _bus_ms(parts: Sequence[PartCost], station: Station, link: Link, batch: int) -> float:
    own = parts[station.first : station.stop]
    if not any(device.is_tpu for device in station.devices):
        return 0.0
    share = sum(device.is_tpu for device in station.devices) / len(station.devices)
    moved = sum(phase.ms for part in own for phase in phases(part, link) if phase.on_bus)
    return share * (moved + (sum(reload_ms(part, link) for part in own) / batch if len(own) > 1 else 0.0))


def _use(line: _Line, number: int, parts: Sequence[PartCost], total_ms: float) -> StationUse:
    station, watch = line.stations[number], line.watches[number]
    own = parts[station.first : station.stop]
    span = total_ms * len(station.devices)
    one = station._replace(devices=station.devices[:1])
    return StationUse(
        labels=tuple(part.label for part in own),
        devices=tuple(device.name for device in station.devices),
        service_ms=_per_input_ms(parts, one, line.link, line.batch),
        busy=watch.busy_ms / span,
        bus_wait=watch.bus_wait_ms / span,
        blocked=watch.blocked_ms / span,
        queue_ms=watch.queue_ms / watch.taken if watch.taken else 0.0,
    )


def _bottleneck(uses: Sequence[StationUse], bus_busy: float, load: Load) -> str:
    busiest = max(uses, key=lambda use: use.busy)
    if load.interval_ms and max(busiest.busy, bus_busy) < 0.9:
        return "the inputs: all devices wait for them"
    if bus_busy > busiest.busy and bus_busy > 0.5:
        return f"the shared bus (busy {bus_busy:.0%})"
    return f"{' + '.join(busiest.labels)} on {', '.join(busiest.devices)} (busy {busiest.busy:.0%})"


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
