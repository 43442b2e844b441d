"""Layers that no cut makes small enough, and where to divide them.

1. A layer is *oversized* if the file that holds it alone passes the budget.
2. It is divided in two steps. First into many thin *slices*, with which a plan is made as if they were layers of the
   graph: that says which channels come into which segment. Then exactly there, and nowhere else, so that every part
   fills its segment (:func:`meeting_points`).
3. A slice has at most 1/GRAIN of the budget, and a multiple of CHANNELS channels where it can. Parts are planned for a
   budget that is smaller by what a prediction may be off (:func:`safe`), for a part cannot be made smaller later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

from graphcut.graph.passes.parts import Split, output_channels
from graphcut.records import Graph
from graphcut.stages.sizes import Sizes

GRAIN = 64
"""Slices a budget: at worst this share of a segment stays empty because of the grain."""
CHANNELS = 4
"""The Edge TPU keeps output channels in fours (graphcut.edgetpu.packing)."""


def oversized(graph: Graph, sizes: Sizes, budget: int) -> dict[str, int]:
    """Find the splittable layers of statement 1: output of the node -> bytes of its file alone."""
    found = {}
    for index, node in enumerate(graph.nodes):
        alone = sizes.segment_bytes(index, index + 1)
        if alone > budget and output_channels(graph, node) > 1:
            found[node.outputs[0]] = alone
    return found


def slices(graph: Graph, sizes: Sizes, budget: int, layers: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Choose the channels at which slices meet (statement 3)."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    bounds = {}
    for output, alone in layers.items():
        channels = output_channels(graph, makers[output])
        one = max(1, (alone - sizes.base_bytes) // channels)
        width = max(1, (budget - sizes.base_bytes) // GRAIN // one)
        if width > CHANNELS:
            width -= width % CHANNELS
        bounds[output] = tuple(range(width, channels, width))
    return bounds


def safe(budget: int) -> int:
    """Give the budget that parts are planned for (statement 3): half a KiB or 0.2 % less."""
    return budget - max(512, budget // 500)


def meeting_points(split: Split, graph: Graph, positions: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Find the channels at which cuts divide sliced layers: output of the layer -> channels, rising.

    Args:
        split: the layers in slices.
        graph: ``split.graph`` in the order that the positions count.
        positions: of the cuts, rising.
    """
    slices_of: dict[str, list[tuple[int, int]]] = {}
    for index, node in enumerate(graph.nodes):
        output = node.outputs[0]
        if output in split.owners:
            segment = bisect_right(positions, index)
            slices_of.setdefault(split.owners[output], []).append((split.channels[output], segment))
    points = {}
    for owner, made in slices_of.items():
        neighbours = pairwise(sorted(made))
        points[owner] = tuple(channels for (channels, segment), (_, next_one) in neighbours if segment != next_one)
    return {owner: channels for owner, channels in points.items() if channels}
