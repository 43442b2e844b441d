"""Run the chain of int8 segments on samples, and compare every seam and output with float.

Tensors are NHWC, int8, batch 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.errors import VerificationError, setting
from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.metrics import sqnr_db, to_nhwc
from graphcut.progress import Event, Report, silent
from graphcut.records import Array, ConvertedSegment, Samples, SeamTensor, Tail
from graphcut.runtime import isolated, litert
from graphcut.tflite import checked, edit, schema
from graphcut.tflite.final_softmax import final_softmaxes
from graphcut.tflite.schema_types import ModelT

Int8 = npt.NDArray[np.int8]

THREADS = 2
"""Of each interpreter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Int8 values by layer, a sample at a time, with how to read them as float."""

    values: dict[str, list[Int8]]
    scales: dict[str, tuple[float, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRun:
    """What the chain of int8 segments gave: by sample, layer name -> int8 values of every input and seam."""

    edges: Sequence[Mapping[str, Int8]]
    collected: Collected


def run_chain(
    segments: Sequence[ConvertedSegment], samples: Samples, *, threads: int = THREADS, report: Report = silent
) -> ChainRun:
    """Run the chain on every sample.

    Args:
        segments: aligned int8 segments in order.
        samples: the model's inputs (NCHW).
        threads: of each interpreter.

    Raises:
        VerificationError: a segment fails on a sample.
    """
    chain = [ChainLink(part, threads) for part in segments]
    collected = Collected(values={}, scales={})
    edges: list[Mapping[str, Int8]] = []
    for number in range(len(samples)):
        report(Event(stage="verify", done=number, total=len(samples), detail="chain"))
        edges.append(run_links(chain, samples, number, collected))
    return ChainRun(edges=edges, collected=collected)


def quality(run: ChainRun, whole: FloatWhole, layers: Iterable[str]) -> dict[str, float]:
    """Signal-to-noise ratio against float, in dB, of layers that a run made; of its logits, where one has them.

    Args:
        run: of the chain, or of one segment fed with float's activations.
        whole: the float whole on the same samples.
        layers: outputs of the model and seams.
    """
    found = {}
    for layer in layers:
        steps, scale, wanted = beside_float(layer, run.collected, whole)
        found[layer] = sqnr_db(wanted, litert.dequantise(steps, *scale))
    return found


class ChainLink:
    """A segment or an unsplit model ready to run, with the tensors before its final softmaxes as further outputs.

    Args:
        part: the segment or model.
        threads: of the interpreter.
        shown: names of inner int8 tensors that are further outputs too.
        opener: makes what runs the file; a process of its own for a file that no worker has run yet.

    Raises:
        ModelError: the file is damaged.
        VerificationError: the interpreter refuses it, or it does not read and make what the part does.
    """

    def __init__(
        self,
        part: ConvertedSegment | Tail,
        threads: int,
        shown: Sequence[str] = (),
        opener: Callable[..., litert.Running] = isolated.runner,
    ) -> None:
        data = checked.read_bytes(part.tflite_path)
        model = checked.read(data, str(part.tflite_path))
        self.inputs, self.outputs = part.inputs, part.outputs
        self.logits = {
            output: found for output, found in final_softmaxes(model).items() if _is_int8(model, found.inner)
        }
        self.logit_scales = {
            output: edit.scale_of(model, edit.find(model, found.inner)) for output, found in self.logits.items()
        }
        self.shown = {name: edit.scale_of(model, edit.find(model, name)) for name in shown}
        if self.logits or shown:
            data = edit.expose(data, [*(found.inner for found in self.logits.values()), *shown])
        self.data = data
        self.runner = opened(data, part, threads=threads, opener=opener)

    def with_data(self, data: bytes, threads: int) -> ChainLink:
        """The same link with a file that differs from :attr:`data` in scales and constants only, run in this process.

        Raises:
            ValueError, RuntimeError: the interpreter refuses the file.
        """
        other = copy(self)
        other.data, other.runner = data, litert.Runner(data, threads=threads)
        scales = [(float(each["quantization"][0]), int(each["quantization"][1])) for each in other.runner.outputs]
        other.inputs = tuple(_rescaled(*each) for each in zip(self.inputs, other.runner.inputs, strict=True))
        other.outputs = tuple(_rescaled(*each) for each in zip(self.outputs, other.runner.outputs, strict=False))
        further = scales[len(self.outputs) :]
        other.logit_scales = dict(zip(self.logits, further, strict=False))
        other.shown = dict(zip(self.shown, further[len(self.logits) :], strict=True))
        return other


def opened(
    data: bytes,
    part: ConvertedSegment | Tail,
    *,
    threads: int = THREADS,
    opener: Callable[..., litert.Running] = isolated.runner,
) -> litert.Running:
    """A file in an interpreter, which reads and makes what a part does.

    Args:
        data: the file; it may have further outputs behind those of the part.
        part: the segment or tail.
        threads: of the interpreter.
        opener: as for :class:`ChainLink`.

    Raises:
        VerificationError: the interpreter refuses the file, or it is not the part's.
    """
    try:
        runner = opener(data, threads=threads)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise VerificationError(
            f"{part.tflite_path} is refused by the interpreter ({reason})", "split the model again"
        ) from error
    for what, tensors, found in (("reads", part.inputs, runner.inputs), ("makes", part.outputs, runner.outputs)):
        names = [str(each["name"]) for each in found[: len(tensors)]]
        if names != [tensor.layer for tensor in tensors]:
            raise VerificationError(
                f"{part.tflite_path} {what} {', '.join(names)} in place of {', '.join(each.layer for each in tensors)}",
                "split the model again",
            )
    return runner


def _rescaled(tensor: SeamTensor, detail: Mapping[str, Any]) -> SeamTensor:
    scale, zero_point = detail["quantization"]
    return replace(tensor, scale=float(scale), zero_point=int(zero_point))


def run_links(chain: Sequence[ChainLink], samples: Samples, number: int, collected: Collected) -> dict[str, Int8]:
    """Run one sample through the links; the int8 values of every input and seam by layer name.

    Raises:
        VerificationError: an interpreter fails.
    """
    values: dict[str, Int8] = {}
    for link in chain:
        for tensor in link.inputs:
            if tensor.layer not in values:
                values[tensor.layer] = quantised_input(tensor, samples, number)
        try:
            results = link.runner([values[tensor.layer] for tensor in link.inputs])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise VerificationError(
                f"the part that produces {', '.join(each.layer for each in link.outputs)} fails on sample "
                f"{samples.names[number]} ({reason})",
                f"calibrate with more samples, or choose other cuts ({setting('cuts')})",
            ) from error
        for tensor, result in zip(link.outputs, results, strict=False):
            values[tensor.layer] = result
            collected.values.setdefault(tensor.layer, []).append(np.atleast_1d(result))
            collected.scales[tensor.layer] = (tensor.scale, tensor.zero_point)
        further = results[len(link.outputs) :]
        for (output, found), result in zip(link.logits.items(), further, strict=False):
            collected.values.setdefault(logits_key(output), []).append(found.arranged(result))
            collected.scales[logits_key(output)] = link.logit_scales[output]
        for (name, scale), result in zip(link.shown.items(), further[len(link.logits) :], strict=True):
            collected.values.setdefault(shown_key(name), []).append(result)
            collected.scales[shown_key(name)] = scale
    return values


def logits_key(output: str) -> str:
    """Name the values before the softmax of an output."""
    return f"{output} before softmax"


def shown_key(name: str) -> str:
    """Name the values of an inner tensor that a link shows."""
    return f"{name} inside"


def quantised_input(tensor: SeamTensor, samples: Samples, number: int) -> Int8:
    """One sample of a model input as the int8 NHWC array a segment takes.

    Raises:
        KeyError: the tensor is not an input of the model.
    """
    values = to_nhwc(samples.arrays[tensor.tensor][number : number + 1])
    return litert.quantise(values, tensor.scale, tensor.zero_point, tensor.dtype)


def beside_float(layer: str, collected: Collected, whole: FloatWhole) -> tuple[Int8, tuple[float, int], Array]:
    """A seam or an output (its logits, before a final softmax): int8 values, their scale and zero point, float's.

    Both are NHWC, over all samples. An output whose softmax the int8 files do not show as one is taken as it is.
    """
    has_logits = judged_by_logits(layer, collected, whole)
    key = logits_key(layer) if has_logits else layer
    wanted = whole.logits[layer] if has_logits else {**whole.seams, **whole.outputs}[layer]
    return np.concatenate(collected.values[key]), collected.scales[key], to_nhwc(wanted)


def judged_by_logits(layer: str, collected: Collected, whole: FloatWhole) -> bool:
    """Whether what goes into a layer's final softmax is known in float and in int8."""
    return layer in whole.logits and logits_key(layer) in collected.values


def _is_int8(model: ModelT, name: str) -> bool:
    return bool(schema.TYPE_NAMES[edit.graph_of(model).tensors[edit.find(model, name)].type] == "INT8")
