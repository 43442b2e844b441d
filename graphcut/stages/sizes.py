"""Predicted size of the int8 TFLite file of any run of nodes, before anything is converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes as prefix sums: any segment's bytes in constant time.

    Attributes:
        prefix_bytes: prefix_bytes[p] is what nodes[:p] add to a file; len(nodes) + 1 entries, rising, from 0.
        base_bytes: what every file has (header, signature, operator codes).
        prefix_weights: the same for weight bytes alone (one byte an element, each weight counted at every node that
            reads it).
    """

    prefix_bytes: tuple[int, ...]
    base_bytes: int
    prefix_weights: tuple[int, ...]

    def segment_bytes(self, start: int, stop: int) -> int:
        """Bytes of the int8 file of nodes[start:stop]."""
        return self.base_bytes + self.prefix_bytes[stop] - self.prefix_bytes[start]

    def weight_bytes(self, start: int, stop: int) -> int:
        """Weight bytes of nodes[start:stop], one byte an element."""
        return self.prefix_weights[stop] - self.prefix_weights[start]


def from_nodes(node_bytes: Sequence[int], node_weights: Sequence[int], base_bytes: int) -> Sizes:
    """Sizes from the bytes and weight bytes each node adds."""
    return Sizes(
        prefix_bytes=(0, *accumulate(node_bytes)),
        base_bytes=base_bytes,
        prefix_weights=(0, *accumulate(node_weights)),
    )
