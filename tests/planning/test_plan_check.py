"""The check of plans, sizes put right by measurement, and segments at cuts of any kind."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcut.analysis.candidates import analyse
from graphcut.planning.make_plan import (
    BrokenPlanError,
    PlanOptions,
    check,
    corrected,
    plan,
    smallest_feasible_budget,
    whole_bytes,
)
from graphcut.planning.segments import segments
from graphcut.prediction.sizes import Sizes
from graphcut.records import Graph, Plan
from tests.support.graphs import Builder, chains, dags, residual_chain, sizes_of

GRAPH = residual_chain(4)
ANALYSIS = analyse(GRAPH)
SIZES = sizes_of(GRAPH)
GOOD = plan(ANALYSIS, SIZES, PlanOptions(budget_bytes=11_500))


def with_segment(place: int, **fields: Any) -> Plan:
    changed = list(GOOD.segments)
    changed[place] = replace(changed[place], **fields)
    return replace(GOOD, segments=tuple(changed))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (with_segment(1, index=3), "segment 2 is numbered 3"),
        (with_segment(1, start=11), "segment 2 starts at node 11, not 10"),
        (with_segment(1, stop=19), "the last segment ends at node 19 of 20"),
        (with_segment(0, stop=0), "segment 1 contains no node"),
        (with_segment(0, outputs=("b1_add:0",)), "segment 1 does not hand over b1_out:0, which is needed after it"),
        (with_segment(0, outputs=("b1_out:0", "b1_add:0")), "hands over b1_add:0, which nothing after it reads"),
        (with_segment(0, outputs=("b1_out:0", "b3_out:0")), "segment 1 does not produce its output b3_out:0"),
        (with_segment(1, inputs=("in",)), "lacks b1_out:0"),
        (with_segment(0, inputs=("in", "b2_out:0")), "segment 1 reads b2_out:0, which nothing before it produces"),
        (with_segment(0, outputs=("b1_out:0", "b1_out:0")), "segment 1 lists b1_out:0 twice"),
        (
            replace(GOOD, candidates=(replace(GOOD.candidates[0], tensors=("b1_out:0", "in")),)),
            "is not what crosses after segment 1: b1_out:0",
        ),
        (with_segment(1, inputs=("b1_out:0", "in")), "segment 2 reads in but does not use it"),
        (with_segment(1, outputs=()), "no segment produces the model's output b3_out:0"),
        (with_segment(1, input_layers=("b1_out:0",)), "segment 2 misnames its inputs"),
        (with_segment(1, output_layers=()), "segment 2 misnames its outputs"),
        (with_segment(1, tflite_bytes=5), "segment 2 is recorded with 5 bytes, not 11000"),
        (with_segment(1, weight_bytes=5), "bytes of weights, the whole 8000"),
        (replace(GOOD, budget_bytes=10_000), "segment 1 has 11000 bytes; the budget is 10000"),
        (replace(GOOD, candidates=()), "0 cuts for 2 segments"),
        (replace(GOOD, candidates=ANALYSIS.candidates[:1]), "is at 4, but segment 1 ends at 10"),
        (replace(GOOD, candidates=(replace(GOOD.candidates[0], merged=False),)), "not a candidate of the analysis"),
        (replace(GOOD, minimal_k=1), "greedy needs 2 segments where 1 are sufficient"),
        (replace(GOOD, lower_bound=3), "lower bound 3, minimum 2, K 2 are not in order"),
        (replace(GOOD, minimal_k=None), "there is a budget without bounds"),
        (replace(GOOD, budget_bytes=None), "there are bounds without a budget"),
    ],
)
def test_a_broken_plan_is_named(broken: Plan, says: str) -> None:
    check(GOOD, ANALYSIS, SIZES)
    with pytest.raises(BrokenPlanError) as raised:
        check(broken, ANALYSIS, SIZES)
    assert says in str(raised.value)


def test_sizes_that_do_not_add_up_are_named() -> None:
    longer = replace(SIZES, prefix_bytes=(*SIZES.prefix_bytes[:-1], SIZES.prefix_bytes[-1] + 9))
    with pytest.raises(BrokenPlanError, match="11000 bytes, not 11009"):
        check(GOOD, ANALYSIS, longer)


@given(chains(), st.data())
def test_corrected_sizes_are_the_measured_ones(model: tuple[Graph, Sizes], data: st.DataObject) -> None:
    graph, sizes = model
    analysis = analyse(graph)
    budget = max(smallest_feasible_budget(analysis, sizes), whole_bytes(sizes) // 3, 1)
    made = plan(analysis, sizes, PlanOptions(budget_bytes=budget))
    measured = [data.draw(st.integers(0, 2 * segment.tflite_bytes + 5)) for segment in made.segments]
    right = corrected(sizes, made, measured)
    assert [right.segment_bytes(segment.start, segment.stop) for segment in made.segments] == measured
    assert sorted(right.prefix_bytes) == list(right.prefix_bytes)
    assert (len(right.prefix_bytes), right.prefix_bytes[0]) == (len(sizes.prefix_bytes), 0)
    assert right.prefix_weights == sizes.prefix_weights


@given(chains())
def test_sizes_that_were_right_stay(model: tuple[Graph, Sizes]) -> None:
    graph, sizes = model
    budget = max(smallest_feasible_budget(analyse(graph), sizes), 1)
    made = plan(analyse(graph), sizes, PlanOptions(budget_bytes=budget))
    assert corrected(sizes, made, [segment.tflite_bytes for segment in made.segments]) == sizes


def test_a_plan_that_came_out_too_large_is_repaired() -> None:
    measured = [segment.tflite_bytes + 700 for segment in GOOD.segments]
    assert max(measured) > 11_500
    again = plan(ANALYSIS, corrected(SIZES, GOOD, measured), PlanOptions(budget_bytes=11_500))
    assert again.k == 4
    with pytest.raises(ValueError, match="1 measured sizes for 2 segments"):
        corrected(SIZES, GOOD, measured[:1])


@given(dags(), st.data())
def test_segments_at_any_positions_fit_each_other(graph: Graph, data: st.DataObject) -> None:
    positions = sorted(data.draw(st.sets(st.sampled_from(range(len(graph.nodes))), max_size=4)) - {0})
    made = segments(graph, positions, sizes_of(graph))
    delivered: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    for segment in made:
        assert delivered.keys() >= set(segment.inputs)
        nodes = graph.nodes[segment.start : segment.stop]
        assert {*segment.inputs} <= {name for node in nodes for name in node.inputs}
        known = {*segment.inputs, *graph.weights}
        for node in nodes:
            assert known.issuperset(node.inputs)
            known.update(node.outputs)
        own = {name for node in nodes for name in node.outputs}
        assert own >= set(segment.outputs)
        assert not delivered.keys() & set(segment.outputs), "every tensor leaves the one segment that makes it"
        assert len(set(segment.outputs)) == len(segment.outputs)
        delivered |= dict.fromkeys(segment.outputs, segment.index)
    assert delivered.keys() >= set(graph.outputs)
    assert [segment.start for segment in made] == [0, *positions]


def test_a_tensor_that_skips_a_segment_is_no_part_of_it() -> None:
    build = Builder()
    first = build.conv(build.input("in"), "a")
    second = build.conv(first, "b")
    early = build.node("Relu", [second], "early")
    third = build.conv(second, "c")
    last = build.node("Add", [third, first], "end")
    graph = build.graph(early, last)
    made = segments(graph, [1, 3, 4], sizes_of(graph))
    assert [segment.inputs for segment in made] == [("in",), ("a",), ("b",), ("a", "c")]
    assert [segment.outputs for segment in made] == [("a",), ("b", "early"), ("c",), ("end",)]


def test_a_late_input_of_the_model_goes_to_the_segment_that_reads_it() -> None:
    build = Builder()
    first = build.conv(build.input("in"), "a")
    last = build.node("Add", [first, build.input("late")], "end")
    made = segments(build.graph(last), [1], sizes_of(build.graph(last)))
    assert [segment.inputs for segment in made] == [("in",), ("a", "late")]
    assert made[0].outputs == ("a",)
