"""What every source of models is to the rest of the program: an adapter that turns it into an ONNX file.

1. A *source* is what the user names as MODEL: a file, a folder, a recipe, a target in Python.
2. An adapter is one module in :mod:`graphcut.sources.adapters` with an object ``ADAPTER``; there is no other list of
   them. It imports nothing heavy: what needs TensorFlow or PyTorch runs in a worker process.
3. Nothing that lies in a model file is ever executed. Only a target, which is the user's own code and named by the
   user, is.
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
    """What is to become an ONNX file.

    Attributes:
        source: as the user named it.
        input_shapes: input name -> static shape in the source's own layout, where the source leaves it open.
        cache: folder of the cache; None for the user's cache folder.
        signature: which of a SavedModel's signatures is the model; None for its serving signature, or the only one.
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
        sha256: of what the user gave, in hex; None where that is the ONNX file itself, or nothing with bytes.
        input_shapes: what of ``Request.input_shapes`` is left to say when the file is loaded.
        notes: what the user must be told ("dequantised ...").
        channels_last: the source writes images NHWC.
    """

    path: Path
    name: str
    sha256: str | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    channels_last: bool = False


def resized_note(name: str, shape: Shape, declared: Shape) -> str:
    """What the user is told where an input has another size than the source declares."""
    new, old = ("x".join(map(str, each)) for each in (shape, declared))
    return f"input {name!r} has the shape {new} instead of the declared {old}"


class Adapter(Protocol):
    """One kind of source."""

    @property
    def kind(self) -> str:
        """What the manifest calls it ("tflite")."""

    @property
    def what(self) -> str:
        """What the user can name, for help and errors ("a .tflite file")."""

    def matches(self, source: str) -> bool:
        """Say whether a source is of this kind; by its name, or at most by the names in a folder."""

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Turn the source into an ONNX file, or find the file in the cache.

        Raises:
            UsageError: there is no such thing, or its inputs need other shapes.
            ModelError: it cannot be read, or holds what has no place in an ONNX file.
            DependencyError: an extra is not installed.
            OutputError: the cache cannot be written.
        """
