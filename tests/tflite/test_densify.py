"""Sparse weights made dense as the interpreter's own DENSIFY makes them, and damaged ones refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as fb

from graphcut.errors import ModelError
from graphcut.runtime.litert import Runner
from graphcut.tflite import schema
from graphcut.tflite.densify import densify, has_sparse
from tests.support.made_tflite import Made

Floats = npt.NDArray[np.float32]


def level(size: int) -> Any:
    made: Any = fb.DimensionMetadataT()
    made.format, made.denseSize = fb.DimensionType.DENSE, size
    return made


def compressed(segments: Sequence[int], indices: Sequence[int]) -> Any:
    made: Any = fb.DimensionMetadataT()
    made.format, made.denseSize = fb.DimensionType.SPARSE_CSR, 0
    made.arraySegmentsType = made.arrayIndicesType = fb.SparseIndexVector.Int32Vector
    made.arraySegments, made.arrayIndices = fb.Int32VectorT(), fb.Int32VectorT()
    made.arraySegments.values, made.arrayIndices.values = np.array(segments, np.int32), np.array(indices, np.int32)
    return made


def rows(values: Floats) -> tuple[Floats, Any]:
    """A matrix with compressed rows."""
    held = [np.flatnonzero(row) for row in values]
    sparsity: Any = fb.SparsityParametersT()
    sparsity.traversalOrder, sparsity.blockMap = np.array([0, 1], np.int32), None
    segments = np.cumsum([0, *(len(each) for each in held)])
    sparsity.dimMetadata = [level(len(values)), compressed(segments, np.concatenate(held))]
    return values[values != 0], sparsity


def blocks(values: Floats, width: int = 4) -> tuple[Floats, Any]:
    """A matrix with compressed rows of blocks of 1 x ``width``, as TFLite's converter writes it."""
    parts = values.reshape(len(values), -1, width)
    held = [np.flatnonzero(np.abs(row).sum(axis=1)) for row in parts]
    sparsity: Any = fb.SparsityParametersT()
    sparsity.traversalOrder, sparsity.blockMap = np.array([0, 1, 2], np.int32), np.array([1], np.int32)
    segments = np.cumsum([0, *(len(each) for each in held)])
    sparsity.dimMetadata = [level(len(values)), compressed(segments, np.concatenate(held)), level(width)]
    stored = np.concatenate([parts[row, kept].reshape(-1) for row, kept in enumerate(held)])
    return stored, sparsity


def sparse_matrix(block: bool) -> Floats:
    generator = np.random.default_rng(3)
    values = generator.standard_normal((6, 8)).astype(np.float32)
    kept = generator.random((6, 2)) < 0.5
    kept[:, 0] |= ~kept.any(axis=1)
    mask = np.repeat(kept, 4, axis=1) if block else generator.random((6, 8)) < 0.4
    return np.where(mask, values, 0).astype(np.float32)


def made(values: Floats, stored: Floats, sparsity: Any) -> Any:
    """A file that adds its input to a sparse matrix, which DENSIFY makes dense."""
    file = Made()
    given = file.tensor(values.shape, dtype=np.float32, scale=None, name="x")
    weight = file.tensor(stored.shape, dtype=np.float32, scale=None, data=stored, name="w")
    tensor = file.graph.tensors[weight]
    tensor.shape, tensor.sparsity = np.array(values.shape, np.int32), sparsity
    dense = file.tensor(values.shape, dtype=np.float32, scale=None, name="dense")
    out = file.tensor(values.shape, dtype=np.float32, scale=None, name="y")
    file.op("DENSIFY", [weight], [dense])
    file.op("ADD", [given, dense], [out])
    file.graph.inputs, file.graph.outputs = np.array([given], np.int32), np.array([out], np.int32)
    return file.model


@pytest.mark.parametrize("block", [False, True])
def test_it_equals_what_the_interpreter_makes_of_it(block: bool) -> None:
    values = sparse_matrix(block)
    model = made(values, *(blocks if block else rows)(values))
    given = np.ones(values.shape, np.float32)
    (wanted,) = Runner(schema.write(model), kernels="builtin")([given])
    np.testing.assert_array_equal(wanted, values + 1)
    assert has_sparse(model)
    assert densify(model, "net") == 1
    assert not has_sparse(model)
    assert [schema.op_name(model, operator) for operator in model.subgraphs[0].operators] == ["ADD"]
    (found,) = Runner(schema.write(model), kernels="builtin")([given])
    np.testing.assert_array_equal(found, wanted)


def _fewer_values(model: Any) -> None:
    tensor = model.subgraphs[0].tensors[1]
    schema.set_constant(model, tensor, schema.stored(model, tensor)[:-1])


def _index_outside(model: Any) -> None:
    model.subgraphs[0].tensors[1].sparsity.dimMetadata[1].arrayIndices.values[0] = 99


def _segment_outside(model: Any) -> None:
    model.subgraphs[0].tensors[1].sparsity.dimMetadata[1].arraySegments.values[-1] = 2**30


def _falling_segments(model: Any) -> None:
    model.subgraphs[0].tensors[1].sparsity.dimMetadata[1].arraySegments.values[1] = -5


def _huge_level(model: Any) -> None:
    model.subgraphs[0].tensors[1].sparsity.dimMetadata[0].denseSize = 2**31 - 1


def _no_indices(model: Any) -> None:
    model.subgraphs[0].tensors[1].sparsity.dimMetadata[1].arrayIndices = None


def _order(model: Any) -> None:
    model.subgraphs[0].tensors[1].sparsity.traversalOrder = np.array([0, 0], np.int32)


def _shape(model: Any) -> None:
    model.subgraphs[0].tensors[1].shape = np.array([2**30, 2**30], np.int32)


@pytest.mark.parametrize(
    "damage",
    [
        _fewer_values,
        _index_outside,
        _segment_outside,
        _falling_segments,
        _huge_level,
        _no_indices,
        _order,
        _shape,
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(damage: Any) -> None:
    values = sparse_matrix(False)
    model = made(values, *rows(values))
    damage(model)
    with pytest.raises(ModelError, match="the layout of the sparse weight 'w' contradicts itself"):
        densify(model, "net")
