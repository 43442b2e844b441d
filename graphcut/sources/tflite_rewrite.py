"""Rewrite a TFLite file in the form that the converter to ONNX can read.

1. Every tensor has a unique name: the converter identifies tensors by name.
2. Sparse weights become dense (:mod:`graphcut.tflite.densify`): the converter does not support sparse ones.
3. Inputs may have a size other than the declared one. The interpreter resizes them and computes the shapes of all other
   tensors, as on a device. It refuses where the file fixes a size (a RESHAPE to given numbers, a dense layer).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.errors import UsageError, setting
from graphcut.records import Shape
from graphcut.runtime.litert import resized
from graphcut.sources.tflite_names import entry_name
from graphcut.tflite import checked, schema
from graphcut.tflite.densify import densify


def input_shapes(model: Any, signature: Mapping[str, str]) -> dict[str, Shape]:
    """The shapes of a file's inputs, by the names that users know.

    Args:
        model: a ``ModelT``.
        signature: tensor name -> name in the file's signature.
    """
    graph = model.subgraphs[0]
    found = {}
    for index in graph.inputs:
        tensor = graph.tensors[int(index)]
        name = schema.tensor_name(tensor)
        shape = () if tensor.shape is None else tuple(int(size) for size in tensor.shape)
        found[signature.get(name) or entry_name(name)] = shape
    return found


def rewrite(path: Path, subject: str, target: Path, shapes: Mapping[str, Shape], signature: Mapping[str, str]) -> None:
    """Write a file in the form that the module docstring describes.

    Args:
        path: of a file that was checked.
        subject: what to call it in errors.
        target: the file to write.
        shapes: name of an input, as returned by :func:`input_shapes` -> its new shape.
        signature: tensor name -> name in the file's signature.

    Raises:
        ModelError: the description of a sparse weight contradicts itself.
        UsageError: the graph does not allow the new shapes.
    """
    model = checked.read(checked.read_bytes(path), subject)
    order = list(input_shapes(model, signature))
    densify(model, subject)
    _distinct_names(model)
    if shapes:
        wanted = {order.index(name): shape for name, shape in shapes.items()}
        _resize(model, wanted, f"{subject}: {', '.join(shapes)}")
    target.write_bytes(schema.write(model))


def _distinct_names(model: Any) -> None:
    taken: set[str] = set()
    for graph in model.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            name = wanted = schema.tensor_name(tensor) or f"tensor_{index}"
            number = 1
            while wanted in taken:
                number += 1
                wanted = f"{name}_{number}"
            taken.add(wanted)
            tensor.name = wanted.encode()


def _resize(model: Any, wanted: Mapping[int, Shape], what: str) -> None:
    """Change the shapes of inputs, by position, and of all tensors that depend on them (statement 3)."""
    graph = model.subgraphs[0]
    try:
        shapes = resized(schema.write(model), wanted)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"{what} cannot have this size: the graph does not allow it ({reason})",
            f"omit {setting('input_shapes')}, or convert the model with this size",
        ) from error
    for index, tensor in enumerate(graph.tensors):
        if schema.constant(model, tensor) is None and index in shapes:
            tensor.shape = np.array(shapes[index], np.int32)
            tensor.shapeSignature = None
