"""A PyTorch ExportedProgram in a ``.pt2`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from graphcut import cache_folder
from graphcut.errors import UsageError
from graphcut.progress import Report
from graphcut.sources import cache, exporting, extras, pt2_check, torch_models
from graphcut.sources.adapter import Export, Request


class TorchProgram:
    """The source "torch-export": layers are named after the modules' paths."""

    kind: Final = "torch-export"
    what: Final = "a .pt2 file"

    def matches(self, source: str) -> bool:
        """A name that ends in ``.pt2``."""
        return source.lower().endswith(".pt2")

    def to_onnx(self, request: Request, report: Report) -> Export:
        """Export the program; a file that cannot be exported is refused before PyTorch is needed."""
        path = Path(request.source)
        if not path.is_file():
            raise UsageError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}", "check the path")
        pt2_check.check(path, str(path))
        packages = extras.versions(torch_models.EXTRA, torch_models.PACKAGES, ".pt2 files")
        digest = cache.sha256_of(path)
        parts = {"kind": self.kind, "opset": torch_models.OPSET, "revision": torch_models.REVISION, "sha256": digest}
        target = cache_folder.exports(request.cache) / f"{path.stem}-{cache.key({**parts, **packages})[:16]}.onnx"
        if not exporting.cached(target, path.name, report):
            argument = {"path": str(path.resolve()), "subject": str(path), "opset": torch_models.OPSET}
            steps, readable = torch_models.steps("load_program"), (path.resolve(),)
            exporting.in_worker(steps, argument, path.name, target, report, readable=readable)
        return Export(path=target, name=path.stem, sha256=digest, input_shapes=request.input_shapes)


ADAPTER = TorchProgram()
