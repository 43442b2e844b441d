"""Seams of several tensors: frontiers, orders, exact plans, and what is offered for which budget."""

from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphcut.analysis.candidates import analyse
from graphcut.analysis.liveness import lifetimes
from graphcut.analysis.orders import combined, orders, reordered
from graphcut.analysis.seams import fits, profile
from graphcut.errors import InfeasibleError, UsageError
from graphcut.planning.exact import cheapest_path
from graphcut.planning.make_plan import plan, whole_bytes
from graphcut.planning.order_choice import Chooser
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import arrange
from graphcut.planning.segment_limits import Limits
from graphcut.prediction.sizes import Sizes
from graphcut.records import Analysis, Graph, Plan
from tests.support.graphs import Builder, dags, from_nodes, residual_chain, sizes_of


def handed_at(graph: Graph, position: int) -> set[str]:
    made = {*graph.inputs, *(name for node in graph.nodes[:position] for name in node.outputs)}
    return made & {name for node in graph.nodes[position:] for name in node.inputs}


def bytes_of(sizes: Sizes, cuts: tuple[int, ...]) -> list[int]:
    end = len(sizes.prefix_bytes) - 1
    return [sizes.segment_bytes(start, stop) for start, stop in pairwise((0, *cuts, end))]


def ladder(depth: int, *, outputs: int = 1) -> Graph:
    """A U: ``depth`` Convs down, as many up, each up reading the one across it; weights grow towards the bottom."""
    build = Builder()
    last = build.input("in")
    skips = []
    for level in range(depth):
        last = build.conv(last, f"down{level}", 100 * (level + 1))
        skips.append(last)
    last = build.conv(last, "bottom", 100 * (depth + 1))
    for level in reversed(range(depth)):
        last = build.node("Concat", [last, skips[level]], f"join{level}")
        last = build.conv(last, f"up{level}", 100 * (level + 1))
    heads = [build.conv(last, f"head{index}", 50) for index in range(outputs)]
    return build.graph(*heads)


def twins(width: int) -> Graph:
    """Branches between one tensor and their Concat, written level by level: no branch ends before all others do."""
    build = Builder()
    ends = [build.conv(build.input("in"), "stem", 10)] * width
    for level in range(3):
        ends = [build.conv(end, f"b{index}_{level}", 100) for index, end in enumerate(ends)]
    return build.graph(build.conv(build.node("Concat", ends, "joined"), "out", 10))


# --- seams of one order -----------------------------------------------------------------------------------------------


@given(dags(), st.integers(1, 4))
def test_seams_are_what_is_made_before_and_read_behind(graph: Graph, most: int) -> None:
    found = dict(lifetimes(graph).seams(graph, most))
    for position in range(1, len(graph.nodes) + 1):
        handed = handed_at(graph, position)
        assert (position in found) == (1 <= len(handed) <= most)
        assert set(found.get(position, handed)) == handed
        assert len(found.get(position, ())) == len(set(found.get(position, ())))


@given(dags(), st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_candidates_of_several_tensors_are_the_positions_where_all_of_them_fit(
    graph: Graph, most: int, min_rank: int
) -> None:
    candidates = analyse(graph, min_rank=min_rank, max_seam_tensors=most).candidates
    inner = range(1, len(graph.nodes))
    fitting = [
        position
        for position in inner
        if 1 <= len(handed_at(graph, position)) <= most
        and all(fits(graph, name, min_rank) for name in handed_at(graph, position))
    ]
    assert [candidate.position for candidate in candidates] == fitting
    assert len({candidate.layer for candidate in candidates}) == len(candidates)
    for candidate in candidates:
        assert set(candidate.tensors) == handed_at(graph, candidate.position)
        assert candidate.int8_bytes == sum(graph.tensors[name].elements for name in candidate.tensors)
        assert candidate.layers == tuple(graph.layers[name] for name in candidate.tensors)
    assert profile(graph).positions(most, min_rank, allow_fused=True).tolist() == fitting
    unfused = [candidate.position for candidate in candidates if not candidate.pre_activation]
    assert profile(graph).positions(most, min_rank).tolist() == unfused


@given(dags(), st.integers(0, 2**32))
def test_a_seam_of_one_tensor_is_the_same_in_every_order_of_a_graph_with_one_output(graph: Graph, seed: int) -> None:
    assume(len(graph.outputs) == 1 and all(node.inputs for node in graph.nodes))
    chosen = orders(graph)[seed % len(orders(graph))]
    one = analyse(reordered(graph, chosen), max_seam_tensors=1).candidates
    several_inputs = [each for each in one if each.tensors[0] in graph.inputs]
    assert tuple(each for each in one if each not in several_inputs) == analyse(graph).candidates


def test_an_early_output_does_not_count_at_a_seam() -> None:
    build = Builder()
    first = build.conv(build.input("in"), "a")
    early = build.conv(first, "early")
    last = build.conv(build.conv(first, "b"), "end")
    graph = build.graph(early, last)
    assert [each.layer for each in analyse(graph).candidates] == ["a"]
    assert [each.layer for each in analyse(graph, max_seam_tensors=1).candidates] == ["a", "a@early", "b"]
    made = plan(analyse(graph, max_seam_tensors=1), sizes_of(graph), PlanOptions(strategy="given", cuts=("a@early",)))
    assert [segment.outputs for segment in made.segments] == [("a", "early"), ("end",)]


def test_an_output_that_is_read_later_is_handed_over_too() -> None:
    build = Builder()
    first = build.conv(build.input("in"), "a")
    last = build.conv(first, "end")
    graph = build.graph(first, last)
    made = plan(analyse(graph, max_seam_tensors=1), sizes_of(graph), PlanOptions(strategy="given", cuts=("a",)))
    assert [segment.outputs for segment in made.segments] == [("a",), ("end",)]
    assert made.segments[1].inputs == ("a",)


# --- orders -----------------------------------------------------------------------------------------------------------


@given(dags(max_nodes=20))
def test_every_order_is_topological(graph: Graph) -> None:
    found = orders(graph)
    assert found[0] == tuple(range(len(graph.nodes)))
    for order in found:
        assert sorted(order) == list(found[0])
        lifetimes(reordered(graph, order))  # raises where a node comes before what it reads


@given(dags(max_nodes=16), st.data())
def test_blocks_of_different_orders_go_together(graph: Graph, data: st.DataObject) -> None:
    counts = lifetimes(graph).counts
    bounds = [0, *(place for place in range(1, len(graph.nodes)) if counts[place] == 1), len(graph.nodes)]
    choices = orders(graph)
    chosen = [data.draw(st.integers(0, len(choices) - 1)) for _ in bounds[1:]]
    order = combined(choices, bounds, chosen)
    assert sorted(order) == list(range(len(graph.nodes)))
    lifetimes(reordered(graph, order))


def test_an_order_that_ends_branches_needs_narrower_seams_than_the_file_s() -> None:
    graph = twins(4)
    limit = 1000 + 6 * 700 + 610 + 600  # two branches, their Concat and the last Conv
    own = analyse(graph, max_seam_tensors=3)
    with pytest.raises(InfeasibleError):
        plan(own, sizes_of(graph), PlanOptions(budget_bytes=limit))
    arranged = arrange(graph, PlanOptions(budget_bytes=limit), sizes_of)
    assert arranged.analysis.graph.nodes != graph.nodes
    assert arranged.analysis.max_seam_tensors == 3
    made = plan(arranged.analysis, arranged.sizes, PlanOptions(budget_bytes=limit))
    assert max(segment.tflite_bytes for segment in made.segments) <= limit


# --- plans ------------------------------------------------------------------------------------------------------------


@given(dags(max_nodes=9), st.integers(1, 3), st.floats(0.1, 1.0))
def test_plans_equal_exhaustive_search_over_the_positions_of_their_order(graph: Graph, most: int, share: float) -> None:
    sizes = sizes_of(graph, per_node=40, base=5)
    analysis = analyse(graph, min_rank=2, max_seam_tensors=most)
    budget = max(1, int(share * whole_bytes(sizes)))
    usable = {each.position: each for each in analysis.candidates if not each.pre_activation}
    best: tuple[int, int, int] | None = None
    for count in range(len(usable) + 1):
        for cuts in combinations(usable, count):
            if max(bytes_of(sizes, cuts)) <= budget:
                seams = [usable[cut] for cut in cuts]
                cost = count + 1, sum(each.int8_bytes for each in seams), sum(len(each.tensors) for each in seams)
                best = cost if best is None else min(best, cost)
    options = PlanOptions(budget_bytes=budget)
    if best is None:
        with pytest.raises(InfeasibleError, match="block"):
            plan(analysis, sizes, options)
        return
    made = plan(analysis, sizes, options)
    assert made.k == made.minimal_k == best[0]
    assert made.max_seam_tensors == most
    if any(len(each.tensors) > 1 for each in usable.values()):
        assert sum(each.int8_bytes for each in made.candidates) == best[1]
        assert sum(len(each.tensors) for each in made.candidates) == best[2]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8), st.integers(1, 30))
def test_the_cheapest_path_is_the_cheapest(steps: list[tuple[int, int]], room: int) -> None:
    content = [0]
    for weight, _ in steps:
        content.append(content[-1] + weight)
    handed = [(cost, 1) for _, cost in steps[:-1]]
    choices = [
        (len(cuts) + 1, sum(handed[cut - 1][0] for cut in cuts), len(cuts))
        for count in range(len(steps))
        for cuts in combinations(range(1, len(steps)), count)
        if all(content[stop] - content[start] <= room for start, stop in pairwise((0, *cuts, len(steps))))
    ]
    found = cheapest_path(content, room, handed)
    assert (None if found is None else found[0]) == min(choices, default=None)


# --- what is offered --------------------------------------------------------------------------------------------------


def planned(graph: Graph, options: PlanOptions, per_node: int = 40) -> tuple[Analysis, Plan]:
    arranged = arrange(graph, options, lambda each: sizes_of(each, per_node=per_node, base=5))
    return arranged.analysis, plan(arranged.analysis, arranged.sizes, options)


@given(dags(max_nodes=9), st.floats(0.1, 1.0))
def test_as_few_tensors_are_offered_as_any_order_needs(graph: Graph, share: float) -> None:
    sizes = sizes_of(graph, per_node=40, base=5)
    budget = max(1, int(share * whole_bytes(sizes)))
    node_bytes = [after - before for before, after in pairwise(sizes.prefix_bytes)]

    def fewest_segments(most: int, rank: int) -> int | None:
        """The fewest segments of any single order with seams of up to so many tensors."""
        found = []
        for order in orders(graph):
            prefix = from_nodes([node_bytes[index] for index in order], [0] * len(order), 5)
            positions = profile(reordered(graph, order)).positions(most, rank).tolist()
            content = [prefix.prefix_bytes[position] for position in (0, *positions, len(order))]
            path = cheapest_path(content, budget - 5, [(0, 0)] * len(positions))
            found += [] if path is None else [path[0][0]]
        return min(found, default=None)

    widest = max(profile(reordered(graph, order)).widest for order in orders(graph))
    options = PlanOptions(budget_bytes=budget, layer_split=False)
    try:
        analysis, made = planned(graph, options)
    except InfeasibleError:
        assert all(fewest_segments(most, 2) is None for most in range(1, widest + 1))
        return
    assert made.max_seam_tensors == analysis.max_seam_tensors
    for fewer in range(1, made.max_seam_tensors):
        assert fewest_segments(fewer, 2) is None
    if made.max_seam_tensors > 1:
        alone = fewest_segments(made.max_seam_tensors, made.min_rank)
        assert alone is None or made.k <= alone


def test_one_tensor_stays_the_default_where_it_is_enough() -> None:
    graph = residual_chain(6)
    analysis, made = planned(graph, PlanOptions(budget_bytes=5000))
    assert (analysis, made.max_seam_tensors, made.seam_tensors) == (analyse(graph), 1, 1)


@pytest.mark.parametrize(("depth", "tensors"), [(1, 2), (3, 4)])
def test_a_u_needs_one_tensor_a_skip_and_says_so(depth: int, tensors: int) -> None:
    graph = ladder(depth)
    options = PlanOptions(budget_bytes=5 + 40 + 100 * (depth + 1))
    arranged = arrange(graph, options, lambda each: sizes_of(each, per_node=40, base=5))
    assert arranged.analysis.max_seam_tensors == tensors
    (said,) = arranged.notes
    assert said.startswith(f"seams of up to {tensors} tensors: with {tensors - 1} a segment would need")


def test_too_few_tensors_are_refused_with_the_number_that_would_do() -> None:
    options = PlanOptions(budget_bytes=450, max_seam_tensors=2)
    with pytest.raises(InfeasibleError, match=r"allow seams of 4 tensors with max_seam_tensors=4, or choose the most"):
        planned(ladder(3), options)
    analysis, made = planned(ladder(3), PlanOptions(budget_bytes=450, max_seam_tensors=5))
    assert analysis.max_seam_tensors == 5
    assert made.seam_tensors == 4


def test_segments_that_single_tensors_cannot_give_are_cut_with_several() -> None:
    graph = ladder(2)
    analysis, made = planned(graph, PlanOptions(strategy="balanced", segments=6))
    assert made.k == 6
    assert analysis.max_seam_tensors == 2
    with pytest.raises(InfeasibleError, match="only"):
        planned(graph, PlanOptions(strategy="balanced", segments=100))


def test_lower_ranks_are_offered_before_more_tensors() -> None:
    build = Builder()
    flat = build.node("Flatten", [build.conv(build.input("in"), "a", 100)], "flat", shape=(1, 288))
    for index in range(3):
        flat = build.node("Gemm", [flat, build.weight(f"w{index}", (1, 100))], f"fc{index}", shape=(1, 100))
    graph = build.graph(flat)
    arranged = arrange(graph, PlanOptions(budget_bytes=245), lambda each: sizes_of(each, per_node=40, base=5))
    assert (arranged.analysis.min_rank, arranged.analysis.max_seam_tensors) == (2, 1)
    assert arranged.notes == ("cuts at tensors of rank 2 too: feature maps alone are not sufficient",)
    with pytest.raises(InfeasibleError):
        arrange(graph, PlanOptions(budget_bytes=245), lambda each: sizes_of(each, per_node=40, base=5), 4)


def test_the_choice_of_an_order_counts_segments_before_bytes() -> None:
    graph = ladder(3, outputs=2)
    chooser = Chooser(graph, sizes_of(graph, per_node=40, base=5), allow_fused=False)
    assert chooser.widest >= 4
    assert chooser.least(1, 4) > chooser.least(4, 4)
    for limit in (500, None):
        best = chooser.best(4, 4, limit)
        assert {node.name for node in best.nodes} == {node.name for node in graph.nodes}


# --- named cuts -------------------------------------------------------------------------------------------------------


@given(dags(max_nodes=9), st.floats(0.1, 0.9))
def test_printed_cuts_can_be_named_again(graph: Graph, share: float) -> None:
    budget = max(1, int(share * whole_bytes(sizes_of(graph, per_node=40, base=5))))
    try:
        _, made = planned(graph, PlanOptions(budget_bytes=budget, layer_split=False))
    except InfeasibleError:
        assume(False)
    _, again = planned(graph, PlanOptions(strategy="given", cuts=made.cuts))
    assert [set(each.tensors) for each in again.candidates] == [set(each.tensors) for each in made.candidates]


def test_several_tensors_are_named_in_any_order_and_by_either_name() -> None:
    graph = residual_chain(2)
    for name in ("in+b0_relu1", "b0_relu1:0+in"):
        _, made = planned(graph, PlanOptions(strategy="given", cuts=(name, "b0_out")))
        assert made.cuts == ("in+b0_relu1", "b0_out")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("b0_relu1+b1_relu1", "cannot be cut at b0_relu1.b1_relu1: at no position are exactly these tensors alive"),
        ("b0_relu1+nothing", "there is no tensor or layer 'nothing'"),
        ("b0_relu1", "b0_relu1 is not a candidate: the path in -> b0_add bypasses it"),
    ],
)
def test_seams_that_are_nowhere_are_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        planned(residual_chain(2), PlanOptions(strategy="given", cuts=(name,)))


def test_a_named_seam_wider_than_allowed_is_refused() -> None:
    options = PlanOptions(strategy="given", cuts=("in+b0_relu1",), max_seam_tensors=1)
    with pytest.raises(UsageError, match=r"in\+b0_relu1 hands over 2 tensors, but max_seam_tensors is 1: allow 2"):
        planned(residual_chain(2), options)


def test_a_pinned_seam_of_several_tensors_is_cut() -> None:
    _, made = planned(residual_chain(4), PlanOptions(budget_bytes=9000, pins=("b0_out+b1_relu1",)))
    assert "b0_out+b1_relu1" in made.cuts


@pytest.mark.parametrize(
    "fields",
    [
        {"limits": Limits(macs=1)},
        {"budget_bytes": 10_000, "strategy": "fewest", "limits": Limits(activation_bytes=1)},
    ],
)
def test_limits_that_no_seam_can_keep_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InfeasibleError, match="contains no place to cut") as refused:
        planned(graph_with_maps(), PlanOptions(**fields))
    assert "wider" not in refused.value.way_out


def test_more_tensors_are_offered_where_a_limit_asks_for_them() -> None:
    graph = graph_with_maps()
    limits = Limits(parameter_bytes=500)
    with pytest.raises(InfeasibleError, match="contains no place to cut"):
        planned(graph, PlanOptions(limits=limits, max_seam_tensors=1))
    for strategy in ("greedy", "fewest"):
        analysis, made = planned(graph, PlanOptions(strategy=strategy, limits=limits))
        assert (analysis.max_seam_tensors, made.k, made.seam_tensors) == (2, 3, 2)
    arranged = arrange(graph, PlanOptions(limits=limits), sizes_of)
    assert arranged.notes[0] == "seams of up to 2 tensors: with fewer, the constraints cannot be satisfied"


def test_more_tensors_are_offered_where_cuts_are_to_be_avoided() -> None:
    graph = residual_chain(6)
    budget = PlanOptions(budget_bytes=5000)
    _, made = planned(graph, budget)
    assert made.k > 1
    avoid = tuple(each.layer for each in analyse(graph).candidates)
    analysis, other = planned(graph, PlanOptions(budget_bytes=5000, avoid=avoid))
    assert analysis.max_seam_tensors == 2
    assert not set(other.cuts) & set(avoid)
    # What is nowhere with so few tensors cannot be cut there, so to avoid it is no error; a slip of the pen is one.
    _, again = planned(graph, PlanOptions(budget_bytes=5000, avoid=(other.cuts[0],)))
    assert again.cuts == made.cuts
    with pytest.raises(UsageError, match="no tensor or layer"):
        planned(graph, PlanOptions(budget_bytes=5000, avoid=("nowhere",)))


def graph_with_maps() -> Graph:
    """Three convolutions of real shape with a skip across all of them."""
    build = Builder()
    start = last = build.input("in", (1, 8, 6, 6))
    for index in range(3):
        weight = build.weight(f"w{index}", (16 if index < 2 else 8, 16 if index else 8, 1, 1))
        last = build.node("Conv", [last, weight], f"t{index}", shape=(1, 16 if index < 2 else 8, 6, 6))
    return build.graph(build.node("Add", [last, start], "end", shape=(1, 8, 6, 6)))
