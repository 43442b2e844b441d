"""Choose the best of several topological orders for seams of up to N tensors.

1. For every order: which positions can be cut (graphcut.analysis.seams), and what lies between them.
2. Between two dominating tensors orders can be exchanged (planning.orders, statement 1), so beside the orders
   themselves two are tried that are put together from them: of every block the order whose largest indivisible piece
   is smallest; and the file's order except where that piece passes the limit.
3. The order taken needs the fewest segments, then hands over the fewest bytes, then the fewest tensors, then comes
   first. Where there is no limit, it is the one whose largest indivisible piece is smallest.
4. Only the file's order is considered where no other can need fewer tensors or fewer segments (:meth:`own`).

Everything is linear in the graph for each order; pieces are found in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphcut.analysis.liveness import Lifetimes, lifetimes
from graphcut.analysis.orders import Order, combined, orders, reordered
from graphcut.analysis.seams import Profile, profile
from graphcut.planning.exact import cheapest_path
from graphcut.prediction.sizes import Sizes
from graphcut.records import Graph

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ordered:
    """An order with its seams and the bytes up to every position."""

    order: Order
    profile: Profile
    content: Numbers


class Chooser:
    """Compares the orders of one graph.

    Args:
        graph: in the file's order.
        sizes: of its nodes in that order.
        allow_fused: also cut between an operator and the activation that would be fused into it.
        life: of the graph, if it is known.
    """

    def __init__(self, graph: Graph, sizes: Sizes, *, allow_fused: bool, life: Lifetimes | None = None) -> None:
        self._graph = graph
        self._base = sizes.base_bytes
        self._node_bytes = np.diff(np.array(sizes.prefix_bytes, np.int64))
        self._allow_fused = allow_fused
        life = life or lifetimes(graph)
        self._own = self._measured(tuple(range(len(graph.nodes))), life)
        self._several: list[_Ordered] = []
        self._dominated = np.array(life.counts) == 1

    @property
    def _orders(self) -> list[_Ordered]:
        """All orders, the graph's own first; the others are made when they are asked for."""
        if not self._several:
            self._several = [self._own, *(self._measured(order) for order in orders(self._graph)[1:])]
        return self._several

    def own(self, ranks: Sequence[int], limit: int) -> tuple[int, int] | None:
        """The fewest tensors, and the rank, with which the graph's own order does, if it is as good as any can be.

        With one output, whether one tensor is enough is the same in every order (graphcut.analysis.liveness, theorem);
        so two are the fewest where one is not. And no plan has fewer segments than the bytes of the whole ask for.
        """
        room = max(1, limit - self._base)
        fewest = max(1, -(-int(self._own.content[-1]) // room))
        for most in (1, 2)[: 2 if len(self._graph.outputs) == 1 else 1]:
            for rank in ranks:
                cost = self._cost(self._own, most, rank, limit)
                if cost[0] == 0:
                    return (most, rank) if cost[1] == fewest else None
        return None

    @property
    def widest(self) -> int:
        """The most tensors that any position of any order hands over."""
        return max(each.profile.widest for each in self._orders)

    def least(self, most: int, min_rank: int) -> int:
        """Bytes of the smallest file that the largest indivisible piece needs, in the best order of every block."""
        return self._base + int(self._pieces(most, min_rank).min(axis=0).max())

    def places(self, most: int, min_rank: int) -> int:
        """Number of places to cut in the order that has most."""
        return max(len(self._positions(each, most, min_rank)) for each in self._orders)

    def least_own(self, most: int, min_rank: int) -> int:
        """The same in the graph's own order."""
        edges = self._edges(self._own, most, min_rank)
        return self._base + int(np.diff(self._own.content[edges]).max())

    def best(self, most: int, min_rank: int, limit: int | None) -> Graph:
        """The graph in the best order (statement 3)."""
        pieces = self._pieces(most, min_rank)
        bounds = self._bounds(most, min_rank).tolist()
        choices = self._orders
        if len(choices) > 1 and len(bounds) > 2:
            smallest = pieces.argmin(axis=0)
            put_together = [smallest]
            if limit is not None:
                put_together.append(np.where(pieces[0] + self._base <= limit, 0, smallest))
            known = [each.order for each in choices]
            further = dict.fromkeys(combined(known, bounds, chosen.tolist()) for chosen in put_together)
            choices = [*choices, *(self._measured(order) for order in further if order not in known)]
        costs = [(*self._cost(each, most, min_rank, limit), index) for index, each in enumerate(choices)]
        return choices[min(costs)[-1]].profile.graph

    def _measured(self, order: Order, life: Lifetimes | None = None) -> _Ordered:
        content = np.concatenate(([0], np.cumsum(self._node_bytes[list(order)])))
        return _Ordered(order=order, profile=profile(reordered(self._graph, order), life), content=content)

    def _positions(self, each: _Ordered, most: int, min_rank: int) -> Numbers:
        return each.profile.positions(most, min_rank, allow_fused=self._allow_fused)

    def _edges(self, each: _Ordered, most: int, min_rank: int) -> Numbers:
        return np.concatenate(([0], self._positions(each, most, min_rank), [len(self._graph.nodes)]))

    def _bounds(self, most: int, min_rank: int) -> Numbers:
        """The dominating positions that can be cut, the same in every order, with 0 and the end."""
        edges = self._edges(self._own, most, min_rank)
        return np.concatenate((edges[:1], edges[1:-1][self._dominated[edges[1:-1]]], edges[-1:]))

    def _pieces(self, most: int, min_rank: int) -> Numbers:
        """Content of the largest indivisible piece by order and block."""
        bounds = self._bounds(most, min_rank)
        rows = []
        for each in self._orders:
            edges = self._edges(each, most, min_rank)
            gaps = np.diff(each.content[edges])
            rows.append(np.maximum.reduceat(gaps, np.searchsorted(edges, bounds[:-1])))
        return np.stack(rows)

    def _cost(self, each: _Ordered, most: int, min_rank: int, limit: int | None) -> tuple[int, int, int, int]:
        """The cost of an order (statement 3); one without a plan costs more than any with one."""
        edges = self._edges(each, most, min_rank)
        content, positions = each.content[edges], edges[1:-1]
        if limit is None:
            return 0, int(np.diff(content).max()), 0, 0
        sizes, tensors = each.profile.handed[positions].tolist(), each.profile.tensors[positions].tolist()
        handed = list(zip(sizes, tensors, strict=True))
        found = cheapest_path(content.tolist(), limit - self._base, handed)
        return (1, 0, 0, 0) if found is None else (0, *found[0])
