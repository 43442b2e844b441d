"""Find the adapter of a source; see :mod:`graphcut.sources.adapter`."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import cast

from graphcut.errors import UsageError, setting
from graphcut.progress import Event, Report
from graphcut.sources import adapters as package
from graphcut.sources.adapter import Adapter, Export, Request

RECIPE = "recipe"
ONNX = "onnx"
SAVED_MODEL = "saved-model"


@cache
def adapters() -> tuple[Adapter, ...]:
    """All adapters, in the order of their module names."""
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(cast(Adapter, import_module(f"{package.__name__}.{name}").ADAPTER) for name in modules)


def find(source: str) -> Adapter:
    """Return the adapter of a source.

    A file of an unknown kind is treated as ONNX, because reading it gives the best error. A word that is not a file is
    treated as a recipe, because that adapter suggests similar names.

    Raises:
        UsageError: a folder without a model.
    """
    for adapter in adapters():
        if adapter.matches(source):
            return adapter
    path = Path(source)
    if path.is_dir():
        raise UsageError(f"{source} is a folder without a saved_model.pb", f"MODEL is {ways()}")
    return _of_kind(ONNX if path.is_file() else RECIPE)


def to_onnx(request: Request, report: Report) -> tuple[Adapter, Export]:
    """Turn a source into an ONNX file; the notes are reported.

    Raises:
        UsageError: a signature is given for a source that has none.
        GraphcutError: see :meth:`graphcut.sources.adapter.Adapter.to_onnx`.
    """
    adapter = find(request.source)
    if request.signature is not None and adapter.kind != SAVED_MODEL:
        raise UsageError(f"{request.source} is not a SavedModel: it has no signatures", f"omit {setting('signature')}")
    made = adapter.to_onnx(request, report)
    for note in made.notes:
        report(Event(stage="load", detail=note, note=True))
    return adapter, made


def ways() -> str:
    """What a user can pass as MODEL, as a list in words."""
    offered = [adapter.what for adapter in adapters() if adapter.what]
    return f"{', '.join(offered[:-1])} or {offered[-1]}"


def _of_kind(kind: str) -> Adapter:
    return next(adapter for adapter in adapters() if adapter.kind == kind)
