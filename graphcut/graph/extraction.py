"""Segments of a normalised model, extracted as ONNX models of their own."""

from __future__ import annotations

import os
from pathlib import Path

from onnx import ModelProto
from onnx.utils import Extractor

from graphcut.errors import ModelError, OutputError
from graphcut.graph import native, protobuf
from graphcut.graph.model import Model


class Extraction:
    """Extracts segments from one model; the model is traversed once, not once per segment.

    Args:
        model: normalised; it is not changed.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._extractor = Extractor(model.proto)

    def segment(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> ModelProto:
        """The part of the model between some tensors.

        Args:
            inputs: names of the segment's input tensors; every path to its outputs begins at one of them.
            outputs: names of its output tensors.

        Returns:
            A model whose inputs and outputs are in the given order, with static shapes, accepted by ``onnx.checker``,
            named after its last layers.
        """
        segment = self._extractor.extract_model(list(inputs), list(outputs))
        layers = self._model.graph.layers
        segment.graph.name = "_".join(layers[name] for name in outputs).replace("/", "_")
        segment.producer_name = "graphcut"
        try:
            native.check(protobuf.skeleton_of(segment))
        except native.NativeError as error:
            raise ModelError(
                f"segment {segment.graph.name!r} is not valid ONNX: {error}", "choose other cuts"
            ) from error
        return segment


def save(proto: ModelProto, path: Path) -> None:
    """Write a model atomically.

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
