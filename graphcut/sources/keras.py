"""The source "keras": a recipe of keras.applications becomes an ONNX file.

1. TensorFlow runs in a worker process only (:mod:`graphcut.sources.keras_worker`): its 2 GB of memory, its threads
   and its messages never meet the process that plans. What it prints is kept in a log file.
2. The same recipe and the same versions give the same bytes, so an export is made once and kept under a key of
   both (:func:`key`). A file is in the cache whole or not at all.
3. The batch is fixed to 1 and the input keeps Keras' layout, NHWC.

Unsupported: several inputs, custom layers, models over 2 GiB (the limit of one ONNX file).
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Final

from graphcut.errors import ConversionError, DependencyError, ModelError, OutputError
from graphcut.progress import Event, Report
from graphcut.recipes import Recipe
from graphcut.workers.pool import Call, Pool

EXTRA: Final = "keras"
# Part of the key: raise it whenever the worker would write other bytes for the same recipe and versions.
REVISION: Final = 3

_PACKAGES: Final = ("tensorflow", "keras", "tf2onnx")
_STEPS: Final = (
    ("build", "building {} in TensorFlow"),
    ("convert", "converting it to ONNX"),
    ("write", "writing the file"),
)
_STAGE: Final = "export"


def versions() -> dict[str, str]:
    """Return the versions of the packages that make the export, without importing them.

    Raises:
        DependencyError: one is not installed; says how to install them.
    """
    found: dict[str, str] = {}
    missing: list[str] = []
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise DependencyError(
            f"recipes from Keras need {', '.join(missing)}, which is not installed here (2 GB)",
            f"{sys.executable} -m pip install {_requirements()}",
        )
    return found


def key(recipe: Recipe, packages: Mapping[str, str]) -> str:
    """Return the sha256 (hex) of everything the export's bytes depend on.

    That is: application, input shape, weights (their bytes, or the seed), opset, versions and :data:`REVISION`; not
    the recipe's name nor its preprocessing, which leave the file as it is.
    """
    weights = hashlib.sha256(recipe.weights.read_bytes()).hexdigest() if recipe.weights else f"seed {recipe.seed}"
    parts = {
        "application": recipe.application,
        "input_shape": list(recipe.input_shape),
        "opset": recipe.opset,
        "revision": REVISION,
        "versions": dict(sorted(packages.items())),
        "weights": weights,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def default_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/graphcut`` or ``~/.cache/graphcut``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "graphcut"


def cached_export(recipe: Recipe, cache: Path | None, report: Report) -> Path:
    """Return the recipe's ONNX file from the cache; export it first where it is not there.

    Args:
        recipe: what to export.
        cache: folder of the cache, None for :func:`default_cache`.
        report: told of the steps, and in a note that the export came from the cache.

    Raises:
        DependencyError: the keras extra is not installed.
        ModelError: Keras cannot make the model.
        OutputError: the cache cannot be written.
    """
    folder = (default_cache() if cache is None else cache) / "exports"
    target = folder / f"{recipe.name}-{key(recipe, versions())[:16]}.onnx"
    if target.is_file():
        report(Event(stage=_STAGE, done=len(_STEPS), total=len(_STEPS), detail=f"{recipe.name} from the cache"))
        return target
    return export(recipe, target, report)


def export(recipe: Recipe, target: Path, report: Report) -> Path:
    """Make the recipe's model and write it as an ONNX file, whole or not at all.

    Args:
        recipe: what to export.
        target: the file; its folder is made, an older file is replaced. TensorFlow's messages are kept beside it
            as ``NAME.log`` where the export fails.
        report: told of three steps.

    Returns:
        ``target``: batch 1, input NHWC float32, one output.

    Raises:
        DependencyError: the keras extra is not installed.
        ModelError: Keras cannot make the model: unknown application, weights that do not fit, not enough memory.
        OutputError: the file cannot be written.
    """
    versions()
    log = target.with_suffix(".log")
    with _staging(target) as part:
        argument = {**asdict(recipe), "weights": str(recipe.weights) if recipe.weights else None, "target": str(part)}
        calls = [
            Call(function=f"graphcut.sources.keras_worker:{step}", argument=argument, subject=f"recipe {recipe.name}")
            for step, _ in _STEPS
        ]
        says = [text.format(recipe.application) for _, text in _STEPS] + ["done"]
        report(Event(stage=_STAGE, done=0, total=len(_STEPS), detail=says[0]))

        def done(position: int) -> None:
            report(Event(stage=_STAGE, done=position + 1, total=len(_STEPS), detail=says[position + 1]))

        try:
            # TensorFlow reserves far more address space than it uses, so its worker has no limit on that.
            with Pool(1, part.parent, memory=resource.RLIM_INFINITY) as pool:
                pool.map(calls, done)
        except ConversionError as error:
            _keep_log(part.parent, log)
            raise ModelError(error.message, f"TensorFlow's messages are in {log}") from error
    return target


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Give a file in a folder beside ``target``; put it in target's place at the end, leave nothing on failure."""
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}-")
    with staging as folder:
        part = Path(folder) / target.name
        yield part
        with _writing(target):
            part.replace(target)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror})", "choose another place or make room there"
        ) from error


def _keep_log(folder: Path, target: Path) -> None:
    for log in folder.glob("*.log"):
        log.replace(target)


def _requirements() -> str:
    """Return the extra's pinned requirements as they stand in the package's metadata, ready for a shell."""
    try:
        lines = metadata.requires("graphcut") or []
    except metadata.PackageNotFoundError:
        lines = []
    pinned = [line.split(";")[0].strip() for line in lines if "extra ==" in line and f"{EXTRA}" in line.split(";")[1]]
    return " ".join(f"'{line}'" for line in pinned) or f"'graphcut[{EXTRA}]'"
