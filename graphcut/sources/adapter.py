"""The interface of a source of models: an adapter that turns it into an ONNX file.

1. A *source* is what the user names as MODEL: a file, a folder, a recipe, a target in Python.
2. An adapter is one module in :mod:`graphcut.sources.adapters` with an object ``ADAPTER``; there is no other list of
   them. It imports nothing heavy: code that needs TensorFlow or PyTorch runs in a worker process.
3. Code in a model file is never executed. Only a target is, which is the user's own code and named by the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from graphcut.progress import Report
from graphcut.records import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A source to turn into an ONNX file.

    Attributes:
        source: as the user named it.
        input_shapes: input name -> static shape in the source's own layout, for open dimensions or another size.
        cache: folder of the cache; None for the user's cache folder.
        signature: the signature of a SavedModel to use; None for its serving signature, or the only one.
    """

    source: str
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    cache: Path | None = None
    signature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The ONNX file that an adapter made.

    Attributes:
        path: the file.
        name: of the model, for people ("resnet8_cifar10").
        sha256: of the user's file or folder, in hex; None where that is the ONNX file itself, or not a file.
        input_shapes: the part of ``Request.input_shapes`` that loading the file still has to apply.
        notes: notes for the user ("dequantised ...").
        channels_last: the source writes images NHWC.
    """

    path: Path
    name: str
    sha256: str | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    channels_last: bool = False


def resized_note(name: str, shape: Shape, declared: Shape) -> str:
    """The note for an input whose size differs from the one that the source declares."""
    new, old = ("x".join(map(str, each)) for each in (shape, declared))
    return f"input {name!r} has the shape {new} instead of the declared {old}"


class Adapter(Protocol):
    """One kind of source."""

    @property
    def kind(self) -> str:
        """Its name in the manifest ("tflite")."""

    @property
    def what(self) -> str:
        """What the user can pass as MODEL, for help and errors ("a .tflite file")."""

    def matches(self, source: str) -> bool:
        """Return whether a source is of this kind, by its name or by the names in a folder."""

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Turn the source into an ONNX file, or find the file in the cache.

        Raises:
            UsageError: the source does not exist, or its inputs need other shapes.
            ModelError: it cannot be read, or contains something that ONNX cannot express.
            DependencyError: an extra is not installed.
            OutputError: the cache cannot be written.
        """
