"""uint8 at the model's own inputs and outputs: what camera pipelines and pycoral programs feed and read.

1. Only the model's inputs and outputs change. Seams stay int8, and so does an output that a later segment reads.
2. It is the last step of a conversion: ranges, biases and weights were chosen on the int8 files, and a QUANTIZE at the
   boundary loses nothing (:mod:`graphcut.tflite.uint8_edges`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from graphcut.errors import UsageError, setting
from graphcut.records import ConvertedSegment, Graph, SeamTensor
from graphcut.settings import EdgeType
from graphcut.tflite.uint8_edges import SHIFT, with_uint8


def typed(graph: Graph, input_type: EdgeType, output_type: EdgeType) -> Graph:
    """A graph that knows which of its inputs and outputs will be uint8 (statement 1).

    Raises:
        UsageError: ``output_type`` is "uint8", and every output is read by the model itself too.
    """
    read = {name for node in graph.nodes for name in node.inputs}
    inputs = graph.inputs if input_type == "uint8" else ()
    outputs = tuple(name for name in graph.outputs if name not in read) if output_type == "uint8" else ()
    if output_type == "uint8" and not outputs:
        raise UsageError(
            "every output is read inside the model too, so none can be uint8", f"leave {setting('output_type')} out"
        )
    return replace(graph, uint8=(*inputs, *outputs))


def uint8_layers(graph: Graph) -> frozenset[str]:
    """Names of the layers at the boundary that are uint8."""
    return frozenset(graph.layers[name] for name in graph.uint8)


def bytes_with_uint8(part: ConvertedSegment, layers: Collection[str]) -> int:
    """Size of a segment's file once its boundary is uint8."""
    edges = {tensor.layer for tensor in (*part.inputs, *part.outputs)}
    if edges.isdisjoint(layers):
        return part.segment.tflite_bytes
    return len(with_uint8(part.tflite_path.read_bytes(), layers))


def with_uint8_boundary(
    segments: Sequence[ConvertedSegment], layers: Collection[str], folder: Path
) -> tuple[ConvertedSegment, ...]:
    """Segments whose edges at the model's boundary are uint8, in files of their own; others stay as they are.

    Args:
        segments: aligned int8 segments, in order.
        layers: of the model's inputs and outputs that become uint8.
        folder: for the new files.
    """
    made = []
    for part in segments:
        edges = {tensor.layer for tensor in (*part.inputs, *part.outputs)}
        if edges.isdisjoint(layers):
            made.append(part)
            continue
        data = with_uint8(part.tflite_path.read_bytes(), layers)
        path = folder / part.tflite_path.name
        path.write_bytes(data)
        made.append(
            replace(
                part,
                segment=replace(part.segment, tflite_bytes=len(data)),
                tflite_path=path,
                inputs=tuple(_shifted(tensor, layers) for tensor in part.inputs),
                outputs=tuple(_shifted(tensor, layers) for tensor in part.outputs),
            )
        )
    return tuple(made)


def _shifted(tensor: SeamTensor, layers: Collection[str]) -> SeamTensor:
    if tensor.layer not in layers:
        return tensor
    return replace(tensor, dtype="uint8", zero_point=tensor.zero_point + SHIFT)
