"""Types of the objects that :mod:`graphcut.tflite.schema` reads and writes; the generated schema has none.

They have the names and fields of the schema (``ModelT`` and friends), so that mypy finds a wrong one. A list of numbers
is a list or a numpy array, or None where the file has none (:data:`Numbers`). Options of operators are of more than a
hundred kinds and stay ``Any``.
"""

from __future__ import annotations

from typing import Any, Protocol

Numbers = Any
"""A list of numbers, a numpy array, or None."""

Text = Any
"""Bytes as they are read, a str as it is written, or None."""


class QuantizationParametersT(Protocol):
    """Scales and zero points of a tensor."""

    min: Numbers
    max: Numbers
    scale: Numbers
    zeroPoint: Numbers
    detailsType: int
    details: Any
    quantizedDimension: int


class DimensionMetadataT(Protocol):
    """One dimension of a sparse tensor."""

    format: int
    denseSize: int
    arraySegmentsType: int
    arraySegments: Any
    arrayIndicesType: int
    arrayIndices: Any


class SparsityParametersT(Protocol):
    """How the values of a sparse tensor lie in its buffer."""

    traversalOrder: Numbers
    blockMap: Numbers
    dimMetadata: list[DimensionMetadataT]


class TensorT(Protocol):
    """A tensor; ``type`` is a code of ``TensorType``, ``buffer`` an index into the model's buffers."""

    shape: Numbers
    type: int
    buffer: int
    name: Text
    quantization: QuantizationParametersT | None
    isVariable: bool
    sparsity: SparsityParametersT | None
    shapeSignature: Numbers
    hasRank: bool
    variantTensors: Any
    externalBuffer: int


class OperatorCodeT(Protocol):
    """A kind of operator with its version."""

    deprecatedBuiltinCode: int
    customCode: Text
    version: int
    builtinCode: int


class OperatorT(Protocol):
    """An operator; ``inputs`` and ``outputs`` are indices of tensors, -1 for an omitted input."""

    opcodeIndex: int
    inputs: Numbers
    outputs: Numbers
    builtinOptionsType: int
    builtinOptions: Any
    customOptions: Numbers
    customOptionsFormat: int
    mutatingVariableInputs: Numbers
    intermediates: Numbers
    largeCustomOptionsOffset: int
    largeCustomOptionsSize: int
    builtinOptions2Type: int
    builtinOptions2: Any
    debugMetadataIndex: int


class SubGraphT(Protocol):
    """Tensors, and operators in the order in which they run."""

    tensors: list[TensorT]
    inputs: Numbers
    outputs: Numbers
    operators: list[OperatorT]
    name: Text
    debugMetadataIndex: int


class BufferT(Protocol):
    """Bytes of a constant, or None."""

    data: Numbers
    offset: int
    size: int


class TensorMapT(Protocol):
    """A name of a signature and the tensor that it stands for."""

    name: Text
    tensorIndex: int


class SignatureDefT(Protocol):
    """Inputs and outputs by name."""

    inputs: list[TensorMapT]
    outputs: list[TensorMapT]
    signatureKey: Text
    subgraphIndex: int


class MetadataT(Protocol):
    """A name and the buffer that belongs to it."""

    name: Text
    buffer: int


class ModelT(Protocol):
    """A TFLite file."""

    version: int
    operatorCodes: list[OperatorCodeT]
    subgraphs: list[SubGraphT]
    description: Text
    buffers: list[BufferT]
    metadataBuffer: Numbers
    metadata: list[MetadataT] | None
    signatureDefs: list[SignatureDefT] | None
    externalBufferGroups: Any
    externalBuffers: Any

    def Pack(self, builder: Any) -> int:  # noqa: N802  # the schema's name
        """Write it with a builder of flatbuffers; returns its offset."""
