"""A model as its graph: operators, tensors, inputs, where it came from and what loading did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from graphcut.records.field_types import Dimensions, Layout, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An activation or weight: name, static shape, numpy dtype name ("float32")."""

    name: str
    shape: Shape
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements, which is the number of bytes at int8."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator. ``inputs`` holds activation and weight names in order, "" for an omitted optional one."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Graph:
    """The normalised graph without its weights' values: all that analysis and planning need.

    Attributes:
        nodes: in topological order; the order is deterministic for a given file.
        inputs, outputs: names of the graph's activations inputs and outputs, in the model's order.
        tensors: every activation (graph inputs and node outputs), by name.
        weights: every initialiser, by name.
        layers: tensor name -> layer name as the author knows it ("conv4_block4_out"); every activation has one
            and they are unique.
        uint8: names of inputs and outputs that the files of a split have in uint8; the others are int8.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    layers: Mapping[str, str]
    uint8: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show sizes, not the graph."""
        return f"Graph({len(self.nodes)} operators, inputs={list(self.inputs)}, outputs={list(self.outputs)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model came from.

    Attributes:
        kind: of the adapter: "onnx", "recipe", "keras", "saved-model", "tflite", "torch-export" or "torch".
        name: as it is shown to people.
        sha256: in hex, of the file or folder that the user gave (of an ONNX file with its external data); of the export
            where there is none, as with recipes and Python targets.
    """

    kind: str
    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """One input of the model as its author declared it.

    Attributes:
        name: the name in the normalised graph.
        shape: in the normalised graph: NCHW where it is an image, batch 1.
        source_layout: the layout the author's file declares: "NHWC" for Keras, "NCHW" for PyTorch,
            "other" where the rank is not 4.
        source_shape: the shape in that layout, batch 1.
    """

    name: str
    shape: Dimensions
    source_layout: Layout
    source_shape: Dimensions


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one rewrite did.

    Attributes:
        name: the pass.
        reason: why it exists.
        matches: how often it matched.
        relative_error: the largest difference it made to the output on a random input, relative to the output's
            largest value; None where it matched nothing.
    """

    name: str
    reason: str
    matches: int
    relative_error: float | None
