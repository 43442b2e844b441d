"""uint8 inputs and outputs of a model, as TFLiteConverter makes them with ``inference_input_type=tf.uint8``.

1. A uint8 tensor has the scale of the int8 tensor after it and a zero point that is 128 higher: q + 128 in uint8
   stands for what q stands for in int8. A QUANTIZE stands between them and loses nothing.
2. The uint8 tensor takes the name at the edge; the int8 one is called ``NAME/int8``.
3. The QUANTIZE of an input stands before the first operator that reads it, that of an output right after the one that
   makes it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import edit, schema

INNER = "/int8"
SHIFT = 128


def with_uint8(data: bytes, names: Collection[str]) -> bytes:
    """The same file with some of its int8 inputs and outputs in uint8.

    Args:
        data: of an int8 file.
        names: of inputs and outputs; others are ignored.
    """
    model = schema.read(data)
    graph = edit.graph_of(model)
    inputs, outputs = ([int(i) for i in edges] for edges in (graph.inputs, graph.outputs))
    renamed: dict[int, str] = {}
    for edges, entering in ((inputs, True), (outputs, False)):
        for position, inner in enumerate(edges):
            name = schema.tensor_name(graph.tensors[inner])
            if name in names:
                outer = _add_uint8(model, inner)
                renamed |= {outer: name, inner: f"{name}{INNER}"}
                edges[position] = outer
                _insert(model, *((outer, inner) if entering else (inner, outer)))
    if not renamed:
        return data
    edit.rename(model, renamed)
    edit.set_interface(model, inputs, outputs)
    edit.compact(model)
    return schema.write(model)


def _add_uint8(model: Any, like: int) -> int:
    """Add the uint8 tensor of an int8 one (statement 1); its index."""
    graph = edit.graph_of(model)
    scale, zero_point = edit.scale_of(model, like)
    index = edit.add_int8(model, like, "", scale, zero_point + SHIFT)
    graph.tensors[index].type = fb.TensorType.UINT8
    graph.tensors[index].hasRank = graph.tensors[like].hasRank
    return index


def _insert(model: Any, source: int, made: int) -> None:
    """Put a QUANTIZE between two tensors in its place (statement 3)."""
    graph = edit.graph_of(model)
    operator = edit.conversion(model, source, made)
    reading = [place for place, each in enumerate(graph.operators) if made in {int(i) for i in each.inputs}]
    making = [place + 1 for place, each in enumerate(graph.operators) if source in {int(i) for i in each.outputs}]
    place = making[-1] if making else min(reading, default=0)
    graph.operators = [*graph.operators[:place], operator, *graph.operators[place:]]
