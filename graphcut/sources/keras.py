"""Export a recipe of keras.applications to an ONNX file.

1. TensorFlow runs in a worker process only (:mod:`graphcut.sources.keras_worker`, :mod:`graphcut.sources.exporting`).
2. The same recipe and the same versions give the same bytes, so an export is made once and stored under a key of both
   (:func:`key`). Files are written to the cache atomically.
3. The batch size is fixed to 1 and the input keeps Keras' layout, NHWC.

Unsupported: several inputs, custom layers, models over 2 GiB (the limit of one ONNX file).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from graphcut import cache_folder
from graphcut.progress import Report
from graphcut.recipes import Recipe
from graphcut.sources import cache as exports
from graphcut.sources import exporting, extras
from graphcut.sources.exporting import Step

EXTRA: Final = "keras"
PACKAGES: Final = ("tensorflow", "keras", "tf2onnx")
# Part of the key: raise it whenever the worker would write other bytes for the same recipe and versions.
REVISION: Final = 3

_WORKER: Final = "graphcut.sources.keras_worker"


def versions() -> dict[str, str]:
    """Return the versions of the packages used for the export, without importing them.

    Raises:
        DependencyError: a package is not installed; the error says how to install it.
    """
    return extras.versions(EXTRA, PACKAGES, "recipes from Keras")


def key(recipe: Recipe, packages: Mapping[str, str]) -> str:
    """Return the sha256 (hex) of everything that the bytes of the export depend on.

    That is: application, input shape, weights (their bytes, or the seed), opset, versions and :data:`REVISION`; not the
        recipe's name or preprocessing, which do not affect the file.
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
    return exports.key(parts)


def cached_export(recipe: Recipe, cache: Path | None, report: Report) -> Path:
    """Return the recipe's ONNX file from the cache; export it first if it is not there.

    Args:
        recipe: what to export.
        cache: folder of the cache, None for the user's.
        report: receives progress, and a note where the export comes from the cache.

    Raises:
        DependencyError: the keras extra is not installed.
        ModelError: Keras cannot build the model.
        OutputError: the cache cannot be written.
    """
    target = cache_folder.exports(cache) / f"{recipe.name}-{key(recipe, versions())[:16]}.onnx"
    if exporting.cached(target, recipe.name, report):
        return target
    return export(recipe, target, report)


def export(recipe: Recipe, target: Path, report: Report) -> Path:
    """Build the recipe's model and write it as an ONNX file, atomically.

    Args:
        recipe: what to export.
        target: the file; its folder is created, an existing file is replaced. If the export fails, TensorFlow's
            messages are kept next to it as ``NAME.log``.
        report: receives three steps.

    Returns:
        ``target``: batch 1, input NHWC float32, one output.

    Raises:
        DependencyError: the keras extra is not installed.
        ModelError: Keras cannot build the model: unknown application, weights that do not fit, not enough memory.
        OutputError: the file cannot be written.
    """
    versions()
    steps = (
        Step(function=f"{_WORKER}:build", says=f"building {recipe.application} in TensorFlow"),
        Step(function=f"{_WORKER}:convert", says="converting it to ONNX"),
        Step(function=f"{_WORKER}:write", says="writing the file"),
    )
    argument = {**asdict(recipe), "weights": str(recipe.weights) if recipe.weights else None}
    readable = (recipe.weights,) if recipe.weights else ()
    exporting.in_worker(steps, argument, f"recipe {recipe.name}", target, report, readable=readable)
    return target
