"""Refine the biases of a chain whose outputs are poor in int8, from the first segment to the last.

1. Each segment is refined (:mod:`graphcut.quant.refine`) on the results of the refined segments before it on the
   calibration samples, so that it also compensates for their errors. Refined on float's activations, each by itself,
   the segments of the trained MobileNetV2 came to 23.4 to 24.2 dB; as a chain to 25.2 dB, wherever they are cut.
2. The samples that a search leaves out (:mod:`graphcut.conversion.judge`) are not refined on. The result is used if the
   outputs improve on these as well, and each changed segment gets a note. Refined on all 16 pictures, the trained
   MobileNetV2 gained on them and lost 0.8 dB on others.
3. Sizes and scales stay: only int32 biases change. The files are new ones next to the old.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.int8_chain import THREADS, ChainRun, quality, quantised_input, run_chain
from graphcut.progress import Event, Report, silent
from graphcut.quant import refine as refining
from graphcut.quant.kept import Kept
from graphcut.quant.ranges import MEANS
from graphcut.records import Array, ConvertedSegment, Samples

REFINE_BELOW_DB = 26.0
"""A chain whose worst output is better is not changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinedChain:
    """The segments with refined biases, and what each was quantised with."""

    segments: tuple[ConvertedSegment, ...]
    kept: tuple[Kept, ...]


def worst_output(run: ChainRun, whole: FloatWhole) -> float:
    """The lowest signal-to-noise ratio of a model output (of its logits, before a final softmax), in dB."""
    return min(quality(run, whole, whole.outputs).values())


def promises(run: ChainRun, whole: FloatWhole, samples: Samples) -> bool:
    """Whether to try refining: the chain is not good yet, and there are enough samples."""
    return len(samples) >= refining.LEAST_SAMPLES and worst_output(run, whole) < REFINE_BELOW_DB


def refine_chain(
    segments: Sequence[ConvertedSegment],
    kept: Sequence[Kept],
    samples: Samples,
    whole: FloatWhole,
    folder: Path,
    left_out: Collection[int],
    report: Report = silent,
) -> RefinedChain:
    """Refine the biases of every segment (statement 1).

    Args:
        segments: aligned, in order.
        kept: what each was quantised with.
        samples: the calibration samples.
        whole: the float whole on them.
        folder: an existing one for the new files.
        left_out: numbers of the samples not to refine on; of the first ``MEANS``, all others are taken.
        report: receives progress, one step per segment.

    Raises:
        ConversionError: an operator does not run in a separate file.
    """
    values: dict[str, refining.Values] = {}
    numbers = [number for number in range(min(len(samples), MEANS)) if number not in left_out]
    refined, knowledge = [], []
    for done, (part, known) in enumerate(zip(segments, kept, strict=True)):
        report(Event(stage="refine", done=done, total=len(segments), detail=f"segment {part.segment.index}"))
        for tensor in part.inputs:
            if tensor.layer not in values:
                values[tensor.layer] = [quantised_input(tensor, samples, number) for number in numbers]
        before = part.tflite_path.read_bytes()
        entering = [values[each.layer] for each in part.inputs]
        wanted = {
            name: replace(seen, sample_means=seen.sample_means[numbers]) if len(seen.sample_means) else seen
            for name, seen in known.ranges.items()
        }
        made = refining.refine(before, entering, wanted, threads=THREADS)
        values |= {tensor.layer: held for tensor, held in zip(part.outputs, made.outputs, strict=True)}
        path = folder / part.tflite_path.name
        path.write_bytes(made.data)
        moved = replace(part, tflite_path=path)
        refined.append(replace(moved, sqnr_db=own_quality(moved, samples, whole)))
        knowledge.append(replace(known, shifts=refining.shifts(before, made.data)))
    return RefinedChain(segments=tuple(refined), kept=tuple(knowledge))


def noted(refined: RefinedChain, before: float, after: float) -> tuple[ConvertedSegment, ...]:
    """The segments with a note of the gain, in dB of the worst output, where a bias changed."""
    said = f"biases refined on the chain (worst output {before:.1f} dB before, {after:.1f} dB after)"
    return tuple(
        replace(part, notes=(*part.notes, said)) if known.shifts else part
        for part, known in zip(refined.segments, refined.kept, strict=True)
    )


def own_quality(part: ConvertedSegment, samples: Samples, whole: FloatWhole) -> Mapping[str, float]:
    """The quality of its outputs against float when its inputs are float's activations, as in a segment's record."""
    made = {**whole.seams, **whole.outputs}
    arrays: dict[str, Array] = {
        tensor.tensor: made[tensor.layer] if tensor.layer in made else samples.arrays[tensor.tensor]
        for tensor in part.inputs
    }
    run = run_chain([part], replace(samples, arrays=arrays))
    return quality(run, whole, [tensor.layer for tensor in part.outputs])
