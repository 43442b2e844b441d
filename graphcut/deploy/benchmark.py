"""Measure a split: chain, pipeline and unsplit model in one run, on the same inputs, in turns.

1. Ways take turns, so that a machine that slows down slows all of them. Chain and unsplit model do so inference by
   inference, and the overhead is the median ratio of neighbours; the pipeline follows, round by round, and the speed-up
   is the median ratio within rounds.
2. A run is *noisy* where ratios of rounds differ by more than ``NOISY_SPREAD`` or where the pipeline did not get the
   processors that it had work for. The figures are shown with a remark.
3. The first inference is timed separately (opening the files, then running once), the others after a warm-up.
4. All ways must give the same bytes; otherwise the bench is an error.
5. Latency in the pipeline is from submitting an input to its result, with the pipeline full; the others run one input
   at a time.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from graphcut.errors import RunError, UsageError, VerificationError, setting
from graphcut.prediction.latency import LINKS
from graphcut.progress import Event, Report, silent
from graphcut.records import Plan, SegmentTime, SegmentTimes
from graphcut.runtime import isolated
from graphcut.runtime.chain import Chain
from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import AnyArray, Edge, Opener
from graphcut.runtime.job_folder import Job
from graphcut.runtime.pipeline import Pipeline, Settings
from graphcut.runtime.placement import Placement, place
from graphcut.runtime.processes import ProcessOpener
from graphcut.units import MIB
from graphcut.workers.resident_memory import resident_bytes

NOISY_SPREAD = 0.10
STARVED_SHARE = 0.85
"""A pipeline that gets less than this share of the processor time that it could use was starved by other programs."""
_WARM_UPS = 2
_DISTINCT_INPUTS = 4

UNSPLIT, CHAIN, PIPELINE = "unsplit", "chain", "pipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Options of a measurement.

    Attributes:
        rounds, inputs: how often each way takes its turn, with how many inputs.
        devices: for the pipeline; empty for one CPU worker a processor, at most one per part.
        depth, batch: of the pipeline.
        seed: of the inputs.
    """

    rounds: int = 5
    inputs: int = 20
    devices: tuple[Device, ...] = ()
    depth: int = 2
    batch: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WayTimes:
    """One way.

    Attributes:
        way: "unsplit", "chain" or "pipeline".
        open_ms, first_ms: opening its files, and the first inference after it.
        p50_ms, p95_ms, p99_ms, mean_ms: latency, warm.
        throughput_per_s: median over rounds.
        resident_bytes: what the process grew by when it was opened and first run.
        processors: processor time over wall time while it ran.
    """

    way: str
    open_ms: float
    first_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    throughput_per_s: float
    resident_bytes: int
    processors: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTimes:
    """One part in the chain: its device, p50, p95 and its share of the chain."""

    label: str
    device: str
    p50_ms: float
    p95_ms: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StationTimes:
    """One station of the pipeline.

    Attributes:
        labels, devices: its parts and devices.
        wait_p50_ms, wait_p95_ms: how long inputs lay in the queue before it.
        busy: share of the pipeline's time that its workers were in a call.
        blocked_s: how long the stations before it waited for room in its queue.
        faults: inputs tried again or failed, interpreters opened again or given up.
    """

    labels: tuple[str, ...]
    devices: tuple[str, ...]
    wait_p50_ms: float
    wait_p95_ms: float
    busy: float
    blocked_s: float
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What was measured.

    Attributes:
        name, way: of the model, and of how it was split ("chain", "prefix + tail k=3").
        runtime, machine: what it ran on.
        inferences: of each way, warm.
        ways: unsplit (if it is there), chain, pipeline.
        parts, stations: within chain and pipeline.
        overhead: latency of the chain over the unsplit model's, less 1; None without the unsplit model.
        overhead_spread, speedup_spread: largest less smallest ratio of rounds.
        speedup: throughput of the pipeline over that of the chain.
        remarks: noise, and what was left out, in words.
        synthetic: the split was calibrated with synthetic data.
    """

    name: str
    way: str
    runtime: str
    machine: str
    inferences: int
    ways: tuple[WayTimes, ...]
    parts: tuple[PartTimes, ...]
    stations: tuple[StationTimes, ...]
    overhead: float | None
    overhead_spread: float
    speedup: float
    speedup_spread: float
    remarks: tuple[str, ...]
    synthetic: bool


class _Way:
    """A way ready to run, and what was measured of it."""

    def __init__(self, way: str, make: Callable[[], Chain | Pipeline], inputs: Sequence[Sequence[AnyArray]]) -> None:
        gc.collect()
        before, began = resident_bytes(), time.perf_counter()
        self.way = way
        self.runner = make()
        opened = time.perf_counter()
        self.results = [self._one(inputs[0])]
        self.open_ms, self.first_ms = 1000 * (opened - began), 1000 * (time.perf_counter() - opened)
        self.results += [self._one(each) for each in inputs[1:]]
        self.resident_bytes = max(0, resident_bytes() - before)
        for _ in range(_WARM_UPS):
            self._one(inputs[0])
        self.latencies_ms: list[float] = []
        self.part_ms: list[list[float]] = []
        self.rates: list[float] = []
        self.wall_s = self.processor_s = 0.0

    def _one(self, inputs: Sequence[AnyArray]) -> tuple[bytes, ...]:
        runner = self.runner
        outputs = runner.run(list(inputs)) if isinstance(runner, Chain) else runner.submit(list(inputs)).result()
        return tuple(array.tobytes() for array in outputs)

    def timed(self, inputs: Sequence[AnyArray]) -> None:
        """One inference of a chain."""
        if not isinstance(self.runner, Chain):
            raise TypeError("a pipeline is timed by its stream")
        processor, began = time.process_time(), time.perf_counter()
        self.runner.run(list(inputs))
        seconds = time.perf_counter() - began
        self.wall_s += seconds
        self.processor_s += time.process_time() - processor
        self.latencies_ms.append(1000 * seconds)
        self.part_ms.append([1000 * each for each in self.runner.seconds])

    def streamed(self, inputs: Sequence[Sequence[AnyArray]], count: int) -> None:
        """One round of a pipeline."""
        if not isinstance(self.runner, Pipeline):
            raise TypeError("a chain has no stream")
        processor, began = time.process_time(), time.perf_counter()
        self._stream(self.runner, inputs, count)
        seconds = time.perf_counter() - began
        self.wall_s += seconds
        self.processor_s += time.process_time() - processor
        self.rates.append(count / seconds)

    def _stream(self, pipeline: Pipeline, inputs: Sequence[Sequence[AnyArray]], count: int) -> None:
        futures = []
        for number in range(count):
            start = time.perf_counter()
            future = pipeline.submit(list(inputs[number % len(inputs)]))
            future.add_done_callback(partial(self._done, start))
            futures.append(future)
        for future in futures:
            future.result()

    def _done(self, start: float, _: object) -> None:
        self.latencies_ms.append(1000 * (time.perf_counter() - start))

    def times(self) -> WayTimes:
        ordered = sorted(self.latencies_ms)
        return WayTimes(
            way=self.way,
            open_ms=self.open_ms,
            first_ms=self.first_ms,
            p50_ms=percentile(ordered, 0.50),
            p95_ms=percentile(ordered, 0.95),
            p99_ms=percentile(ordered, 0.99),
            mean_ms=statistics.fmean(ordered),
            throughput_per_s=statistics.median(self.rates),
            resident_bytes=self.resident_bytes,
            processors=self.processor_s / self.wall_s,
        )


def bench(
    split: Job, unsplit: Job | None, opener: Opener, runtime: str, options: BenchOptions, report: Report = silent
) -> Bench:
    """Measure a split.

    Args:
        split: the chain, or a prefix and its tail.
        unsplit: the whole model in one file; None where there is none.
        opener: makes interpreters.
        runtime: what they are, for people.
        options: how long and where.
        report: progress.

    Raises:
        RunError: a part cannot be opened or run.
        VerificationError: the ways give different results (statement 4).
    """
    if options.rounds < 1 or options.inputs < 1:
        raise UsageError(
            "rounds and inputs must be at least 1",
            f"use at least {setting('rounds', '1')} {setting('inputs', '1')}",
        )
    report(Event(stage="bench", total=options.rounds, detail="opening"))
    isolated.try_out((*split.parts, *(unsplit.parts if unsplit is not None else ())), opener)
    predicted = split.placement() if not options.devices else None
    devices = options.devices or (() if predicted is None else tuple(d for s in predicted.stations for d in s.devices))
    tpus = tuple(device for device in devices if device.is_tpu)
    ways: list[_Way] = []
    remarks: list[str] = []
    try:
        placement = _placement(split, [], options) if tpus and predicted is None else predicted
        own = [CPU] if placement is None else _device_of_each(placement, len(split.parts))
        chain = _Way(CHAIN, lambda: _chain(split, opener, own), inputs := _inputs(split, opener, own, options))
        ways.append(chain)
        if unsplit is not None:
            try:
                alone = _Way(UNSPLIT, lambda: _chain(unsplit, opener, [tpus[0] if tpus else CPU]), inputs)
                ways.insert(0, alone)
            except RunError as error:
                remarks.append(f"the unsplit model was not measured: {error.message}")
        _one_by_one([chain], inputs, 5)
        if placement is None:
            placement = _placement(split, _medians(chain.part_ms), options)
        remarks += placement.notes
        settings = Settings(depth=options.depth, batch=options.batch)
        ways.append(_Way(PIPELINE, lambda: _pipeline(split, opener, placement, settings), inputs))
        _compare(ways)
        _reset(ways)
        for number in range(options.rounds):
            _one_by_one(ways[:-1], inputs, options.inputs)
            # filling and emptying is part of a short run and not of a long one: twice as many inputs
            ways[-1].streamed(inputs, 2 * options.inputs)
            report(Event(stage="bench", done=number + 1, total=options.rounds, detail=f"round {number + 1}"))
        in_here = not isinstance(opener, ProcessOpener) and not tpus
        return _summary(split, ways, own, runtime, in_here, remarks)
    finally:
        for way in ways:
            way.runner.close()


def _one_by_one(ways: Sequence[_Way], inputs: Sequence[Sequence[AnyArray]], count: int) -> None:
    """One round of chains, an inference each in turn, so that what slows the machine slows all (statement 1)."""
    before = [len(way.latencies_ms) for way in ways]
    for number in range(count):
        for position in range(len(ways)):
            ways[(position + number) % len(ways)].timed(inputs[number % len(inputs)])
    for way, start in zip(ways, before, strict=True):
        way.rates.append(1000 / statistics.fmean(way.latencies_ms[start:]))


def _summary(
    split: Job, ways: list[_Way], devices: Sequence[Device], runtime: str, in_here: bool, remarks: list[str]
) -> Bench:
    by_name = {way.way: way for way in ways}
    chain, pipeline = by_name[CHAIN], by_name[PIPELINE]
    speedups = [fast / slow for fast, slow in zip(pipeline.rates, chain.rates, strict=True)]
    overheads: list[float] = []
    neighbours: list[float] = []
    if UNSPLIT in by_name:
        whole = by_name[UNSPLIT]
        overheads = [fast / slow for fast, slow in zip(whole.rates, chain.rates, strict=True)]
        neighbours = [ours / alone for ours, alone in zip(chain.latencies_ms, whole.latencies_ms, strict=True)]
    if not isinstance(pipeline.runner, Pipeline):
        raise TypeError("the way called pipeline is none")
    stations = _stations(pipeline.runner, pipeline.wall_s)
    times = tuple(way.times() for way in ways)
    spread = (_spread(overheads), _spread(speedups))
    remarks += _noise(spread, times, len(stations) if in_here else 0)
    medians, share = _medians(chain.part_ms), sum(_medians(chain.part_ms))
    return Bench(
        name=split.name,
        way=split.way,
        runtime=runtime,
        machine=f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}",
        inferences=len(chain.latencies_ms),
        ways=times,
        parts=tuple(
            PartTimes(
                label=part.label,
                device=devices[index % len(devices)].name,
                p50_ms=medians[index],
                p95_ms=percentile(sorted(row[index] for row in chain.part_ms), 0.95),
                share=medians[index] / share,
            )
            for index, part in enumerate(split.parts)
        ),
        stations=stations,
        overhead=statistics.median(neighbours) - 1 if neighbours else None,
        overhead_spread=spread[0],
        speedup=statistics.median(speedups),
        speedup_spread=spread[1],
        remarks=tuple(remarks),
        synthetic=split.synthetic,
    )


def segment_times(result: Bench, plan: Plan, model: str) -> SegmentTimes:
    """The measured times of the chain's segments, for planning (graphcut.planning.fleet).

    Args:
        result: of the chain, not of a tail.
        plan: of the split.
        model: sha256 of the source.
    """
    cuts = [(), *(each.tensors for each in plan.candidates), ()]
    times = tuple(
        SegmentTime(
            from_cut=before,
            to_cut=behind,
            kind=part.device.partition(":")[0],
            micros=max(1, round(1000 * part.p50_ms)),
        )
        for part, before, behind in zip(result.parts, cuts[:-1], cuts[1:], strict=True)
    )
    return SegmentTimes(model=model, runtime=result.runtime, times=times)


def _noise(spread: tuple[float, float], times: Sequence[WayTimes], stations: int) -> list[str]:
    """What makes the numbers doubtful; ``stations`` is 0 where computing is not done in this process."""
    remarks = []
    chain, pipeline = times[-2:]
    if max(spread) > NOISY_SPREAD:
        remarks.append(
            f"NOISY: ratios differ by up to {max(spread):.2f} between rounds; use more rounds, or an idle machine"
        )
    wanted = min(stations, os.cpu_count() or 1)
    if wanted and chain.processors < STARVED_SHARE:
        remarks.append(f"STARVED: the chain got {chain.processors:.2f} of one processor: other programs ran")
    elif wanted > 1 and pipeline.processors < STARVED_SHARE * wanted:
        remarks.append(
            f"STARVED: the pipeline got {pipeline.processors:.2f} processors but has work for {wanted}: either other "
            "programs ran, or the parts are uneven"
        )
    return remarks


def _chain(job: Job, opener: Opener, devices: Sequence[Device]) -> Chain:
    return Chain(job.parts, opener, devices=devices, inputs=job.inputs, outputs=job.outputs)


def _pipeline(job: Job, opener: Opener, placement: Placement, settings: Settings) -> Pipeline:
    return Pipeline(job.parts, opener, placement=placement, inputs=job.inputs, outputs=job.outputs, settings=settings)


def _placement(job: Job, costs_ms: Sequence[float], options: BenchOptions) -> Placement:
    processors = min(os.cpu_count() or 1, len(job.parts))
    devices = options.devices or (CPU,) * processors
    stream_ms_per_mib = LINKS["usb"].stream_ms_per_mib  # only to place parts on fewer Edge TPUs
    reloads = [stream_ms_per_mib * part.path.stat().st_size / MIB for part in job.parts]
    return place([part.label for part in job.parts], devices, costs_ms, reload_ms=reloads, batch=options.batch)


def _device_of_each(placement: Placement, count: int) -> list[Device]:
    stations = placement.stations
    return [next(s.devices[0] for s in stations if s.first <= index < s.stop) for index in range(count)]


def _inputs(job: Job, opener: Opener, devices: Sequence[Device], options: BenchOptions) -> list[list[AnyArray]]:
    """A few seeded inputs of the right shapes and dtypes; speed does not depend on their values."""
    with _chain(job, opener, devices) as chain:
        edges = chain.inputs
    rng = np.random.default_rng(options.seed)
    return [[_random(rng, edge) for edge in edges] for _ in range(_DISTINCT_INPUTS)]


def _random(rng: np.random.Generator, edge: Edge) -> AnyArray:
    dtype = np.dtype(edge.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(max(limits.min, -128), min(limits.max, 255), edge.shape, dtype=dtype, endpoint=True)
    return rng.standard_normal(edge.shape).astype(dtype)


def _compare(ways: Sequence[_Way]) -> None:
    wanted = ways[0]
    for way in ways[1:]:
        if way.results != wanted.results:
            raise VerificationError(
                f"the results of the {way.way} differ from those of the {wanted.way}, so nothing was measured",
                "run graphcut verify",
            )


def _reset(ways: Sequence[_Way]) -> None:
    for way in ways:
        way.latencies_ms.clear()
        way.part_ms.clear()
        way.rates.clear()
        way.wall_s = way.processor_s = 0.0


def _stations(pipeline: Pipeline, wall_s: float) -> tuple[StationTimes, ...]:
    found = []
    for counts in pipeline.counts():
        waits = sorted(1000 * each for each in counts.lane.recent_waits_s)
        found.append(
            StationTimes(
                labels=counts.labels,
                devices=counts.devices,
                wait_p50_ms=percentile(waits, 0.50),
                wait_p95_ms=percentile(waits, 0.95),
                busy=min(1.0, sum(counts.busy_s) / (wall_s * len(counts.devices))),
                blocked_s=counts.lane.blocked_s,
                faults=counts.retried + counts.failed + counts.reopened + counts.hung,
            )
        )
    return tuple(found)


def _medians(rows: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def _spread(ratios: Sequence[float]) -> float:
    return max(ratios) - min(ratios) if ratios else 0.0


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that ``share`` of the sorted values do not pass (nearest rank); 0.0 of none."""
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))] if ordered else 0.0
