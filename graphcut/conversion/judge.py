"""Judge a chain on samples: one number for the samples of a search, one for those excluded from it.

1. At most ``MOST_SAMPLES`` evenly spaced calibration samples are run. Every ``GUARD_EVERY``-th of them is excluded:
   gains by chance on the others do not show there.
2. The outputs (their logits, before a final softmax) and some inner tensors are compared with float by
   :func:`graphcut.measurement.loss.loss`.
3. The cost of a run is counted, not timed (:func:`work`), so that a limited search stays deterministic.
4. What is worse than the best on every fourth of the samples searched on, which are run first, is not run on the rest.
5. Other scales go into the files in place (:class:`graphcut.tflite.scales.Rescalable`): no conversion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphcut.conversion.checkpoints import Checkpoint
from graphcut.errors import VerificationError
from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.int8_chain import THREADS, ChainLink, Collected, beside_float, run_links, shown_key
from graphcut.measurement.loss import loss
from graphcut.records import Array, ConvertedSegment, Samples
from graphcut.runtime import litert
from graphcut.tflite import edit, schema
from graphcut.tflite.scales import BIASED, Rescalable, Scale

MOST_SAMPLES = 16
"""Samples that are run, those kept out included."""

GUARD_EVERY = 4

WORSE = float("inf")
"""The loss of a chain that does not run."""

LEAST_METHOD_GAIN = 0.03
"""Of the loss (0.3 dB). A smaller gain of a whole method, on the samples that it sees or on the others, may be chance:
kept for 0.1 and 0.2 dB, two methods cost the trained FastestDet 3 of 75 boxes on held-out pictures."""


ELEMENT_COST = 50
"""Multiplications in the time of one element of an activation: about 25e9 against 0.5e9 a second on one core."""


def work(segments: Sequence[ConvertedSegment]) -> int:
    """What one sample costs in the chain, in multiplications.

    Those of weighted operators, and ``ELEMENT_COST`` for each element that an operator makes.
    """
    total = 0
    for part in segments:
        model = schema.read(part.tflite_path.read_bytes())
        graph = edit.graph_of(model)
        for operator in graph.operators:
            shape = graph.tensors[int(operator.outputs[0])].shape
            made = 1 if shape is None else math.prod(int(size) for size in shape)
            total += ELEMENT_COST * made
            places = BIASED.get(schema.op_name(model, operator))
            if places is not None:
                kernel = [int(size) for size in graph.tensors[int(operator.inputs[places[1]])].shape]
                depthwise = schema.op_name(model, operator) == "DEPTHWISE_CONV_2D"
                total += made * math.prod(kernel[1:3] if depthwise else kernel[1:])
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The losses of a chain.

    Attributes:
        first: on the samples that are run first.
        searched: on all that are searched on; infinite where they were not run, or the chain does not run.
        guarded: on those kept out, likewise.
        each: on every sample by itself; empty likewise.
    """

    first: float
    searched: float
    guarded: float
    each: tuple[float, ...]


_REFUSED = Losses(first=WORSE, searched=WORSE, guarded=WORSE, each=())


def gains(before: tuple[float, float], after: tuple[float, float]) -> bool:
    """Whether losses, as :meth:`Judge.losses` gives them, fall enough for a whole method to be kept."""
    return all(new < old - LEAST_METHOD_GAIN for old, new in zip(before, after, strict=True))


class Judge:
    """The chain with any scales, on some of the samples.

    Args:
        segments: aligned, in order.
        samples: the calibration samples.
        whole: the float whole on them.
        inner: what float holds at inner tensors that are compared too (:mod:`graphcut.conversion.checkpoints`).
    """

    def __init__(
        self,
        segments: Sequence[ConvertedSegment],
        samples: Samples,
        whole: FloatWhole,
        inner: Mapping[Checkpoint, Array],
    ) -> None:
        taken = [number * len(samples) // MOST_SAMPLES for number in range(MOST_SAMPLES)]
        self.numbers = taken if len(samples) > MOST_SAMPLES else list(range(len(samples)))
        self.samples, self.whole, self.inner = samples, whole, inner
        shown = [[each.name for each in inner if each.file == number] for number in range(len(segments))]
        self.links = [
            ChainLink(part, THREADS, names, litert.Runner) for part, names in zip(segments, shown, strict=True)
        ]
        self.shown = [Rescalable(link.data) for link in self.links]
        self.files = [Rescalable(part.tflite_path.read_bytes()) for part in segments]
        self.first = list(range(0, len(self.numbers), GUARD_EVERY))
        self.guards = [place for place in range(len(self.numbers)) if place % GUARD_EVERY == GUARD_EVERY - 1]
        self.left_out = {self.numbers[place] for place in self.guards}

    def losses(self, scales: Sequence[Mapping[str, Scale]] = ()) -> tuple[float, float]:
        """The loss on the samples searched on, and on those kept out; infinite where an interpreter refuses a file.

        Args:
            scales: by file the new scales of activations; empty for the files as they are.
        """
        found = self.tried(scales)
        return found.searched, found.guarded

    def tried(self, scales: Sequence[Mapping[str, Scale]] = (), worst: float = float("inf")) -> Losses:
        """The losses with other scales.

        Args:
            scales: as in :meth:`losses`.
            worst: where the loss on the first samples is above it, the others are not run (statement 4).
        """
        collected = Collected(values={}, scales={})
        scales = scales or [{}] * len(self.links)
        order = [*self.first, *(place for place in range(len(self.numbers)) if place not in self.first)]
        try:
            links = [
                link.with_data(shown.rescaled(new), THREADS) if new else link
                for link, shown, new in zip(self.links, self.shown, scales, strict=True)
            ]
            for place in self.first:
                run_links(links, self.samples, self.numbers[place], collected)
            first = self._loss(collected, self.first, self.first)
            if first > worst:
                return replace(_REFUSED, first=first)
            for place in order[len(self.first) :]:
                run_links(links, self.samples, self.numbers[place], collected)
        except (ValueError, RuntimeError, VerificationError):
            return _REFUSED
        searched = [place for place in range(len(self.numbers)) if place not in self.guards]
        return Losses(
            first=first,
            searched=self._loss(collected, order, searched),
            guarded=self._loss(collected, order, self.guards),
            each=tuple(self._loss(collected, order, [place]) for place in range(len(self.numbers))),
        )

    def _loss(self, collected: Collected, order: Sequence[int], places: Sequence[int]) -> float:
        """The loss on the samples at some places; ``order`` says which ones were collected."""
        wanted, got = [], []

        def add(values: Array, steps: Any, scale: Scale, per_sample: int) -> None:
            numbers = [self.numbers[place] * per_sample + row for place in places for row in range(per_sample)]
            rows = [order.index(place) * per_sample + row for place in places for row in range(per_sample)]
            wanted.append(values[numbers])
            got.append(litert.dequantise(steps[rows], *scale))

        for layer in self.whole.outputs:
            steps, scale, values = beside_float(layer, collected, self.whole)
            add(values, steps, scale, len(values) // len(self.samples))
        for each, values in self.inner.items():
            key = shown_key(each.name)
            add(values, np.concatenate(collected.values[key]), collected.scales[key], 1)
        return loss(wanted, got)
