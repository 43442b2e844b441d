"""The best of several topological orders for seams of up to N tensors.

1. For every order: which positions can be cut (graphcut.stages.planning.seams), and what lies between them.
2. Between two dominating tensors orders can be exchanged (planning.orders, statement 1), so beside the orders
   themselves two are tried that are put together from them: of every block the order whose largest indivisible piece
   is smallest; and the file's order except where that piece passes the limit.
3. The order taken needs the fewest segments, then hands over the fewest bytes, then the fewest tensors, then comes
   first. Where there is no limit, it is the one whose largest indivisible piece is smallest.

Everything is linear in the graph for each order; pieces are found in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphcut.records import Graph
from graphcut.stages.frontier import lifetimes
from graphcut.stages.planning.exact import cheapest_path
from graphcut.stages.planning.orders import Order, combined, orders, reordered
from graphcut.stages.planning.seams import Profile, profile
from graphcut.stages.sizes import Sizes

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
    """

    def __init__(self, graph: Graph, sizes: Sizes, *, allow_fused: bool) -> None:
        self._graph = graph
        self._base = sizes.base_bytes
        self._node_bytes = np.diff(np.array(sizes.prefix_bytes, np.int64))
        self._allow_fused = allow_fused
        self._orders = [self._measured(order) for order in orders(graph)]
        self._dominated = np.array(lifetimes(graph).counts) == 1

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

    def _measured(self, order: Order) -> _Ordered:
        content = np.concatenate(([0], np.cumsum(self._node_bytes[list(order)])))
        return _Ordered(order=order, profile=profile(reordered(self._graph, order)), content=content)

    def _positions(self, each: _Ordered, most: int, min_rank: int) -> Numbers:
        return each.profile.positions(most, min_rank, allow_fused=self._allow_fused)

    def _edges(self, each: _Ordered, most: int, min_rank: int) -> Numbers:
        return np.concatenate(([0], self._positions(each, most, min_rank), [len(self._graph.nodes)]))

    def _bounds(self, most: int, min_rank: int) -> Numbers:
        """The dominating positions that can be cut, the same in every order, with 0 and the end."""
        edges = self._edges(self._orders[0], most, min_rank)
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
        """What an order costs (statement 3); one without a plan costs more than any with one."""
        edges = self._edges(each, most, min_rank)
        content, positions = each.content[edges], edges[1:-1]
        if limit is None:
            return 0, int(np.diff(content).max()), 0, 0
        sizes, tensors = each.profile.handed[positions].tolist(), each.profile.tensors[positions].tolist()
        handed = list(zip(sizes, tensors, strict=True))
        found = cheapest_path(content.tolist(), limit - self._base, handed)
        return (1, 0, 0, 0) if found is None else (0, *found[0])
