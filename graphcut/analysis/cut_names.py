"""Resolve cuts named by the user, such as "concat_3+conv_7_out", as printed by ``graphcut plan``.

1. A name is that of a candidate, or names of tensors or layers joined by "+", in any order. A name that contains a "+"
   itself is recognised. ``seam@last`` is a later position with the same seam; if there is none, the first of these
   positions that no other name refers to.
2. Which seams exist depends on the order of the nodes. For each block between dominating tensors, the order with most
   of the named seams is used.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence

from graphcut.analysis.candidates import find_tensor, why
from graphcut.analysis.liveness import lifetimes
from graphcut.analysis.orders import combined, orders, reordered
from graphcut.errors import UsageError, setting
from graphcut.records import Analysis, Graph

Seam = frozenset[str]


def seam_named(graph: Graph, name: str) -> Seam:
    """Return the tensors that a name refers to (statement 1), without the part after an "@".

    Raises:
        UsageError: a part of it is unknown.
    """
    words = name.split("+")
    tensors = {layer: tensor for tensor, layer in graph.layers.items()} | {tensor: tensor for tensor in graph.tensors}
    found: set[str] = set()
    while words:
        known = (count for count in range(len(words), 0, -1) if "+".join(words[:count]) in tensors)
        count = next(known, 1)
        word = "+".join(words[:count])
        if word not in tensors and count == len(words):
            word = word.rpartition("@")[0] or word
        found.add(tensors[word] if word in tensors else find_tensor(graph, word))
        words = words[count:]
    return frozenset(found)


def named(analysis: Analysis, names: Sequence[str]) -> frozenset[int]:
    """Return the positions of the named candidates.

    Raises:
        UsageError: a name is unknown, or is not that of a candidate.
    """
    if not names:
        return frozenset()
    by_layer = {candidate.layer: candidate.position for candidate in analysis.candidates}
    by_seam: dict[Seam, list[int]] = {}
    for candidate in analysis.candidates:
        by_seam.setdefault(frozenset(candidate.tensors), []).append(candidate.position)
    found = {by_layer[name] for name in names if name in by_layer}
    for name in names:
        position = by_layer.get(name)
        if position is None:
            seam = seam_named(analysis.graph, name)
            later = _is_later(analysis.graph, name)
            positions = by_seam.get(seam, [])
            if later:
                positions = [each for each in positions[1:] if each not in found]
            if not positions:
                if len(seam) == 1 and not later:
                    raise UsageError(f"the model cannot be cut at {name}", why(analysis, *seam))
                raise UsageError(
                    f"the model cannot be cut at {name}: at no position are exactly these tensors alive",
                    f"`graphcut inspect` with {setting('max_seam_tensors', len(seam))} lists the candidates",
                )
            position = positions[0]
        found.add(position)
    return frozenset(found)


def offered(analysis: Analysis, names: Sequence[str]) -> frozenset[int]:
    """Return the positions of those named candidates that exist in this order; seams of several tensors may not.

    Raises:
        UsageError: a name is unknown, or is a single tensor that is not a candidate.
    """
    found: set[int] = set()
    for name in names:
        try:
            found |= named(analysis, [name])
        except UsageError:
            if len(seam_named(analysis.graph, name)) == 1:
                raise
    return frozenset(found)


def _is_later(graph: Graph, name: str) -> bool:
    """Return whether a name ends in "@last" (statement 1), rather than in a layer name that contains an "@"."""
    return "@" in name.rpartition("+")[2] and name not in graph.tensors and name not in graph.layers.values()


def named_order(graph: Graph, names: Sequence[str]) -> Graph:
    """Return the graph in the order that has most of the named seams (statement 2).

    Raises:
        UsageError: a name is unknown.
    """
    plain = {seam_named(graph, name) for name in names}
    wanted = Counter(seam_named(graph, name) for name in dict.fromkeys(names) if _is_later(graph, name))
    wanted.update(plain)  # a later position needs an earlier one
    most = max(map(len, plain))
    counts = lifetimes(graph).counts
    bounds = [0, *(place for place in range(1, len(graph.nodes)) if counts[place] == 1), len(graph.nodes)]
    choices = orders(graph)
    found = [[Counter[Seam]() for _ in choices] for _ in bounds[1:]]  # positions by block, then by order
    for index, order in enumerate(choices):
        ordered = reordered(graph, order)
        for position, names_there in lifetimes(ordered).seams(ordered, most):
            for block in range(bisect_left(bounds, position) - 1, bisect_right(bounds, position)):
                if 0 <= block < len(found):  # a position between two blocks counts in both
                    found[block][index][frozenset(names_there)] += 1
    hits = [[sum(min(there[seam], times) for seam, times in wanted.items()) for there in row] for row in found]
    return reordered(graph, combined(choices, bounds, [row.index(max(row)) for row in hits]))
