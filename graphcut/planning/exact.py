"""Exact answers by dynamic programming, independent of the greedy walk."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from graphcut.errors import InfeasibleError, setting
from graphcut.planning.places import Places, largest_block, require_blocks_fit, settle
from graphcut.units import format_budget, format_bytes


def fewest(at: Places, high: int, low: int = 0) -> int | None:
    """Find the fewest segments of low .. high bytes over all choices of places; None if there is no such choice.

    best[j] = 1 + min(best[i] for i < j whose segment i..j is within the limits), best[0] = 0: a minimum over a window
    that only moves forward, kept in a queue of rising values, so O(n). It does not use that best rises.
    """
    best: list[int | None] = [0]
    window: deque[tuple[int, int]] = deque()  # (best[i], i), both rising
    entered = 0
    for stop in range(1, at.end + 1):
        while entered < stop and at.size(entered, stop) >= low:
            value = best[entered]
            if value is not None:
                while window and window[-1][0] >= value:
                    window.pop()
                window.append((value, entered))
            entered += 1
        while window and at.size(window[0][1], stop) > high:
            window.popleft()
        best.append(window[0][0] + 1 if window else None)
    return best[at.end]


Cost = tuple[int, int, int]
"""Segments, bytes over their seams, tensors over their seams."""


def cheapest(at: Places, budget: int) -> tuple[int, ...]:
    """Cut into the fewest segments within the budget, and among these with the fewest bytes over the seams; O(n).

    Then with the fewest tensors over them, then as late as can be. The exact counterpart of the greedy rule for seams
    of several tensors, between which the last place before a segment is full may be a costly one.

    Raises:
        InfeasibleError: a single block exceeds the budget.
    """
    require_blocks_fit(at, budget)
    handed = [(candidate.int8_bytes, len(candidate.tensors)) for candidate in at.candidates]
    found = cheapest_path(at.content, budget - at.base, handed)
    assert found is not None, "every block fits, so one segment per block is a plan"
    return found[1]


def cheapest_path(
    content: Sequence[int], room: int, handed: Sequence[tuple[int, int]]
) -> tuple[Cost, tuple[int, ...]] | None:
    """Find the cheapest places to cut; None where there are none.

    best[j] = min(best[i] for i with content[j] - content[i] <= room) + what is handed over at j: the minimum over a
    window that only moves forward, kept in a queue of rising values.

    Args:
        content: bytes up to each place, rising, from place 0 to place m.
        room: bytes that a segment may hold.
        handed: bytes and tensors over a seam at places 1 .. m - 1.
    """
    best: list[Cost | None] = [(0, 0, 0)]
    came_from = [0]
    window: deque[tuple[Cost, int]] = deque()  # (best[i], i), both rising
    for stop in range(1, len(content)):
        entering = best[stop - 1]
        if entering is not None:
            while window and window[-1][0] >= entering:
                window.pop()
            window.append((entering, stop - 1))
        while window and content[stop] - content[window[0][1]] > room:
            window.popleft()
        if not window:
            best.append(None)
            came_from.append(0)
            continue
        (segments, size, tensors), start = window[0]
        more, several = handed[stop - 1] if stop < len(content) - 1 else (0, 0)
        best.append((segments + 1, size + more, tensors + several))
        came_from.append(start)
    final = best[-1]
    if final is None:
        return None
    cuts = [came_from[-1]]
    while cuts[-1]:
        cuts.append(came_from[cuts[-1]])
    return final, tuple(cuts[-2::-1])


def lower_bound(whole: int, base: int, budget: int) -> int:
    """Bound the number of segments of any plan from below, whatever it cuts at.

    Every node is in some segment, so the contents of K files add up to at least the whole's content, ``whole - base``;
    each file within the budget holds at most ``budget - base`` of it. So K >= content / (budget - base).

    Args:
        whole: bytes of the unsplit file.
        base: bytes of a file without content.
        budget: limit of every file, above the base unless it holds the whole.
    """
    return 1 if whole <= budget else -(-(whole - base) // (budget - base))


def balanced(at: Places, count: int) -> tuple[int, ...]:
    """Cut into ``count`` segments so that the largest is as small as possible.

    In this order: the smallest largest segment; the smallest sum of squared sizes (the most even); the fewest bytes
    handed over; the earliest cuts. Then, as everywhere, cuts move inside their groups if the largest segment allows.

    The smallest limit is found by bisection with the greedy walk, O(K log n) each; the rest by a dynamic programme
    over the places from which both ends can still be reached within that limit. The square of a difference satisfies
    the quadrangle inequality, so the best predecessors rise with the place and divide and conquer takes O(w log w) for
    a window of w places, O(K n log n) at the worst.
    (Yao, "Efficient dynamic programming using quadrangle inequalities", STOC 1980.)

    Raises:
        InfeasibleError: more segments than blocks.
    """
    require_count(at, count)
    limit = smallest_limit(at, count)
    return settle(at, _most_even(at, count, limit), high=limit)


def require_count(at: Places, count: int, minimal: int = 1, limit: int = 0, option: str = "budget") -> None:
    """Refuse a number of segments that no plan has.

    Args:
        at: the places.
        count: asked for.
        minimal: the fewest within the limit.
        limit: bytes, for the message.
        option: the setting that the limit comes from.

    Raises:
        InfeasibleError: more than there are blocks, or fewer than ``minimal``.
    """
    if count > at.end:
        raise InfeasibleError(
            f"{count} segments were requested, but there are only {at.end - 1} places to cut",
            f"lower {setting('segments', to=at.end)} to at most {at.end}",
        )
    if count < minimal:
        room = format_budget(smallest_limit(at, count))
        raise InfeasibleError(
            f"{count} segments do not fit within {format_bytes(limit)}; at least {minimal} are needed",
            f"raise {setting('segments', to=minimal)} to {minimal} or {setting(option, to=room)} to {room}",
        )


def smallest_limit(at: Places, count: int) -> int:
    """Find the smallest budget within which at most ``count`` segments suffice, by bisection."""
    content = at.content[-1] - at.content[0]
    low, high = max(largest_block(at), at.base + -(-content // count)), at.base + content
    while low < high:
        middle = (low + high) // 2
        if _suffices(at, count, middle):
            high = middle
        else:
            low = middle + 1
    return low


def _suffices(at: Places, count: int, limit: int) -> bool:
    here = 0
    for _ in range(count):
        here = at.reach(here, limit)
        if here == at.end:
            return True
    return False


def _most_even(at: Places, count: int, limit: int) -> tuple[int, ...]:
    """Find the best ``count - 1`` cuts within a limit: least squares, then handed bytes, then earliest."""
    forward, backward = [0], [at.end]
    for _ in range(count):
        forward.append(at.reach(forward[-1], limit))
        backward.append(at.first(backward[-1], limit))
    backward.reverse()
    handed = [0, *(candidate.int8_bytes for candidate in at.candidates), 0]
    scale = sum(handed) + 1  # one cost that orders by squares first
    cost = {0: 0}
    steps: list[dict[int, int]] = []
    for cut in range(1, count + 1):
        window = range(max(cut, backward[cut]), min(forward[cut], at.end - (count - cut)) + 1)
        cost, came_from = _layer(at, cost, window, limit, scale, handed)
        steps.append(came_from)
    cuts = [at.end]
    for came_from in reversed(steps):
        cuts.append(came_from[cuts[-1]])
    return tuple(cuts[-2:0:-1])


def _layer(
    at: Places, before: dict[int, int], window: range, limit: int, scale: int, handed: Sequence[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Extend the best costs by one segment: place of the window -> cost, place -> best predecessor (the earliest)."""
    first, last = min(before), max(before)
    cost: dict[int, int] = {}
    came_from: dict[int, int] = {}
    tasks = [(window.start, window.stop - 1, first, last)]
    while tasks:
        low, high, best_low, best_high = tasks.pop()
        if low > high:
            continue
        stop = (low + high) // 2
        tried = range(max(best_low, at.first(stop, limit)), min(best_high, stop - 1) + 1)
        found, start = min((before[start] + at.size(start, stop) ** 2 * scale, start) for start in tried)
        cost[stop], came_from[stop] = found + handed[stop], start
        tasks += [(low, stop - 1, best_low, start), (stop + 1, high, start, best_high)]
    return cost, came_from
