"""``diagnosis`` in ``meta.json``: the error of every operator of a split, measured after it was written.

The key is not part of the proof. Measuring again replaces it; a split that is made anew has none.
"""

from __future__ import annotations

from pathlib import Path

from graphcut import codec
from graphcut.measurement.operator_errors import MOST_SAMPLES, operator_errors
from graphcut.progress import Report, silent
from graphcut.record_schema import Json
from graphcut.records import OperatorError
from graphcut.result import manifest
from graphcut.result.manifest_schema import Diagnosis

KEY = "diagnosis"


def diagnose(folder: Path, *, most: int = MOST_SAMPLES, report: Report = silent) -> tuple[OperatorError, ...]:
    """Measure every operator of a split on the samples that it was judged on, and keep the figures in its manifest.

    Args:
        folder: that ``graphcut split`` wrote.
        most: samples to run.
        report: receives progress.

    Returns:
        The operators that have a counterpart in the float model, in the order in which they run.

    Raises:
        UsageError: the folder holds no split.
        VerificationError: a file is missing or not the one that was written.
        OutputError: the manifest cannot be written; the old one stays.
    """
    split = manifest.read(folder)
    manifest.check_files(split)
    samples = manifest.read_validation(split) or manifest.read_samples(split)
    found = operator_errors(split.segments, samples, most=most, report=report)
    document = {
        **split.document,
        KEY: codec.to_json(
            Diagnosis(samples=min(most, len(samples)), synthetic=samples.synthetic, operators=tuple(found))
        ),
    }
    manifest.rewrite(folder, document)
    return found


def kept(document: Json) -> tuple[OperatorError, ...]:
    """Read the operators that a manifest holds; none where nobody measured them.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the manifest is damaged.
    """
    return () if document.get(KEY) is None else codec.from_json(Diagnosis, document[KEY]).operators
