"""Judge a chain on samples: one number for the samples of a search, one for those excluded from it.

1. At most ``MOST_SAMPLES`` evenly spaced calibration samples are run. Every ``GUARD_EVERY``-th of them is excluded:
   gains by chance on the others do not show there.
2. The outputs (their logits, before a final softmax) and some inner tensors are compared with float by
   :func:`graphcut.measurement.loss.loss`.
3. The cost of a run is counted, not timed (:func:`work`), so that a limited search stays deterministic.
4. Other scales go into the files in place (:class:`graphcut.tflite.scales.Rescalable`): no conversion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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
        self.guards = [place for place in range(len(self.numbers)) if place % GUARD_EVERY == GUARD_EVERY - 1]

    def losses(self, scales: Sequence[Mapping[str, Scale]] = ()) -> tuple[float, float]:
        """The loss on the samples searched on, and on those kept out; infinite where an interpreter refuses a file.

        Args:
            scales: by file the new scales of activations; empty for the files as they are.
        """
        collected = Collected(values={}, scales={})
        scales = scales or [{}] * len(self.links)
        try:
            links = [
                link.with_data(shown.rescaled(new), THREADS) if new else link
                for link, shown, new in zip(self.links, self.shown, scales, strict=True)
            ]
            for number in self.numbers:
                run_links(links, self.samples, number, collected)
        except (ValueError, RuntimeError, VerificationError):
            return WORSE, WORSE
        wanted, got = [], []
        for layer in self.whole.outputs:
            steps, scale, values = beside_float(layer, collected, self.whole)
            per_sample = len(values) // len(self.samples)
            places = [number * per_sample + inner for number in self.numbers for inner in range(per_sample)]
            wanted.append(values[places])
            got.append(litert.dequantise(steps, *scale))
        for each, values in self.inner.items():
            wanted.append(values[self.numbers])
            key = shown_key(each.name)
            got.append(litert.dequantise(np.concatenate(collected.values[key]), *collected.scales[key]))
        searched = [place for place in range(len(self.numbers)) if place not in self.guards]
        return tuple(self._loss(wanted, got, places) for places in (searched, self.guards))  # type: ignore[return-value]

    def _loss(self, wanted: Sequence[Array], got: Sequence[Array], places: Sequence[int]) -> float:
        count = len(self.numbers)
        chosen = [[each.reshape(count, -1, *each.shape[1:])[list(places)] for each in side] for side in (wanted, got)]
        wanted, got = ([each.reshape(-1, *each.shape[2:]) for each in side] for side in chosen)
        return loss(wanted, got)
