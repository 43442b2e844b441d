"""Inner tensors that a search over ranges compares, in addition to the outputs.

1. A classifier gives a few numbers per picture: with a dozen pictures the effect of int8 on them is mostly chance, and
   a search would fit that chance. The last maps before them have thousands of numbers and show the same more reliably.
2. So where an output is a vector, the last ``MOST`` maps that all paths pass are compared with float too. An output
   that is a map, or a list of boxes, says enough by itself.
3. They are found by name in the int8 files: one that was merged with another operator is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from graphcut.graph.model import Model
from graphcut.graph.reference import activations
from graphcut.measurement.loss import LEAST_POSITIONS
from graphcut.measurement.metrics import to_nhwc
from graphcut.records import Analysis, Array, ConvertedSegment, Samples
from graphcut.tflite import edit, schema

MOST = 3
MOST_NUMBERS = 4096
"""Numbers of an output for one sample up to which it is taken for a vector (statement 2): classes, embeddings."""

_SUFFIXES = ("", edit.MAP_ENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An inner tensor: its ONNX name, and the file (from 0) and name under which int8 has it."""

    tensor: str
    file: int
    name: str


def checkpoints(model: Model, analysis: Analysis, segments: Sequence[ConvertedSegment]) -> tuple[Checkpoint, ...]:
    """The tensors to compare (statement 2), last one first; none where the outputs are sufficient."""
    shapes = {name: tensor.shape for name, tensor in model.graph.tensors.items()}
    sizes = [prod(shapes[name]) for name in model.graph.outputs]
    if min(sizes) > MOST_NUMBERS:
        return ()
    files = [_maps(part) for part in segments]
    found: list[Checkpoint] = []
    for candidate in reversed(analysis.candidates):
        shape = candidate.shape
        if len(candidate.tensors) > 1 or len(shape) != 4 or prod(shape[2:]) < LEAST_POSITIONS:
            continue
        nhwc = (shape[0], *shape[2:], shape[1])
        at = [
            (number, candidate.layer + suffix)
            for number, maps in enumerate(files)
            for suffix in _SUFFIXES
            if maps.get(candidate.layer + suffix) == nhwc
        ]
        if at and candidate.tensor in shapes:
            found.append(Checkpoint(tensor=candidate.tensor, file=at[0][0], name=at[0][1]))
        if len(found) == MOST:
            break
    return tuple(found)


def float_maps(model: Model, samples: Samples, wanted: Sequence[Checkpoint]) -> Mapping[Checkpoint, Array]:
    """The float values of checkpoints on the samples, (N, H, W, C)."""
    if not wanted:
        return {}
    values = activations(model, samples, tuple(each.tensor for each in wanted))
    return {each: to_nhwc(values[each.tensor]) for each in wanted}


def _maps(part: ConvertedSegment) -> dict[str, tuple[int, ...]]:
    """The int8 activations that a file produces: name -> shape."""
    model = schema.read(part.tflite_path.read_bytes())
    graph = edit.graph_of(model)
    made = (int(index) for operator in graph.operators for index in operator.outputs)
    return {
        schema.tensor_name(graph.tensors[index]): tuple(int(size) for size in graph.tensors[index].shape)
        for index in made
        if schema.TYPE_NAMES[graph.tensors[index].type] == "INT8" and graph.tensors[index].shape is not None
    }
