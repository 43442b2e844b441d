"""A ``.tflite`` file, float or quantised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from graphcut.errors import UsageError
from graphcut.progress import Report
from graphcut.records import Shape
from graphcut.sources import tensorflow_files, tflite_check
from graphcut.sources.adapter import Export, Request, resized_note

DEQUANTISED: Final = (
    "the file is quantised: its integers are converted back to floats, and every segment is quantised again with the "
    "calibration data"
)


class TfliteFile:
    """The source "tflite": inputs are NHWC, layers are named after the file's tensors."""

    kind: Final = "tflite"
    what: Final = "a .tflite file"

    def matches(self, source: str) -> bool:
        """A name that ends in ``.tflite``."""
        return source.lower().endswith(".tflite")

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Export the model in float; a file that cannot be exported is refused before TensorFlow is needed."""
        path = Path(request.source)
        if not path.exists():
            raise UsageError(f"{path} does not exist", "check the path")
        checked = tflite_check.check(path, str(path))
        other = _other_shapes(request, checked.shapes)
        further = {
            "quantised": checked.quantised,
            "inputs": dict(checked.inputs),
            "outputs": dict(checked.outputs),
            "rewritten": checked.rewritten or bool(other),
        }
        steps = (
            tensorflow_files.step("convert_tflite", "converting it to ONNX (tf2onnx)"),
            tensorflow_files.step("check_tflite", "comparing the two"),
            tensorflow_files.step("write", "writing the file"),
        )
        notes: tuple[str, ...] = (DEQUANTISED,) if checked.quantised else ()
        notes += tuple(resized_note(name, shape, checked.shapes[name]) for name, shape in other.items())
        return tensorflow_files.export(
            Request(source=request.source, input_shapes=other, cache=request.cache),
            self.kind,
            "TFLite files",
            steps,
            further,
            report,
            notes,
        )


def _other_shapes(request: Request, declared: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes given by the user that differ from those of the file.

    Raises:
        UsageError: the model has no such input, or one of another rank.
    """
    for name, shape in request.input_shapes.items():
        if name not in declared:
            raise UsageError(f"{request.source} has no input {name!r}", f"its inputs are {', '.join(declared)}")
        if len(shape) != len(declared[name]) or min(shape) < 1:
            raise UsageError(
                f"input {name!r} cannot have the shape {'x'.join(map(str, shape))}: the model declares "
                f"{'x'.join(map(str, declared[name]))}",
                "give the same number of dimensions, each at least 1",
            )
    return {name: shape for name, shape in request.input_shapes.items() if shape != declared[name]}


ADAPTER = TfliteFile()
