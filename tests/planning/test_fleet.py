"""Plans for a fleet of devices, held against all plans of small graphs; their certificates, and what refuses them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.analysis.digest import seal
from graphcut.errors import GraphcutError, UsageError
from graphcut.planning.fleet import Fleet, MeasuredSpans, Times, best_of, by_latency, by_throughput
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segment_limits import Limits
from graphcut.planning.segments import segments
from graphcut.planning.span_costs import Spans
from graphcut.prediction.device_profiles import DEVICES, DeviceProfile
from graphcut.prediction.segment_costs import Costs
from graphcut.records import SegmentTime, SegmentTimes
from graphcut.verification.check_certificate import attest, attest_model
from tests.planning.test_objectives import FAST, SLOW, problems

USB = replace(SLOW, kind="usb", shared_bus=True)
PCI = replace(FAST, kind="pci", shared_bus=False, seams_at_rates=True, invoke_ms=0.3)
HOST = replace(SLOW, name="host", kind="cpu", room_bytes=2**40, compute_ms_per_gmac=9e5, handover_ms=0.0)


class Every:
    """All plans for a fleet: the costs of segments by the code that reports them, nothing from the planner."""

    def __init__(self, problem: Any, fleet: Fleet, limits: Limits) -> None:
        analysis, sizes, at, costs = problem
        self.end, self.fleet, self.limits = at.end, fleet, limits
        self.cost = {}
        for start, stop in ((a, b) for a in range(at.end) for b in range(a + 1, at.end + 1)):
            cuts = [at.positions[cut] for cut in (start, stop) if 0 < cut < at.end]
            own = next(each for each in segments(analysis.graph, cuts, sizes) if each.start == at.positions[start])
            for number, kind in enumerate(fleet.kinds):
                self.cost[start, stop, number] = self.of(costs, own, kind, at.size(start, stop))

    def of(self, costs: Costs, own: Any, kind: DeviceProfile, size: int) -> tuple[int, int, int] | None:
        found = costs.segment(own, kind)
        if self.limits.tflite_bytes is not None and size > self.limits.tflite_bytes:
            return None
        if self.limits.latency_us is not None and round(found.latency_ms * 1000) > self.limits.latency_us:
            return None
        moved = {
            "host_in": found.host_in_bytes,
            "seam_in": found.seam_in_bytes,
            "off_chip": found.off_chip_bytes,
            "seam_out": found.seam_out_bytes,
            "host_out": found.host_out_bytes,
        }
        bus = kind.bus_ms(**{name: float(value) for name, value in moved.items()}) if kind.shared_bus else 0.0
        sums, span = costs.predicted.sums, slice(own.start, own.stop)
        occupied = sums.occupied[span.stop] - sums.occupied[span.start]
        room = costs.room_bytes(costs.predicted.reserved_bytes(own.start, own.stop), kind)
        loading = 1000 * kind.stream_ms_per_mib * min(occupied, room) / 2**20
        return round(found.latency_ms * 1000), round(bus * 1000), round(loading)

    def ways(self, start: int, stop: int, number: int) -> list[tuple[int, int]]:
        """(time, bus time) of a device with the span: as one segment, and as the fastest several."""
        kind, batch = self.fleet.kinds[number], self.fleet.batch
        alone = self.cost[start, stop, number]
        found = [] if alone is None else [alone[:2]]
        if batch > 1 and kind.kind != "cpu":
            inner = range(start + 1, stop)
            several = []
            for chosen in product((False, True), repeat=len(inner)):
                bounds = [start, *(place for place, cut in zip(inner, chosen, strict=True) if cut), stop]
                own = [self.cost[(*span, number)] for span in pairwise(bounds)]
                if len(own) > 1 and all(own):
                    loads = [-(-each[2] // batch) for each in own]
                    times = sum(each[0] for each in own) + sum(loads)
                    several.append((times, sum(each[1] for each in own) + (sum(loads) if kind.shared_bus else 0)))
            found += [min(several)] if several else []
        return found

    def best(self) -> tuple[int | None, int | None]:
        """The least interval and the least latency."""
        plans = list(self.plans(0, self.fleet.counts))
        latencies = [sum(stage[0] for stage in stages) for stages in plans if all(stage[3] for stage in stages)]
        intervals = [
            max(*(-(-time // copies) for time, _, copies, _ in stages), sum(stage[1] for stage in stages))
            for stages in plans
        ]
        return min(intervals, default=None), min(latencies, default=None)

    def plans(self, start: int, counts: tuple[int, ...]) -> Any:
        if start == self.end:
            yield []
            return
        for number, count in enumerate(counts):
            for stop in range(start + 1, self.end + 1):
                for index, (time, bus) in enumerate(self.ways(start, stop, number)):
                    for copies in range(1, count + 1):
                        left = tuple(each - copies * (at == number) for at, each in enumerate(counts))
                        alone = index == 0 and self.cost[start, stop, number] is not None
                        for rest in self.plans(stop, left):
                            yield [(time, bus, copies, alone), *rest]


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    kinds = draw(st.lists(st.sampled_from([USB, PCI, HOST]), min_size=1, max_size=2, unique=True))
    counts = tuple(draw(st.integers(1, 3 if len(kinds) == 1 else 2)) for _ in kinds)
    return Fleet(kinds=tuple(kinds), counts=counts, batch=draw(st.sampled_from([1, 2, 50])))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_plan_for_a_fleet_equals_exhaustive_search(data: st.DataObject):
    problem = data.draw(problems())
    at, costs = problem[2], problem[3]
    if at.end > 6:
        return
    fleet = data.draw(fleets())
    sizes = [at.size(start, stop) for start in range(at.end) for stop in range(start + 1, at.end + 1)]
    limits = Limits(
        tflite_bytes=data.draw(st.sampled_from([None, None, *sizes])),
        latency_us=data.draw(st.sampled_from([None, None, None, 4000])),
    )
    interval, latency = Every(problem, fleet, limits).best()
    times = Times(Spans(at, costs), fleet, limits, frozenset(), MeasuredSpans())
    found = by_throughput(times)
    assert min((each.interval_us for each in found), default=None) == interval
    assert min((each.latency_us for each in by_latency(times)), default=None) == latency
    for each in found:
        assert all(used <= count for used, count in zip(_used(each, fleet), fleet.counts, strict=True))


def _used(plan_: Any, fleet: Fleet) -> list[int]:
    return [sum(stage.copies for stage in plan_.stages if stage.kind == number) for number in range(len(fleet.kinds))]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_certificates_for_fleets_hold_and_no_better_value_passes(data: st.DataObject):
    analysis, sizes, at, costs = data.draw(problems())
    fleet = data.draw(fleets())
    options = PlanOptions(
        strategy=data.draw(st.sampled_from(["throughput", "latency"])),
        fleet=tuple(kind for kind, count in zip(fleet.kinds, fleet.counts, strict=True) for _ in range(count)),
        micro_batch=fleet.batch,
        limits=Limits(tflite_bytes=data.draw(st.sampled_from([None, at.size(0, at.end)]))),
        allow_pre_activation=True,
    )
    made = plan(analysis, sizes, options)
    document = json.loads(made.certificate)
    assert attest(document) == ()
    assert attest_model(document, analysis.graph, sizes, costs) == ()
    assert made.deployment is not None
    assert made.deployment.stages[-1].stop == made.k
    claimed = copy.deepcopy(document)
    claimed["fleet"]["value"] -= 1
    if claimed["fleet"]["below"] is not None:
        claimed["fleet"]["below"] -= 1
    claimed["seal"] = seal(claimed)
    assert attest(claimed) != ()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_worse_plan_for_a_fleet_is_refused(data: st.DataObject):
    """Another plan with an interval of its own, sealed with the best one's table."""
    analysis, sizes, at, costs = data.draw(problems())
    fleet = data.draw(fleets())
    devices = tuple(kind for kind, count in zip(fleet.kinds, fleet.counts, strict=True) for _ in range(count))
    options = PlanOptions(strategy="throughput", fleet=devices, micro_batch=fleet.batch, allow_pre_activation=True)
    document = json.loads(plan(analysis, sizes, options).certificate)
    times = Times(Spans(at, costs), fleet, Limits(), frozenset(), MeasuredSpans())
    best = best_of(by_throughput(times), "throughput")
    worse = next((each for each in by_latency(times) if each.interval_us > best.interval_us), None)
    if worse is None:
        return
    cuts = sorted({*(stage.start for stage in worse.stages[1:])})
    forged = json.loads(
        plan(
            analysis,
            sizes,
            PlanOptions(strategy="given", cuts=tuple(at.names[cut] for cut in cuts), allow_pre_activation=True),
        ).certificate
    )
    for key in ("asked", "first", "costs", "objective"):
        forged[key] = document[key]
    stages = [{**stage._asdict(), "cuts": []} for stage in worse.stages]
    for value in (worse.interval_us, best.interval_us):
        forged["fleet"] = {**document["fleet"], "stages": stages, "value": value, "below": value - 1}
        forged["seal"] = seal(forged)
        assert attest(forged) != ()


def test_measured_times_are_taken_and_scale_the_others():
    problem = _chain()
    analysis, sizes, at, costs = problem
    fleet = Fleet(kinds=(PCI,), counts=(2,))
    spans = Spans(at, costs)
    predicted = Times(spans, fleet, Limits(), frozenset(), MeasuredSpans())
    span = (0, at.end, 0)
    micros = 3 * int(predicted.single[0][0, at.end])
    measured = Times(spans, fleet, Limits(), frozenset(), MeasuredSpans(micros={span: micros}))
    assert measured.single[0][0, at.end] == micros
    assert measured.single[0][0, 1] == 3 * predicted.single[0][0, 1]
    times = SegmentTimes(model="", runtime="", times=(SegmentTime(from_cut=(), to_cut=(), kind="pci", micros=micros),))
    made = plan(
        analysis,
        sizes,
        PlanOptions(strategy="throughput", fleet=(PCI,), times=times, limits=Limits(), allow_pre_activation=True),
    )
    document = json.loads(made.certificate)
    assert document["asked"]["measured"] == [[0, at.end, 0, micros]]
    assert attest(document) == ()
    nowhere = SegmentTimes(model="", runtime="", times=(SegmentTime(from_cut=("x",), to_cut=(), kind="pci", micros=1),))
    with pytest.raises(UsageError, match="none of the 1 measured times"):
        plan(analysis, sizes, PlanOptions(strategy="throughput", fleet=(PCI,), times=nowhere))


def _chain() -> Any:
    from graphcut.analysis.candidates import analyse
    from graphcut.planning.places import places
    from graphcut.prediction.sizes import predict
    from tests.support import graphs

    graph = graphs.resnet101()
    analysis, sizes = analyse(graph), predict(graph)
    return analysis, sizes, places(analysis, sizes, lambda _: True), Costs(graph, sizes)


def test_the_slow_segment_is_copied_and_the_bus_bounds_usb():
    analysis, sizes, _, _ = _chain()
    one = plan(analysis, sizes, PlanOptions(strategy="throughput", fleet=(DEVICES["coral-pcie"],)))
    eight = plan(analysis, sizes, PlanOptions(strategy="throughput", fleet=(DEVICES["coral-pcie"],) * 8))
    assert one.deployment is not None
    assert eight.deployment is not None
    assert one.deployment.interval_us > 8 * eight.deployment.interval_us  # and nothing streams
    usb = plan(analysis, sizes, PlanOptions(strategy="throughput", fleet=(DEVICES["coral-usb"],) * 8))
    assert usb.deployment is not None
    assert usb.deployment.bus_us <= usb.deployment.interval_us
    assert {each.objective for each in usb.alternatives} == {"throughput", "latency"}


@pytest.mark.parametrize("field", [{"segments": 3}, {"devices": (PCI,)}, {"max_segments": 2}])
def test_what_does_not_go_with_a_fleet_is_refused(field: dict[str, Any]):
    with pytest.raises(GraphcutError, match="does not go with"):
        PlanOptions(strategy="throughput", fleet=(PCI,), **field)
    with pytest.raises(GraphcutError, match="does not accept"):
        PlanOptions(strategy="balanced", fleet=(PCI,))
