"""Segments cut out of a normalised model as ONNX models of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.utils import Extractor

from graphcut.errors import OutputError
from graphcut.graph import protobuf
from graphcut.graph.model import Model

ENDING = "graphcut_end_"


class Extraction:
    """Cuts segments out of one model; the model is looked through once, not once a segment.

    Args:
        model: normalised; it is not changed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._extractor = Extractor(model.proto)

    def segment(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> ModelProto:
        """The part of the model between some tensors.

        Args:
            inputs: tensor names that the segment is fed; every path to its outputs begins at one of them.
            outputs: tensor names that it delivers.

        Returns:
            A model whose inputs and outputs are in the given order, with static shapes, accepted by ``onnx.checker``,
            named after the layers it ends at.
        """
        segment = self._extractor.extract_model(list(inputs), list(outputs))
        layers = self._model.graph.layers
        segment.graph.name = "_".join(layers[name] for name in outputs).replace("/", "_")
        segment.producer_name = "graphcut"
        onnx.checker.check_model(segment)
        return segment


def save(proto: ModelProto, path: Path) -> None:
    """Write a model whole or not at all.

    Raises:
        OutputError: the folder is missing, not writable or full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            temporary.write_bytes(proto.SerializeToString(deterministic=True))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}", "check the folder and the free space"
        ) from error


def with_endings(proto: ModelProto, outputs: tuple[str, ...]) -> tuple[ModelProto, Mapping[str, str]]:
    """A copy for conversion in which every rank-4 output is followed by one throw-away operator.

    The converter leaves a rank-4 output in NCHW behind a TRANSPOSE with its activation unfused; in front of a further
    convolution it stays NHWC and fused, as inside the whole model. So each rank-4 output gets a depthwise 1x1 Conv of
    ones named ``graphcut_end_<i>`` (i counts ``outputs`` from 0) whose output replaces it; it is to be dropped from
    the converted file.

    Args:
        proto: a segment; it is not changed.
        outputs: its outputs, in order.

    Returns:
        The copy, and output name -> name of the tensor that replaces it, for the outputs that have an ending.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    declared = {value.name: value for value in graph.output}
    mapping: dict[str, str] = {}
    replaced = []
    for index, name in enumerate(outputs):
        shape = protobuf.static_shape(declared[name])
        if shape is None or len(shape) != 4:
            replaced.append(declared[name])
            continue
        ending = f"{ENDING}{index}"
        mapping[name] = ending
        graph.initializer.append(numpy_helper.from_array(np.ones((shape[1], 1, 1, 1), np.float32), f"{ending}_ones"))
        graph.node.append(_ending_node(name, ending, shape[1]))
        graph.value_info.append(declared[name])
        replaced.append(helper.make_tensor_value_info(ending, onnx.TensorProto.FLOAT, shape))
    kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in replaced]
    del graph.output[:]
    graph.output.extend(kept)
    return copy, mapping


def _ending_node(tensor: str, ending: str, channels: int) -> NodeProto:
    return helper.make_node(
        "Conv", [tensor, f"{ending}_ones"], [ending], name=ending, group=channels, kernel_shape=[1, 1]
    )
