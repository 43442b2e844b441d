"""Make segments from cuts: their inputs and outputs, for seams of one tensor or several."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

from graphcut.prediction.sizes import Sizes
from graphcut.records import Graph, Segment


def segments(graph: Graph, positions: Sequence[int], sizes: Sizes) -> tuple[Segment, ...]:
    """Make the segments between cuts at any rising positions; linear in the graph.

    1. A segment's inputs are what it reads of earlier segments, in the order in which they make it, then what it reads
       of the graph's inputs.
    2. Its outputs are what later segments read of it, in the order in which it makes them, then the graph's outputs
       made in it that nobody reads later, in the model's order.
    3. A tensor that skips a segment is not part of it: segments are connected by name, and the runtime keeps a tensor
       until its last reader has run.
    """
    spans = list(pairwise([0, *positions, len(graph.nodes)]))
    # What each segment makes, and what it reads that it does not make itself; both in order.
    makes, lacks = [], []
    for start, stop in spans:
        nodes = graph.nodes[start:stop]
        own = dict.fromkeys(chain.from_iterable([node.outputs for node in nodes]))
        read = dict.fromkeys(chain.from_iterable([node.inputs for node in nodes]))
        makes.append(own)
        lacks.append([name for name in read if name and name not in own and name not in graph.weights])
    crossing = {*chain.from_iterable(lacks), *graph.outputs}
    first = dict.fromkeys(graph.inputs, 0)
    first |= {
        name: index for index, node in enumerate(graph.nodes, 1) for name in node.outputs if name and name in crossing
    }
    last = {name: segment for segment, names in enumerate(lacks) for name in names}
    made = []
    for index, (start, stop) in enumerate(spans):
        earlier = {name: first[name] for name in lacks[index] if first.get(name, stop) <= start}
        own = {name: None for name in makes[index] if last.get(name, -1) > index}
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
