"""A Keras model in a ``.keras`` or ``.h5`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from graphcut.errors import UsageError
from graphcut.progress import Report
from graphcut.sources import exporting, tensorflow_files
from graphcut.sources.adapter import Export, Request

SUFFIXES: Final = (".keras", ".h5", ".hdf5")


class KerasFile:
    """The source "keras": inputs are NHWC, layers keep their names; docs/reference/sources.md says what is refused."""

    kind: Final = "keras"
    what: Final = "a .keras or .h5 file"

    def matches(self, source: str) -> bool:
        """A name that ends as Keras files do."""
        return source.lower().endswith(SUFFIXES)

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Export the model; a file that cannot be exported is refused before TensorFlow is needed."""
        path = Path(request.source)
        if not path.is_file():
            raise UsageError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}", "check the path")
        argument = {"path": str(path), "subject": str(path)}
        exporting.apart("graphcut.sources.keras_check:check", argument, str(path))
        steps = (tensorflow_files.step("load_keras", "reading it in Keras"), *tensorflow_files.LOADED)
        return tensorflow_files.export(request, self.kind, "Keras files", steps, {}, report)


ADAPTER = KerasFile()
