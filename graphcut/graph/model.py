"""A loaded and normalised model, the input of every later stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from graphcut.records import Graph, ModelInput, PassReport, Source


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Model:
    """A normalised model.

    Attributes:
        proto: the normalised model with all its weights inside; it must not be changed.
        graph: the same without the values of the weights.
        source: where it came from.
        inputs: the model's inputs, in order, with the layout the author's file declares.
        nhwc_outputs: rank-4 outputs that the author's file transposes to NHWC as its last step. In ``proto`` they are
            NCHW like everything else; the TFLite files give them in NHWC, as the author declared.
        notes: notes for the user ("batch fixed to 1").
        passes: the result of each rewrite, in the order in which they ran.
        range_sources: activation -> the activations whose values together give its int8 range, where these are not its
            own: the parts of a split layer have the range of the whole layer.
        largest_weights: activation of a part of such a layer -> the largest absolute weight of the whole layer.
        said_ranges: activation -> range given by the author's file (quantisation-aware training); it replaces the range
            measured on the samples.
        range_inputs, range_outputs: where the user lets the model begin and end; empty for the file's own inputs and
            outputs.
        target: whose rewrites it was loaded with (graphcut.prediction.target_rewrites).
    """

    proto: onnx.ModelProto
    graph: Graph
    source: Source
    inputs: tuple[ModelInput, ...]
    nhwc_outputs: tuple[str, ...] = ()
    notes: tuple[str, ...]
    passes: tuple[PassReport, ...]
    range_sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    largest_weights: Mapping[str, float] = field(default_factory=dict)
    said_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    range_inputs: tuple[str, ...] = ()
    range_outputs: tuple[str, ...] = ()
    target: str = "any"

    def __repr__(self) -> str:
        """Show the name, the kind and the inputs, not the graph."""
        inputs = ", ".join(f"{each.name} {'x'.join(map(str, each.source_shape))}" for each in self.inputs)
        return f"Model({self.source.name!r}, {self.source.kind}, {len(self.graph.nodes)} operators, inputs: {inputs})"
