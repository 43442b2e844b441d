"""A Python target that returns a PyTorch model: ``package.module:factory``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from graphcut import cache_folder
from graphcut.errors import UsageError, setting
from graphcut.progress import Report
from graphcut.sources import cache, exporting, extras, torch_models
from graphcut.sources.adapter import Export, Request

_TARGET: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_FILE: Final = re.compile(r"(?P<path>.+\.py):(?P<name>\w+)")


class TorchTarget:
    """The source "torch": the user's own code, run in a worker; layers are named after the modules' paths.

    The model is exported each time, because the code may have changed; the export replaces the previous one.
    """

    kind: Final = "torch"
    what: Final = "a Python target package.module:factory"

    def matches(self, source: str) -> bool:
        """Dotted names around one colon, or a Python file before it, where no file has that name."""
        return (_TARGET.fullmatch(source) or _FILE.fullmatch(source)) is not None and not Path(source).exists()

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Make and export the model.

        Raises:
            UsageError: no input shape is given, or the target does not exist.
        """
        file = _FILE.fullmatch(request.source)
        if file is not None:
            module = Path(file["path"]).stem
            raise UsageError(
                f"{request.source}: a target is a module, not a file",
                f"run graphcut in the folder of the file and pass {module}:{file['name']}",
            )
        if not request.input_shapes:
            raise UsageError(
                f"{request.source}: a model in Python does not declare the shape of its inputs",
                f"give it, under the name of the parameter of forward(): {setting('input_shapes', 'x:1x3x224x224')}",
            )
        extras.versions(torch_models.EXTRA, torch_models.PACKAGES, "models in PyTorch")
        folder = str(Path.cwd())
        shapes = {name: list(shape) for name, shape in request.input_shapes.items()}
        name = request.source.rpartition(":")[2].rpartition(".")[2]
        key = cache.key({"kind": self.kind, "source": request.source, "folder": folder, "shapes": shapes})
        target = cache_folder.exports(request.cache) / f"{name}-{key[:16]}.onnx"
        argument = {"subject": request.source, "folder": folder, "shapes": shapes, "opset": torch_models.OPSET}
        results = exporting.in_worker(
            torch_models.steps("load_target"), argument, request.source, target, report, readable=None
        )
        return Export(path=target, name=name, notes=results[1])


ADAPTER = TorchTarget()
