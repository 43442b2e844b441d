"""What a graph or a document is, in one word."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from graphcut.records import Graph


def digest(graph: Graph) -> str:
    """sha256 of a graph's nodes in their order, their tensors and shapes: what positions refer to."""
    tensors, weights = graph.tensors, graph.weights
    shown = cache(str)  # most shapes occur often
    words = []
    for node in graph.nodes:
        words += [node.op_type, *node.inputs, "", *node.outputs, ""]
        words += [shown(each.shape) for name in node.outputs if (each := tensors.get(name)) is not None]
        words += [shown(each.shape) for name in node.inputs if (each := weights.get(name)) is not None]
    words += [*graph.inputs, "", *graph.outputs]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def seal(document: Mapping[str, Any]) -> str:
    """sha256 of a document without its own ``seal``: a slip of the pen shows, a forger has to write it anew."""
    bare = {name: value for name, value in document.items() if name != "seal"}
    return hashlib.sha256(json.dumps(bare, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
