"""The verdict on a split: whether the int8 model still does what the float model does.

1. **FAILED**: the chain is not exact, an output or a part of one is constant, saturated or noise, or its
   signal-to-noise ratio is below the user's limit (``min_sqnr_db``, 10 dB by default).
2. **WEAK**: the worst part is below ``WEAK_DB``, or, on real data with at least ``FEWEST_CLASSES_SEEN`` samples, the
   int8 model gives the float model's class for less than ``TOP1`` of them.
3. **PASSED**: neither.
4. Synthetic data says nothing about accuracy: a verdict on it is about exactness, and says so.
5. Figures measured on the calibration samples are marked as such.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphcut.measurement.metrics import MEANINGLESS_DB
from graphcut.records import OutputPart, Verdict

MIN_SQNR_DB = 10.0
"""Below this the noise has more than a tenth of the signal's energy; none of the tried detectors kept its boxes."""
WEAK_DB = 20.0
TOP1 = 0.9
FEWEST_CLASSES_SEEN = 10


def judge(
    faults: Sequence[str],
    parts: Sequence[OutputPart],
    *,
    top1_agreement: float | None,
    samples: int,
    synthetic: bool,
    held_out: bool,
    min_sqnr_db: float = MIN_SQNR_DB,
    remarks: Sequence[str] = (),
) -> tuple[Verdict, str]:
    """Return the verdict and its reason in one clause.

    Args:
        faults: errors that fail the split, whatever the figures.
        parts: of the outputs.
        top1_agreement: share of samples with the float model's class; None without classes.
        samples: number of samples that it was measured on.
        synthetic: they are not real.
        held_out: they were not used for calibration.
        min_sqnr_db: the limit; 0 for none.
        remarks: reasons why the result is weak, whatever the figures.
    """
    measured = _measured_on(samples, synthetic=synthetic, held_out=held_out)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return "FAILED", f"{faults[0]}{more}"
    worst = min(parts, key=lambda part: part.sqnr_db, default=None)
    if worst is not None and worst.sqnr_db < min_sqnr_db:
        return "FAILED", f"{worst.name}: {worst.sqnr_db:.1f} dB, below {min_sqnr_db:g} dB, {measured}"
    if remarks:
        return "WEAK", remarks[0]
    if worst is not None and worst.sqnr_db < WEAK_DB:
        return "WEAK", f"{worst.name}: {worst.sqnr_db:.1f} dB, below {WEAK_DB:g} dB, {measured}"
    unsure = top1_agreement is not None and top1_agreement < TOP1
    if unsure and not synthetic and samples >= FEWEST_CLASSES_SEEN:
        agree = round((top1_agreement or 0) * samples)
        return "WEAK", f"int8 gives float's class for {agree} of {samples} samples, {measured}"
    if worst is None:
        return "PASSED", f"exact, {measured}"
    return "PASSED", f"exact, and at least {worst.sqnr_db:.1f} dB at the outputs, {measured}"


def part_faults(parts: Sequence[OutputPart]) -> list[str]:
    """Return a line for each part of an output that int8 lost; an output with a single part is judged as a whole."""
    lost = []
    for part in parts:
        if part.axis is None:
            continue
        if part.constant is not None:
            lost.append(f"{part.name}: {part.sqnr_db:.1f} dB, every value is {part.constant:g}")
        elif part.sqnr_db < MEANINGLESS_DB:
            lost.append(f"{part.name}: {part.sqnr_db:.1f} dB is noise ({MEANINGLESS_DB:g} dB is the minimum)")
    return lost


def _measured_on(samples: int, *, synthetic: bool, held_out: bool) -> str:
    count = f"{samples} sample{'' if samples == 1 else 's'}"
    if synthetic:
        return f"on {count} of synthetic data, which say nothing about accuracy"
    if held_out:
        return f"on {count} not used for calibration"
    return f"on the {count} used for calibration"
