"""An ``.onnx`` file, as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from graphcut.progress import Report
from graphcut.sources.adapter import Export, Request


class OnnxFile:
    """The source "onnx"; errors in the file are reported when it is loaded."""

    kind: Final = "onnx"
    what: Final = "an .onnx file"

    def matches(self, source: str) -> bool:
        """A name that ends in ``.onnx``."""
        return source.lower().endswith(".onnx")

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Return the file itself."""
        del report
        path = Path(request.source)
        return Export(path=path, name=path.stem, input_shapes=request.input_shapes)


ADAPTER = OnnxFile()
