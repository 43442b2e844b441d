"""The places where a strategy may cut, as plain numbers.

1. *Places* are numbered 0 .. m: place 0 is the beginning of the graph, place m its end, the others are candidates by
   rising position. Between two neighbours lies a *block*, which no cut divides.
2. The file of the segment from place i to place j has ``base + content[j] - content[i]`` bytes, so a part of a
   segment never needs more than the segment.
3. Candidates between which no weights lie (``Candidate.weight_bytes_between``) are a *group*: where to cut inside it
   hardly affects the sizes. There the preferred candidate is one that is already downsampled, then the one with the
   fewest bytes to hand over, then with the fewest tensors, then the last (``settle``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from graphcut.errors import InfeasibleError, setting
from graphcut.prediction.sizes import Sizes
from graphcut.records import Analysis, Candidate
from graphcut.units import format_budget, format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Statements 1 and 2 as sequences with one entry per place.

    Attributes:
        positions: in the graph, from 0 to len(nodes).
        content: bytes that ``nodes[:position]`` add to a file, rising.
        weights: weight bytes up to the candidate, rising; equal inside a group. No entry for place m.
        base: bytes of a file without content.
        candidates: of places 1 .. m - 1.
        names: layer names: the model's first input, the candidates, the model's first output.
    """

    positions: Sequence[int]
    content: Sequence[int]
    weights: Sequence[int]
    base: int
    candidates: Sequence[Candidate]
    names: Sequence[str]

    @property
    def end(self) -> int:
        """m: the last place, and the number of blocks."""
        return len(self.positions) - 1

    @property
    def several(self) -> bool:
        """Whether some places hand over several tensors."""
        return any(len(candidate.tensors) > 1 for candidate in self.candidates)

    def size(self, start: int, stop: int) -> int:
        """Bytes of the file from one place to another."""
        return self.base + self.content[stop] - self.content[start]

    def reach(self, start: int, limit: int) -> int:
        """Find the last place up to which a segment from ``start`` stays within a limit; ``start`` if none does."""
        return max(start, bisect_right(self.content, self.content[start] + limit - self.base) - 1)

    def first(self, stop: int, limit: int) -> int:
        """Find the first place from which a segment up to ``stop`` stays within a limit; ``stop`` if none does."""
        return min(stop, bisect_left(self.content, self.content[stop] - limit + self.base))

    def name(self, start: int, stop: int) -> str:
        """Name what lies between two places: "conv4_block23_out .. conv5_block1_out"."""
        return f"{self.names[start]} .. {self.names[stop]}"


def places(analysis: Analysis, sizes: Sizes, keep: Callable[[Candidate], bool]) -> Places:
    """Make the places of all candidates to keep, up to the nodes that the CPU runs.

    Raises:
        ValueError: the sizes are those of another graph (a bug).
    """
    graph = analysis.graph
    end = len(graph.nodes) if analysis.border is None else analysis.border
    if len(sizes.prefix_bytes) != len(graph.nodes) + 1:
        raise ValueError(f"sizes of {len(sizes.prefix_bytes) - 1} nodes for a graph of {len(graph.nodes)}")
    weights = accumulate(candidate.weight_bytes_between for candidate in analysis.candidates)
    weighted = [
        each for each in zip(analysis.candidates, weights, strict=True) if each[0].position < end and keep(each[0])
    ]
    kept = [candidate for candidate, _ in weighted]
    positions = [0, *(candidate.position for candidate in kept), end]
    ends = [graph.layers.get(names[0], names[0]) if names else "?" for names in (graph.inputs, graph.outputs)]
    if analysis.border is not None:
        ends[1] = analysis.candidates[-1].layer
    return Places(
        positions=positions,
        content=[sizes.prefix_bytes[position] for position in positions],
        weights=[0, *(weight for _, weight in weighted)],
        base=sizes.base_bytes,
        candidates=kept,
        names=[ends[0], *(candidate.layer for candidate in kept), ends[1]],
    )


def largest_block(at: Places) -> int:
    """Return the bytes of the largest block's file: the smallest budget with which these places have a plan."""
    return max(at.size(start, start + 1) for start in range(at.end))


def require_blocks_fit(at: Places, budget: int, option: str = "budget", ways: Sequence[str] = ()) -> None:
    """Refuse a budget that a single block exceeds.

    Args:
        at: the places.
        budget: bytes.
        option: the setting that the budget comes from.
        ways: further remedies, for the message.

    Raises:
        InfeasibleError: names the largest block, its size, the budget and the remedies.
    """
    over = [start for start in range(at.end) if at.size(start, start + 1) > budget]
    if not over:
        return
    worst = max(over, key=lambda start: at.size(start, start + 1))
    needs = at.size(worst, worst + 1)
    more = len(over) - 1
    others = f" ({more} more {'block exceeds' if more == 1 else 'blocks exceed'} it)" if more else ""
    room = format_budget(needs)
    enough = f"raise {setting(option, to=room)} to at least {room}"
    raise InfeasibleError(
        f"block {at.name(worst, worst + 1)} needs {format_bytes(needs)} and contains no place to cut; the budget is "
        f"{format_bytes(budget)}{others}",
        ", or ".join([enough, *ways, f"choose the most even split with {setting('segments', 'K')}"]),
    )


def settle(at: Places, cuts: Sequence[int], *, high: int, low: int = 0) -> tuple[int, ...]:
    """Move each cut to the preferred place of its group (statement 3), first cut first.

    A cut moves only if both adjacent segments stay within low .. high, so neither their number nor the limit changes.
    """
    moved = list(cuts)
    for index, cut in enumerate(moved):
        before = moved[index - 1] if index else 0
        after = moved[index + 1] if index + 1 < len(moved) else at.end
        group = range(
            max(before + 1, bisect_left(at.weights, at.weights[cut])),
            min(after, bisect_right(at.weights, at.weights[cut])),
        )
        fitting = [
            place for place in group if low <= at.size(before, place) <= high and low <= at.size(place, after) <= high
        ]
        moved[index] = min(fitting, key=lambda place: _preference(at.candidates[place - 1], place), default=cut)
    return tuple(moved)


def _preference(candidate: Candidate, place: int) -> tuple[bool, int, int, int]:
    """Order the places of a group, the best first (statement 3)."""
    return not candidate.downsampled, candidate.int8_bytes, len(candidate.tensors), -place


def sizes_between(at: Places, cuts: Sequence[int]) -> list[int]:
    """Bytes of the files that some cuts give."""
    return [at.size(start, stop) for start, stop in pairwise((0, *cuts, at.end))]
