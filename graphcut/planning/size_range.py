"""The later variant of the reference rule: a range LOW .. HIGH and the running average.

1. HIGH is a limit, LOW a target. The number of segments K is the smallest for which every segment can lie within LOW ..
   HIGH; where there is none, K is the fewest within HIGH, and the aim is lowered to the largest for which a plan
   exists.
2. Segment by segment, the target is the running average: what is left to place / segments left. The candidate whose
   segment comes nearest to the target wins; at equal distance the one with fewer bytes to hand over, then the later.
3. The published method has two fall-backs where that fails: move the end of this segment, then give back or borrow
   across the segments before it. Both repair a choice that leaves a rest that cannot be placed. Here it is known
   beforehand from which places the rest can be placed in the remaining segments, so only these compete in statement 2.
   Where the nearest candidate is one of them, nothing needs repair and the result is the same; where it is not, the end
   moves (first fall-back) and, since each earlier choice has left a rest that can be placed, earlier segments have
   given or taken before it was too late (second fall-back). A plan is found whenever there is one.
4. Near the end, candidates of rank below 4 compete too (the tensors around the global pool and before the dense
   layers), if the analysis has them and what follows fits in one segment.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graphcut.planning.exact import fewest, require_count
from graphcut.planning.places import Places, require_blocks_fit, settle


def ranged(at: Places, low: int, high: int, count: int | None = None) -> tuple[int, ...]:
    """Cut by statements 1 to 3; O(K n), times log LOW where the aim has to be lowered.

    Args:
        at: the places (statement 4 is the caller's choice of them).
        low: bytes that a segment should have.
        high: bytes that no segment may pass.
        count: number of segments; None chooses it by statement 1.

    Raises:
        InfeasibleError: a single block exceeds HIGH, or ``count`` segments do not fit within it.
    """
    require_blocks_fit(at, high, "size_range")
    minimal = fewest(at, high)
    assert minimal is not None, "every block fits, so one segment per block is a plan"
    if count is not None:
        require_count(at, count, minimal, high, "size_range")
    segments = count or fewest(at, high, low) or minimal
    floor = _floor(at, low, high, segments)
    return settle(at, _walk(at, segments, floor, high), low=low if floor == low else 0, high=high)


def _floor(at: Places, low: int, high: int, count: int) -> int:
    """Find the largest aim, at most ``low``, that ``count`` segments can all reach (statement 1)."""
    if _rests(at, low, high, count)[count][0]:
        return low
    lowest, highest = 0, low  # the first has a plan, the second does not
    while highest - lowest > 1:
        middle = (lowest + highest) // 2
        if _rests(at, middle, high, count)[count][0]:
            lowest = middle
        else:
            highest = middle
    return lowest


def _rests(at: Places, low: int, high: int, count: int) -> list[npt.NDArray[np.bool_]]:
    """Return, for n = 0 .. count and every place, whether the rest after it can be n segments within low .. high."""
    content = np.asarray(at.content)
    here = np.arange(at.end + 1)
    first = np.maximum(np.searchsorted(content, content + (low - at.base), side="left"), here + 1)
    last = np.searchsorted(content, content + (high - at.base), side="right") - 1
    first = np.minimum(first, last + 1)
    reachable = [here == at.end]
    for _ in range(count):
        total = np.concatenate(([0], np.cumsum(reachable[-1])))
        reachable.append(total[last + 1] > total[first])
    return reachable


def _walk(at: Places, count: int, low: int, high: int) -> tuple[int, ...]:
    """Place the cuts one after the other (statement 2) where the rest can be placed (statement 3)."""
    rest = _rests(at, low, high, count)
    cuts: list[int] = []
    here = 0
    for left in range(count, 1, -1):
        remaining = at.content[at.end] - at.content[here]
        competing = [
            place
            for place in range(here + 1, at.reach(here, high) + 1)
            if rest[left - 1][place] and at.size(here, place) >= low
        ]
        here = min(
            competing,
            key=lambda place: (
                abs(left * (at.content[place] - at.content[here]) - remaining),  # distance to the average, times left
                at.candidates[place - 1].int8_bytes,
                -place,
            ),
        )
        cuts.append(here)
    return tuple(cuts)
