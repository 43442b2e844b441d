"""The reference rule: fixed block-based greedy."""

from __future__ import annotations

from graphcut.planning.places import Places, require_blocks_fit, settle


def greedy(at: Places, budget: int) -> tuple[int, ...]:
    """Cut at the last candidate before a segment would exceed the budget; O(K log n).

    1. Walk from the beginning, adding up predicted bytes; cut at the last place at which the segment is still within
       the budget; continue from there. The last segment takes the rest.
    2. Then, first cut first, each moves to the preferred place of its group of candidates without weights between
       them, if both adjacent segments stay within the budget.

    No other choice of places needs fewer segments. By induction the n-th cut of statement 1 is at or after the n-th cut
    of any plan within the budget: it starts no earlier than the other plan's segment, whose end is thus within its
    reach (a part of a segment never needs more than the segment). Step 2 keeps the number.

    Raises:
        InfeasibleError: a single block exceeds the budget.
    """
    require_blocks_fit(at, budget)
    cuts: list[int] = []
    here = at.reach(0, budget)
    while here < at.end:
        cuts.append(here)
        here = at.reach(here, budget)
    return settle(at, cuts, high=budget)
