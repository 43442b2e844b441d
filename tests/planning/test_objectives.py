"""Objectives and constraints, held against exhaustive search over all choices of cuts on small graphs."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.analysis.candidates import analyse
from graphcut.errors import GraphcutError, InfeasibleError, UsageError
from graphcut.planning.make_plan import plan
from graphcut.planning.objectives import Objective, Problem, best, least
from graphcut.planning.places import Places, places
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segment_limits import Limits
from graphcut.planning.segments import segments
from graphcut.planning.span_costs import Spans
from graphcut.prediction import device_profiles as devices
from graphcut.prediction.device_profiles import DEVICES, DeviceProfile
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import Sizes
from graphcut.records import Analysis, Graph, Plan, Tensor
from graphcut.units import KIB, MIB
from tests.support import graphs

SLOW = replace(
    DEVICES["coral-usb"], name="slow", compute_ms_per_gmac=4e5, invoke_ms=0.01, room_bytes=300, stream_ms_per_mib=40.0
)
FAST = replace(SLOW, name="fast", compute_ms_per_gmac=1e5, room_bytes=500)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Analysis, Sizes, Places, Costs]:
    """A random graph with candidates of up to three tensors, and what its spans cost."""
    if draw(st.booleans()):
        graph, sizes = draw(graphs.chains())
        graph = with_weights(graph, draw)
        analysis = analyse(graph)
    else:
        graph = with_weights(draw(graphs.dags()), draw)
        sizes = graphs.sizes_of(graph)
        analysis = analyse(graph, min_rank=1, max_seam_tensors=draw(st.integers(1, 3)))
    return analysis, sizes, places(analysis, sizes, lambda _: True), Costs(graph, sizes)


def with_weights(graph: Graph, draw: st.DrawFn) -> Graph:
    """The graph with 4-D weights of random size where maps are convolved: it has parameters and multiplications."""
    flat = {
        name
        for node in graph.nodes
        if {4} != {len(graph.tensors[each].shape) for each in (*node.inputs[:1], *node.outputs)}
        for name in node.inputs[1:]
    }
    shapes = st.sampled_from([(4, 8, 1, 1), (8, 8, 1, 1), (16, 8, 3, 3), (24, 8, 1, 1)])
    weights = {
        name: weight if name in flat else Tensor(name=name, shape=draw(shapes), dtype="float32")
        for name, weight in graph.weights.items()
    }
    return replace(graph, weights=weights)


class Exhaustive:
    """Every choice of cuts with what each of its segments costs, by the code that reports costs."""

    def __init__(self, analysis: Analysis, sizes: Sizes, at: Places, costs: Costs) -> None:
        self.at, self.sizes, self.costs, self.graph = at, sizes, costs, analysis.graph
        inner = range(1, at.end)
        self.all = [cuts for count in range(at.end) for cuts in combinations(inner, count)]

    def costed(self, cuts: tuple[int, ...], chain: tuple[DeviceProfile, ...], default: DeviceProfile):
        made = segments(self.graph, [self.at.positions[cut] for cut in cuts], self.sizes)
        given = chain or (default,) * len(made)
        return [self.costs.segment(each, device) for each, device in zip(made, given, strict=False)]

    def keys(self, request: Problem) -> dict[tuple[int, ...], tuple[int, ...]]:
        """Choices that satisfy a request -> what the objective compares."""
        found = {}
        chain = request.devices
        most = min(filter(None, (request.most, len(chain))), default=self.at.end)
        for cuts in self.all:
            count = len(cuts) + 1
            if count > most or (request.count or count) != count or not request.pins <= set(cuts):
                continue
            own = self.costed(cuts, chain, request.default)
            planned = [self.at.size(*pair) for pair in pairwise((0, *cuts, self.at.end))]
            micros = [round(each.latency_ms * 1000) for each in own]
            if not all(
                self.within(request.limits, size, each, time, device)
                for size, each, time, device in zip(
                    planned, own, micros, chain or (request.default,) * count, strict=False
                )
            ):
                continue
            seam = sum(each.seam_bytes for each in own)
            found[cuts] = {
                "fewest": (count, max(planned), seam),
                "balanced": (max(planned), sum(size * size for size in planned)),
                "throughput": (max(micros), seam),
                "latency": (sum(micros), seam),
                "traffic": (seam, count),
            }[request.objective]
        return found

    @staticmethod
    def within(limits: Limits, size: int, cost, micros: int, device: DeviceProfile) -> bool:
        known = {
            "tflite_bytes": size,
            "compiled_bytes": cost.compiled.expected_bytes,
            "latency_us": micros,
            "parameter_bytes": cost.parameter_bytes,
            "off_chip_bytes": cost.off_chip_bytes,
            "macs": cost.macs,
            "activation_bytes": cost.activation_bytes,
        }
        own = {**limits.given()}
        if device.budget_bytes is not None:
            own["tflite_bytes"] = device.budget_bytes
        return all(known[name] <= limit for name, limit in own.items() if name in known)


@st.composite
def requests(draw: st.DrawFn, at: Places) -> Problem:
    objective: Objective = draw(st.sampled_from(["fewest", "balanced", "throughput", "latency", "traffic"]))
    sizes = [at.size(start, stop) for start, stop in combinations(range(at.end + 1), 2)]
    limits = Limits(
        tflite_bytes=draw(st.sampled_from([None, *sizes])),
        parameter_bytes=draw(st.sampled_from([None, None, 1500, 4000])),
        off_chip_bytes=draw(st.sampled_from([None, None, 0, 700])),
        macs=draw(st.sampled_from([None, None, 10**4])),
        compiled_bytes=draw(st.sampled_from([None, None, 36000])),
        latency_us=draw(st.sampled_from([None, None, 2000, 6000])),
    )
    chain: tuple[DeviceProfile, ...] = ()
    if draw(st.integers(0, 3)) == 0:
        kinds = st.sampled_from([SLOW, FAST, replace(FAST, budget_bytes=draw(st.sampled_from(sizes)))])
        chain = tuple(draw(st.lists(kinds, min_size=1, max_size=4)))
    return Problem(
        objective=objective,
        limits=limits,
        devices=chain,
        count=draw(st.one_of(st.none(), st.integers(1, at.end))) if objective != "fewest" else None,
        most=draw(st.sampled_from([None, None, 2, 3])),
        pins=frozenset(draw(st.lists(st.integers(1, at.end - 1), max_size=2))) if at.end > 1 else frozenset(),
        default=SLOW,
    )


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_every_objective_equals_exhaustive_search(data: st.DataObject):
    analysis, sizes, at, costs = data.draw(problems())
    if at.end > 9:
        return
    request = data.draw(requests(at))
    if request.count is not None and request.count > min(request.most or 99, len(request.devices) or 99):
        return  # options refuse that
    every = Exhaustive(analysis, sizes, at, costs).keys(request)
    found = best(Spans(at, costs), request)
    if not every:
        assert found is None
        return
    assert found is not None
    assert every[found.cuts] == min(every.values())
    if request.count is None:
        assert least(Spans(at, costs), request) == min(len(cuts) + 1 for cuts in every)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_rows_are_what_is_reported(data: st.DataObject):
    analysis, sizes, at, costs = data.draw(problems())
    spans = Spans(at, costs)
    for row in spans.rows(lambda _: 0):
        for device in (SLOW, FAST, DEVICES["coral-pcie"]):
            micros = row.micros(device)
            for start in range(row.stop):
                cuts = [at.positions[cut] for cut in (start, row.stop) if 0 < cut < at.end]
                own = next(each for each in segments(analysis.graph, cuts, sizes) if each.start == at.positions[start])
                known = costs.segment(own, device)
                assert micros[start] == round(known.latency_ms * 1000)
                assert row.seam[start] == known.seam_bytes


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_constrained_greedy_plan_needs_the_fewest_segments(data: st.DataObject):
    analysis, sizes, at, costs = data.draw(problems())
    request = data.draw(requests(at))
    names = [candidate.layer for candidate in analysis.candidates]
    pins = tuple(data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True))) if names else ()
    limits = replace(request.limits, latency_us=None)
    try:
        options = PlanOptions(limits=limits, pins=pins, allow_pre_activation=True, device=SLOW)
        made = plan(analysis, sizes, options)
    except GraphcutError:
        return
    found = best(Spans(at, costs), Problem(objective="fewest", limits=limits, pins=pinned(at, pins), default=SLOW))
    assert found is not None
    assert made.k == found.values[0]
    assert set(pins) <= set(made.cuts)


def pinned(at: Places, names: tuple[str, ...]) -> frozenset[int]:
    return frozenset(place for place, name in enumerate(at.names[1:-1], start=1) if name in names)


RESNET = graphs.resnet101()


def resnet_plan(**options) -> Plan:
    from graphcut.prediction.sizes import predict

    return plan(analyse(RESNET), predict(RESNET), PlanOptions(**options))


def test_the_reference_cuts_come_out_of_greedy_and_of_fewest():
    published = ("conv4_block4_out", "conv4_block10_out", "conv4_block16_out", "conv4_block22_out")
    for strategy in ("greedy", "fewest"):
        made = resnet_plan(strategy=strategy, budget_bytes=7 * MIB)
        assert made.cuts == (*published, "conv5_block1_out", "conv5_block2_out")
        assert made.minimal_k == 7


def test_pins_and_avoided_cuts_are_respected():
    made = resnet_plan(budget_bytes=7 * MIB, pins=("conv3_block4_out",), avoid=("conv4_block10_out",))
    assert "conv3_block4_out" in made.cuts
    assert "conv4_block10_out" not in made.cuts
    assert made.k == made.minimal_k == 8


def test_a_chain_of_unequal_devices_is_filled_in_order():
    small = devices.find("coral-usb:3MiB")
    made = resnet_plan(strategy="fewest", devices=(small, *[devices.find("coral-pcie:7MiB")] * 8))
    assert made.segments[0].tflite_bytes <= 3 * MIB
    assert max(each.tflite_bytes for each in made.segments) <= 7 * MIB
    with pytest.raises(InfeasibleError, match="at least 7 like coral-pcie"):
        resnet_plan(devices=(small, *[devices.find("coral-pcie:7MiB")] * 5))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"strategy": "throughput"}, UsageError, "how many segments"),
        ({"strategy": "traffic"}, UsageError, "how many segments"),
        ({"strategy": "latency", "segments": 3, "max_segments": 2}, UsageError, "above max_segments"),
        ({"budget_bytes": 7 * MIB, "pins": ("a",), "avoid": ("a",)}, UsageError, "in both pins and avoid"),
        ({"budget_bytes": 7 * MIB, "pins": ("nowhere",)}, UsageError, "no tensor or layer"),
        ({"strategy": "range", "range_bytes": (1, 2), "pins": ("a",)}, UsageError, "does not accept pins"),
        ({"devices": (DEVICES["coral-usb"],)}, UsageError, "no budget"),
        ({"limits": Limits(latency_us=5000)}, UsageError, "no setting limits the size"),
        ({"budget_bytes": 7 * MIB, "limits": Limits(latency_us=5000)}, UsageError, "strategy='fewest'"),
        ({"budget_bytes": 0}, UsageError, "is not positive"),
        ({"limits": Limits(macs=0)}, UsageError, "is not positive"),
        ({"strategy": "balanced", "segments": 3, "budget_bytes": 7 * MIB}, InfeasibleError, "raise segments to 7"),
        ({"strategy": "throughput", "segments": 3, "budget_bytes": 7 * MIB}, InfeasibleError, "raise segments to 7"),
        ({"budget_bytes": 7 * MIB, "max_segments": 6}, InfeasibleError, "raise max_segments to 7 or budget to"),
        ({"strategy": "latency", "segments": 900}, InfeasibleError, "lower segments"),
        ({"limits": Limits(parameter_bytes=2 * MIB)}, InfeasibleError, "use limits={'parameters': '"),
        ({"limits": Limits(compiled_bytes=2 * MIB)}, InfeasibleError, "use limits={'compiled': '"),
        (
            {"strategy": "balanced", "segments": 2, "pins": ("conv2_block1_out", "conv2_block2_out")},
            InfeasibleError,
            "2 pinned cuts",
        ),
        (
            {"strategy": "throughput", "segments": 3, "devices": (DEVICES["coral-usb"],) * 2},
            InfeasibleError,
            "on 2 devices",
        ),
    ],
)
def test_contradictions_are_named_with_what_can_be_had(options, error, says):
    with pytest.raises(error, match=says):
        resnet_plan(**options)


def test_devices_agree_with_the_runtime_s_costs():
    from graphcut.prediction.latency import LINKS, PartCost, compute_ms, link_named, steady_ms

    for name in LINKS:
        link = link_named(name)
        part = PartCost("p", compute_ms(10**9, link), 0, 3 * MIB, 150528, 1000, 200704, 100352)
        own = DEVICES[f"coral-{name}"].latency_ms(
            host_in=150528.0, seam_in=200704.0, work=1e9, off_chip=3.0 * MIB, seam_out=100352.0, host_out=1000.0
        )
        assert own == pytest.approx(steady_ms(part, link))


def test_a_profile_of_ones_own(tmp_path: Path):
    path = tmp_path / "board.toml"
    path.write_text('name = "mine"\nlike = "coral-pcie"\ninvoke_ms = 0.5\nroom = "6MiB"\n')
    found = devices.find(f"{path}:512KiB")
    assert (found.name, found.invoke_ms, found.room_bytes, found.budget_bytes) == ("mine", 0.5, 6 * MIB, 512 * KIB)
    assert found.stream_ms_per_mib == DEVICES["coral-pcie"].stream_ms_per_mib


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("invoke_ms = 1", "missing"),
        ('like = "gpu"', "one of coral-usb"),
        ('like = "coral-usb"\nspeed = 1', "unknown field speed"),
        ('like = "coral-usb"\ninvoke_ms = -1', "not below zero"),
        ('like = "coral-usb"\ninvoke_ms = nan', "not below zero"),
        ('like = "coral-usb"\nto_host_mib_s = 0', "above zero"),
        ('like = "coral-usb"\nroom = "much"', "room is wrong"),
        ("= 3", "not a TOML file"),
    ],
)
def test_a_wrong_profile_is_refused(text: str, says: str, tmp_path: Path):
    path = tmp_path / "board.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        devices.find(str(path))
    with pytest.raises(UsageError, match="cannot be read"):
        devices.find(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="there is no device"):
        devices.find("coral")


def test_nothing_streams_in_seven_segments():
    from graphcut.prediction.sizes import predict

    sizes = predict(RESNET)
    made = resnet_plan(strategy="fewest", limits=Limits(off_chip_bytes=0))
    cost = Costs(RESNET, sizes).plan(made)
    assert (made.k, cost.off_chip_bytes) == (7, 0)
    assert cost.balance == pytest.approx(
        max(each.tflite_bytes for each in made.segments) / np.mean([each.tflite_bytes for each in made.segments])
    )


def test_a_limit_on_time_is_said_in_milliseconds_and_what_it_says_is_enough():
    from graphcut.planning.segment_limits import parse_limits

    def within(milliseconds: str):
        return resnet_plan(strategy="fewest", budget_bytes=7 * MIB, limits=parse_limits({"latency": milliseconds}))

    with pytest.raises(InfeasibleError, match=r"ms a result .* the limit is 1\.500 ms") as refused:
        within("1.5")
    ((name, value), *_) = refused.value.remedies
    assert name == "limits"
    assert value is not None
    enough = value.removeprefix("latency=")
    assert enough == "2.538"
    assert within(enough).k >= 7
    for value in range(1, 20_000, 7):
        assert parse_limits({"latency": f"{value / 1000:.3f}"}).latency_us == value
    for wrong in ("-1", "nan", "inf", "-inf", "much"):
        with pytest.raises(UsageError, match="not a positive number"):
            parse_limits({"latency": wrong})
    with pytest.raises(UsageError, match="the limit on latency of 0 is not positive"):
        PlanOptions(strategy="fewest", limits=parse_limits({"latency": 0}))


def test_the_stricter_of_two_limits_on_one_cost_counts():
    from graphcut.api import plan_options

    for on, limit in (("7MiB", "6MiB"), ("6MiB", "7MiB")):
        options = plan_options(budget=on, budget_on=("compiled", "tflite"), limits={"compiled": limit})
        assert options.limits.compiled_bytes == 6 * MIB
        assert options.budget_bytes == (7 if on == "7MiB" else 6) * MIB
