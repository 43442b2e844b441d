"""Make the sparse constants of a TFLite file dense.

1. A sparse tensor stores its values along a *traversal order* of its dimensions, followed by those of the blocks
   (tensorflow/lite/schema/schema.fbs, SparsityParameters; the format is that of TACO, Kjolstad et al., 2017).
   ``traversalOrder`` numbers the tensor's dimensions from 0 and the block dimensions after them; ``blockMap`` gives the
   dimension that a block divides.
2. Each level is dense (every index from 0 to its size), or compressed: the children of position p are those from
   ``arraySegments[p]`` to ``arraySegments[p + 1]``, and ``arrayIndices`` gives their indices.
3. Elements that are not stored are 0.
4. DENSIFY makes a sparse constant dense while the model runs. It is removed: its readers read the constant.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as fb

from graphcut.errors import ModelError
from graphcut.tflite import schema
from graphcut.tflite.schema_types import DimensionMetadataT, ModelT, SubGraphT, TensorT

MOST_ELEMENTS = 2**29
"""The most elements of one dense tensor (2 GiB of float32, the largest file)."""

Integers = npt.NDArray[np.int64]


def densify(model: ModelT, subject: str) -> int:
    """Make the sparse constants of a ``ModelT`` dense and drop DENSIFY, in place; returns how many there were.

    Raises:
        ModelError: the description of a sparse tensor contradicts itself.
    """
    count = 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.sparsity is None:
                continue
            try:
                values = _dense(model, tensor)
            except (ValueError, IndexError, TypeError, AttributeError) as error:
                raise ModelError(
                    f"{subject}: the layout of the sparse weight {schema.tensor_name(tensor)!r} contradicts itself",
                    "the file is damaged; convert the model again",
                ) from error
            schema.set_constant(model, tensor, values)
            tensor.sparsity = None
            count += 1
        _drop_densify(model, graph)
    return count


def has_sparse(model: ModelT) -> bool:
    """Whether any constant of a ``ModelT`` is sparse."""
    return any(tensor.sparsity is not None for graph in model.subgraphs for tensor in graph.tensors)


def _dense(model: ModelT, tensor: TensorT) -> npt.NDArray[Any]:
    """The values of a sparse tensor in its shape (statements 1 to 3).

    Raises:
        ValueError, IndexError, TypeError, AttributeError: the description contradicts itself.
    """
    shape = tuple(int(size) for size in tensor.shape)
    stored = schema.stored(model, tensor)
    sparsity = tensor.sparsity
    if sparsity is None:
        raise ValueError("the tensor is not sparse")
    order = [int(number) for number in sparsity.traversalOrder]
    blocks = [] if sparsity.blockMap is None else [int(number) for number in sparsity.blockMap]
    levels = list(sparsity.dimMetadata)
    if sorted(order) != list(range(len(shape) + len(blocks))) or len(levels) != len(order):
        raise ValueError("dimensions and levels differ in number")
    if any(not 0 <= dimension < len(shape) for dimension in blocks) or not 0 < prod(shape) <= MOST_ELEMENTS:
        raise ValueError("no such dimension, or no such size")
    positions: Integers = np.zeros(1, np.int64)
    found: dict[int, Integers] = {}
    for number, level in zip(order, levels, strict=True):
        parents, index, positions = _children(level, positions, prod(shape))
        found = {dimension: indices[parents] for dimension, indices in found.items()}
        found[number] = index
    if not np.array_equal(positions, np.arange(len(stored))):
        raise ValueError("the levels do not end at the stored values")
    places = []
    for dimension, size in enumerate(shape):
        index = found[dimension]
        for block, divided in enumerate(blocks):
            if divided == dimension:
                level = levels[order.index(len(shape) + block)]
                index = index * int(level.denseSize) + found[len(shape) + block]
        if len(index) and not 0 <= index.min() <= index.max() < size:
            raise ValueError("an index lies outside the tensor")
        places.append(index)
    values = np.zeros(shape, stored.dtype)
    values[tuple(places)] = stored
    return values


def _children(level: DimensionMetadataT, positions: Integers, most: int) -> tuple[Integers, Integers, Integers]:
    """The children of all positions of the level above (statement 2).

    Args:
        level: a ``DimensionMetadataT``.
        positions: in the level above.
        most: elements of the tensor; no level has more children.

    Returns:
        For each child, the index of its parent in ``positions``, its index along the dimension, and its own position.
    """
    if level.format == fb.DimensionType.DENSE:
        size = int(level.denseSize)
        if size < 1 or len(positions) * size > most:
            raise ValueError("a dense level has more places than the tensor has elements")
        parents = np.repeat(np.arange(len(positions)), size)
        index = np.tile(np.arange(size), len(positions))
        return parents, index, positions[parents] * size + index
    segments = np.asarray(level.arraySegments.values, dtype=np.int64)
    indices = np.asarray(level.arrayIndices.values, dtype=np.int64)
    starts, stops = segments[positions], segments[positions + 1]
    if (starts < 0).any() or (stops < starts).any() or (stops > len(indices)).any():
        raise ValueError("a segment lies outside the indices")
    counts = stops - starts
    if int(counts.sum()) > most:
        raise ValueError("a level has more indices than the tensor has elements")
    parents = np.repeat(np.arange(len(positions)), counts)
    inside = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
    own = starts[parents] + inside
    return parents, indices[own], own


def _drop_densify(model: ModelT, graph: SubGraphT) -> None:
    """Let the readers of DENSIFY's output read its constant (statement 4)."""
    gone = [operator for operator in graph.operators if schema.op_name(model, operator) == "DENSIFY"]
    source = {int(operator.outputs[0]): int(operator.inputs[0]) for operator in gone}
    if not gone:
        return
    graph.operators = [operator for operator in graph.operators if not any(operator is each for each in gone)]
    for operator in graph.operators:
        operator.inputs = np.array([source.get(int(index), int(index)) for index in operator.inputs], np.int32)
    graph.outputs = np.array([source.get(int(index), int(index)) for index in graph.outputs], np.int32)
