"""Published compiled segments and what graphcut predicts for them from the architectures alone.

The figures are those of github.com/pm2550/TPU_Models as kept in ``compiled_segments.json``; the architectures are
structure-only ONNX files. Segments were quantised per channel with per-tensor dense layers, tails per tensor
throughout: with any other scheme, a tail would need more parameter bytes than its file has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphcut.edgetpu.caching import Caching
from graphcut.edgetpu.file_cost import PredictedCosts, RunCost
from graphcut.edgetpu.layers_of_graph import Assumed
from graphcut.graph import load
from graphcut.records import Graph
from tools.densenet import densenet201

SEGMENTS = Assumed(per_channel_dense=False)
TAILS = Assumed(per_channel=False, per_channel_dense=False)
DOUBTFUL = ("inceptionv3", "tail 2")
"""Its published size is 400 kB below its own parameters and differs from all others by not being 608 modulo 4096."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published compiled file and what is predicted for it.

    Attributes:
        model, part: "resnet101", "segment 3" (or "tail 2", "whole").
        compiled_bytes: published.
        off_chip_mib: published; None where it is not.
        predicted: ours.
        caching: which of its layers we expect to stream.
    """

    model: str
    part: str
    compiled_bytes: int
    off_chip_mib: float | None
    predicted: RunCost
    caching: Caching

    @property
    def error(self) -> float:
        """The relative error of the expected size."""
        return (self.predicted.compiled.expected_bytes - self.compiled_bytes) / self.compiled_bytes

    @property
    def inside(self) -> bool:
        """Whether the published size lies in the predicted interval."""
        return self.predicted.compiled.low_bytes <= self.compiled_bytes <= self.predicted.compiled.high_bytes


def published(shared: Path, work: Path) -> list[Published]:
    """Return all published files.

    Args:
        shared: the folder with ``reference/compiled_segments.json`` and ``zoo/``.
        work: a folder for intermediate models.
    """
    listed = json.loads((shared / "reference" / "compiled_segments.json").read_text())
    found: list[Published] = []
    for model in listed["models"]:
        name = model["keras_application"]
        built = name == "densenet201"
        graph = densenet201() if built else graph_at(shared / "zoo" / f"keras_{name}.onnx", model["input"], work)
        found += _of_model(name, model, graph)
    return found


def _of_model(name: str, model: Mapping[str, Any], graph: Graph) -> Iterator[Published]:
    places = [0, *(_position(graph, layer) for layer in model["cuts"]), len(graph.nodes)]
    # DenseNet's convolutions before a Concat have no bias. The others have one everywhere; exports drop zeros.
    every = name != "densenet201"
    segments, tails = (PredictedCosts(graph, replace(each, absent_biases=every)) for each in (SEGMENTS, TAILS))
    for number, part in enumerate(model["segments"]):
        yield Published(
            model=name,
            part=f"segment {part['segment']}",
            compiled_bytes=part["compiled_bytes"],
            off_chip_mib=part["off_chip_mib"],
            predicted=segments.segment(places[number], places[number + 1]),
            caching=segments.caching(places[number], places[number + 1]),
        )
    for part in model["tails"]:
        yield Published(
            model=name,
            part=f"tail {part['k']}",
            compiled_bytes=part["compiled_bytes"],
            off_chip_mib=part["off_chip_mib"],
            predicted=tails.segment(places[part["first_segment"] - 1], places[-1]),
            caching=tails.caching(places[part["first_segment"] - 1], places[-1]),
        )
    yield Published(
        model=name,
        part="whole",
        compiled_bytes=model["whole_compiled_bytes"],
        off_chip_mib=None,
        predicted=segments.segment(0, len(graph.nodes)),
        caching=segments.caching(0, len(graph.nodes)),
    )


def _position(graph: Graph, layer: str) -> int:
    """Return the position after the node that makes a layer."""
    for position, node in enumerate(graph.nodes, start=1):
        if any(graph.layers[name] == layer for name in node.outputs):
            return position
    raise KeyError(layer)


def graph_at(structure: Path, size: int, work: Path) -> Graph:
    """Return the graph of a structure-only ONNX file at another square input size; its weights are averages."""
    proto = onnx.load(structure, load_external_data=False)
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
            shape = tuple(tensor.dims)
            # Averages: values stay in range through a hundred layers, and no layer is dead and folded away.
            tensor.raw_data = np.full(shape, 1 / max(prod(shape[1:]), 1), np.float32).tobytes()
    sides = proto.graph.input[0].type.tensor_type.shape.dim
    given = max(side.dim_value for side in sides)
    for side in sides:
        if side.dim_value == given:
            side.dim_value = size
    del proto.graph.value_info[:]
    path = work / structure.name
    onnx.save(proto, path)
    graph = load.load(path).graph
    path.unlink()
    return graph
