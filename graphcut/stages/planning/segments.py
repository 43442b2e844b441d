"""Segments from cuts: what each takes and hands on, for seams of one tensor or several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from graphcut.records import Graph, Segment
from graphcut.stages.sizes import Sizes


def segments(graph: Graph, positions: Sequence[int], sizes: Sizes) -> tuple[Segment, ...]:
    """Make the segments between cuts at any rising positions; linear in the graph.

    1. A segment's inputs are what it reads of earlier segments, in the order in which they make it, then what it reads
       of the graph's inputs.
    2. Its outputs are what later segments read of it, in the order in which it makes them, then the graph's outputs
       made in it that nobody reads later, in the model's order.
    3. A tensor that skips over a segment is no part of it: segments are joined by name, and whoever runs them keeps a
       tensor until its last reader has run.
    """
    first = dict.fromkeys(graph.inputs, 0)
    last_read: dict[str, int] = {}
    for position, node in enumerate(graph.nodes):
        for name in node.inputs:
            last_read[name] = position
        for name in node.outputs:
            if name:
                first[name] = position + 1
    bounds = [0, *positions, len(graph.nodes)]
    made = []
    for index, (start, stop) in enumerate(pairwise(bounds)):
        earlier: dict[str, int] = {}
        own: dict[str, None] = {}
        for node in graph.nodes[start:stop]:
            for name in node.inputs:
                if first.get(name, stop) <= start:
                    earlier[name] = first[name]
            for name in node.outputs:
                if name and last_read.get(name, -1) >= stop:
                    own[name] = None
        given = [name for name in graph.inputs if name in earlier]
        inputs = (*(name for name in sorted(earlier, key=earlier.__getitem__) if earlier[name]), *given)
        leaving = [name for name in graph.outputs if start < first[name] <= stop]
        outputs = tuple(dict.fromkeys((*own, *leaving)))
        made.append(
            Segment(
                index=index + 1,
                start=start,
                stop=stop,
                inputs=inputs,
                outputs=outputs,
                input_layers=tuple(graph.layers[name] for name in inputs),
                output_layers=tuple(graph.layers[name] for name in outputs),
                weight_bytes=sizes.weight_bytes(start, stop),
                tflite_bytes=sizes.file_bytes(start, stop),
            )
        )
    return tuple(made)
