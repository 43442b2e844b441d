"""The activations alive at every position of the graph: the frontier.

1. A position p lies between nodes: ``nodes[:p]`` have run, ``nodes[p:]`` have not.
2. An activation is alive at p if it exists there (an input of the graph, or produced by ``nodes[:p]``) and is still
   needed (read by ``nodes[p:]``, or an output of the graph). The frontier at p is everything alive there, which a cut
   at p has to hand over.
3. A node that reads no activation (such as random numbers) reads a virtual source, which counts as alive until the last
   such node has run.
4. A node none of whose outputs is needed counts as an output of the graph: one of its outputs stays alive to the end.
   Normalised graphs have none; elsewhere this can lose a cut but never allows a wrong one.
5. The *seam* at p is what a cut there hands over: the part of the frontier that ``nodes[p:]`` read. An output of the
   graph that is already produced and no longer read leaves with its segment, and the virtual source is not a tensor. So
   a seam may have fewer tensors than the frontier, never more.

Theorem: the frontier at p >= 1 is exactly {t} if and only if every path from the source through the graph to its
outputs passes t, and ``nodes[p - 1]`` makes t. It holds for any topological order.

Proof. By 3 and 4 every node lies on a path from the source to the outputs.

*If all paths pass t*, every node other than the producer of t lies before or after t on such a path: it is an
ancestor of the producer, or it depends on t, and not both, since there is no cycle. A topological order puts all
ancestors before the producer and all that depend on t after it; so, with p just after the producer, ``nodes[:p]``
are exactly the producer and its ancestors. Were another tensor u alive at p, there would be a path to u through
``nodes[:p]`` that does not pass t (only the last of these nodes makes t), and on from u through ``nodes[p:]`` that
does not either (t is made already): a contradiction.

*If t alone is alive at p*, every path crosses p, from what exists there to what comes after; the tensor with which it
crosses is needed after p, hence alive, hence t. So all paths pass t. Were ``nodes[p - 1]`` not its producer, it would
come after the producer, so depend on t; being on a path to the outputs it produces something needed after p, alive at
p and not t: a contradiction.

So the tensors that dominate the outputs are found by counting, in one sweep over the nodes and their inputs, whatever
the order; a cut of several tensors is a position with a wider seam, and which of those exist depends on the order
(graphcut.analysis.orders).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphcut.records import Graph, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """The positions from which and up to which every activation is alive.

    Attributes:
        first: activation -> first position at which it exists: 0 for inputs, i + 1 where ``nodes[i]`` produces it.
        last: activation -> last position at which it is needed; below ``first`` if it is never needed.
        last_read: the same for readers only: an output of the graph is needed to the end, but may be read earlier.
        readers: activation -> number of nodes that read it.
        counts: position -> how many activations (and the virtual source, statement 3) are alive; len(nodes) + 1.
    """

    first: Mapping[str, int]
    last: Mapping[str, int]
    last_read: Mapping[str, int]
    readers: Mapping[str, int]
    counts: tuple[int, ...]

    def seams(self, graph: Graph, most: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Return each position with a seam (statement 5) of 1 to ``most`` tensors, and these in order of production.

        One sweep, linear in the nodes and their inputs, times ``most``.
        """
        alive = {name: None for name in graph.inputs if self.last_read[name] >= 0}
        for index, node in enumerate(graph.nodes):
            for name in node.inputs:
                if self.last_read.get(name) == index:
                    alive.pop(name, None)
            for name in node.outputs:
                if name and self.last_read[name] > index:
                    alive[name] = None
            if 1 <= len(alive) <= most:
                yield index + 1, tuple(alive)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """Where every activation is produced and read.

    Attributes:
        made: activation -> first position at which it exists: 0 for inputs, i + 1 where ``nodes[i]`` makes it.
        read: activation that is read after that -> indices of its reading nodes, increasing.
        source_until: the last node that reads no activation (statement 3); -1 if there is none.
        unmade: the first node that reads a tensor not produced before it, and that tensor; None in a topological order.
    """

    made: Mapping[str, int]
    read: Mapping[str, Sequence[int]]
    source_until: int
    unmade: tuple[Node, str] | None


def reads(graph: Graph) -> Reads:
    """Find where every activation is produced and read; linear in nodes and their inputs."""
    made = dict.fromkeys(graph.inputs, 0)
    read: dict[str, list[int]] = {}
    weights, unmade, source_until = graph.weights, None, -1
    for index, node in enumerate(graph.nodes):
        sourced = True
        for name in node.inputs:
            found = read.get(name)
            if found is not None:
                found.append(index)
            elif name in made:
                read[name] = [index]
            elif name in weights or not name:
                continue
            else:
                unmade = unmade or (node, name)
            sourced = False
        if sourced:
            source_until = index
        for name in node.outputs:
            if name:
                made[name] = index + 1
    return Reads(made=made, read=read, source_until=source_until, unmade=unmade)


def lifetimes(graph: Graph, found: Reads | None = None) -> Lifetimes:
    """Find where every activation is alive; linear in nodes and their inputs.

    Args:
        graph: in topological order.
        found: its reads, if they are known.

    Raises:
        ValueError: a node reads a tensor not produced before it: the graph is not in topological order (a bug, not a
            user error).
    """
    found = found or reads(graph)
    if found.unmade is not None:
        node, name = found.unmade
        raise ValueError(f"node {node.name!r} reads {name!r}, which no node before it produces")
    end, first = len(graph.nodes), found.made
    last_read = dict.fromkeys(first, -1)
    readers = dict.fromkeys(first, 0)
    for name, indices in found.read.items():
        last_read[name] = indices[-1]
        readers[name] = 1 if len(indices) == 1 else len(set(indices))
    last = last_read | dict.fromkeys(set(graph.outputs) & first.keys(), end)
    unread = {name for name, until in last.items() if until < 0}
    for node in graph.nodes if unread else ():  # statement 4
        made = [name for name in node.outputs if name]
        if made and unread.issuperset(made):
            last[made[0]] = end

    starts = np.fromiter((*first.values(), 0), np.int64)  # the last entry is the virtual source's
    stops = np.fromiter((*last.values(), found.source_until), np.int64)
    lives = stops >= starts
    steps = np.bincount(starts[lives], minlength=end + 2) - np.bincount(stops[lives] + 1, minlength=end + 2)
    counts = tuple(np.cumsum(steps[: end + 1]).tolist())
    return Lifetimes(first=first, last=last, last_read=last_read, readers=readers, counts=counts)
