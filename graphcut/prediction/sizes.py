"""Predicted size of the int8 TFLite file of any run of nodes, before anything is converted.

1. The converter's operators are predicted (graphcut.prediction.lowering) and their bytes are those of the file's own
   layout (graphcut.tflite.file_size): exact to the byte where that prediction is right, which tests compare with
   written files.
2. Planning needs sizes that add up, so that a part of a run never needs more than the run: ``prefix_bytes``, plus one
   ``base_bytes`` for what a file contains once. They are at least the exact size, and at most a few hundred bytes more;
   operators that depend on the samples (QUANTIZE at a concatenation) are counted where they may occur.
3. At the edges of a run are the tensors of graphcut.planning.segments: what it reads of earlier nodes and of the
   graph's inputs; what later nodes read of it, and the graph's outputs made in it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import add

from graphcut.analysis.liveness import reads
from graphcut.prediction.lowering import Itemised
from graphcut.prediction.node_attributes import bytes_of
from graphcut.records import Graph, Plan
from graphcut.tflite.file_size import EdgeTensor, Ledger, edge_bytes, loose_bytes
from graphcut.tflite.table_bytes import Operator

WIDEST_SEAM = 4
"""Tensors at a cut that the base includes; a file with more of them is slightly larger than planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes as prefix sums: any segment's bytes in constant time.

    Attributes:
        prefix_bytes: prefix_bytes[p] is what nodes[:p] add to a file; len(nodes) + 1 entries, rising, from 0.
        base_bytes: what every file has (header, signature, operator codes), at the most.
        prefix_weights: the same for weight bytes alone (one byte an element, each weight counted at every node that
            reads it).
        files: exact sizes; None where only the sums are known.
        per_channel: whether they were predicted for per-channel scales.
    """

    prefix_bytes: tuple[int, ...]
    base_bytes: int
    prefix_weights: tuple[int, ...]
    files: Files | None = None
    per_channel: bool = True

    def segment_bytes(self, start: int, stop: int) -> int:
        """Bytes that plans count for the int8 file of nodes[start:stop]: additive, and at least its size."""
        return self.base_bytes + self.prefix_bytes[stop] - self.prefix_bytes[start]

    def file_bytes(self, start: int, stop: int) -> int:
        """Bytes of the int8 file of nodes[start:stop]; exact if its operators are predicted correctly."""
        return self.segment_bytes(start, stop) if self.files is None else self.files.bytes(start, stop)

    def weight_bytes(self, start: int, stop: int) -> int:
        """Weight bytes of nodes[start:stop], one byte an element."""
        return self.prefix_weights[stop] - self.prefix_weights[start]


def predict(graph: Graph, *, per_channel: bool = True) -> Sizes:
    """Predict what every node adds to its int8 TFLite file; linear in the graph.

    Args:
        graph: normalised.
        per_channel: weights get one scale per output channel.
    """
    files = Files(graph, per_channel=per_channel)
    known = graph.weights
    weights = (
        sum([each.elements for name in node.inputs if (each := known.get(name)) is not None]) for node in graph.nodes
    )
    return Sizes(
        prefix_bytes=files.content,
        base_bytes=files.base_bytes(),
        prefix_weights=tuple(accumulate(weights, initial=0)),
        files=files,
        per_channel=per_channel,
    )


class Files:
    """The exact bytes of any run's file: one pass over the graph, then microseconds per query (statement 1).

    Attributes:
        content: what nodes[:p] add, increasing; operators that depend on the samples are counted.
        reads: where the graph's activations are produced and read.
    """

    def __init__(self, graph: Graph, *, per_channel: bool) -> None:
        self._graph = graph
        self._items = Itemised(graph, per_channel=per_channel)
        self._ledger = Ledger(self._items.nodes)
        self.content = self._ledger.content
        doubtful = self._items.doubtful
        if doubtful:
            more = [sum(map(loose_bytes, doubtful.get(node.outputs[0], ()))) for node in graph.nodes]
            self.content = tuple(map(add, self.content, accumulate(more, initial=0)))
        self.reads = reads(graph)
        self._made, self._read = self.reads.made, self.reads.read
        self._outputs = frozenset(graph.outputs)
        self._places: dict[str, int] = {}
        self._alive, self._widest = self._sweep()

    def bytes(self, start: int, stop: int) -> int:
        """Bytes of the int8 file of nodes[start:stop]."""
        read = [name for name in self._known(start) if self._first_read(name, start) < stop]
        inputs = sorted(read, key=lambda name: self._made[name] == 0)
        outputs = [name for name in self._known(stop) if self._made[name] > start and self._leaves(name, stop)]
        size = self._ledger.file_bytes(
            start, stop, [self._edge(name) for name in inputs], [self._made_edge(name) for name in outputs]
        )
        loose = [operator for name in inputs for operator in self._loose(name, start, stop)]
        return size + sum(map(loose_bytes, loose))

    def base_bytes(self) -> int:
        """The most that the file of any run has beyond its content, for seams of up to WIDEST_SEAM tensors."""
        inputs = dict.fromkeys((*self._widest, *self._graph.inputs))
        outputs = dict.fromkeys((*self._widest, *self._graph.outputs))
        return self._ledger.overhead([self._edge(name) for name in inputs], [self._edge(name) for name in outputs])

    def _edge(self, name: str) -> EdgeTensor:
        """A tensor as it enters a run."""
        return EdgeTensor(bytes_of(self._graph.layers.get(name, name)), len(self._graph.tensors[name].shape))

    def _made_edge(self, name: str) -> EdgeTensor:
        """A tensor as it leaves the run that produces it."""
        if name not in self._places:
            self._places |= self._brought(self._made[name] - 1)
        return self._edge(name)._replace(tensor=self._places.get(name))

    def _brought(self, index: int) -> dict[str, int]:
        """The indices in the ledger of the activations that a node produces."""
        node, operators = self._graph.nodes[index], self._items.nodes[index]
        source = self._items.fused.get(node.outputs[0])
        if source is not None:
            inner = self._brought(self._made[source] - 1)
            return {node.outputs[0]: inner[source]} if source in inner else {}
        brought = self._ledger.tensors(index)
        if not brought:
            return {}
        if len(operators) == len(node.outputs):
            ends = accumulate(len(operator.tensors) for operator in operators)
            return {name: brought.start + end - 1 for name, end in zip(node.outputs, ends, strict=True)}
        return dict(zip(node.outputs, brought[-len(node.outputs) :], strict=False))

    def _sweep(self) -> tuple[list[tuple[str, ...] | None], tuple[str, ...]]:
        """The tensors alive at every position (produced before it and read after it, or an output of the graph).

        None where that is more than twice WIDEST_SEAM, so that wide graphs do not need quadratic memory. Also the
        largest seam of up to WIDEST_SEAM tensors, by bytes at an edge.
        """
        alive = {name: edge_bytes(self._edge(name)) for name in self._graph.inputs}
        read, outputs = self._read, self._outputs
        most = 2 * WIDEST_SEAM + len(outputs)
        found: list[tuple[str, ...] | None] = [tuple(alive)]
        widest, largest = tuple(self._graph.outputs), 0
        held = sum(alive.values())
        for index, node in enumerate(self._graph.nodes):
            for name in node.outputs:
                if name in read or name in outputs:
                    alive[name] = size = edge_bytes(self._edge(name))
                    held += size
            for name in node.inputs:
                if name in alive and read[name][-1] <= index and name not in outputs:
                    held -= alive.pop(name)
            found.append(tuple(alive) if len(alive) <= most else None)
            if held > largest and len(alive) <= WIDEST_SEAM:
                widest, largest = tuple(alive), held
        return found, widest

    def _known(self, position: int) -> Iterable[str]:
        """The tensors that may be at the edge of a run that begins or ends at a position, in order of production."""
        alive = self._alive[position]
        return alive if alive is not None else [name for name, made in self._made.items() if made <= position]

    def _first_read(self, name: str, start: int) -> int:
        """Index of the first node from ``start`` on that reads an activation; len(nodes) if none does."""
        found = self._read.get(name, ())
        place = bisect_left(found, start)
        return found[place] if place < len(found) else len(self._graph.nodes)

    def _leaves(self, name: str, stop: int) -> bool:
        return name in self._outputs or self._first_read(name, stop) < len(self._graph.nodes)

    def _loose(self, name: str, start: int, stop: int) -> Iterator[Operator]:
        """What a run needs if it reads an activation from outside: a separate activation operator, a QUANTIZE."""
        if name in self._graph.uint8 and self._read[name][0] < start:
            yield self._items.from_uint8(name)
        for index in self._read[name]:
            node = self._graph.nodes[index]
            if start <= index < stop and self._items.fused.get(node.outputs[0]) == name:
                yield from self._items.unfused(node)
            elif start <= index < stop and node.op_type == "Concat" and not self._items.is_settled(name):
                yield self._items.rescaled(name)


def corrected(sizes: Sizes, plan: Plan, measured: Sequence[int]) -> Sizes:
    """Scale the bytes of every node so that each segment of the plan has its measured size.

    Inside a segment all nodes are scaled by the same factor, rounded so that the sum is exact. A segment with a
    predicted content of 0 gets the measured size at its last node. A file smaller than ``base_bytes`` lowers the base
    to its size.

    Args:
        sizes: that the plan was made with.
        plan: whose segments were converted.
        measured: bytes of the written files, one per segment.

    Raises:
        ValueError: the number of sizes is not that of the segments (a bug).
    """
    if len(measured) != plan.k:
        raise ValueError(f"{len(measured)} measured sizes for {plan.k} segments")
    base = min(sizes.base_bytes, *measured)
    prefix = [0]
    for segment, size in zip(plan.segments, measured, strict=True):
        before, begin = prefix[-1], sizes.prefix_bytes[segment.start]
        content = sizes.prefix_bytes[segment.stop] - begin
        prefix += [
            before + (sizes.prefix_bytes[position] - begin) * (size - base) // content if content else before
            for position in range(segment.start + 1, segment.stop)
        ]
        prefix.append(before + size - base)
    return replace(sizes, prefix_bytes=tuple(prefix), base_bytes=base, files=None)
