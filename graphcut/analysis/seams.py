"""Which tensors can be handed over, and what a cut would hand over at every position of an order.

1. A tensor *fits* a seam if its shape is static, its rank is at most 4, its batch is 1 and it is float: then it has an
   int8 form. An input of the graph is available everywhere, so only its type counts.
2. A cut keeps the rank ``min_rank`` if every tensor that a segment produces for its seam has at least that rank.
3. A tensor is *fused through* if its only reader is fused into its producer (Conv + Relu, Conv + Clip, a batch
   normalisation or a bias after a convolution): a cut there separates the two. Which pairs fuse is the TFLite schema's
   ActivationFunctionType and the operators that have such a field.

The values of weights are not considered, so every Clip counts as fused. The layout is not considered, so a tensor
between two transposes is like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from graphcut.analysis.liveness import Lifetimes, lifetimes
from graphcut.records import Graph, Node, Shape, Tensor

MAX_RANK = 4
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_ACTIVATIONS = frozenset({"Relu", "Clip"})
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_TAKE_ACTIVATIONS = _LINEAR | {"Add", "Sub", "Mul", "Div", "BatchNormalization", "MaxPool", "AveragePool"}


def unfit(tensor: Tensor, min_rank: int) -> str:
    """Return why a tensor cannot be in a seam (statements 1 and 2); empty if it can."""
    return _unfit(tensor.shape, tensor.dtype, min_rank)


@cache
def _unfit(shape: Shape, dtype: str, min_rank: int) -> str:
    rank, seen = len(shape), _shown(shape)
    if min(shape, default=1) < 1:
        return f"its shape {seen} is not static"
    if dtype not in FLOATS:
        return f"its type is {dtype}, and only floating-point activations can be quantised at a seam"
    if rank < min_rank:
        return f"it has rank {rank} ({seen}), and cuts need at least rank {min_rank}"
    if rank > MAX_RANK:
        return f"it has rank {rank} ({seen}), and cuts allow at most rank {MAX_RANK}"
    if rank and shape[0] != 1:
        return f"its first dimension is {shape[0]} ({seen}), not a batch of 1"
    return ""


def fits(graph: Graph, name: str, min_rank: int) -> bool:
    """Return whether an activation can be handed over."""
    tensor = graph.tensors[name]
    return tensor.dtype in FLOATS if name in graph.inputs else not unfit(tensor, min_rank)


def shown(tensor: Tensor) -> str:
    """Format a tensor's shape as 1x3x224x224."""
    return _shown(tensor.shape)


def _shown(shape: Shape) -> str:
    return "x".join(str(size) if size > 0 else "?" for size in shape) or "scalar"


def activations(graph: Graph, node: Node) -> list[str]:
    """Return the activations that a node reads, each once, in order."""
    weights = graph.weights
    return [name for name in dict.fromkeys(node.inputs) if name and name not in weights]


def fuses(graph: Graph, producer: Node, reader: Node) -> bool:
    """Return whether converters fuse the reader into the producer (statement 3)."""
    if reader.op_type in _ACTIVATIONS:
        return producer.op_type in _TAKE_ACTIVATIONS
    if reader.op_type == "BatchNormalization":
        return producer.op_type in _LINEAR
    return reader.op_type == "Add" and producer.op_type in _LINEAR and len(activations(graph, reader)) == 1


def fused_through(graph: Graph, life: Lifetimes, name: str) -> bool:
    """Return whether an activation vanishes inside a fused operator (statement 3)."""
    made = life.first[name]
    if life.readers[name] != 1 or not made or name in graph.outputs:
        return False
    return fuses(graph, graph.nodes[made - 1], graph.nodes[life.last_read[name]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The seams of an order as numbers, one entry per position (len(nodes) + 1).

    Attributes:
        graph: in that order.
        tensors: number of tensors that a cut hands over.
        handed: their bytes in int8.
        rank: the lowest rank of those that a segment produces (5 for none), 0 where one does not fit.
        fused: number of those that are fused through.
    """

    graph: Graph
    tensors: npt.NDArray[np.int64]
    handed: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    fused: npt.NDArray[np.int64]

    @property
    def widest(self) -> int:
        """The most tensors at any inner position."""
        return int(self.tensors[1:-1].max(initial=0))

    def positions(self, most: int, min_rank: int, *, allow_fused: bool = False) -> npt.NDArray[np.int64]:
        """Return the inner positions with 1 to ``most`` tensors that can be cut, increasing."""
        inside = slice(1, len(self.tensors) - 1)
        good = (self.tensors[inside] >= 1) & (self.tensors[inside] <= most) & (self.rank[inside] >= min_rank)
        if not allow_fused:
            good &= self.fused[inside] == 0
        return np.flatnonzero(good) + 1


def profile(graph: Graph, life: Lifetimes | None = None) -> Profile:
    """Count what a cut at every position hands over; linear in the graph. ``life`` is the graph's, if it is known."""
    life = life or lifetimes(graph)
    end = len(graph.nodes)
    starts, stops, sizes, ranks, fused = [], [], [], [], []
    for name, start in life.first.items():
        stop = life.last_read[name]
        if stop < start:
            continue
        tensor = graph.tensors[name]
        starts.append(start)
        stops.append(stop + 1)
        sizes.append(tensor.elements)
        rank = MAX_RANK + 1 if name in graph.inputs else len(tensor.shape)
        ranks.append(rank if fits(graph, name, 1) else 0)
        fused.append(fused_through(graph, life, name))
    begin, past = np.array(starts, np.int64), np.array(stops, np.int64)
    rank_of = np.array(ranks, np.int64)

    def alive(amounts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        steps = np.zeros(end + 2, np.int64)
        np.add.at(steps, begin, amounts)
        np.subtract.at(steps, past, amounts)
        return np.cumsum(steps)[: end + 1]

    lowest = np.full(end + 1, MAX_RANK + 1, np.int64)
    for rank in range(MAX_RANK, -1, -1):
        lowest[alive((rank_of == rank).astype(np.int64)) > 0] = rank
    return Profile(
        graph=graph,
        tensors=alive(np.ones(len(begin), np.int64)),
        handed=alive(np.array(sizes, np.int64)),
        rank=lowest,
        fused=alive(np.array(fused, np.int64)),
    )
