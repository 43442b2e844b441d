"""Choose ranges of activations by their effect on the outputs of the chain.

1. Each group of activations with one scale has a few candidates (:mod:`graphcut.quant.clipping`): *levels*, of which
   level 0 is the range observed, and the last one the range with which the operators that read it make the least noise
   (:mod:`graphcut.quant.reader_ranges`). A try gives scales to the int8 files in place (:mod:`graphcut.tflite.scales`)
   and runs the chain on calibration samples: it costs no conversion.
2. From coarse to fine: first one level for all activations but the model's outputs, or the last one for those whose
   readers gain at least so much; then blocks of activations that follow each other, halved in each round, get the last
   level, level 0, and one level up or down. A block keeps what lowers the loss (:mod:`graphcut.measurement.loss`).
3. Some samples are excluded from the search (:mod:`graphcut.conversion.judge`): a step that makes these worse is
   rejected. A step must gain ``LEAST_GAIN``, and more than ``SIGNIFICANT`` standard errors over all samples,
   because a smaller gain may be chance.
4. A seam is one group in all files that have it, so both of its sides get the same scale. Scales that an operator
   prescribes and those of the model's inputs stay.
5. The number of tries depends on the effort and the cost of a run, never on the clock: the same input gives the same
   bytes.

Complexity: tries x samples x one run of the chain. Source of the idea of a search by the error at the end: Nagel et
al., "A White Paper on Neural Network Quantization", arXiv 2106.08295, section 3.1; of halving: Wu et al., arXiv
2004.09602, section 6.1 (sensitivity of single layers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from graphcut.conversion.checkpoints import Checkpoint
from graphcut.conversion.judge import Judge, Losses, gains, work
from graphcut.conversion.range_groups import Adjustable, adjustable, judged_by_readers, scales_by_file
from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.int8_chain import ChainRun, quality
from graphcut.progress import Event, Report, silent
from graphcut.quant.clipping import LEVELS
from graphcut.quant.kept import Kept
from graphcut.records import Array, ConvertedSegment, Samples, SeamTensor
from graphcut.settings import Effort
from graphcut.tflite.scales import Rescalable, Scale

TRIES: Mapping[Effort, int] = {"fast": 0, "normal": 48, "high": 240}
"""Runs of the chain over the samples that a search may take."""

WORK: Mapping[Effort, float] = {"fast": 0.0, "normal": 6e11, "high": 6e12}
"""Multiplications that all tries may take (:func:`graphcut.conversion.judge.work`): half a minute for ``normal`` on one
core. A model that is too large for it gets ``LEAST_TRIES``."""

LEAST_TRIES = 9

COARSE = (3, 4, 5, 6)
"""The levels that all activations try, apart from the last one."""

LEAST_GAINS_DB = (0.0, 2.0, 4.0)
"""The gain of an activation's readers for which it gets its last level, in turn."""

LEAST_SAMPLES = 4
"""With fewer samples, nothing is searched."""

LEAST_GAIN = 0.01
"""Of the loss: a tenth of a decibel."""

SIGNIFICANT = 1.0
"""Standard errors of the mean over samples that a step must gain: below that, it may be chance which samples gain."""

GOOD_DB = 36.0
"""A chain whose worst output is better is not changed: its noise is below a sixtieth of the signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search found.

    Attributes:
        segments: with the new scales, in new files.
        kept: what each was quantised with, the new ranges included.
        changed: groups of activations whose range changed, of all that could.
        free: groups that could.
        tries: runs of the chain.
        gain_db: less noise on the samples searched on, and on those kept out; mean over what is compared.
    """

    segments: tuple[ConvertedSegment, ...]
    kept: tuple[Kept, ...]
    changed: int
    free: int
    tries: int
    gain_db: tuple[float, float]


def promises(run: ChainRun, whole: FloatWhole, samples: Samples) -> bool:
    """Whether a search is worth a try: the chain is not good yet, and there are samples."""
    worst = min(quality(run, whole, whole.outputs).values())
    return len(samples) >= LEAST_SAMPLES and worst < GOOD_DB


def search(
    segments: Sequence[ConvertedSegment],
    kept: Sequence[Kept],
    samples: Samples,
    whole: FloatWhole,
    folder: Path,
    *,
    inner: Mapping[Checkpoint, Array] | None = None,
    effort: Effort = "normal",
    report: Report = silent,
) -> Searched | None:
    """Choose ranges for a chain; None if nothing is gained.

    Args:
        segments: aligned, in order.
        kept: what each was quantised with.
        samples: the calibration samples.
        whole: the float whole on them.
        folder: an existing one for the new files.
        inner: what float holds at inner tensors that are compared too (:mod:`graphcut.conversion.checkpoints`).
        effort: how many tries.
        report: progress.
    """
    chain = Judge(segments, samples, whole, inner or {})
    judged = judged_by_readers(adjustable(segments, kept), segments, kept, samples, whole, report)
    free = [group for group, _ in judged]
    affordable = int(WORK[effort] / (len(chain.numbers) * work(segments)))
    trial = _Trial(chain, free, min(TRIES[effort], max(LEAST_TRIES, affordable)), report)
    first = trial.run((0,) * len(free))
    best = trial.fine(trial.coarse([gain for _, gain in judged]))
    if not any(best):
        return None
    last = trial.run(best)
    if not gains((first.searched, first.guarded), (last.searched, last.guarded)):
        return None
    changed = [group.levels[level] != group.now for group, level in zip(free, best, strict=True)]
    scales = scales_by_file(free, best, len(segments))
    return Searched(
        segments=tuple(_written(part, chain.files[n], scales[n], folder) for n, part in enumerate(segments)),
        kept=tuple(_known(known, n, free, best) for n, known in enumerate(kept)),
        changed=sum(changed),
        free=len(free),
        tries=len(trial.known),
        gain_db=(10 * (first.searched - last.searched), 10 * (first.guarded - last.guarded)),
    )


def noted(found: Searched, before: Sequence[ConvertedSegment]) -> tuple[ConvertedSegment, ...]:
    """The segments with a note of the gain, where one changed."""
    (gain, guarded) = found.gain_db
    said = (
        f"ranges of {found.changed} of {found.free} groups of activations chosen by their effect on the outputs "
        f"({gain:.1f} dB less noise on the samples of the search, {guarded:.1f} dB on the others)"
    )
    return tuple(
        replace(part, notes=(*part.notes, said))
        if part.tflite_path.read_bytes() != old.tflite_path.read_bytes()
        else part
        for part, old in zip(found.segments, before, strict=True)
    )


class _Trial:
    """Tries of levels, none run twice."""

    def __init__(self, chain: Judge, free: Sequence[Adjustable], most: int, report: Report) -> None:
        self._chain, self._free, self._most, self._report = chain, free, most, report
        self.known: dict[tuple[int, ...], Losses] = {}

    def run(self, levels: tuple[int, ...], worst: float = float("inf")) -> Losses:
        """Losses with a level for each group (:meth:`graphcut.conversion.judge.Judge.tried`)."""
        if levels not in self.known:
            chain = self._chain
            self.known[levels] = chain.tried(scales_by_file(self._free, levels, len(chain.links)), worst)
            self._report(Event(stage="ranges", done=len(self.known), total=self._most))
        return self.known[levels]

    def better(self, levels: tuple[int, ...], best: tuple[int, ...]) -> bool:
        """Whether levels gain on the samples searched on and lose nothing on those kept out (statement 3)."""
        so_far = self.run(best)
        found = self.run(levels, so_far.first)
        if not (found.searched < so_far.searched - LEAST_GAIN and found.guarded <= so_far.guarded):
            return False
        gains = np.subtract(so_far.each, found.each)
        return bool(gains.mean() > SIGNIFICANT * gains.std() / np.sqrt(len(gains)))

    def coarse(self, gains_db: Sequence[float]) -> tuple[int, ...]:
        """One level for all groups but the outputs', or the last level for those whose readers gain enough."""
        best = (0,) * len(self._free)
        starts = [
            tuple(
                LEVELS if gain > least and not group.is_output else 0
                for group, gain in zip(self._free, gains_db, strict=True)
            )
            for least in LEAST_GAINS_DB
        ]
        starts += [tuple(0 if group.is_output else level for group in self._free) for level in COARSE]
        for tried in starts:
            if tried != best and self.better(tried, best):
                best = tried
        return best

    def fine(self, best: tuple[int, ...]) -> tuple[int, ...]:
        """Blocks of groups, halved in each round, while tries are left (statement 2)."""
        count, blocks = len(self._free), 2
        while blocks <= 2 * count:
            edges = [number * count // blocks for number in range(blocks + 1)]
            for (low, high), move in product(pairwise(edges), _MOVES):
                while len(self.known) < self._most:
                    tried = tuple(move[level] if low <= place < high else level for place, level in enumerate(best))
                    if tried == best or not self.better(tried, best):
                        break
                    best = tried
            blocks *= 2
        return best


_ORDINARY = tuple(range(LEVELS))
_MOVES = (
    (LEVELS,) * (LEVELS + 1),
    (0,) * (LEVELS + 1),
    (*_ORDINARY[1:], LEVELS - 1, LEVELS),
    (0, *_ORDINARY[:-1], LEVELS),
)
"""What each level becomes in the moves of a block: to the last one, to level 0, one up, one down."""


def _written(part: ConvertedSegment, file: Rescalable, scales: Mapping[str, Scale], folder: Path) -> ConvertedSegment:
    """The segment with its scales in a new file."""
    path = folder / part.tflite_path.name
    path.write_bytes(file.rescaled(scales))

    def own(tensor: SeamTensor) -> SeamTensor:
        scale, zero_point = scales.get(tensor.layer, (tensor.scale, tensor.zero_point))
        return replace(tensor, scale=scale, zero_point=zero_point)

    return replace(part, tflite_path=path, inputs=tuple(map(own, part.inputs)), outputs=tuple(map(own, part.outputs)))


def _known(known: Kept, number: int, free: Sequence[Adjustable], levels: Sequence[int]) -> Kept:
    """What a file was quantised with, with its new ranges."""
    ranges = dict(known.ranges)
    for group, level in zip(free, levels, strict=True):
        low, high = group.levels[level]
        for file, name in group.names:
            if file == number and name in ranges and (low, high) != group.now:
                ranges[name] = replace(ranges[name], minimum=low, maximum=high)
    return replace(known, ranges=ranges)
