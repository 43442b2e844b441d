"""Plans of every strategy against exhaustive search, and what is said where there is none."""

import re
import time
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphcut.analysis.candidates import analyse
from graphcut.errors import InfeasibleError, UsageError
from graphcut.planning.exact import _most_even, smallest_limit
from graphcut.planning.make_plan import plan, smallest_feasible_budget, whole_bytes
from graphcut.planning.places import Places, places
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.size_range import _floor, _rests, _walk
from graphcut.prediction.sizes import Sizes, predict
from graphcut.records import Analysis, Graph, Plan
from graphcut.units import MIB
from tests.support.graphs import Builder, chains, dense_chain, from_nodes, residual_chain, resnet101, sizes_of

REFERENCE = ["conv4_block4_out", "conv4_block10_out", "conv4_block16_out", "conv4_block22_out"]
REFERENCE += ["conv5_block1_out", "conv5_block2_out"]


def allowed(analysis: Analysis) -> list[int]:
    return [candidate.position for candidate in analysis.candidates if not candidate.pre_activation]


def bytes_of(sizes: Sizes, cuts: tuple[int, ...]) -> list[int]:
    end = len(sizes.prefix_bytes) - 1
    return [sizes.segment_bytes(start, stop) for start, stop in pairwise((0, *cuts, end))]


def every_choice(positions: list[int]) -> Iterator[tuple[int, ...]]:
    for count in range(len(positions) + 1):
        yield from combinations(positions, count)


def fewest_of_all(positions: list[int], sizes: Sizes, high: int, low: int = 0) -> int | None:
    for cuts in every_choice(positions):
        if all(low <= size <= high for size in bytes_of(sizes, cuts)):
            return len(cuts) + 1
    return None


def usable(analysis: Analysis, sizes: Sizes) -> Places:
    return places(analysis, sizes, lambda candidate: not candidate.pre_activation)


def seg_bytes(made: Plan) -> list[int]:
    return [segment.tflite_bytes for segment in made.segments]


# --- greedy -----------------------------------------------------------------------------------------------------------


@given(chains(), st.floats(0.02, 1.1))
def test_greedy_needs_as_few_segments_as_any_choice(model: tuple[Graph, Sizes], share: float) -> None:
    graph, sizes = model
    analysis = analyse(graph)
    budget = max(1, int(share * whole_bytes(sizes)))
    best = fewest_of_all(allowed(analysis), sizes, budget)
    if best is None:
        assert budget < smallest_feasible_budget(analysis, sizes)
        with pytest.raises(InfeasibleError):
            plan(analysis, sizes, PlanOptions(budget_bytes=budget))
        return
    made = plan(analysis, sizes, PlanOptions(budget_bytes=budget))
    assert made.k == made.minimal_k == best
    assert max(seg_bytes(made)) <= budget
    assert not any(candidate.pre_activation for candidate in made.candidates)


@given(chains(max_nodes=9), st.floats(0.02, 1.1))
def test_no_plan_at_all_has_fewer_segments_than_the_lower_bound(model: tuple[Graph, Sizes], share: float) -> None:
    graph, sizes = model
    analysis = analyse(graph)
    budget = max(1, int(share * whole_bytes(sizes)))
    assume(budget >= smallest_feasible_budget(analysis, sizes))
    made = plan(analysis, sizes, PlanOptions(budget_bytes=budget))
    anywhere = fewest_of_all(list(range(1, len(graph.nodes))), sizes, budget)
    assert made.lower_bound is not None
    assert made.minimal_k is not None
    assert anywhere is not None
    assert made.lower_bound <= anywhere <= made.minimal_k


@given(chains(), st.floats(0.1, 1.1))
def test_greedy_cuts_at_the_last_candidate_or_in_its_group(model: tuple[Graph, Sizes], share: float) -> None:
    graph, sizes = model
    analysis = analyse(graph)
    budget = max(1, smallest_feasible_budget(analysis, sizes), int(share * whole_bytes(sizes)))
    made = plan(analysis, sizes, PlanOptions(budget_bytes=budget))
    here, walked = 0, []
    end = len(graph.nodes)
    while sizes.segment_bytes(here, end) > budget:
        here = max(place for place in allowed(analysis) if sizes.segment_bytes(here, place) <= budget)
        walked.append(here)
    by_position = {candidate.position: candidate for candidate in analysis.candidates}
    assert len(walked) == len(made.candidates)
    for cut, last in zip(made.candidates, walked, strict=True):
        wanted = by_position[last]
        between = range(*sorted((cut.position, last)))
        passed = [
            graph.weights[name] for index in between for name in graph.nodes[index].inputs if name in graph.weights
        ]
        assert all(weight.elements <= 1 for weight in passed)
        assert (not cut.downsampled, cut.int8_bytes) <= (not wanted.downsampled, wanted.int8_bytes)


def test_a_budget_above_the_whole_gives_one_segment() -> None:
    graph = residual_chain(3)
    made = plan(analyse(graph), sizes_of(graph), PlanOptions(budget_bytes=whole_bytes(sizes_of(graph))))
    assert (made.k, made.cuts, made.minimal_k, made.lower_bound) == (1, (), 1, 1)
    assert made.segments[0].inputs == graph.inputs
    assert made.segments[0].outputs == graph.outputs


def test_a_pool_behind_the_last_candidate_is_preferred_and_a_pad_is_not() -> None:
    build = Builder()
    last = build.conv(build.input("in"), "a:0", 50, (1, 8, 12, 12))
    last = build.node("MaxPool", [last], "a_pool:0", shape=(1, 8, 6, 6))
    last = build.node("Pad", [last], "a_pad:0", shape=(1, 8, 7, 7))
    last = build.conv(last, "b:0", 50)
    graph = build.graph(build.node("Softmax", [last], "end:0"))
    for extra in (0, 1, 2, 3):  # the budget reaches to a, a_pool, a_pad and beyond
        sizes = from_nodes([50, 1, 1, 50, 0], [50, 0, 0, 50, 0], 10)
        made = plan(analyse(graph), sizes, PlanOptions(budget_bytes=62 + extra))
        assert made.cuts == ("a_pool",)


def test_the_reference_result() -> None:
    graph = resnet101()
    assert sum(weight.elements for weight in graph.weights.values()) == 44_496_488  # 44,707,176 before folding
    analysis, sizes = analyse(graph), predict(graph)
    made = plan(analysis, sizes, PlanOptions(budget_bytes=7 * MIB))
    assert list(made.cuts) == REFERENCE
    assert (made.k, made.minimal_k, made.lower_bound) == (7, 7, 7)
    assert [candidate.shape for candidate in made.candidates] == [(1, 1024, 14, 14)] * 4 + [(1, 2048, 7, 7)] * 2
    assert all(candidate.merged and candidate.downsampled for candidate in made.candidates)
    assert 6.9 * MIB < max(seg_bytes(made)) <= 7 * MIB


def test_a_block_above_the_budget_is_named_with_ways_out() -> None:
    graph = resnet101()
    analysis, sizes = analyse(graph), predict(graph)
    with pytest.raises(InfeasibleError) as raised:
        plan(analysis, sizes, PlanOptions(budget_bytes=3 * MIB))
    said = str(raised.value)
    assert re.match(
        r"block conv4_block23_out \.\. conv5_block1_out needs 5\.[89]\d\d MiB and contains no place to cut", said
    )
    assert "the budget is 3.000 MiB (2 more blocks exceed it): raise budget to at least 5." in said
    assert "segments" in said
    enough = smallest_feasible_budget(analysis, sizes)
    assert plan(analysis, sizes, PlanOptions(budget_bytes=enough)).k >= 8
    with pytest.raises(InfeasibleError):
        plan(analysis, sizes, PlanOptions(budget_bytes=enough - 1))


# --- balanced ---------------------------------------------------------------------------------------------------------


@given(chains(max_nodes=10), st.integers(1, 10))
def test_the_largest_balanced_segment_is_as_small_as_any(model: tuple[Graph, Sizes], count: int) -> None:
    graph, sizes = model
    analysis = analyse(graph)
    positions = allowed(analysis)
    options = PlanOptions(strategy="balanced", segments=count)
    if count > len(positions) + 1:
        with pytest.raises(InfeasibleError, match=f"lower segments to at most {len(positions) + 1}"):
            plan(analysis, sizes, options)
        return
    made = plan(analysis, sizes, options)
    assert made.k == count
    assert max(seg_bytes(made)) == min(max(bytes_of(sizes, cuts)) for cuts in combinations(positions, count - 1))
    assert (made.budget_bytes, made.minimal_k, made.lower_bound) == (None, None, None)


@given(chains(), st.integers(1, 8))
def test_of_equally_large_ones_the_most_even_is_taken(model: tuple[Graph, Sizes], count: int) -> None:
    graph, sizes = model
    at = usable(analyse(graph), sizes)
    assume(count <= at.end)

    def cost(cuts: tuple[int, ...]) -> tuple[int, int, int]:
        parts = [at.size(start, stop) for start, stop in pairwise((0, *cuts, at.end))]
        handed = sum(at.candidates[cut - 1].int8_bytes for cut in cuts)
        return max(parts), sum(part * part for part in parts), handed

    best = min(map(cost, combinations(range(1, at.end), count - 1)))
    limit = smallest_limit(at, count)
    assert cost(_most_even(at, count, limit)) == best


@given(chains(), st.floats(0.1, 1.1))
def test_balanced_under_a_budget_takes_the_fewest_segments(model: tuple[Graph, Sizes], share: float) -> None:
    graph, sizes = model
    analysis = analyse(graph)
    budget = max(1, smallest_feasible_budget(analysis, sizes), int(share * whole_bytes(sizes)))
    made = plan(analysis, sizes, PlanOptions(strategy="balanced", budget_bytes=budget))
    assert made.k == made.minimal_k
    assert max(seg_bytes(made)) <= max(seg_bytes(plan(analysis, sizes, PlanOptions(budget_bytes=budget))))


def test_too_few_segments_for_a_budget_name_both_ways_out() -> None:
    graph = resnet101()
    options = PlanOptions(strategy="balanced", segments=3, budget_bytes=7 * MIB)
    with pytest.raises(InfeasibleError, match=r"at least 7 are needed: raise segments to 7 or budget to 1[0-9.]+MiB"):
        plan(analyse(graph), predict(graph), options)


# --- range ------------------------------------------------------------------------------------------------------------


@given(chains(max_nodes=10), st.floats(0.05, 1.1), st.floats(0.0, 1.0))
def test_a_range_is_kept_where_it_can_be(model: tuple[Graph, Sizes], share: float, floor: float) -> None:
    graph, sizes = model
    analysis = analyse(graph)
    high = max(2, smallest_feasible_budget(analysis, sizes), int(share * whole_bytes(sizes)))
    low = max(1, min(high - 1, int(floor * high)))
    made = plan(analysis, sizes, PlanOptions(strategy="range", range_bytes=(low, high)))
    assert max(seg_bytes(made)) <= high
    best = fewest_of_all(allowed(analysis), sizes, high, low)
    if best is None:
        assert made.k == made.minimal_k
        choices = [bytes_of(sizes, cuts) for cuts in combinations(allowed(analysis), made.k - 1)]
        aim = max(min(sized) for sized in choices if max(sized) <= high)
        assert _floor(usable(analysis, sizes), low, high, made.k) == aim
    else:
        assert made.k == best
        assert min(seg_bytes(made)) >= low


@given(chains(), st.integers(1, 8))
def test_without_need_for_a_fall_back_the_nearest_to_the_running_average_wins(
    model: tuple[Graph, Sizes], count: int
) -> None:
    graph, sizes = model
    at = usable(analyse(graph), sizes)
    assume(count <= at.end)
    whole = at.size(0, at.end)
    here, nearest = 0, []
    for left in range(count, 1, -1):
        target = (at.content[-1] - at.content[here]) / left
        choice = range(here + 1, at.end - left + 2)
        distance = {place: abs(at.content[place] - at.content[here] - target) * left for place in choice}
        closest = [place for place in choice if distance[place] <= min(distance.values()) + 1e-6]
        here = min(closest, key=lambda place: (at.candidates[place - 1].int8_bytes, -place))
        nearest.append(here)
    assert _walk(at, count, 0, whole) == tuple(nearest)
    assert _rests(at, 0, whole, count)[count][0]


def test_both_fall_backs_of_the_range() -> None:
    build = Builder()
    last = build.input("in")
    for index in range(6):
        last = build.conv(last, f"c{index}:0", 10)
    graph = build.graph(last)

    def cuts(node_bytes: list[int], low: int, high: int, count: int) -> list[int]:
        options = PlanOptions(strategy="range", range_bytes=(low, high), segments=count)
        made = plan(analyse(graph), from_nodes(node_bytes, [10] * 6, 0), options)
        return [candidate.position for candidate in made.candidates]

    assert cuts([10, 10, 10, 10, 10, 10], 15, 25, 3) == [2, 4]  # the average, 20
    # Nearest to 60 / 3 is behind the second node (24), but HIGH is 23: the end moves to behind the first (14).
    assert cuts([14, 10, 13, 12, 6, 5], 10, 23, 3) == [1, 3]
    # Nearest to 61 / 3 is behind the second node (20), but it leaves 4, 33, 2, 2, which two segments of 36 cannot hold.
    assert cuts([10, 10, 4, 33, 2, 2], 4, 36, 3) == [3, 4]


def test_near_the_end_lower_ranks_are_taken_and_elsewhere_not() -> None:
    graph = resnet101()
    sizes = predict(graph)
    options = PlanOptions(strategy="range", range_bytes=(int(1.5 * MIB), 6 * MIB))
    low_rank = plan(analyse(graph, min_rank=2), sizes, options)
    assert max(seg_bytes(low_rank)) <= 6 * MIB
    assert low_rank.cuts[-1] in ("avg_pool", "flatten")
    build = Builder()
    last = build.input("in", (1, 40))
    for index in range(6):
        last = build.node("Gemm", [last, build.weight(f"w{index}", (1, 100))], f"d{index}:0", shape=(1, 40))
    vectors = build.graph(last)
    at_end = PlanOptions(strategy="range", range_bytes=(50, 300), segments=2)
    made = plan(analyse(vectors, min_rank=2), sizes_of(vectors, per_node=0, base=0), at_end)
    assert made.candidates[0].position == 3
    narrow = PlanOptions(strategy="range", range_bytes=(50, 250))
    with pytest.raises(InfeasibleError, match=r"block in \.\. d3 needs 400 B.* raise size_range to at least 400"):
        plan(analyse(vectors, min_rank=2), sizes_of(vectors, per_node=0, base=0), narrow)


def test_a_number_of_segments_that_the_range_cannot_have() -> None:
    graph = residual_chain(6)
    sizes = sizes_of(graph)
    high = smallest_feasible_budget(analyse(graph), sizes)
    options = PlanOptions(strategy="range", range_bytes=(1, high), segments=2)
    with pytest.raises(
        InfeasibleError, match=r"2 segments do not fit within .* raise segments to 6 or size_range to 1"
    ):
        plan(analyse(graph), sizes, options)


# --- given ------------------------------------------------------------------------------------------------------------


def test_named_cuts_come_in_any_order_twice_and_by_either_name() -> None:
    graph = residual_chain(4)
    for names in [
        ("b0_out", "b2_out"),
        ("b2_out:0", "b0_out"),
        ("b2_out", "b0_out:0", "b2_out:0"),
        ("node_b0_out:0", "b2_out"),
    ]:
        made = plan(analyse(graph), sizes_of(graph), PlanOptions(strategy="given", cuts=names))
        assert made.cuts == ("b0_out", "b2_out")
    assert plan(analyse(graph), sizes_of(graph), PlanOptions(strategy="given", cuts=())).k == 1


def test_a_cut_before_an_activation_is_taken_when_it_is_named_or_allowed() -> None:
    graph = residual_chain(4)
    made = plan(analyse(graph), sizes_of(graph), PlanOptions(strategy="given", cuts=("b1_add",)))
    assert made.cuts == ("b1_add",)
    per_block = PlanOptions(budget_bytes=5900, allow_pre_activation=True)
    assert any(cut.endswith("_add") for cut in plan(analyse(graph), sizes_of(graph), per_block).cuts)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("b1_uot", "there is no tensor or layer 'b1_uot': did you mean"),
        ("b1_relu1", "cannot be cut at b1_relu1: b1_relu1 is not a candidate: the path b0_out -> b1_add bypasses it"),
        ("in", "it is an input of the model"),
    ],
)
def test_names_that_are_no_cuts(name: str, says: str) -> None:
    graph = residual_chain(4)
    with pytest.raises(UsageError, match=re.escape(says)):
        plan(analyse(graph), sizes_of(graph), PlanOptions(strategy="given", cuts=("b0_out", name)))


def test_a_named_cut_that_breaks_the_budget_says_where_to_cut_too() -> None:
    graph = residual_chain(4)
    sizes = sizes_of(graph)
    options = PlanOptions(strategy="given", cuts=("b0_out",), budget_bytes=11_500)
    with pytest.raises(
        InfeasibleError, match=r"segment 2 \(b0_out \.\. b3_out\) needs 15.6 KiB.* or cut at b2_out too"
    ):
        plan(analyse(graph), sizes, options)
    tight = PlanOptions(strategy="given", cuts=("b0_out",), budget_bytes=2_000)
    with pytest.raises(InfeasibleError, match=r"raise budget to at least 5\.[0-9]+KiB$"):
        plan(analyse(graph), sizes, tight)


# --- options, speed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "greedy strategy needs .*budget"),
        ({"budget_bytes": 0}, "is not positive"),
        ({"budget_bytes": -5}, "is not positive"),
        ({"budget_bytes": float("nan")}, "not an integer"),
        ({"budget_bytes": 5, "segments": 2}, "does not accept segments"),
        ({"strategy": "balanced"}, "how many segments"),
        ({"strategy": "balanced", "segments": 0}, "is not positive"),
        ({"strategy": "balanced", "segments": 2, "cuts": ("a",)}, "does not accept cuts"),
        ({"strategy": "range"}, "needs size_range"),
        ({"strategy": "range", "range_bytes": (5, 5)}, "is empty"),
        ({"strategy": "range", "range_bytes": (-1, 5)}, "is not positive"),
        ({"strategy": "range", "range_bytes": (1, 5), "budget_bytes": 5}, "does not accept budget"),
        ({"strategy": "given"}, "needs cuts"),
        ({"strategy": "magic", "budget_bytes": 5}, "choose from greedy"),
    ],
)
def test_contradictory_options_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        PlanOptions(**fields)


def test_sizes_of_another_graph_are_a_bug() -> None:
    graph = residual_chain(2)
    with pytest.raises(ValueError, match="sizes of 15 nodes for a graph of 10"):
        plan(analyse(graph), sizes_of(residual_chain(3)), PlanOptions(budget_bytes=MIB))


@pytest.mark.parametrize("graph", [residual_chain(20_000), dense_chain(5_500)], ids=["residual", "dense"])
def test_a_hundred_thousand_nodes_are_planned_in_seconds(graph: Graph) -> None:
    analysis, sizes = analyse(graph), sizes_of(graph)
    whole = whole_bytes(sizes)
    for options in (
        PlanOptions(budget_bytes=whole // 20),
        PlanOptions(strategy="balanced", segments=20),
        PlanOptions(strategy="range", range_bytes=(whole // 30, whole // 15)),
    ):
        begin = time.process_time()
        made = plan(analysis, sizes, options)
        assert time.process_time() - begin < 5  # about 0.8 s on a quiet machine
        assert made.k >= 20 or made.strategy == "range"
