"""The rules of other tools, as documented by them, for comparison. They cut anywhere between two operators.

1. *edgetpu_compiler* ``--num_segments N``: parameters in equal shares. It walks the operators and cuts just before a
   segment would exceed total / N; the last takes the rest (Villarrubia et al., J. Supercomputing 81(1), 2025;
   coral.ai/docs/edgetpu/pipeline). Predicted with it for ResNet-101 at 224 and N = 1 .. 7: 36.65, 29.30, 21.82, 14.47,
   7.12, 2.65 and 2.13 MiB off chip, published 35.91, 28.36, 20.79, 13.27, 5.47, 2.03 and 2.03; at N = 8 the rule cuts
   one convolution later than the compiler did and predicts 0 where 2.03 is published.
2. *onnx2tf* ``--enable_auto_split_model --auto_split_max_size``: contiguous parts, each up to the last operator with
   which the estimated float32 file stays within the size. (onnx2tf 2.6, README, "Auto split model".)
3. *ssp4onnx* ``--auto_split_max_size``: walks the operators adding up weights, and cuts once the size is exceeded; its
   own example has parts of 1.1 GB for a size of 1 GB. (github.com/PINTO0309/ssp4onnx, README.)

The sizes of 2 and 3 are those of float32, four times those of int8, so they get four times the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from graphcut.analysis.seams import fuses
from graphcut.records import Graph

_FLOAT = 4


def boundaries(graph: Graph) -> list[int]:
    """Positions between two operators: not between one and the activation that is fused into it."""
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    makers = {name: node for node in graph.nodes for name in node.outputs}
    found = []
    for position, node in enumerate(graph.nodes):
        maker = makers.get(node.inputs[0]) if node.inputs else None
        if maker is not None and readers[node.inputs[0]] == 1 and fuses(graph, maker, node):
            continue
        found.append(position)
    return [position for position in found if position]


def by_equal_shares(graph: Graph, weights: Sequence[int], count: int) -> tuple[int, ...]:
    """Positions of the cuts by rule 1.

    Args:
        graph: whose operators are walked.
        weights: parameter bytes of nodes[:p] for every position p.
        count: number of segments.
    """
    share = weights[-1] / count
    cuts: list[int] = []
    here = 0
    allowed = boundaries(graph)
    for _ in range(count - 1):
        later = [position for position in allowed if position > here]
        within = [position for position in later if weights[position] - weights[here] <= share]
        if not later:
            break
        here = max(within, default=later[0])
        cuts.append(here)
    return tuple(cuts)


def by_filling(graph: Graph, sizes: Sequence[int], budget: int) -> tuple[int, ...]:
    """Positions of the cuts by rule 2: each part is filled up to the last operator within the budget."""
    cuts: list[int] = []
    here, last = 0, 0
    for position in [*boundaries(graph), len(graph.nodes)]:
        if _FLOAT * (sizes[position] - sizes[here]) > _FLOAT * budget and last > here:
            cuts.append(last)
            here = last
        last = position
    return tuple(cuts)


def by_passing(graph: Graph, weights: Sequence[int], budget: int) -> tuple[int, ...]:
    """Positions of the cuts by rule 3: a part ends once the budget is exceeded."""
    cuts: list[int] = []
    here = 0
    for position in boundaries(graph):
        if _FLOAT * (weights[position] - weights[here]) >= _FLOAT * budget:
            cuts.append(position)
            here = position
    return tuple(cuts)


def weight_sums(graph: Graph) -> tuple[int, ...]:
    """Weight bytes of nodes[:p], one byte per element, for every position p."""
    own = (sum(graph.weights[name].elements for name in node.inputs if name in graph.weights) for node in graph.nodes)
    return tuple(accumulate(own, initial=0))
