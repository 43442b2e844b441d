"""The names of Keras' layers in an ONNX graph.

Keras 3 appends a number to every scope when a model is called again ("block1_conv_1/convolution" for the layer
block1_conv). The name alone does not show whether the number belongs to the layer ("conv2d_1"), but the model knows its
layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from graphcut.sources.canonicalise import rename

_NUMBER = re.compile(r"_\d+$")


def layers_of(model: Any) -> frozenset[str]:
    """The names of a Keras model and of all layers in it, those of nested models included."""
    found: set[str] = set()
    waiting = [model]
    while waiting:
        layer = waiting.pop()
        if layer.name not in found:
            found.add(layer.name)
            waiting += [*getattr(layer, "layers", ()), *getattr(layer, "_layers", ())]
    return frozenset(found)


def settle(graph: Any, layers: frozenset[str]) -> None:
    """Drop Keras' numbers from the names in a GraphProto, where nearly all scopes have one.

    Args:
        graph: from a Keras model; inputs and outputs keep their names.
        layers: see :func:`layers_of`.
    """
    fixed = {value.name for value in (*graph.input, *graph.output)}
    tensors = [name for node in graph.node for name in node.output if name and name not in fixed]
    scopes = [part for name in (*tensors, *(node.name for node in graph.node)) for part in name.split("/")[:-1]]
    if not _numbered(scopes, layers):
        return
    taken = {*fixed, *(value.name for value in graph.initializer)}
    rename(graph, _shorter(tensors, layers, taken))
    names = _shorter((node.name for node in graph.node), layers, set())
    for node in graph.node:
        node.name = names[node.name]


def _numbered(scopes: Iterable[str], layers: frozenset[str]) -> bool:
    """Whether more scopes are a layer's name with a number than without."""
    balance = 0
    for scope in scopes:
        bare = _NUMBER.sub("", scope)
        if (scope in layers) != (bare != scope and bare in layers):
            balance += -1 if scope in layers else 1
    return balance > 0


def _shorter(names: Iterable[str], layers: frozenset[str], taken: set[str]) -> dict[str, str]:
    """The names without numbers; where a layer is shared, its second operator of a name gets a number of its own."""
    renamed: dict[str, str] = {}
    for name in names:
        *scopes, last = name.split("/")
        operator, colon, slot = last.partition(":")
        bare = "/".join([*(_bare(scope, layers) for scope in scopes), operator])
        wanted, number = f"{bare}{colon}{slot}", 1
        while wanted in taken:
            number += 1
            wanted = f"{bare}_{number}{colon}{slot}"
        renamed[name] = wanted
        taken.add(wanted)
    return renamed


def _bare(scope: str, layers: frozenset[str]) -> str:
    bare = _NUMBER.sub("", scope)
    return bare if bare in layers else scope
