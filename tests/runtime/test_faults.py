"""Faults in a pipeline: counted, reported, recovered where possible; nothing lost, repeated or re-ordered."""

from __future__ import annotations

import _thread
import asyncio
import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from graphcut.errors import RunError
from graphcut.runtime.chain import SegmentError
from graphcut.runtime.devices import CPU, Device, attach, parse_device
from graphcut.runtime.interpreter import Interpreter, Part
from graphcut.runtime.pipeline import Pipeline, PipelineClosedError, Settings
from graphcut.runtime.placement import Placement, Station
from graphcut.runtime.results import AsyncResults
from graphcut.runtime.station import Patience
from tests.runtime.test_pipeline import eventually, pipeline_threads
from tests.support.toy_interpreter import Bench, RandomFaults, Toy, computed, image, parts

PATIENT = Patience(retries=1, reopen_waits_s=(0.01, 0.02))
QUICK = Patience(limit_s=0.5, retries=1, reopen_waits_s=(0.01, 0.02))


class OnInput:
    """Does something when a part meets an input, the first ``times`` times."""

    def __init__(self, index: int, number: int, what: object, times: int = 1) -> None:
        self.index, self.wanted, self.what, self.left = index, computed(image(number), index - 1), what, times

    def __call__(self, index: int, array: np.ndarray) -> None:
        if index == self.index and self.left and np.array_equal(array, self.wanted):
            self.left -= 1
            self.what()  # type: ignore[operator]


def fails(error: BaseException) -> object:
    def act() -> None:
        raise error

    return act


def check(results: list[object], k: int, failed: tuple[int, ...] = ()) -> None:
    for number, outputs in enumerate(results):
        if number in failed:
            assert isinstance(outputs, SegmentError), number
            assert outputs.number == number
        else:
            assert np.array_equal(outputs[0], computed(image(number), k)), number  # type: ignore[index]


@pytest.mark.parametrize("error", [RuntimeError("no more"), SystemExit("dead"), MemoryError(), ValueError("bad")])
def test_a_part_that_raises_once_is_opened_again_and_the_input_done_again(error: BaseException) -> None:
    bench, notes = Bench(act=OnInput(2, 7, fails(error))), []
    with Pipeline(parts(3), bench, settings=Settings(patience=PATIENT), note=notes.append) as pipeline:
        results = list(pipeline.run(map(image, range(20))))
    check(results, 3)
    counts = pipeline.counts()[1]
    assert (counts.retried, counts.reopened, counts.failed) == (1, 1, 0)
    assert any("segment 2 on cpu, input 7" in note and "tried again" in note for note in notes)
    assert bench.opened["segment 2"] == 2
    assert bench.open_now == 0


@pytest.mark.parametrize("batch", [1, 4])
def test_a_part_that_keeps_raising_on_one_input_fails_that_input_only(batch: int) -> None:
    bench = Bench(act=OnInput(2, 7, fails(RuntimeError("no more")), times=99))
    with Pipeline(parts(3), bench, settings=Settings(patience=PATIENT, batch=batch)) as pipeline:
        results = list(pipeline.run(map(image, range(20)), failures="return"))
        check(results, 3, failed=(7,))
        assert str(results[7]) == "segment 2 failed on input 7: RuntimeError: no more on cpu (2 tries)"
        assert isinstance(results[7].__cause__, RuntimeError)
        again = pipeline.run(map(image, range(7, 9)))
        with pytest.raises(SegmentError, match="segment 2 failed on input 20"):
            next(again)
        assert np.array_equal(next(again)[0], computed(image(8), 3))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_part_that_hangs_is_given_up_and_its_input_done_by_another(batch: int) -> None:
    release, late = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(60)
        late.set()

    bench, notes = Bench(act=OnInput(2, 5, hang)), []
    settings = Settings(patience=QUICK, batch=batch)
    with Pipeline(parts(3), bench, settings=settings, note=notes.append) as pipeline:
        results = list(pipeline.run(map(image, range(12))))
        assert not late.is_set(), "nobody waited for the hanging call"
        check(results, 3)
        release.set()
        assert late.wait(60), "the call ends some day, and what it returns is dropped"
        time.sleep(0.02)
        assert pipeline.counts()[2].done == 12
        check(list(pipeline.run(map(image, range(12)))), 3)
    assert pipeline.counts()[1].hung == 1
    assert any("segment 2 on cpu did not respond within 0.5 s (input 5): replaced" in note for note in notes)
    assert bench.open_now == 0


def test_a_part_that_always_hangs_on_one_input_fails_that_input_only() -> None:
    release = threading.Event()
    bench = Bench(act=OnInput(1, 2, lambda: release.wait(60), times=99))
    with Pipeline(parts(2), bench, settings=Settings(patience=QUICK)) as pipeline:
        results = list(pipeline.run(map(image, range(8)), failures="return"))
        release.set()
    check(results, 2, failed=(2,))
    assert str(results[2]) == "segment 1 failed on input 2: no response within 0.5 s on cpu (2 tries)"


def test_a_device_that_goes_away_and_comes_back_costs_time_and_nothing_else() -> None:
    bench = Bench()
    patient = Settings(patience=Patience(reopen_waits_s=(0.02,) * 100))
    notes: list[str] = []
    with Pipeline(parts(3), bench, settings=patient, note=notes.append) as pipeline:
        results = pipeline.run(map(image, range(60)))
        kept = [next(results) for _ in range(10)]
        bench.gone.add("cpu")
        threading.Timer(0.3, bench.gone.clear).start()
        kept += results
    check(kept, 3)
    assert sum(counts.reopened for counts in pipeline.counts()) >= 1
    assert sum(counts.failed for counts in pipeline.counts()) == 0
    assert any("was opened again" in note for note in notes)


def test_a_device_that_stays_away_fails_inputs_until_it_is_back() -> None:
    bench = Bench()
    with Pipeline(parts(2), bench, settings=Settings(patience=Patience(reopen_waits_s=(0.01,)))) as pipeline:
        assert len(list(pipeline.run(map(image, range(3))))) == 3
        bench.gone.add("cpu")
        lost = list(pipeline.run(map(image, range(5)), failures="return"))
        assert all(isinstance(each, SegmentError) and "cpu is gone" in str(each) for each in lost)
        bench.gone.clear()
        check(list(pipeline.run(map(image, range(5)))), 2)


def test_one_replica_that_loses_its_device_does_not_hold_up_the_other() -> None:
    bench = Bench()
    stick = parse_device("usb:0")
    placement = Placement((Station(0, 1, (CPU, stick)),), ())
    with Pipeline(
        parts(1), bench, placement=placement, settings=Settings(patience=Patience(reopen_waits_s=(0.01,)))
    ) as pipeline:
        bench.gone.add("usb:0")
        results = list(pipeline.run(map(image, range(40)), failures="return"))
    check(results, 1, failed=tuple(n for n, each in enumerate(results) if isinstance(each, SegmentError)))
    assert sum(not isinstance(each, SegmentError) for each in results) >= 15


def test_parts_that_share_an_edge_tpu_are_opened_again_together() -> None:
    bench = Bench(act=OnInput(2, 1, fails(RuntimeError("reset"))))
    stick = parse_device("usb:0")
    with Pipeline(parts(3), bench, devices=[stick], settings=Settings(patience=QUICK)) as pipeline:
        check(list(pipeline.run(map(image, range(5)))), 3)
    assert bench.opened == {"segment 1": 2, "segment 2": 2, "segment 3": 2}
    assert bench.open_now == 0


def test_a_part_that_makes_something_else_than_its_file_says_is_an_error() -> None:
    class Wrong(Toy):
        def __call__(self, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
            made = super().__call__(arrays)
            return (made[0].astype(np.int16),) if self.index == 2 else made

    bench = Bench()
    with Pipeline(parts(2), lambda part, device: Wrong(bench, part, device)) as pipeline:
        failure = next(pipeline.run([image(0)], failures="return"))
    assert "segment 2 failed on input 0: returned tensor2 as int16 (1, 4) instead of int8 1x4" in str(failure)


def test_ctrl_c_ends_everything_at_once() -> None:
    bench = Bench(seconds=0.02)
    began = time.monotonic()

    def serve() -> None:
        with Pipeline(parts(3), bench) as pipeline:
            threading.Timer(0.2, _thread.interrupt_main).start()
            for _ in pipeline.run(map(image, range(100_000))):
                pass

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert time.monotonic() - began < 60  # all inputs take half an hour
    assert eventually(lambda: not pipeline_threads())
    assert bench.open_now == 0


def test_a_bug_of_ours_reaches_every_caller_and_holds_nobody() -> None:
    pipeline = Pipeline(parts(2), Bench(seconds=0.01))

    def forward(_item: object) -> None:
        raise ZeroDivisionError("a bug")

    served = pipeline._stations[1]
    broken = served.links._replace(forward=forward)
    for worker in served.workers:
        worker._links = broken
    results = pipeline.run(map(image, range(10)))
    with pytest.raises(PipelineClosedError) as caught:
        list(results)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    pipeline.close()


def test_a_part_that_cannot_be_opened_leaves_nothing_open() -> None:
    bench = Bench()

    def opener(part: object, device: object) -> Toy:
        if part.label == "segment 3":  # type: ignore[attr-defined]
            raise RunError("segment 3 is refused")
        return bench(part, device)  # type: ignore[arg-type]

    with pytest.raises(RunError, match="segment 3 is refused"):
        Pipeline(parts(3), opener)
    assert bench.opened == {"segment 1": 1, "segment 2": 1}
    assert bench.open_now == 0


# --- long runs ---


def resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        pytest.skip("no /proc to read the process's memory from")
    return int(statm.read_text().split()[1]) * 4096


def soak(count: int, share: float) -> tuple[Counter[str], dict[str, int], list[int]]:
    """Run ``count`` inputs with faults at random; checks every result. What was done, counts, memory over time."""
    faults = RandomFaults(share, hang_s=0.25, seed=count)
    bench = Bench(act=faults)
    placement = Placement((Station(0, 1, (CPU,)), Station(1, 3, (CPU, CPU)), Station(3, 4, (CPU,))), ())
    settings = Settings(patience=Patience(limit_s=0.05, retries=1, reopen_waits_s=(0.01,)), batch=2)
    memory = []
    failed = 0
    with Pipeline(parts(4), bench, placement=placement, settings=settings) as pipeline:
        number = -1
        for number, outputs in enumerate(pipeline.run(map(image, range(count)), failures="return")):
            if isinstance(outputs, SegmentError):
                failed += 1
                assert outputs.number == number
            else:
                assert np.array_equal(outputs[0], computed(image(number), 4)), number
            if number % (count // 10) == count // 20:
                memory.append(resident_bytes())
        assert number == count - 1, "nothing lost, nothing twice"
        counts = pipeline.counts()
    assert sum(each.failed for each in counts) == failed
    assert sum(each.hung for each in counts) >= faults.did["hang"]
    assert eventually(lambda: bench.open_now == 0), "every interpreter was closed"
    assert eventually(lambda: not pipeline_threads())
    summed = {name: sum(getattr(each, name) for each in counts) for name in ("failed", "retried", "reopened", "hung")}
    return faults.did, summed, memory


def test_two_thousand_inputs_with_faults_at_random() -> None:
    did, counts, _ = soak(2_000, share=0.02)
    assert min(did["raise"], did["die"], did["hang"]) > 0
    assert counts["retried"] > 50


class Sticks:
    """Sticks with the faults that people report.

    The delegate fails to load one time in five, the program on a stick aborts, a stick disappears for a while, and one
    that has worked for long is hot, which makes it slow.
    """

    def __init__(self, seed: int, *, abort: float, vanish: float) -> None:
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.abort, self.vanish = abort, vanish
        self.back: dict[str, float] = {}
        self.worked: Counter[str] = Counter()
        self.did: Counter[str] = Counter()
        self.bench = Bench()

    def __call__(self, part: Part, device: Device) -> Interpreter:
        def load(_library: str, _options: dict[str, str]) -> object:
            with self.lock:
                if time.monotonic() < self.back.get(device.name, 0.0):
                    raise ValueError("no such device")
                if self.random.random() < 0.2:
                    self.did["not loaded"] += 1
                    raise ValueError("Failed to load delegate from libedgetpu.so.1")
            return object()

        attach(load, device, waits_s=(0.001, 0.002, 0.005, 0.01, 0.02))
        return _OnStick(self, device, self.bench(part, device))

    def fault(self, device: Device) -> None:
        """Before a call."""
        with self.lock:
            drawn = self.random.random()
            gone = time.monotonic() < self.back.get(device.name, 0.0)
            hot = self.worked[device.name] % 1000 > 900
            self.worked[device.name] += 1
            if not gone and drawn < self.abort:
                self.did["aborted"] += 1
            elif not gone and drawn < self.abort + self.vanish:
                self.did["vanished"] += 1
                self.back[device.name] = time.monotonic() + 0.02
                gone = True
            self.did["hot"] += hot
        if gone:
            raise RuntimeError("Encountered unresolved custom op: edgetpu-custom-op: the device went away")
        if drawn < self.abort:
            raise SystemExit("aborted")
        if hot:
            time.sleep(0.0002)


class _OnStick:
    """A toy interpreter on a stick."""

    def __init__(self, sticks: Sticks, device: Device, toy: Toy) -> None:
        self._sticks, self._device, self._toy = sticks, device, toy
        self.inputs, self.outputs = toy.inputs, toy.outputs

    def __call__(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        self._sticks.fault(self._device)
        return self._toy(arrays)

    def close(self) -> None:
        self._toy.close()


def soak_sticks(count: int, *, abort: float, vanish: float) -> tuple[Counter[str], int, float]:
    """Run so many inputs over five sticks and check each result; what went wrong, inputs that failed, seconds."""
    sticks = Sticks(count, abort=abort, vanish=vanish)
    usb = [Device("usb", f"usb:{number}") for number in range(5)]
    placement = Placement((Station(0, 1, (usb[0],)), Station(1, 2, tuple(usb[1:4])), Station(2, 3, (usb[4],))), ())
    waits = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    settings = Settings(patience=Patience(retries=3, reopen_waits_s=waits), batch=4, rebalance_s=0.5)
    began, failed, number = time.monotonic(), 0, -1
    with Pipeline(parts(3), sticks, placement=placement, settings=settings, rebalance=True) as pipeline:
        for number, outputs in enumerate(pipeline.run(map(image, range(count)), failures="return")):
            if isinstance(outputs, SegmentError):
                failed += 1
                assert outputs.number == number
            else:
                assert np.array_equal(outputs[0], computed(image(number), 3)), number
        assert number == count - 1, "nothing lost, nothing twice"
        assert sum(each.failed for each in pipeline.counts()) == failed
    assert eventually(lambda: sticks.bench.open_now == 0)
    return sticks.did, failed, time.monotonic() - began


def test_sticks_with_the_faults_that_people_report() -> None:
    did, failed, _ = soak_sticks(3_000, abort=0.003, vanish=0.002)
    assert min(did[name] for name in ("not loaded", "aborted", "vanished", "hot")) > 0
    assert failed == 0, "each fault passes"


@pytest.mark.slow
def test_a_million_inputs_over_sticks_with_the_faults_that_people_report() -> None:
    count = int(os.environ.get("GRAPHCUT_SOAK", "1000000"))
    did, failed, seconds = soak_sticks(count, abort=0.0002, vanish=0.0001)
    print(f"{count} inputs in {seconds:.0f} s: {dict(did)}, {failed} failed")
    assert failed == 0


@pytest.mark.slow
def test_a_hundred_thousand_inputs_with_faults_at_random_in_flat_memory() -> None:
    did, counts, memory = soak(100_000, share=0.002)
    print(f"faults {dict(did)}, {counts}, memory {[f'{each / 2**20:.1f}' for each in memory]} MiB")
    assert min(did["raise"], did["die"], did["hang"]) > 10
    assert max(memory[2:]) - memory[1] < 8 * 2**20, "memory stays flat"


# --- results that nobody reads to the end ---


async def _images(count: int) -> AsyncIterator[np.ndarray]:
    for number in range(count):
        await asyncio.sleep(0)
        yield image(number)


async def _left_by_break(pipeline: Pipeline, source: object) -> None:
    async for _ in pipeline.arun(source):  # type: ignore[arg-type]
        break


async def _left_by_cancellation(pipeline: Pipeline, source: object) -> None:
    async def read() -> None:
        async for _ in pipeline.arun(source):  # type: ignore[arg-type]
            await asyncio.sleep(60)

    task = asyncio.create_task(read())
    await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _left_by_an_error(pipeline: Pipeline, source: object) -> None:
    with suppress(ZeroDivisionError):
        async for _ in pipeline.arun(source):  # type: ignore[arg-type]
            raise ZeroDivisionError


@pytest.mark.parametrize("leave", [_left_by_break, _left_by_cancellation, _left_by_an_error])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_leaving_results_a_hundred_times_leaves_no_thread_and_no_descriptor(leave: object, asynchronous: bool) -> None:
    def readers() -> int:
        return pipeline_threads().count("pipeline inputs")

    def descriptors() -> int:
        folder = Path("/proc/self/fd")
        return len([*folder.iterdir()]) if folder.is_dir() else 0

    async def often(pipeline: Pipeline) -> None:
        for _ in range(100):
            await leave(pipeline, _images(10**6) if asynchronous else map(image, range(10**6)))  # type: ignore[operator]

    with Pipeline(parts(2), Bench()) as pipeline:
        before = descriptors()
        asyncio.run(often(pipeline))
        assert eventually(lambda: readers() == 0), f"{readers()} threads of 100 are left"
        assert descriptors() <= before
        check(list(pipeline.run(map(image, range(5)))), 2)


@pytest.mark.filterwarnings("error")
def test_a_loop_that_ends_before_it_asks_the_source_leaves_no_coroutine_behind() -> None:
    loop = asyncio.new_event_loop()
    try:
        with Pipeline(parts(1), Bench()) as pipeline:
            results = AsyncResults(pipeline.submit, _images(3), 2, "raise", PipelineClosedError, loop)
            assert eventually(lambda: bool(loop._ready))  # type: ignore[attr-defined]  # the reading thread has asked
    finally:
        loop.close()
    assert eventually(lambda: "pipeline inputs" not in pipeline_threads())
    del results
    gc.collect()


def test_an_asynchronous_source_that_never_gives_anything_holds_no_thread() -> None:
    async def silent() -> AsyncIterator[np.ndarray]:
        await asyncio.sleep(3600)
        yield image(0)

    async def wait_in_vain(pipeline: Pipeline) -> None:
        results = pipeline.arun(silent())
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(results.__anext__(), 0.05)
        await results.aclose()

    with Pipeline(parts(1), Bench()) as pipeline:
        asyncio.run(wait_in_vain(pipeline))
        assert eventually(lambda: "pipeline inputs" not in pipeline_threads())
