"""Segments from cuts: what each takes and hands on, for seams of one tensor or several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from graphcut.records import Graph, Segment
from graphcut.stages.frontier import lifetimes
from graphcut.stages.sizes import Sizes


def segments(graph: Graph, positions: Sequence[int], sizes: Sizes) -> tuple[Segment, ...]:
    """Make the segments between cuts at any rising positions; linear in the graph.

    The seam at a position is every activation made before it and read behind it, in the order in which they are made.
    A segment's inputs are the seam before it, then the graph's inputs that it reads; its outputs are the seam behind
    it, then the graph's outputs made in it. A tensor that skips over a segment is handed through: it is among its
    inputs and its outputs.
    """
    life = lifetimes(graph)
    given = set(graph.inputs)
    seams = [
        [name for name in alive if name not in given and life.last_read[name] >= position]
        for position, alive in zip(positions, life.frontiers(positions), strict=True)
    ]
    bounds = [0, *positions, len(graph.nodes)]
    made = []
    for index, (start, stop) in enumerate(pairwise(bounds)):
        before = seams[index - 1] if index else []
        behind = seams[index] if index < len(seams) else []
        read = {name for node in graph.nodes[start:stop] for name in node.inputs}
        inputs = (*before, *(name for name in graph.inputs if name in read))
        leaving = (name for name in graph.outputs if start < life.first[name] <= stop)
        outputs = tuple(dict.fromkeys((*behind, *leaving)))
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
                tflite_bytes=sizes.segment_bytes(start, stop),
            )
        )
    return tuple(made)
