"""Segments from cuts: what each takes and hands on, for seams of one tensor or several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from graphcut.records import Graph, Segment
from graphcut.stages.frontier import lifetimes
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
    life = lifetimes(graph)
    bounds = [0, *positions, len(graph.nodes)]
    made = []
    for index, (start, stop) in enumerate(pairwise(bounds)):
        nodes = graph.nodes[start:stop]
        read = dict.fromkeys(name for node in nodes for name in node.inputs if name in life.first)
        earlier = [name for name in read if 0 < life.first[name] <= start]
        inputs = (*sorted(earlier, key=life.first.__getitem__), *(name for name in graph.inputs if name in read))
        own = [name for node in nodes for name in node.outputs if name]
        leaving = [name for name in graph.outputs if start < life.first[name] <= stop]
        outputs = tuple(dict.fromkeys((*(name for name in own if life.last_read[name] >= stop), *leaving)))
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
