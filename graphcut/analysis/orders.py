"""Topological orders in which seams are narrow.

1. Between two tensors that dominate the outputs is a *block*; it has the same nodes in every topological order
   (graphcut.analysis.liveness, theorem). So orders differ inside blocks only, and those of different blocks can be
   combined freely (:func:`combined`).
2. Finding the order with the narrowest seams is hard (vertex separation of a directed graph is NP-hard: Bodlaender,
   Gustedt, Telle, "Linear-time register allocation for a fixed number of registers", SODA 1998, and its references). So
   several orders are tried, and the plan uses the best. Given an order, plans are exact.
3. The orders: the file's own; depth first from the outputs, which ends a branch before it begins the next one, the
   branch that needs most first (Sethi, Ullman, "The generation of optimal code for arithmetic expressions", JACM 17(4),
   1970; exact for trees); and two that always take the node after which the least is alive, in bytes or in tensors.

Every function is deterministic, and linear in nodes and their inputs, apart from the queue's logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from heapq import heappop, heappush

from graphcut.analysis.seams import activations
from graphcut.records import Graph

Order = tuple[int, ...]


def reordered(graph: Graph, order: Order) -> Graph:
    """Return the graph with its nodes in another order; ``order`` has their indices in this one."""
    if order == tuple(range(len(graph.nodes))):
        return graph
    return replace(graph, nodes=tuple(graph.nodes[index] for index in order))


def orders(graph: Graph) -> tuple[Order, ...]:
    """Return all distinct orders of statement 3, the graph's own first."""
    own = tuple(range(len(graph.nodes)))
    found = (own, depth_first(graph), leanest(graph, by_bytes=True), leanest(graph, by_bytes=False))
    return tuple(dict.fromkeys(found))


def depth_first(graph: Graph) -> Order:
    """Order the nodes so that a branch ends before the next one begins."""
    reads = _makers_read(graph)
    need = [0] * len(reads)
    for index, makers in enumerate(reads):
        needs = sorted((need[maker] for maker in makers), reverse=True)
        need[index] = max((each + held for held, each in enumerate(needs)), default=1)
    by_need = [sorted(makers, key=lambda maker: -need[maker]) for makers in reads]
    maker_of = {name: index for index, node in enumerate(graph.nodes) for name in node.outputs}
    roots = [maker_of[name] for name in graph.outputs if name in maker_of]
    entered = [False] * len(reads)
    order: list[int] = []
    for root in (*roots, *range(len(reads))):
        stack = [] if entered[root] else [(root, iter(by_need[root]))]
        entered[root] = True
        while stack:
            index, left = stack[-1]
            deeper = next((maker for maker in left if not entered[maker]), None)
            if deeper is None:
                order.append(index)
                stack.pop()
            else:
                entered[deeper] = True
                stack.append((deeper, iter(by_need[deeper])))
    return tuple(order)


def leanest(graph: Graph, *, by_bytes: bool) -> Order:
    """Order the nodes by what is alive after them: of those that can run, the one that adds the least, newest first.

    The growth of a node is the size of its outputs that are read, minus that of the inputs that only it still reads. It
    changes when the second-to-last reader of an input has run, so the queue gets each input at most once.
    """
    reads = [activations(graph, node) for node in graph.nodes]
    readers: dict[str, list[int]] = {}
    for index, names in enumerate(reads):
        for name in names:
            readers.setdefault(name, []).append(index)
    weigh = {name: graph.tensors[name].elements if by_bytes else 1 for name in readers}
    left = {name: len(indices) for name, indices in readers.items()}
    waiting = [len(makers) for makers in _makers_read(graph)]
    growth = [
        sum(weigh.get(name, 0) for name in node.outputs) - sum(weigh[name] for name in names if left[name] == 1)
        for node, names in zip(graph.nodes, reads, strict=True)
    ]
    ready_at = [0] * len(reads)
    queue: list[tuple[int, int, int]] = []
    for index, count in enumerate(waiting):
        if not count:
            heappush(queue, (growth[index], 0, index))
    done = [False] * len(reads)
    order: list[int] = []
    while queue:
        grows, _, index = heappop(queue)
        if done[index] or grows != growth[index]:
            continue
        done[index] = True
        order.append(index)
        for name in reads[index]:
            left[name] -= 1
            if left[name] == 1:
                last = next(reader for reader in readers[name] if not done[reader])
                growth[last] -= weigh[name]
                if not waiting[last]:
                    heappush(queue, (growth[last], -ready_at[last], last))
        for reader in dict.fromkeys(reader for name in graph.nodes[index].outputs for reader in readers.get(name, ())):
            waiting[reader] -= 1
            if not waiting[reader]:
                ready_at[reader] = len(order)
                heappush(queue, (growth[reader], -len(order), reader))
    return tuple(order)


def combined(choices: Sequence[Order], bounds: Sequence[int], chosen: Sequence[int]) -> Order:
    """Combine blocks of different orders (statement 1).

    Args:
        choices: orders of one graph.
        bounds: positions of the dominating tensors, with 0 and the end, increasing.
        chosen: for each block, the index of the order to use.
    """
    parts: list[int] = []
    for start, stop, index in zip(bounds, bounds[1:], chosen, strict=False):
        parts += choices[index][start:stop]
    return tuple(parts)


def _makers_read(graph: Graph) -> list[list[int]]:
    """For every node, the nodes whose outputs it reads, each once, in order."""
    maker_of = {name: index for index, node in enumerate(graph.nodes) for name in node.outputs if name}
    return [list(dict.fromkeys(maker_of[name] for name in node.inputs if name in maker_of)) for node in graph.nodes]
