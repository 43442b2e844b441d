"""Plans over all topological orders, against every order and every cut of small graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphcut.analysis.orders import reordered
from graphcut.analysis.seams import fits
from graphcut.planning.all_orders import best_order, interval_bound
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import planned
from graphcut.planning.segments import segments
from graphcut.prediction.device_profiles import DEFAULT
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import predict
from graphcut.records import Graph
from tests.support.graphs import MAP, Builder, resnet101

NARROW = replace(DEFAULT, room_bytes=3000, stream_ms_per_mib=400.0)
"""A device on which small graphs stream, so that no part of a cost is idle."""


@st.composite
def branched(draw: st.DrawFn, kinds: tuple[str, ...] = ("Conv", "Conv", "Add")) -> Graph:
    """Up to six operators on maps of several sizes; what nothing reads is an output."""
    b = Builder()
    made = [b.input("in", MAP)]
    read: set[str] = set()
    for number in range(draw(st.integers(3, 6))):
        name, source = f"t{number}", draw(st.sampled_from(made[-3:]))
        kind = draw(st.sampled_from(kinds))
        shape = (1, draw(st.sampled_from((4, 8, 40))), 6, 6) if kind == "Conv" else b.tensors[source].shape
        reads = [source]
        if kind == "Conv":
            reads.append(b.weight(f"{name}/w", (shape[1], b.tensors[source].shape[1], 3, 3)))
        elif kind == "Add":
            others = [each for each in made if each != source and b.tensors[each].shape == shape]
            if not others:
                continue
            reads.append(draw(st.sampled_from(others)))
        made.append(b.node(kind, reads, name, shape=shape))
        read.update(reads)
    assume(len(b.nodes) > 1)
    return b.graph(*(name for name in made[1:] if name not in read))


def every_order(graph: Graph) -> Iterator[tuple[int, ...]]:
    """All topological orders."""

    def grow(order: tuple[int, ...], known: frozenset[str]) -> Iterator[tuple[int, ...]]:
        if len(order) == len(graph.nodes):
            yield order
        for index, node in enumerate(graph.nodes):
            if index not in order and known.issuperset(node.inputs):
                yield from grow((*order, index), known.union(node.outputs))

    yield from grow((), frozenset((*graph.inputs, *graph.weights)))


def least(graph: Graph, count: int, most: int | None) -> int | None:
    """The least slowest segment in microseconds, by trying everything."""
    found = None
    for order in every_order(graph):
        ordered = reordered(graph, order)
        sizes = predict(ordered)
        costs = Costs(ordered, sizes)
        for positions in combinations(range(1, len(graph.nodes)), count - 1):
            parts = segments(ordered, positions, sizes)
            if most is not None and not all(_may(ordered, position, most) for position in positions):
                continue
            slowest = max(round(1000 * costs.segment(part, NARROW).latency_ms) for part in parts)
            found = slowest if found is None else min(found, slowest)
    return found


def _may(graph: Graph, position: int, most: int) -> bool:
    made = {*graph.inputs, *(name for node in graph.nodes[:position] for name in node.outputs)}
    crossing = {name for node in graph.nodes[position:] for name in node.inputs if name in made}
    return 1 <= len(crossing) <= most and all(fits(graph, name, 1) for name in crossing)


@settings(max_examples=25, deadline=None)
@given(branched(), st.integers(1, 3))
def test_the_bound_is_the_least_of_all_orders_and_cuts(graph: Graph, count: int):
    known = [least(graph, each, None) for each in range(1, min(count, len(graph.nodes)) + 1)]
    found = interval_bound(Costs(graph, predict(graph)), NARROW, count)
    assert found.exact
    assert found.micros == min(each for each in known if each is not None)


@settings(max_examples=25, deadline=None)
@given(branched(kinds=("Conv", "Add", "Relu", "MaxPool")), st.integers(1, 3))
def test_nodes_that_belong_together_do_not_raise_the_bound(graph: Graph, count: int):
    expected = least(graph, count, None)
    assume(expected is not None)
    found = interval_bound(Costs(graph, predict(graph)), NARROW, count)
    assert expected is not None
    assert found.micros <= expected


@settings(max_examples=25, deadline=None)
@given(branched(), st.integers(2, 3), st.integers(1, 2))
def test_the_order_found_has_the_best_plan_of_all_orders(graph: Graph, count: int, most: int):
    costs = Costs(graph, predict(graph))
    order = best_order(costs, NARROW, count, most)
    expected = least(graph, count, most)
    if expected is None:
        assert order is None
        return
    assert order is not None
    assert sorted(order) == list(range(len(graph.nodes)))
    ordered = reordered(graph, order)
    sizes = predict(ordered)
    own = Costs(ordered, sizes)
    reached = min(
        max(round(1000 * own.segment(part, NARROW).latency_ms) for part in segments(ordered, positions, sizes))
        for positions in combinations(range(1, len(graph.nodes)), count - 1)
        if all(_may(ordered, position, most) for position in positions)
    )
    assert reached == expected


def test_throughput_plans_with_seams_of_several_tensors_have_the_least_of_all_orders():
    graph = resnet101()
    options = PlanOptions(strategy="throughput", segments=2, max_seam_tensors=4)
    arranged, made = planned(graph, options, predict)
    reached = arranged.costed().plan(made, (DEFAULT,)).interval_ms
    assert round(1000 * reached) == interval_bound(Costs(graph, predict(graph)), DEFAULT, 2).micros


def test_a_graph_with_too_many_orders_gets_the_weaker_bound():
    b = Builder()
    trunk = b.node("Conv", [b.input("in"), b.weight("w", (8, 3, 3, 3))], "trunk")
    ends = [b.node("Relu", [b.node("MaxPool", [trunk], f"p{number}")], f"r{number}") for number in range(40)]
    graph = b.graph(*ends)
    found = interval_bound(Costs(graph, predict(graph)), DEFAULT, 2)
    assert not found.exact
    assert found.micros > 0
    assert best_order(Costs(graph, predict(graph)), DEFAULT, 2, 4) is None


def test_more_segments_are_not_slower_than_the_mean_allows():
    graph = resnet101()
    costs = Costs(graph, predict(graph))
    bounds = [interval_bound(costs, DEFAULT, count).micros for count in range(1, 9)]
    assert bounds == sorted(bounds, reverse=True)
