"""The pipeline when all goes well: right bytes, right order, bounded queues, both kinds of loop."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.errors import RunError, UsageError
from graphcut.runtime.chain import Chain
from graphcut.runtime.devices import CPU, Device, parse_device, parse_devices
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from graphcut.runtime.pipeline import Pipeline, PipelineClosedError, Settings
from graphcut.runtime.placement import Placement, Station, place
from tests.support.tiny_split import branched, images, straight, write_split
from tests.support.toy_interpreter import Bench, computed, image, parts


def pipeline_threads() -> list[str]:
    names = ("segment", "pipeline")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(names)]


def eventually(condition: object, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.parametrize("way", [{}, {"tail": 2}, {"tail": 3}, {"tail": 4}, {"unsplit": True}])
def test_real_segments_give_the_bytes_of_the_chain(tmp_path: Path, way: dict[str, object]) -> None:
    job = read_job(write_split(tmp_path, straight(4), ["s4"]), **way)
    chain = Chain(job.parts, LiteRtOpener(), outputs=job.outputs)
    inputs = images(40)
    wanted = [chain.run(array)[0].tobytes() for array in inputs]
    with Pipeline(job.parts, LiteRtOpener(), inputs=job.inputs, outputs=job.outputs) as pipeline:
        assert [outputs[0].tobytes() for outputs in pipeline.run(inputs)] == wanted
    assert len(set(wanted)) == 40


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu", "cpu,cpu,cpu,cpu", "cpu,cpu,cpu,cpu,cpu,cpu"])
def test_several_inputs_and_outputs_on_any_number_of_devices(tmp_path: Path, devices: str) -> None:
    job = read_job(write_split(tmp_path, branched(), ["early", "late"], ["left", "right"]))
    chain = Chain(job.parts, LiteRtOpener(), outputs=job.outputs)
    pairs = [(images(1, seed=2 * n)[0], images(1, seed=2 * n + 1)[0]) for n in range(12)]
    wanted = [[array.tobytes() for array in chain.run(pair)] for pair in pairs]
    with Pipeline(
        job.parts, LiteRtOpener(), devices=parse_devices(devices), inputs=job.inputs, outputs=job.outputs
    ) as pipeline:
        got = [[array.tobytes() for array in outputs] for outputs in pipeline.run(pairs)]
    assert got == wanted


def test_results_keep_the_order_of_inputs_when_replicas_overtake_each_other() -> None:
    jitter = random.Random(3)
    bench = Bench(act=lambda index, _array: time.sleep(jitter.random() * 0.004 if index == 2 else 0.0))
    placement = Placement((Station(0, 1, (CPU,)), Station(1, 2, (CPU, CPU, CPU)), Station(2, 3, (CPU, CPU))), ())
    with Pipeline(parts(3), bench, placement=placement) as pipeline:
        results = list(pipeline.run(map(image, range(300))))
    assert all(np.array_equal(outputs[0], computed(image(n), 3)) for n, outputs in enumerate(results))
    assert bench.opened == {"segment 1": 1, "segment 2": 3, "segment 3": 2}
    assert bench.open_now == 0
    assert [counts.done for counts in pipeline.counts()] == [300, 300, 300]


def test_stations_run_side_by_side() -> None:
    bench = Bench(seconds=0.02)
    with Pipeline(parts(4), bench) as pipeline:
        assert len(list(pipeline.run(map(image, range(20))))) == 20
    assert bench.most_busy == 4


def test_inputs_are_read_no_further_ahead_than_the_pipeline_holds() -> None:
    read = []

    def source() -> Iterator[np.ndarray]:
        for number in range(200):
            read.append(number)
            yield image(number)

    with Pipeline(parts(3), Bench(), settings=Settings(depth=1)) as pipeline:
        results = pipeline.run(source())
        for number in range(50):
            next(results)
            assert len(read) <= number + 1 + pipeline.capacity + 1
        time.sleep(0.05)
        assert len(read) <= 50 + pipeline.capacity + 1, "a slow reader holds everything up"
        results.close()
        assert eventually(lambda: "pipeline inputs" not in pipeline_threads())


def test_a_forgotten_iterator_stops_reading() -> None:
    with Pipeline(parts(1), Bench()) as pipeline:
        for _ in pipeline.run(map(image, range(10_000))):
            break
        gc.collect()
        assert eventually(lambda: "pipeline inputs" not in pipeline_threads())
        assert len(list(pipeline.run(map(image, range(5))))) == 5, "the pipeline goes on"
    assert eventually(lambda: not pipeline_threads())


def test_an_error_of_the_source_comes_after_the_results_before_it() -> None:
    def source() -> Iterator[np.ndarray]:
        yield image(0)
        yield image(1)
        raise OSError("the camera is gone")

    with Pipeline(parts(2), Bench(seconds=0.01)) as pipeline:
        results = pipeline.run(source())
        assert np.array_equal(next(results)[0], computed(image(0), 2))
        assert np.array_equal(next(results)[0], computed(image(1), 2))
        with pytest.raises(OSError, match="the camera is gone"):
            next(results)
        assert list(results) == []


def test_inputs_that_do_not_fit_fail_in_their_place_with_their_number() -> None:
    inputs: list[object] = [image(0), np.zeros((1, 5), np.int8), image(2), "text", image(4)]
    with Pipeline(parts(2), Bench()) as pipeline:
        kept = list(pipeline.run(inputs, failures="return"))
        assert [isinstance(each, RunError) for each in kept] == [False, True, False, True, False]
        assert "input number 1: input tensor0 has shape 1x5: pass 1x4" in str(kept[1])
        assert "input number 3" in str(kept[3])
        assert np.array_equal(kept[4][0], computed(image(4), 2))
        results = pipeline.run(inputs)
        assert np.array_equal(next(results)[0], computed(image(0), 2))
        with pytest.raises(RunError, match="input number 6"):
            next(results)
        assert np.array_equal(next(results)[0], computed(image(2), 2)), "the iterator goes on behind a failure"


def test_submit_gives_futures_and_refuses_after_closing() -> None:
    pipeline = Pipeline(parts(2), Bench(seconds=0.01))
    futures = [pipeline.submit(image(n)) for n in range(6)]
    pipeline.close()
    assert [np.array_equal(f.result(0)[0], computed(image(n), 2)) for n, f in enumerate(futures)] == [True] * 6
    with pytest.raises(PipelineClosedError):
        pipeline.submit(image(0))
    with pytest.raises(PipelineClosedError):
        list(pipeline.run([image(0)]))
    pipeline.close()


def test_closing_without_waiting_settles_everything() -> None:
    bench = Bench(seconds=0.05)
    pipeline = Pipeline(parts(3), bench)
    futures = [pipeline.submit(image(n)) for n in range(6)]
    pipeline.close(wait=False)
    settled = [future.exception(timeout=1) for future in futures]
    assert any(isinstance(error, PipelineClosedError) for error in settled)
    assert all(error is None or isinstance(error, PipelineClosedError) for error in settled)
    assert bench.open_now == 0


def test_a_full_pipeline_is_refused_in_time_or_said() -> None:
    gate, notes = threading.Event(), []
    bench = Bench(act=lambda index, _array: gate.wait(10) if index == 2 else None)
    with Pipeline(parts(3), bench, settings=Settings(depth=1, stall_s=0.05), note=notes.append) as pipeline:
        futures = []

        def fill() -> None:
            for number in range(20):
                futures.append(pipeline.submit(image(number), timeout_s=0.02))

        with pytest.raises(RunError, match=r"the pipeline was full for 0\.02 s"):
            fill()
        assert eventually(lambda: any("queue before segment 2 has been full" in note for note in notes))
        gate.set()
        assert all(np.array_equal(f.result(5)[0], computed(image(n), 3)) for n, f in enumerate(futures))
    assert pipeline.counts()[1].stalled == 1
    assert pipeline.counts()[1].lane.blocked_s > 0.04


def test_micro_batches_switch_parts_that_share_a_device_once_for_all() -> None:
    seen: list[int] = []
    gate = threading.Event()

    def act(index: int, _array: np.ndarray) -> None:
        gate.wait(5)
        seen.append(index)

    with Pipeline(parts(2), Bench(act=act), devices=[CPU], settings=Settings(batch=4)) as pipeline:
        futures = [pipeline.submit(image(n)) for n in range(9)]
        gate.set()
        assert all(np.array_equal(f.result(5)[0], computed(image(n), 2)) for n, f in enumerate(futures))
    switches = sum(1 for before, after in pairwise(seen) if before != after)
    assert len(seen) == 18
    assert switches <= 7, "one after the other it would be 17"


def test_asynchronous_loops_over_both_kinds_of_source() -> None:
    async def source() -> AsyncIterator[np.ndarray]:
        for number in range(20):
            await asyncio.sleep(0)
            yield image(number)

    async def main() -> None:
        with Pipeline(parts(3), Bench(seconds=0.001)) as pipeline:
            for given_source in (source(), map(image, range(20))):
                got = [outputs async for outputs in pipeline.arun(given_source)]
                assert [np.array_equal(each[0], computed(image(n), 3)) for n, each in enumerate(got)] == [True] * 20
            several = await asyncio.gather(*(pipeline.infer(image(n)) for n in range(30)))
            assert all(np.array_equal(each[0], computed(image(n), 3)) for n, each in enumerate(several))
            mixed = pipeline.arun([image(0), "text", image(2)])
            await anext(mixed)
            with pytest.raises(RunError, match="input number 71"):
                await anext(mixed)
            assert np.array_equal((await anext(mixed))[0], computed(image(2), 3))
            with pytest.raises(StopAsyncIteration):
                await anext(mixed)

    asyncio.run(main())


def test_cancelling_an_asynchronous_wait_loses_nothing() -> None:
    async def main() -> None:
        with Pipeline(parts(2), Bench(seconds=0.05)) as pipeline:
            results = pipeline.arun(map(image, range(4)))
            got = []
            while len(got) < 4:
                try:
                    got.append(await asyncio.wait_for(anext(results), 0.02))
                except TimeoutError:
                    continue
            assert all(np.array_equal(each[0], computed(image(n), 2)) for n, each in enumerate(got))

    asyncio.run(main())


def test_one_pipeline_serves_several_callers() -> None:
    outcomes: list[bool] = []
    with Pipeline(parts(3), Bench(seconds=0.0005)) as pipeline:

        def call(first: int) -> None:
            numbers = range(first, first + 50)
            got = list(pipeline.run(map(image, numbers)))
            outcomes.append(all(np.array_equal(o[0], computed(image(n), 3)) for n, o in zip(numbers, got, strict=True)))

        callers = [threading.Thread(target=call, args=(1000 * n,)) for n in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert outcomes == [True] * 4


def test_counts_tell_where_time_goes() -> None:
    with Pipeline(parts(3), Bench(seconds={2: 0.01})) as pipeline:
        list(pipeline.run(map(image, range(20))))
        first, second, third = pipeline.counts()
    assert second.busy_s[0] > 10 * third.busy_s[0]
    assert second.busy_s[0] >= 20 * 0.01
    assert second.lane.taken == 20
    assert second.lane.waited_s > third.lane.waited_s, "inputs queue before the slow one"
    assert (first.labels, first.devices) == (("segment 1",), ("cpu",))


# --- placement ---


def labels(count: int) -> list[str]:
    return [f"segment {index}" for index in range(1, count + 1)]


def test_devices_left_over_become_replicas_of_the_slowest() -> None:
    placement = place(labels(3), parse_devices("usb:0,usb:1,usb:2,usb:3,usb:4"), [4.0, 10.0, 6.0])
    assert [[d.name for d in s.devices] for s in placement.stations] == [
        ["usb:0"],
        ["usb:1", "usb:3"],
        ["usb:2", "usb:4"],
    ]
    assert placement.notes[0] == "usb:3 runs a second segment 2, the slowest"


def test_too_few_devices_are_shared_and_the_cost_is_said() -> None:
    placement = place(labels(4), parse_devices("usb:0,usb:1"), [4.0] * 4, reload_ms=[14.0] * 4)
    assert [(s.first, s.stop) for s in placement.stations] == [(0, 2), (2, 4)]
    assert placement.notes == (
        "segment 1 .. segment 2 share usb:0: their parameters are loaded again at every switch, 28.0 ms for one "
        "round; one input takes 36.0 ms there",
        "segment 3 .. segment 4 share usb:1: their parameters are loaded again at every switch, 28.0 ms for one "
        "round; one input takes 36.0 ms there",
    )
    on_cpu = place(labels(4), parse_devices("cpu,cpu"), [4.0] * 4, reload_ms=[14.0] * 4)
    assert on_cpu.notes[0].endswith("share cpu; one input takes 8.0 ms there")


def test_a_shared_tpu_is_avoided_where_the_reload_costs_more_than_a_lone_cpu_part() -> None:
    placement = place(labels(3), parse_devices("usb:0,cpu"), [1.0, 1.0, 3.0], reload_ms=[20.0] * 3)
    assert [(s.first, s.stop) for s in placement.stations] == [(0, 1), (1, 3)]
    batched = place(labels(3), parse_devices("usb:0,cpu"), [1.0, 1.0, 3.5], reload_ms=[20.0] * 3, batch=40)
    assert [(s.first, s.stop) for s in batched.stations] == [(0, 2), (2, 3)], "micro-batches share the reload"


def test_no_device_and_lists_that_do_not_match() -> None:
    with pytest.raises(UsageError, match="no device"):
        place(labels(2), [])
    with pytest.raises(UsageError, match="pass one for each part"):
        place(labels(2), [CPU], [1.0])


@settings(max_examples=80, deadline=None)
@given(
    costs=st.lists(st.floats(0.1, 50), min_size=1, max_size=7),
    tpus=st.lists(st.booleans(), min_size=1, max_size=7),
    reload_ms=st.floats(0, 30),
    batch=st.integers(1, 8),
)
def test_sharing_is_as_fast_as_any_grouping(costs: list[float], tpus: list[bool], reload_ms: float, batch: int) -> None:
    devices: list[Device] = [parse_device(f"usb:{n}" if tpu else "cpu") for n, tpu in enumerate(tpus)][: len(costs)]
    count = len(costs)

    def slowest(ends: tuple[int, ...]) -> float:
        times = []
        for first, stop, device in zip((0, *ends), (*ends, count), devices, strict=True):
            shared = device.is_tpu and stop - first > 1
            times.append(sum(costs[first:stop]) + (reload_ms * (stop - first) / batch if shared else 0.0))
        return max(times)

    placement = place(labels(count), devices, costs, reload_ms=[reload_ms] * count, batch=batch)
    assert [s.first for s in placement.stations] == [0, *(s.stop for s in placement.stations)][:-1]
    assert placement.stations[-1].stop == count
    got = slowest(tuple(s.stop for s in placement.stations[:-1]))
    assert got == pytest.approx(min(slowest(ends) for ends in combinations(range(1, count), len(devices) - 1)))
