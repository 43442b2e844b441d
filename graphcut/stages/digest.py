"""What a graph is, in one word."""

from __future__ import annotations

import hashlib

from graphcut.records import Graph


def digest(graph: Graph) -> str:
    """sha256 of a graph's nodes in their order, their tensors and shapes: what positions refer to."""
    tensors, weights = graph.tensors, graph.weights
    words = []
    for node in graph.nodes:
        words += [node.op_type, *node.inputs, "", *node.outputs, ""]
        words += [str(tensors[name].shape) for name in node.outputs if name in tensors]
        words += [str(weights[name].shape) for name in node.inputs if name in weights]
    words += [*graph.inputs, "", *graph.outputs]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
