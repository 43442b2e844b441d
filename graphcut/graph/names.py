"""Layer names as the model's author knows them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from graphcut.errors import UsageError
from graphcut.records import Graph, Node


def layer_names(nodes: Sequence[Node], inputs: Sequence[str]) -> dict[str, str]:
    """Tensor -> layer name for every activation; unique."""
    import re

    names: dict[str, str] = {name: name for name in inputs}
    taken = set(inputs)
    for node in reversed(nodes):
        for output in node.outputs:
            if not output:
                continue
            layer = output.removesuffix(":0")
            match = re.fullmatch(r"[^/]+_\d+/([^/]+?)_1(/.*)?", layer)
            if match:
                layer = match[1]
            if layer in taken:
                layer = f"{layer}/{node.op_type}"
            while layer in taken:
                layer += "_"
            taken.add(layer)
            names[output] = layer
    return names


def resolve(graph: Graph, name: str) -> str:
    """The tensor that a user means by a layer name or a tensor name.

    Raises:
        UsageError: no activation has that name; the closest names are told.
    """
    if name in graph.tensors:
        return name
    for tensor, layer in graph.layers.items():
        if layer == name:
            return tensor
    close = get_close_matches(name, [*graph.layers.values(), *graph.tensors], n=3, cutoff=0.6)
    raise UsageError(
        f"the model has no layer or tensor {name!r}",
        f"did you mean {', '.join(dict.fromkeys(close))}" if close else "`graphcut inspect MODEL` lists them",
    )
