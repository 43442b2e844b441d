"""Export files and folders that TensorFlow reads, in a worker, with a cache; shared by several adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from graphcut import cache_folder
from graphcut.progress import Report
from graphcut.sources import cache, exporting, extras
from graphcut.sources.adapter import Export, Request
from graphcut.sources.exporting import Step

EXTRA: Final = "keras"
PACKAGES: Final = ("tensorflow", "keras", "tf-keras", "tf2onnx")
OPSET: Final = 17
# Part of the key: raise it whenever the worker would write other bytes for the same file and versions.
REVISION: Final = 2

_WORKER: Final = "graphcut.sources.tensorflow_worker"
LOADED: Final = (
    Step(function=f"{_WORKER}:convert", says="converting it to ONNX"),
    Step(function=f"{_WORKER}:check", says="comparing the two"),
    Step(function=f"{_WORKER}:write", says="writing the file"),
)


def export(
    request: Request,
    kind: str,
    what: str,
    steps: Sequence[Step],
    further: Mapping[str, Any],
    report: Report,
    notes: tuple[str, ...] = (),
) -> Export:
    """Export a file or folder, or take the export from the cache.

    Args:
        request: the source.
        kind: the adapter's.
        what: what needs the extra, for the error ("Keras files").
        steps: for the worker.
        further: arguments of the steps besides ``path``, ``subject``, ``shapes`` and ``opset``.
        report: receives progress and notes.
        notes: for the user.

    Raises:
        GraphcutError: see :meth:`graphcut.sources.adapter.Adapter.to_onnx`.
    """
    path = Path(request.source)
    packages = extras.versions(EXTRA, PACKAGES, what)
    digest = cache.sha256_of(path)
    shapes = {name: list(shape) for name, shape in sorted(request.input_shapes.items())}
    parts = {"kind": kind, "opset": OPSET, "revision": REVISION, "sha256": digest, "shapes": shapes, **packages}
    if request.signature is not None:
        parts["signature"] = request.signature
    target = cache_folder.exports(request.cache) / f"{path.stem}-{cache.key(parts)[:16]}.onnx"
    if not exporting.cached(target, path.name, report):
        argument = {"path": str(path.resolve()), "subject": str(path), "shapes": shapes, "opset": OPSET, **further}
        exporting.in_worker(steps, argument, path.name, target, report, readable=(path.resolve(),))
    return Export(path=target, name=path.stem, sha256=digest, notes=notes, channels_last=True)


def step(function: str, says: str) -> Step:
    """A step in TensorFlow's worker."""
    return Step(function=f"{_WORKER}:{function}", says=says)
