"""Coverage-guided fuzzing of the pure Python readers: ``python -m tests.fuzz.targets.readers NAME [options]``.

Each target takes bytes and returns, or raises a GraphcutError; anything else that it raises is a bug. Atheris is not
part of the development environment (``pip install atheris``); the tests call the targets without it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from graphcut import numpy_files, recipes
from graphcut.errors import GraphcutError


def onnx_message(data: bytes) -> None:
    """The checks of an ONNX message, before anything native."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    from graphcut.graph.budget import refuse_many
    from graphcut.graph.unsupported import refuse_recursive, refuse_unsplittable
    from graphcut.graph.wellformed import array_of, refuse_malformed, tensors

    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        return
    refuse_malformed(proto)
    for tensor in tensors(proto):
        array_of(tensor, "a tensor")
    refuse_unsplittable(proto)
    refuse_recursive(proto)
    refuse_many(proto)


def tflite(data: bytes) -> None:
    """The reader of TFLite files."""
    from graphcut.tflite import checked

    checked.read(data, "a file")


def recipe(data: bytes) -> None:
    """The reader of recipes."""
    recipes.read(_file(data, ".toml"))


def arrays(data: bytes) -> None:
    """The reader of .npy and .npz files."""
    path = _file(data, ".npz")
    try:
        found = numpy_files.names(path)
        if found is None:
            numpy_files.mapped(path)
        else:
            numpy_files.members(path, found[:4])
    except numpy_files.BadArraysError:
        return


def keras_config(data: bytes) -> None:
    """The checks of a Keras architecture."""
    import json

    from graphcut.sources import keras_check

    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(config, dict):
        keras_check.refuse_code(config, "a file")
        keras_check.refuse_other_layers(config, "a file")


def torch_program(data: bytes) -> None:
    """The checks of a .pt2 archive."""
    from graphcut.sources import pt2_check

    pt2_check.check(_file(data, ".pt2"), "a file")


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (onnx_message, tflite, recipe, arrays, keras_config, torch_program)
}


def one(name: str, data: bytes) -> None:
    """Run a target; what a user may be told is no finding."""
    try:
        TARGETS[name](data)
    except GraphcutError as error:
        if "\n" in str(error):
            raise ValueError("more than one line") from error


_FOLDER = tempfile.TemporaryDirectory(prefix="graphcut-target-")


def _file(data: bytes, suffix: str) -> Path:
    path = Path(_FOLDER.name) / f"file{suffix}"
    path.write_bytes(data)
    return path


def main() -> None:
    """Hand a target to Atheris."""
    import atheris

    name = sys.argv.pop(1)
    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda data: one(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
