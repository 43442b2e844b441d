"""Find layers that no cut makes small enough, and where to divide them.

1. A layer is *oversized* if a file with this layer alone exceeds the budget.
2. It is divided in two steps. First into many thin *slices*, with which a plan is made as if they were layers of the
   graph: that says which channels come into which segment. Then exactly there, and nowhere else, so that every part
   fills its segment (:func:`meeting_points`).
3. A slice has at most 1/GRAIN of the budget, and a multiple of CHANNELS channels where it can. Where nothing may stream
   it has whole GROUPs of channels, which is what a part takes on the chip. It counts with its share of the layer's
   bytes: what a part has beyond that (its tables, its Concat) is needed once per segment, so it counts in the base
   (:func:`shared`).
4. Parts are planned for a budget reduced by the possible prediction error (:func:`safe`), because a part cannot be made
   smaller later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

from graphcut.graph.passes.parts import SplitLayers, output_channels, split_layers
from graphcut.prediction.sizes import Sizes
from graphcut.records import Graph

Measure = Callable[[Graph], Sizes]
"""Predicts the bytes of every node of a graph, in its order."""

GRAIN = 64
"""Slices per budget: at worst this share of a segment stays empty because of the granularity."""
MOST_SLICES = 2048
"""Of one layer: every slice is three nodes to plan with."""
GROUP = 64
"""Output channels of a group on the chip: a cached layer takes whole ones (graphcut.edgetpu.packing, statement 8)."""
CHANNELS = 4
"""The Edge TPU stores output channels in groups of four (graphcut.edgetpu.packing)."""


def oversized(graph: Graph, sizes: Sizes, budget: int) -> dict[str, int]:
    """Find the splittable layers of statement 1: output of the node -> bytes of its file alone."""
    found = {}
    for index, node in enumerate(graph.nodes):
        alone = sizes.segment_bytes(index, index + 1)
        if alone > budget and output_channels(graph, node) > 1:
            found[node.outputs[0]] = alone
    return found


def slices(
    graph: Graph, sizes: Sizes, budget: int, layers: Mapping[str, int], *, cached: bool = False
) -> dict[str, tuple[int, ...]]:
    """Choose the channels at which slices meet (statement 3); ``cached`` parts must not stream."""
    makers = {name: node for node in graph.nodes for name in node.outputs}
    bounds = {}
    for output, alone in layers.items():
        channels = output_channels(graph, makers[output])
        one = max(1, (alone - sizes.base_bytes) // channels)
        width = max(1, (budget - sizes.base_bytes) // GRAIN // one, channels // MOST_SLICES)
        if width > CHANNELS:
            width -= width % CHANNELS
        if cached and 2 * GROUP * one <= budget:
            width = max(width - width % GROUP, GROUP)
        bounds[output] = tuple(range(width, channels, width))
    return bounds


def safe(budget: int) -> int:
    """Give the budget that parts are planned for (statement 4): 256 bytes or 0.2 % less."""
    return max(budget - max(256, budget // 500), 1)


def shared(graph: Graph, layers: Mapping[str, int], split: SplitLayers, measure: Measure) -> Measure:
    """Give what measures the sliced graph, in any order (statement 3).

    Args:
        graph: with the layers whole.
        layers: from :func:`oversized`.
        split: the same graph in slices.
        measure: of graphs with nothing special in them.
    """
    makers = {name: node for node in graph.nodes for name in node.outputs}
    channels = {output: output_channels(graph, makers[output]) for output in layers}
    halves = split_layers(graph, {output: (count // 2,) for output, count in channels.items()})
    one = _bytes_of(measure(graph), graph, {output: output for output in layers})
    two = _bytes_of(measure(halves.graph), halves.graph, halves.owners)
    more = max(two[output] - one[output] for output in layers)

    def sizes(sliced: Graph) -> Sizes:
        known = measure(sliced)
        node_bytes = [after - before for before, after in pairwise(known.prefix_bytes)]
        for index, node in enumerate(sliced.nodes):
            output = node.outputs[0]
            owner = split.owners.get(output)
            if owner is not None:
                start, stop = split.channels.get(output, (0, 0))
                node_bytes[index] = -(-one[owner] * (stop - start) // channels[owner])
        return Sizes(
            prefix_bytes=(0, *accumulate(node_bytes)),
            base_bytes=known.base_bytes + max(0, more),
            prefix_weights=known.prefix_weights,
        )

    return sizes


def meeting_points(split: SplitLayers, graph: Graph, positions: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Find the channels at which cuts divide sliced layers: output of the layer -> channels, rising.

    Args:
        split: the layers in slices.
        graph: ``split.graph`` in the order that the positions count.
        positions: of the cuts, rising.
    """
    slices_of: dict[str, list[tuple[int, int]]] = {}
    for index, node in enumerate(graph.nodes):
        output = node.outputs[0]
        if output in split.channels:
            segment = bisect_right(positions, index)
            slices_of.setdefault(split.owners[output], []).append((split.channels[output][1], segment))
    points = {}
    for owner, made in slices_of.items():
        neighbours = pairwise(sorted(made))
        points[owner] = tuple(channels for (channels, segment), (_, next_one) in neighbours if segment != next_one)
    return {owner: channels for owner, channels in points.items() if channels}


def _bytes_of(sizes: Sizes, graph: Graph, owners: Mapping[str, str]) -> dict[str, int]:
    """Bytes of all nodes that belong to a layer, by layer."""
    found = dict.fromkeys(owners.values(), 0)
    for index, node in enumerate(graph.nodes):
        owner = owners.get(node.outputs[0])
        if owner is not None:
            found[owner] += sizes.prefix_bytes[index + 1] - sizes.prefix_bytes[index]
    return found
