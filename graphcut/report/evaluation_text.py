"""An evaluation as text, and in the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from graphcut import codec, staging
from graphcut.evaluation.figures import FLOAT, INT8, Evaluation, Figure
from graphcut.files import rewrite
from graphcut.report.tables import Shown, TextTable, table

KEY = "evaluation"
"""Where an evaluation stands in ``meta.json``."""


def evaluation_text(found: Evaluation) -> Shown:
    """Show the figures, the pictures where int8 does worst, and the classes that changed."""
    head = f" ({found.head} head)" if found.head else ""
    against = "the labels" if found.labelled else "the answers of the float model: there are no labels"
    ways = list(dict.fromkeys(way for figure in found.figures for way in (FLOAT, INT8, *figure.values)))
    rows = [(figure.name, *(_value(figure, way) for way in ways)) for figure in found.figures]
    shown: list[str | TextTable] = [
        f"{found.task}{head} on {found.pictures} pictures of {found.data}, against {against}"
    ]
    if found.seen:
        shown.append(f"{found.seen} of them were used for calibration; int8 does better on these than on others")
    shown += ["", table(("figure", *ways), rows), "in brackets: 95 % bootstrap interval over pictures"]
    if found.worst:
        shown += ["", table(("worst pictures", "why"), [(each.name, each.why) for each in found.worst])]
    if found.changes:
        changes = [(each.float_class, each.int8_class, str(each.pictures)) for each in found.changes[:20]]
        shown += ["", table(("float", "int8", "pictures"), changes, right=("pictures",))]
    return shown


def document(found: Evaluation, folder: Path) -> dict[str, Any]:
    """Return an evaluation as JSON values, with the folder of the split."""
    return {"folder": str(folder), **codec.to_json(found)}


def save(folder: Path, found: Evaluation) -> None:
    """Write an evaluation into the manifest of a split, whole or not at all.

    Raises:
        OutputError: it cannot be written; the old one stays.
    """
    path = folder / staging.MANIFEST
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    document[KEY] = codec.to_json(found)
    rewrite(path, f"{json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)}\n")


def _value(figure: Figure, way: str) -> str:
    value = figure.values.get(way)
    if value is None:
        return ""
    ends = figure.intervals.get(way)
    if figure.of is not None:
        shown = f"{value * figure.of:.0f} of {figure.of} ({value:.1%})"
        return f"{shown} [{ends[0]:.1%}, {ends[1]:.1%}]" if ends else shown
    digits = 1 if figure.name.startswith("dB") else 0 if figure.name.startswith("boxes with") else 3
    return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else f"{value:.{digits}f}"
