"""A SavedModel of TensorFlow 2: a folder with ``saved_model.pb``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from graphcut.progress import Report
from graphcut.sources import tensorflow_files
from graphcut.sources.adapter import Export, Request


class SavedModel:
    """The source "saved-model": its serving signature; inputs and outputs have the signature's names."""

    kind: Final = "saved-model"
    what: Final = "a SavedModel folder"

    def matches(self, source: str) -> bool:
        """A folder with ``saved_model.pb``."""
        return (Path(source) / "saved_model.pb").is_file()

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Export the signature."""
        steps = (tensorflow_files.step("load_saved_model", "reading it in TensorFlow"), *tensorflow_files.LOADED)
        chosen = {"signature": request.signature}
        return tensorflow_files.export(request, self.kind, "SavedModels", steps, chosen, report)


ADAPTER = SavedModel()
