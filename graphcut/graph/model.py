"""A loaded and normalised model: what every later stage starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from graphcut.records import Graph, ModelInput, PassReport, Source


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Model:
    """A normalised model.

    Attributes:
        proto: the normalised model with all its weights inside; nobody changes it.
        graph: the same without the weights' values.
        source: where it came from.
        inputs: the model's inputs, in order, with the layout the author's file declares.
        nhwc_outputs: rank-4 outputs that the author's file transposes to NHWC as its last step. In ``proto`` they are
            NCHW like everything else; TFLite delivers them NHWC, as the author declared.
        notes: what the user must be told ("batch fixed to 1").
        passes: what each rewrite did, in the order in which they ran.
        range_sources: activation -> the activations whose values together give its int8 range, where that is not its
            own values: the parts of a layer that was split have the range of the whole.
        largest_weights: activation made by a part of such a layer -> the largest absolute weight of the whole.
        said_ranges: activation -> range that the author's file gives it (quantisation-aware training); it takes the
            place of what the samples show.
        range_inputs, range_outputs: where the user lets the model begin and end; empty for the file's own inputs and
            outputs.
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

    def __repr__(self) -> str:
        """Show what it is, not the graph."""
        inputs = ", ".join(f"{each.name} {'x'.join(map(str, each.source_shape))}" for each in self.inputs)
        return f"Model({self.source.name!r}, {self.source.kind}, {len(self.graph.nodes)} operators, inputs: {inputs})"
