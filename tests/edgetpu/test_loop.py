"""The loop of planning and compiling, with a greedy planner and a compiler that streams by a scripted rule."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.edgetpu import compiled, output
from graphcut.edgetpu.compiler import CompileResult, CompileSuccess
from graphcut.edgetpu.failures import CompileFailure
from graphcut.edgetpu.loop import Closed, Wish, close, inflated, respected, twins
from graphcut.errors import InfeasibleError
from graphcut.records import Candidate, Plan, Segment
from tests.support.compiled_files import compiled_file

PRINTED = output.parse("")


class Bench:
    """A chain of blocks (a convolution and its activation each), a greedy planner and a scripted compiler.

    ``rule`` gives the bytes that a run (start, stop) streams, or the kind of a failure.
    """

    def __init__(self, weights: Sequence[int], budget: int, rule: Callable[[int, int], int | str]) -> None:
        self.weights = [each for weight in weights for each in (weight, 0)]
        self.budget = budget
        self.rule = rule
        self.compiled: list[tuple[int, int]] = []
        self.candidates = [self.candidate(position) for position in range(1, len(self.weights))]
        self.plans: list[Plan] = []

    def candidate(self, position: int) -> Candidate:
        before = position % 2 == 1
        layer = f"{'conv' if before else 'relu'}{(position + 1) // 2}"
        return Candidate(
            tensor=f"t{position}",
            layer=layer,
            tensors=(f"t{position}",),
            layers=(layer,),
            position=position,
            shape=(1, 4, 4, 4),
            dtype="float32",
            int8_bytes=64,
            merged=True,
            downsampled=True,
            pre_activation=before,
            weight_bytes_before=sum(self.weights[:position]),
            weight_bytes_between=0,
        )

    def bytes(self, start: int, stop: int) -> int:
        return sum(self.weights[start:stop])

    def plan(self, wish: Wish) -> Plan:
        """Cut at the last candidate before the budget would be passed."""
        usable = [each for each in respected(self.candidates, wish) if not each.pre_activation]
        prefix = inflated(list(accumulate(self.weights, initial=0)), 0, self.budget, wish)
        end, cuts, start = len(self.weights), [], 0
        while prefix[end] - prefix[start] > self.budget:
            reached = [
                each
                for each in usable
                if each.position > start and prefix[each.position] - prefix[start] <= self.budget
            ]
            if not reached:
                raise InfeasibleError("a block is above the budget")
            cuts.append(reached[-1])
            start = reached[-1].position
        positions = [0, *(cut.position for cut in cuts), end]
        segments = tuple(
            Segment(
                index=number,
                start=first,
                stop=last,
                inputs=("x",),
                outputs=("y",),
                input_layers=("x",),
                output_layers=("y",),
                weight_bytes=self.bytes(first, last),
                tflite_bytes=self.bytes(first, last),
            )
            for number, (first, last) in enumerate(pairwise(positions), start=1)
        )
        made = Plan(
            strategy="greedy",
            budget_bytes=self.budget,
            candidates=tuple(cuts),
            segments=segments,
            minimal_k=None,
            lower_bound=None,
        )
        self.plans.append(made)
        return made

    def build(self, plan: Plan) -> list[Path]:
        return [Path(f"{segment.start}-{segment.stop}.tflite") for segment in plan.segments]

    def compile_round(self, files: Sequence[Path], number: int) -> list[CompileResult]:
        assert number >= 1
        return [self.compile_one(file) for file in files]

    def compile_one(self, file: Path) -> CompileResult:
        start, stop = (int(word) for word in file.stem.split("-"))
        self.compiled.append((start, stop))
        verdict = self.rule(start, stop)
        if isinstance(verdict, str):
            return CompileFailure(source=file, kind=verdict, line=verdict, way_out="", log_path=file, seconds=0)
        return CompileSuccess(
            source=file,
            path=file,
            log_path=file,
            output_path=file,
            printed=PRINTED,
            compiled=compiled.parse(compiled_file(self.bytes(start, stop), verdict), "made"),
            seconds=0,
            notes=(),
            proof=None,
        )

    def close(self, *, budget_bytes: int | None = None, most_rounds: int = 40) -> Closed:
        found = close(
            self.plan,
            self.build,
            self.compile_round,
            self.candidates,
            budget_bytes=budget_bytes,
            most_rounds=most_rounds,
        )
        assert len(set(self.compiled)) == len(self.compiled), "something was compiled twice"
        assert [each.number for each in found.rounds] == list(range(1, len(found.rounds) + 1))
        return found


def never(_start: int, _stop: int) -> int:
    return 0


def test_nothing_streams_and_one_round_is_enough() -> None:
    found = Bench([300, 300, 300, 300], 700, never).close()
    assert found.clean
    assert len(found.rounds) == 1
    assert found.plan.cuts == ("relu2",)
    assert found.rounds[0].compiled == 2
    assert found.rounds[0].offences == ()


def test_the_cut_before_the_activation_is_tried_first_and_only_what_changed_is_compiled() -> None:
    bench = Bench([300] * 6, 700, lambda start, stop: 5000 if (start, stop) == (4, 8) else 0)
    found = bench.close()
    assert found.clean
    assert [each.cuts for each in found.rounds] == [("relu2", "relu4"), ("relu2", "conv4")]
    assert found.rounds[0].offences == ("segment 2 streams 4.9 KiB: cut at conv4 instead of relu4",)
    assert [each.compiled for each in found.rounds] == [3, 2]
    assert found.rounds[0].streamed_bytes == (0, 5000, 0)
    assert found.rounds[1].streamed_bytes == (0, 0, 0)


def test_then_the_twin_at_its_start() -> None:
    found = Bench([300] * 6, 700, lambda start, stop: 50 if (start, stop) in ((4, 8), (4, 7)) else 0).close()
    assert found.clean
    assert found.plan.cuts == ("conv2", "conv4")


def test_then_it_ends_a_candidate_earlier() -> None:
    """A segment of two blocks streams whatever the side of its activations."""
    found = Bench([300] * 4, 700, lambda start, stop: 10 if stop - start > 2 and start == 0 else 0).close()
    assert found.clean
    assert found.plan.cuts[0] in ("relu1", "conv1")
    assert any("end it before" in line for each in found.rounds for line in each.offences)


def test_a_last_segment_that_streams_is_cut_once_more() -> None:
    found = Bench([300, 300, 300], 1000, lambda start, stop: 10 if stop - start > 4 else 0).close()
    assert found.clean
    assert found.plan.k > 1
    assert found.rounds[0].offences == ("segment 1 streams 10 B: cut once more",)


def test_a_file_above_the_budget_ends_earlier_too() -> None:
    bench = Bench([300] * 4, 700, never)
    size = compiled.parse(compiled_file(600, 0), "made").file_bytes
    found = bench.close(budget_bytes=size - 1)
    assert found.clean
    assert max(found.rounds[-1].compiled_bytes) < size
    assert "compiled, above" in found.rounds[0].offences[0]


@pytest.mark.parametrize("kind", ["large activations", "crash", "failed"])
def test_a_cut_at_which_the_compiler_fails_is_avoided(kind: str) -> None:
    found = Bench([300] * 4, 700, lambda start, stop: kind if (start, stop) == (0, 4) else 0).close()
    assert found.clean
    assert found.plan.cuts[0] == "relu1"
    assert found.rounds[0].offences == (f"segment 1 was not compiled ({kind}): end it before relu2",)


@pytest.mark.parametrize("kind", ["not quantised", "disk full", "timeout", "op version", "disagreement"])
def test_a_failure_that_no_cut_cures_ends_it_at_once(kind: str) -> None:
    found = Bench([300] * 4, 700, lambda start, _: kind if start else 0).close()
    assert not found.clean
    assert len(found.rounds) == 1
    assert found.reason == f"segment 2 was not compiled: {kind}"


def test_a_block_that_streams_alone_cannot_be_helped_and_the_best_round_is_kept() -> None:
    bench = Bench(
        [300, 900, 300], 1000, lambda start, stop: bench.bytes(start, stop) // 100 if start <= 2 < stop else 0
    )
    found = bench.close()
    assert not found.clean
    assert "it contains no other candidate" in found.reason
    streamed = [sum(each.streamed_bytes) for each in found.rounds]
    kept = sum(each.compiled.streamed_parameter_bytes for each in found.results if isinstance(each, CompileSuccess))
    assert kept == min(streamed)


def test_rounds_are_limited() -> None:
    found = Bench([10] * 30, 200, lambda start, stop: stop - start).close(most_rounds=3)
    assert not found.clean
    assert len(found.rounds) == 3
    assert "after 3 rounds" in found.reason


def test_no_first_plan_is_the_planners_error() -> None:
    with pytest.raises(InfeasibleError, match="above the budget"):
        Bench([300, 900], 700, never).close()


def test_no_further_plan_is_said() -> None:
    bench = Bench([300, 300], 700, lambda start, _: 10 if start == 0 else 0)
    planner = bench.plan

    def stubborn(wish: Wish) -> Plan:
        if wish.forbidden or wish.instead:
            raise InfeasibleError("nothing else fits", "raise the budget")
        return planner(wish)

    bench.plan = stubborn  # type: ignore[method-assign]
    found = bench.close()
    assert found.reason == "no plan is left (nothing else fits)"
    assert len(found.results) == 1


def test_a_planner_that_ignores_wishes_is_seen_through() -> None:
    bench = Bench([300, 300], 700, lambda *_: 10)
    planner = bench.plan
    bench.plan = lambda _: planner(Wish())  # type: ignore[method-assign]
    assert bench.close().reason == "planning again gives cuts that were already tried"


def test_twins_and_what_a_wish_leaves() -> None:
    bench = Bench([5, 6, 7], 100, never)
    assert twins(bench.candidates) == {"relu1": "conv1", "relu2": "conv2"}
    left = respected(bench.candidates, Wish(instead={"relu1": "conv1"}))
    assert [(each.layer, each.pre_activation) for each in left] == [
        ("conv1", False),
        ("conv2", True),
        ("relu2", False),
        ("conv3", True),
    ]
    assert [each.weight_bytes_between for each in left] == [5, 6, 0, 7]


@settings(deadline=None, max_examples=200)
@given(
    own=st.lists(st.integers(0, 30), min_size=1, max_size=12),
    budget=st.integers(30, 90),
    runs=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=4),
)
def test_forbidden_runs_pass_the_budget_and_nothing_shrinks(
    own: list[int], budget: int, runs: list[tuple[int, int]]
) -> None:
    prefix = list(accumulate(own, initial=0))
    forbidden = tuple((start, stop) for start, stop in runs if start < stop <= len(own))
    raised = inflated(prefix, 0, budget, Wish(forbidden=forbidden))
    assert all(raised[stop] - raised[start] > budget for start, stop in forbidden)
    assert all(
        raised[last] - raised[first] >= prefix[last] - prefix[first]
        for first in range(len(prefix))
        for last in range(first, len(prefix))
    )
    if not forbidden:
        assert list(raised) == prefix


@settings(deadline=None, max_examples=150)
@given(
    weights=st.lists(st.integers(1, 60), min_size=1, max_size=9),
    room=st.integers(60, 200),
    slack=st.integers(0, 150),
    odd=st.sets(st.tuples(st.integers(0, 18), st.integers(0, 18)), max_size=6),
)
def test_it_converges_and_stops(weights: list[int], room: int, slack: int, odd: set[tuple[int, int]]) -> None:
    """Whatever fits by itself ends without streaming; odd exceptions never make it turn for ever."""
    most = 4 * len(weights) + 4

    def rule(start: int, stop: int) -> int:
        over = bench.bytes(start, stop) - room
        return over if over > 0 else 7 if (start, stop) in odd else 0

    bench = Bench(weights, room + slack, rule)
    found = bench.close(most_rounds=2 * most)
    assert len(found.rounds) <= most
    if not odd:
        assert found.clean
    if found.clean:
        last = found.rounds[-1]
        assert sum(last.streamed_bytes) == 0
        assert found.plan is bench.plans[-1]
    else:
        assert found.reason
