"""Writing reports: beside a split, of several splits, and of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphcut.files import rewrite
from graphcut.report.html import page
from graphcut.report.html.collect import HeldOut, facts_of
from graphcut.report.html.report_facts import Facts, Timeline

NAME = "report.html"
"""The report in the folder of a split."""


def write_report(
    folder: Path,
    target: Path | None = None,
    *,
    labels: Sequence[str] = (),
    held_out: HeldOut | None = None,
    measured: Timeline | None = None,
) -> Path:
    """Write the report of one split.

    Args:
        folder: of the split.
        target: the file; None for NAME in the folder. An older file is replaced.
        labels, held_out, measured: as in :func:`graphcut.report.html.collect.facts_of`.

    Returns:
        The file.

    Raises:
        UsageError, ModelError: the folder holds no split, or a file of it is damaged.
        OutputError: it cannot be written.
    """
    facts = facts_of(folder, labels=labels, held_out=held_out, measured=measured)
    return _write(target or folder / NAME, page.render(facts))


def write_comparison(folders: Sequence[Path], target: Path) -> Path:
    """Write the report of several splits side by side; arguments and errors are those of :func:`write_report`."""
    return _write(target, page.render_comparison({str(folder): facts_of(folder) for folder in folders}))


def write_plan_report(facts: Facts, target: Path) -> Path:
    """Write the report of a plan (:func:`graphcut.report.html.forecast.facts_of_plan` gathers its facts)."""
    return _write(target, page.render(facts))


def _write(target: Path, text: str) -> Path:
    rewrite(target, text)
    return target
