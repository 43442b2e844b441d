"""Hashes that identify graphs and documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from graphcut.records import Graph


def digest(graph: Graph) -> str:
    """Return the sha256 of a graph's nodes in their order, their tensors and shapes, which positions refer to."""
    tensors, weights = graph.tensors, graph.weights
    shown = cache(str)  # most shapes occur many times
    words = []
    for node in graph.nodes:
        words += [node.op_type, *node.inputs, "", *node.outputs, ""]
        words += [shown(each.shape) for name in node.outputs if (each := tensors.get(name)) is not None]
        words += [shown(each.shape) for name in node.inputs if (each := weights.get(name)) is not None]
    words += [*graph.inputs, "", *graph.outputs]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def seal(document: Mapping[str, Any]) -> str:
    """Return the sha256 of a document without its ``seal``: it detects accidental changes, not forgery."""
    bare = {name: value for name, value in document.items() if name != "seal"}
    return hashlib.sha256(json.dumps(bare, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
