"""An evaluation as text, and in the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphcut import codec
from graphcut.evaluation.figures import FLOAT, INT8
from graphcut.records import Evaluation, Figure
from graphcut.report.tables import Shown, TextTable, table
from graphcut.result import manifest

KEY = "evaluation"
"""Where an evaluation stands in ``meta.json``."""


def evaluation_text(found: Evaluation) -> Shown:
    """Show the figures, the pictures where int8 does worst, and the classes that changed."""
    names = ways(found)
    rows = [(figure.name, *(measured(figure, way) for way in names)) for figure in found.figures]
    shown: list[str | TextTable] = [evaluated(found), "", table(("figure", *names), rows)]
    shown.append("in brackets: 95 % bootstrap interval over pictures")
    if found.worst:
        shown += ["", table(("worst pictures", "why"), [(each.name, each.why) for each in found.worst])]
    if found.changes:
        changes = [(each.float_class, each.int8_class, str(each.pictures)) for each in found.changes[:20]]
        shown += ["", table(("float", "int8", "pictures"), changes, right=("pictures",))]
    return shown


def evaluated(found: Evaluation) -> str:
    """Say in a sentence or two what was measured on what."""
    head = f" ({found.head} head)" if found.head else ""
    against = "the labels" if found.labelled else "the answers of the float model: there are no labels"
    said = f"{found.task}{head} on {found.pictures} pictures of {found.data}, against {against}"
    if not found.seen:
        return said
    return f"{said}; {found.seen} of them were used for calibration, on which int8 does better than on others"


def ways(found: Evaluation) -> tuple[str, ...]:
    """The ways of computing that were compared, float first."""
    return tuple(dict.fromkeys(way for figure in found.figures for way in (FLOAT, INT8, *figure.values)))


def document(found: Evaluation, folder: Path) -> dict[str, Any]:
    """Return an evaluation as JSON values, with the folder of the split."""
    return {"folder": str(folder), **codec.to_json(found)}


def save(folder: Path, found: Evaluation) -> None:
    """Write an evaluation into the manifest of a split, whole or not at all.

    Raises:
        UsageError: the folder has no manifest.
        OutputError: it cannot be written; the old one stays.
    """
    manifest.rewrite(folder, {**manifest.read_document(folder), KEY: codec.to_json(found)})


def measured(figure: Figure, way: str) -> str:
    """One value with its interval; empty where there is none."""
    value = figure.values.get(way)
    if value is None:
        return ""
    ends = figure.intervals.get(way)
    if figure.of is not None:
        shown = f"{value * figure.of:.0f} of {figure.of} ({value:.1%})"
        return f"{shown} [{ends[0]:.1%}, {ends[1]:.1%}]" if ends else shown
    digits = 1 if figure.name.startswith("dB") else 0 if figure.name.startswith("boxes with") else 3
    return f"{value:.{digits}f} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else f"{value:.{digits}f}"
