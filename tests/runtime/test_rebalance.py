"""Devices move between segments as measured times say; nothing is lost, and the placement comes near the best."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.runtime.devices import CPU, Device, numbered
from graphcut.runtime.pipeline import Pipeline, Settings
from graphcut.runtime.placement import Placement, Station
from graphcut.runtime.rebalance import THRESHOLD, choose
from tests.support.toy_interpreter import Bench, computed, image, parts


def interval(seconds: list[float], counts: list[int]) -> float:
    return max(taken / count for taken, count in zip(seconds, counts, strict=True))


def best(seconds: list[float], devices: int) -> float:
    """Over all ways to share so many devices among the stations."""
    every = product(range(1, devices + 1), repeat=len(seconds))
    return min(interval(seconds, list(counts)) for counts in every if sum(counts) == devices)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0.001, 1.0), min_size=2, max_size=4).flatmap(
        lambda seconds: st.tuples(
            st.just(seconds), st.lists(st.integers(1, 3), min_size=len(seconds), max_size=len(seconds))
        )
    )
)
def test_moves_end_at_the_best_placement(drawn: tuple[list[float], list[int]]) -> None:
    seconds, counts = drawn
    devices: list[list[Device]] = [list(numbered("usb", count, 10 * at)) for at, count in enumerate(counts)]
    for _ in range(100):
        move = choose(seconds, devices)
        if move is None:
            break
        devices[move.target].append(devices[move.source].pop(move.position))
    else:
        pytest.fail("the moves do not end")
    made = interval(seconds, [len(own) for own in devices])
    assert made * (1 - THRESHOLD) <= best(seconds, sum(counts)) * (1 + 1e-9)


def test_a_device_goes_only_where_its_kind_is_known() -> None:
    usb, pci = numbered("usb", 3), numbered("pci", 1)
    assert choose([0.1, 0.1], [usb, pci]) is None
    move = choose([0.1, 0.3], [(*usb, pci[0]), (Device("pci", "pci:1"),)])
    assert move is not None
    assert move.position == 3


@pytest.mark.parametrize("batch", [1, 3])
def test_one_shift_of_stage_times_is_followed_and_nothing_is_lost(batch: int) -> None:
    """Six devices; the first segment is slow, then the third is."""
    bench = Bench(seconds={1: 0.012, 2: 0.004, 3: 0.004})
    usb = numbered("usb", 6)
    placement = Placement((Station(0, 1, usb[:4]), Station(1, 2, usb[4:5]), Station(2, 3, usb[5:])), ())
    shifted = {1: 0.004, 2: 0.004, 3: 0.012}
    notes: list[str] = []
    near = 1.05 * best(list(shifted.values()), 6)
    made = Settings(rebalance_s=0.2, batch=batch)
    with Pipeline(parts(3), bench, placement=placement, settings=made, rebalance=True, note=notes.append) as pipeline:

        def inputs() -> object:
            ends = time.monotonic() + 60
            number = 0
            while time.monotonic() < ends:
                if number == 100:
                    bench.seconds = shifted
                counts = [len(station.devices) for station in pipeline.placement.stations]
                if number > 300 and interval(list(shifted.values()), counts) <= near:
                    return
                yield image(number)
                number += 1

        results = list(pipeline.run(inputs()))
        counts = [len(station.devices) for station in pipeline.placement.stations]
        done = [each.done for each in pipeline.counts()]
    assert all(np.array_equal(outputs[0], computed(image(n), 3)) for n, outputs in enumerate(results))
    assert done == [len(results)] * 3
    assert sum(counts) == 6
    assert interval(list(shifted.values()), counts) <= near
    assert any("moves from segment 1 to segment 3" in note for note in notes)
    assert bench.open_now == 0


def test_nothing_moves_where_nothing_is_gained() -> None:
    bench = Bench(seconds=0.005)
    placement = Placement((Station(0, 1, (CPU, CPU)), Station(1, 2, (CPU, CPU))), ())
    notes: list[str] = []
    made = Settings(rebalance_s=0.1)
    with Pipeline(parts(2), bench, placement=placement, settings=made, rebalance=True, note=notes.append) as pipeline:
        assert len(list(pipeline.run(map(image, range(400))))) == 400
    assert notes == []
