"""A ``.tflite`` file, float or quantised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from graphcut.errors import UsageError
from graphcut.progress import Report
from graphcut.sources import tensorflow_files, tflite_check
from graphcut.sources.adapter import Export, Request

DEQUANTISED: Final = (
    "the file is quantised: its integers were turned back into floats; every segment is quantised anew, from the "
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
        """Export the model in float; a file that cannot be is refused before TensorFlow is needed."""
        path = Path(request.source)
        if not path.exists():
            raise UsageError(f"{path} does not exist", "check the path")
        checked = tflite_check.check(path, str(path))
        further = {
            "quantised": checked.quantised,
            "inputs": dict(checked.inputs),
            "outputs": dict(checked.outputs),
            "ambiguous": checked.ambiguous,
        }
        steps = (
            tensorflow_files.step("convert_tflite", "converting it to ONNX (tf2onnx)"),
            tensorflow_files.step("check_tflite", "comparing the two"),
            tensorflow_files.step("write", "writing the file"),
        )
        notes = (DEQUANTISED,) if checked.quantised else ()
        made = tensorflow_files.export(
            Request(source=request.source, cache=request.cache),
            self.kind,
            "TFLite files",
            steps,
            further,
            report,
            notes,
        )
        return replace(made, input_shapes=request.input_shapes)


ADAPTER = TfliteFile()
