"""Which operator is to blame where the verdict says that int8 is not close enough to float.

It is measured only then, for it runs every operator alone (:mod:`graphcut.measurement.operator_errors`) on a few
samples: about as much work as the proof on as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphcut.measurement.operator_errors import operator_errors, own_db, worst_operator
from graphcut.progress import Report, silent
from graphcut.records import ConvertedSegment, OperatorError, Samples, Verification
from graphcut.tflite.edit import MAP_ENDING
from graphcut.verification.verdict import TOP1, WEAK_DB


def name_operator(
    proof: Verification, segments: Sequence[ConvertedSegment], samples: Samples, report: Report = silent
) -> Verification:
    """Add the operator where most is lost to a verdict that is weak or failed for accuracy; else give it back.

    Args:
        proof: of a split.
        segments: of its chain, in order, with their files.
        samples: that it was judged on.
        report: receives progress.
    """
    worst = min(proof.parts, key=lambda part: part.sqnr_db, default=None)
    if proof.verdict == "PASSED" or worst is None:
        return proof
    unsure = proof.top1_agreement is not None and proof.top1_agreement < TOP1
    if not (worst.sqnr_db < max(WEAK_DB, proof.min_sqnr_db) or unsure):
        return proof
    found = worst_operator(
        operator_errors(segments, samples, output=worst.output, report=report), segments, worst.output
    )
    if found is None:
        return proof
    return replace(proof, worst_operator=found, reason=f"{proof.reason}; {_sentence(found)}")


def _sentence(found: OperatorError) -> str:
    place = f"{found.op} {found.part or found.layer.removesuffix(MAP_ENDING)} (segment {found.segment})"
    effect = "" if found.output_db is None else f" and leaves {found.output_db:.1f} dB at the output"
    return f"most is lost at {place}, which by itself has {own_db(found):.1f} dB{effect}"
