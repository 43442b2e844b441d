"""Fit the weights of a chain whose outputs are poor in int8, from the first segment to the last.

1. Each segment is fitted (:mod:`graphcut.quant.fit`) on the int8 results of the fitted segments before it on the
   calibration samples, against the float results.
2. The result is used if the outputs and the inner tensors that a judge compares come closer to float, also on the
   excluded samples. Each changed segment gets a note.
3. A model with layers in parts is not changed: the parts of a layer share one range of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from graphcut.conversion.bias_correction import REFINE_BELOW_DB, RefinedChain, own_quality, worst_output
from graphcut.conversion.judge import work
from graphcut.graph.model import Model
from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.int8_chain import THREADS, ChainRun, quantised_input
from graphcut.measurement.metrics import to_nhwc
from graphcut.progress import Event, Report, silent
from graphcut.quant.fit import fit
from graphcut.quant.kept import Kept
from graphcut.quant.ranges import MEANS
from graphcut.quant.refine import Values
from graphcut.records import ConvertedSegment, Samples

LEAST_SAMPLES = 8
"""With fewer nothing is fitted."""

MOST_WORK = 4e9
"""Multiplications of one sample above which nothing is fitted (:func:`graphcut.conversion.judge.work`): every operator
runs by itself, and a map of 640 x 640 in float takes too much time and memory."""


def promises(
    run: ChainRun, whole: FloatWhole, model: Model, segments: Sequence[ConvertedSegment], samples: Samples
) -> bool:
    """Whether fitting is worth a try: the chain is small and not good yet, there are samples, no layer is in parts."""
    if len(samples) < LEAST_SAMPLES or model.largest_weights or work(segments) > MOST_WORK:
        return False
    return worst_output(run, whole) < REFINE_BELOW_DB


def fit_chain(
    segments: Sequence[ConvertedSegment],
    kept: Sequence[Kept],
    samples: Samples,
    whole: FloatWhole,
    folder: Path,
    report: Report = silent,
) -> RefinedChain:
    """Fit the weights of every segment (statement 1).

    Args:
        segments: aligned, in order.
        kept: what each was quantised with.
        samples: the calibration samples.
        whole: the float whole on them.
        folder: an existing one for the new files.
        report: progress, one step a segment.

    Raises:
        ConversionError: an operator does not run in a file of its own.
    """
    values: dict[str, Values] = {}
    floats: dict[str, Values] = {}
    count = min(len(samples), MEANS)
    fitted, knowledge = [], []
    for done, (part, known) in enumerate(zip(segments, kept, strict=True)):
        report(Event(stage="fit", done=done, total=len(segments), detail=f"segment {part.segment.index}"))
        for tensor in part.inputs:
            if tensor.layer not in values:
                values[tensor.layer] = [quantised_input(tensor, samples, number) for number in range(count)]
                given = samples.arrays[tensor.tensor]
                floats[tensor.layer] = [to_nhwc(given[number : number + 1]) for number in range(count)]
        made = fit(
            part.tflite_path.read_bytes(),
            known.float_path.read_bytes(),
            [values[each.layer] for each in part.inputs],
            [floats[each.layer] for each in part.inputs],
            threads=THREADS,
        )
        values |= {tensor.layer: held for tensor, held in zip(part.outputs, made.outputs, strict=True)}
        floats |= {tensor.layer: held for tensor, held in zip(part.outputs, made.float_outputs, strict=True)}
        path = folder / part.tflite_path.name
        path.write_bytes(made.data)
        moved = replace(part, tflite_path=path)
        fitted.append(replace(moved, sqnr_db=own_quality(moved, samples, whole)))
        knowledge.append(replace(known, fits=made.fits))
    return RefinedChain(segments=tuple(fitted), kept=tuple(knowledge))


def noted(fitted: RefinedChain, so_far: Sequence[float], gained: Sequence[float]) -> tuple[ConvertedSegment, ...]:
    """The segments with a note of the gain, on the samples fitted to and on those kept out, where weights changed."""
    gain, guarded = (10 * float(np.subtract(*each)) for each in zip(so_far, gained, strict=True))
    return tuple(
        replace(
            part,
            notes=(
                *part.notes,
                f"weights of {len(known.fits)} operators fitted to int8 inputs ({gain:.1f} dB less noise, "
                f"{guarded:.1f} dB on other samples)",
            ),
        )
        if known.fits
        else part
        for part, known in zip(fitted.segments, fitted.kept, strict=True)
    )
