"""Close the loop: plan, build and compile until nothing streams, or until no plan can avoid streaming.

1. A segment *offends* when it streams parameters, when its compiled file is above the budget, or when the compiler
   failed for a reason that another cut may fix.
2. For each offender one thing changes, the first of these that has not been tried: where it streams, its cut moves to
   the other side of the activation after it (the *twin*: a published ResNet101 segment is listed as streaming with the
   one and not with the other), first at its end, then at its start; else its run of nodes is *forbidden*: no segment
   may contain all of it, so that a greedy planner ends it one candidate earlier.
3. What was compiled before, node for node, is not compiled again.
4. The loop ends when no segment offends; when there is nothing left to change or to plan, or the planner returns cuts
   that were tried; when a failure does not depend on the cuts; or after ``most_rounds``. Then the round that left the
   fewest segments uncompiled, and then streams least, is the result, and ``reason`` says why it ended.

Each turn takes a candidate away or forbids a run that was allowed, so the loop ends.

Planner, converter and compiler are passed as functions, so that the loop can be tested without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path

from graphcut.edgetpu.compiler import CompileResult, CompileSuccess
from graphcut.edgetpu.failures import CompileFailure
from graphcut.errors import InfeasibleError
from graphcut.records import Candidate, Plan, Segment
from graphcut.units import format_bytes

MOST_ROUNDS = 8
_OF_THE_CUT = frozenset({"large activations", "crash", "failed", "stub", "no output"})
"""Kinds of failure that another cut may fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Constraints for the planner.

    Attributes:
        forbidden: (start, stop): no segment may contain all of nodes[start:stop]; in the order in which they offended.
        instead: layer name of a cut -> layer name of its twin, which takes its place among the candidates.
        measured: (start, stop) -> bytes of every compiled file so far, for planners that can use them.
    """

    forbidden: tuple[tuple[int, int], ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One turn of the loop, for the manifest.

    Attributes:
        number: from 1.
        cuts: layer names.
        compiled: number of files that were compiled; the others were known.
        compiled_bytes, streamed_bytes: of each segment; 0 for one that was not compiled.
        offences: one line per offender, and what was changed for it.
    """

    number: int
    cuts: tuple[str, ...]
    compiled: int
    compiled_bytes: tuple[int, ...]
    streamed_bytes: tuple[int, ...]
    offences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The result of the loop.

    Attributes:
        plan: of the round that is the result.
        results: one per segment; ``source`` and ``path`` are those of the round that compiled it.
        rounds: all of them.
        reason: why it is not clean, "" if it is.
    """

    plan: Plan
    results: tuple[CompileResult, ...]
    rounds: tuple[Round, ...]
    reason: str

    @property
    def clean(self) -> bool:
        """Whether every segment is compiled, streams nothing and is within the budget."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class _Tried:
    """A round with what it made."""

    plan: Plan
    results: tuple[CompileResult, ...]

    @property
    def streamed(self) -> int:
        return sum(_streamed(each) for each in self.results)

    @property
    def uncompiled(self) -> int:
        return sum(isinstance(each, CompileFailure) for each in self.results)


def close(
    plan: Callable[[Wish], Plan],
    build: Callable[[Plan], Sequence[Path]],
    compile_round: Callable[[Sequence[Path], int], Sequence[CompileResult]],
    candidates: Sequence[Candidate],
    *,
    budget_bytes: int | None = None,
    most_rounds: int = MOST_ROUNDS,
) -> Closed:
    """Run the loop.

    Args:
        plan: returns a plan that respects a wish; raises :class:`InfeasibleError` if there is none.
        build: the int8 file of every segment of a plan, in order, without one for the CPU.
        compile_round: compile files into a folder of that round's number; one result per file, in order.
        candidates: all candidates, by increasing position.
        budget_bytes: limit of every compiled file; None for none.
        most_rounds: limit of rounds.

    Raises:
        InfeasibleError: there is not even a first plan.
    """
    memory = _Memory(budget_bytes, candidates)
    tried: list[_Tried] = []
    rounds: list[Round] = []
    for number in range(1, most_rounds + 1):
        try:
            chosen = plan(memory.wish())
        except InfeasibleError as error:
            if not tried:
                raise
            return _ended(tried, rounds, f"no plan is left ({error.message})")
        if any(chosen.cuts == before.plan.cuts for before in tried):
            return _ended(tried, rounds, "planning again gives cuts that were already tried")
        known = len(memory.results)
        results = memory.compile(chosen, build(chosen), number, compile_round)
        offences, hopeless = memory.judge(chosen, results)
        tried.append(_Tried(chosen, results))
        rounds.append(
            Round(
                number=number,
                cuts=chosen.cuts,
                compiled=len(memory.results) - known,
                compiled_bytes=tuple(_size(each) for each in results),
                streamed_bytes=tuple(_streamed(each) for each in results),
                offences=offences,
            )
        )
        if not offences:
            return Closed(plan=chosen, results=results, rounds=tuple(rounds), reason="")
        if hopeless:
            return _ended(tried, rounds, hopeless)
    return _ended(tried, rounds, f"{rounds[-1].offences[0]}, after {most_rounds} rounds")


def twins(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Layer name of a candidate after a fused activation -> layer name of the one before that activation."""
    before = {each.position: each for each in candidates if each.pre_activation}
    return {
        each.layer: before[each.position - 1].layer
        for each in candidates
        if not each.pre_activation and each.position - 1 in before
    }


def respected(candidates: Sequence[Candidate], wish: Wish) -> tuple[Candidate, ...]:
    """The candidates that a wish allows, with twins in place of the replaced ones."""
    chosen = set(wish.instead.values())
    kept: list[Candidate] = []
    for each in candidates:
        if each.layer in wish.instead:
            continue
        before = kept[-1].weight_bytes_before if kept else 0
        kept.append(
            replace(
                each,
                pre_activation=each.pre_activation and each.layer not in chosen,
                weight_bytes_between=each.weight_bytes_before - before,
            )
        )
    return tuple(kept)


def inflated(prefix_bytes: Sequence[int], base_bytes: int, budget_bytes: int, wish: Wish) -> tuple[int, ...]:
    """Prefix sums of sizes in which every forbidden run exceeds the budget, for additive planners.

    The missing bytes are added to the last node of a run that has bytes of its own. A run of two blocks or more stays
        feasible: its last block never exceeds the budget because of this.

    Args:
        prefix_bytes: prefix_bytes[p] is what nodes[:p] add to a file.
        base_bytes: what every file has.
        budget_bytes: limit of a file.
        wish: with the forbidden runs.

    >>> inflated((0, 10, 20, 30), 5, 30, Wish(forbidden=((0, 2),)))
    (0, 10, 26, 36)
    """
    own = [after - before for before, after in pairwise(prefix_bytes)]
    for start, stop in wish.forbidden:
        lacking = budget_bytes + 1 - base_bytes - sum(own[start:stop])
        if lacking > 0 and stop > start:
            last = max((place for place in range(start, stop) if own[place]), default=stop - 1)
            own[last] += lacking
    return tuple(accumulate(own, initial=prefix_bytes[0]))


class _Memory:
    """The results of the rounds so far, and the resulting wish."""

    def __init__(self, budget: int | None, candidates: Sequence[Candidate]) -> None:
        self.results: dict[tuple[int, int], CompileResult] = {}
        self._budget = budget
        self._candidates = candidates
        self._twins = twins(candidates)
        self._forbidden: list[tuple[int, int]] = []
        self._instead: dict[str, str] = {}

    def wish(self) -> Wish:
        return Wish(
            forbidden=tuple(self._forbidden),
            instead=dict(self._instead),
            measured={key: _size(each) for key, each in self.results.items() if isinstance(each, CompileSuccess)},
        )

    def compile(
        self,
        plan: Plan,
        files: Sequence[Path],
        number: int,
        compile_round: Callable[[Sequence[Path], int], Sequence[CompileResult]],
    ) -> tuple[CompileResult, ...]:
        """Statement 3."""
        keys = [(segment.start, segment.stop) for segment in plan.chip_segments]
        new = [position for position, key in enumerate(keys) if key not in self.results]
        made = compile_round([files[position] for position in new], number) if new else ()
        for position, result in zip(new, made, strict=True):
            self.results[keys[position]] = result
        return tuple(self.results[key] for key in keys)

    def judge(self, plan: Plan, results: Sequence[CompileResult]) -> tuple[tuple[str, ...], str]:
        """A line for each offender (statement 1), and why there is no further turn, "" where there is one."""
        offences, changed, incurable = [], False, ""
        for segment, result in zip(plan.chip_segments, results, strict=True):
            what = self._offence(result)
            if not what:
                continue
            if isinstance(result, CompileFailure) and result.kind not in _OF_THE_CUT:
                incurable = f"segment {segment.index} was not compiled: {result.line}"
                offences.append(f"segment {segment.index} {what}")
                continue
            change = self._change(plan, segment, result)
            changed = changed or bool(change)
            offences.append(f"segment {segment.index} {what}: {change or 'it contains no other candidate'}")
        stuck = offences[0] if offences and not changed else ""
        return tuple(offences), incurable or stuck

    def _offence(self, result: CompileResult) -> str:
        if isinstance(result, CompileFailure):
            return f"was not compiled ({result.kind})"
        if _streamed(result):
            return f"streams {format_bytes(_streamed(result))}"
        if self._budget is not None and _size(result) > self._budget:
            return f"is {format_bytes(_size(result))} compiled, above {format_bytes(self._budget)}"
        return ""

    def _change(self, plan: Plan, segment: Segment, result: CompileResult) -> str:
        """Statement 2; returns the change, "" if nothing is left to change."""
        end = plan.cuts[segment.index - 1] if segment.index <= len(plan.cuts) else None
        start = plan.cuts[segment.index - 2] if segment.index > 1 else None
        if _streamed(result):
            for cut in (end, start):
                if cut in self._twins and cut not in self._instead:
                    self._instead[cut] = self._twins[cut]
                    return f"cut at {self._twins[cut]} instead of {cut}"
        if not self._inside(segment):
            return ""
        self._forbidden.append((segment.start, segment.stop))
        return f"end it before {end}" if end is not None else "cut once more"

    def _inside(self, segment: Segment) -> bool:
        """Whether a planner can cut inside a segment."""
        return any(
            segment.start < each.position < segment.stop and not each.pre_activation
            for each in respected(self._candidates, self.wish())
        )


def _ended(tried: Sequence[_Tried], rounds: Sequence[Round], reason: str) -> Closed:
    """Statement 4: the best round so far."""
    best = min(tried, key=lambda each: (each.uncompiled, each.streamed))
    return Closed(plan=best.plan, results=best.results, rounds=tuple(rounds), reason=reason)


def _size(result: CompileResult) -> int:
    return result.compiled.file_bytes if isinstance(result, CompileSuccess) else 0


def _streamed(result: CompileResult) -> int:
    return result.compiled.streamed_parameter_bytes if isinstance(result, CompileSuccess) else 0
