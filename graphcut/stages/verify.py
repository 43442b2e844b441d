"""Proving that the segments compute what the whole computes.

1. *Exact*: the chain of int8 segments, the unsplit int8 model and every prefix + tail give the same bytes at the
   model's outputs for every sample, in one runtime and kernel set.
2. *Close*: at every seam and at the outputs the chain is compared with the float whole in onnxruntime. Where an
   output is made by a final softmax, the tensor before it is compared ("logits"): an int8 softmax of many classes
   may be the same number for every input and would hide anything.
3. *Independent*, where it was asked for: the chain against the whole model converted in one piece
   (graphcut.stages.independent).
4. *Meaningful*: an output that is constant, saturated or noise is called so and fails; no number makes up for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.errors import VerificationError
from graphcut.progress import Event, Report, silent
from graphcut.records import Array, ConvertedSegment, Independent, Samples, SeamTensor, Tail, Verification
from graphcut.runtime import litert
from graphcut.stages.float_whole import FloatWhole
from graphcut.stages.independent import compare
from graphcut.stages.measure import sqnr_db, to_nhwc
from graphcut.tflite import edit, schema

MEANINGLESS_DB = 3.0
"""Below this the noise is half as strong as the signal."""
SATURATED_SHARE = 0.25
"""Share of an output's values stuck at the end of the int8 range (other than a range that ends at zero)."""

THREADS = 2
"""Of each interpreter."""

Int8 = npt.NDArray[np.int8]


@dataclass(slots=True)
class _Collected:
    """Int8 values by layer, a sample at a time, with how to read them as float."""

    values: dict[str, list[Int8]]
    scales: dict[str, tuple[float, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRun:
    """What the chain of int8 segments gave: by sample, layer name -> int8 values of every input and seam."""

    edges: Sequence[Mapping[str, Int8]]
    collected: _Collected


def run_chain(
    segments: Sequence[ConvertedSegment], samples: Samples, *, threads: int = THREADS, report: Report = silent
) -> ChainRun:
    """Run the chain on every sample.

    Args:
        segments: aligned int8 segments in order.
        samples: the model's inputs (NCHW).
        threads: of each interpreter.

    Raises:
        VerificationError: a segment stops on a sample.
    """
    chain = [_ChainLink(part, threads) for part in segments]
    collected = _Collected({}, {})
    edges: list[Mapping[str, Int8]] = []
    for number in range(len(samples)):
        report(Event(stage="verify", done=number, total=len(samples), detail="chain"))
        edges.append(_run_links(chain, samples, number, collected))
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
        steps, scale, wanted = _beside_float(layer, run.collected, whole)
        found[layer] = sqnr_db(wanted, litert.dequantise(steps, *scale))
    return found


def verify(
    chain: ChainRun,
    tails: Sequence[Tail],
    samples: Samples,
    whole: FloatWhole,
    independent: Path | None = None,
    *,
    threads: int = THREADS,
    report: Report = silent,
) -> Verification:
    """Run the unsplit model and every tail on every sample and compare them with the chain, and the chain with float.

    Args:
        chain: what :func:`run_chain` gave.
        tails: the unsplit model (``first == 1``) and the tails.
        samples: the model's inputs (NCHW).
        whole: the float whole on the same samples.
        independent: the int8 file of the whole model converted in one piece, if there is one.
        threads: threads of each interpreter.
    """
    edges, collected = chain.edges, chain.collected
    outputs = {name: [edge[name] for edge in edges] for name in whole.outputs}
    findings: list[str] = []
    exact = True
    for done, tail in enumerate(tails):
        report(Event(stage="verify", done=done, total=len(tails), detail="unsplit" if tail.first == 1 else "tails"))
        differing = _differs(tail, edges, outputs, threads)
        if differing:
            exact = False
            what = "the unsplit model" if tail.first == 1 else f"the tail from segment {tail.first}"
            findings.append(f"{what} differs from the chain at {differing}")
    if not whole.chain_exact:
        findings.append("the float chain of the ONNX segments differs from the float whole")
    quality, worst, faults, remarks = _compare(collected, whole, samples)
    remarks += _little_said(samples)
    apart = None if independent is None else _independent(tails[0], independent, samples, collected, threads)
    if apart is not None and not apart.exact:
        noise = min(quality[name] for name in (whole.outputs if len(whole.outputs) > 1 else ("logits",)))
        if not apart.sqnr_db >= noise:
            faults.append(
                f"the whole converted in one piece is {apart.sqnr_db:.1f} dB from the chain, more than int8 itself "
                f"costs ({noise:.1f} dB against float)"
            )
    findings += faults
    return Verification(
        passed=exact and whole.chain_exact and not faults,
        exact=exact,
        float_exact=whole.chain_exact,
        samples=len(samples),
        synthetic_calibration=samples.synthetic,
        sqnr_db=quality,
        top1_agreement=_top1(collected, whole),
        worst_sample=worst,
        independent=apart,
        runtime=litert.describe(),
        findings=(*findings, *remarks),
    )


def _independent(unsplit: Tail, path: Path, samples: Samples, collected: _Collected, threads: int) -> Independent:
    """Run the whole converted in one piece on every sample and compare it with the chain."""
    runner = litert.Runner(path.read_bytes())
    scales = {str(each["name"]): each["quantization"] for each in (*runner.inputs, *runner.outputs)}

    def own(tensor: SeamTensor) -> SeamTensor:
        scale, zero_point = scales[tensor.layer]
        return replace(tensor, scale=float(scale), zero_point=int(zero_point))

    part = replace(
        unsplit,
        tflite_path=path,
        inputs=tuple(own(each) for each in unsplit.inputs),
        outputs=tuple(own(each) for each in unsplit.outputs),
    )
    link, got = _ChainLink(part, threads), _Collected({}, {})
    for number in range(len(samples)):
        _run_links([link], samples, number, got)
    compared = {name: collected.values[name] for name in got.values}
    return compare(compared, got.values, {name: collected.scales[name] for name in got.scales}, got.scales)


class _ChainLink:
    """A segment or an unsplit model ready to run, with the tensors before its final softmaxes as further outputs."""

    def __init__(self, part: ConvertedSegment | Tail, threads: int) -> None:
        data = part.tflite_path.read_bytes()
        model = schema.read(data)
        self.inputs, self.outputs = part.inputs, part.outputs
        self.logits = edit.before_softmax(model)
        self.logit_scales = {
            output: edit.scale_of(model, edit.find(model, inner)) for output, inner in self.logits.items()
        }
        if self.logits:
            data = edit.expose(data, list(self.logits.values()))
        self.runner = litert.Runner(data, threads=threads)


def _run_links(chain: Sequence[_ChainLink], samples: Samples, number: int, collected: _Collected) -> dict[str, Int8]:
    values: dict[str, Int8] = {}
    for link in chain:
        for tensor in link.inputs:
            if tensor.layer not in values:
                values[tensor.layer] = quantised_input(tensor, samples, number)
        try:
            results = link.runner([values[tensor.layer] for tensor in link.inputs])
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise VerificationError(
                f"the part that makes {', '.join(each.layer for each in link.outputs)} stops on sample "
                f"{samples.names[number]} ({reason})",
                "calibrate with more samples, or cut elsewhere (--cuts)",
            ) from error
        for tensor, result in zip(link.outputs, results, strict=False):
            values[tensor.layer] = result
            collected.values.setdefault(tensor.layer, []).append(result)
            collected.scales[tensor.layer] = (tensor.scale, tensor.zero_point)
        for output, result in zip(link.logits, results[len(link.outputs) :], strict=True):
            collected.values.setdefault(_logits_key(output), []).append(result)
            collected.scales[_logits_key(output)] = link.logit_scales[output]
    return values


def _logits_key(output: str) -> str:
    return f"{output} before softmax"


def quantised_input(tensor: SeamTensor, samples: Samples, number: int) -> Int8:
    """One sample of a model input as the int8 NHWC array a segment takes.

    Raises:
        KeyError: the tensor is not an input of the model.
    """
    values = to_nhwc(samples.arrays[tensor.tensor][number : number + 1])
    return litert.quantise(values, tensor.scale, tensor.zero_point)


def _differs(tail: Tail, edges: Sequence[Mapping[str, Int8]], wanted: Mapping[str, list[Int8]], threads: int) -> str:
    """Names of the outputs whose bytes differ from the chain's on any sample; empty where none does."""
    runner = litert.Runner(tail.tflite_path.read_bytes(), threads=threads)
    differing: set[str] = set()
    for number, values in enumerate(edges):
        results = runner([values[tensor.layer] for tensor in tail.inputs])
        for tensor, result in zip(tail.outputs, results, strict=True):
            if result.tobytes() != wanted[tensor.layer][number].tobytes():
                differing.add(tensor.layer)
    return ", ".join(sorted(differing))


def _compare(
    collected: _Collected, whole: FloatWhole, samples: Samples
) -> tuple[dict[str, float], dict[str, str], list[str], list[str]]:
    quality: dict[str, float] = {}
    worst: dict[str, str] = {}
    faults: list[str] = []
    remarks: list[str] = []
    for layer, values in whole.outputs.items():
        if layer in whole.logits:
            remarks += _softmax_remark(layer, collected, values)
    for layer in (*whole.seams, *whole.outputs):
        is_output = layer in whole.outputs
        shown = "logits" if is_output and len(whole.outputs) == 1 else layer
        steps, scale, wanted = _beside_float(layer, collected, whole)
        got = litert.dequantise(steps, *scale)
        quality[shown] = sqnr_db(wanted, got)
        by_sample = [sqnr_db(wanted[n], got[n]) for n in range(len(wanted))]
        worst[shown] = samples.names[int(np.argmin(by_sample))]
        faults += _meaningless(shown, steps, *scale, wanted, quality[shown] if is_output else None)
    return quality, worst, faults, remarks


def _beside_float(layer: str, collected: _Collected, whole: FloatWhole) -> tuple[Int8, tuple[float, int], Array]:
    """A seam or an output (its logits, behind a final softmax): int8 values, their scale and zero point, float's.

    Both are NHWC, over all samples.
    """
    key = _logits_key(layer) if layer in whole.logits else layer
    wanted = {**whole.seams, **whole.outputs, **whole.logits}[layer]
    return np.concatenate(collected.values[key]), collected.scales[key], to_nhwc(wanted)


def _little_said(samples: Samples) -> list[str]:
    """A remark where the samples can say little of what a model will meet."""
    if all(float(np.ptp(array)) == 0 for array in samples.arrays.values()):
        return ["the samples hold the same number everywhere: what holds for them holds for nothing else"]
    if len(samples) > 1 and all(bool((array == array[:1]).all()) for array in samples.arrays.values()):
        return ["all samples are the same: what holds for them holds for nothing else"]
    return []


def _meaningless(name: str, steps: Int8, scale: float, zero_point: int, wanted: Array, db: float | None) -> list[str]:
    if steps.min() == steps.max() and float(np.ptp(wanted)) > 0:
        return [f"{name} is meaningless: the same int8 number {int(steps.min())} everywhere on every sample"]
    exact = wanted / scale + zero_point
    for end in (-128, 127):
        # Where float itself is at the end (a sigmoid at 1), int8 is right to be there.
        stuck = float(np.mean((steps == end) & (np.abs(exact - end) > 1)))
        if end != zero_point and stuck > SATURATED_SHARE:
            return [f"{name} is meaningless: {stuck:.0%} of its int8 values are saturated at {end}"]
    if db is not None and not db >= MEANINGLESS_DB:
        return [f"{name} is meaningless: {db:.1f} dB against float is noise (at least {MEANINGLESS_DB:g} dB needed)"]
    return []


def _softmax_remark(layer: str, collected: _Collected, values: Array) -> list[str]:
    steps = np.concatenate(collected.values[layer])
    if steps.min() != steps.max():
        return []
    return [
        f"{layer} itself is meaningless as int8: softmax in steps of 1/256 is the same everywhere (largest float "
        f"probability {float(values.max()):.2g}), so it is judged by its logits"
    ]


def _top1(collected: _Collected, whole: FloatWhole) -> float | None:
    """Share of samples with the float model's class; None unless there is one output of shape (1, classes)."""
    if len(whole.outputs) != 1:
        return None
    (layer, values), *_ = whole.outputs.items()
    wanted = whole.logits.get(layer, values)
    if wanted.ndim != 2 or wanted.shape[1] < 2:
        return None
    key = _logits_key(layer) if layer in whole.logits else layer
    got = np.concatenate(collected.values[key])
    agree: npt.NDArray[Any] = got.argmax(axis=1) == wanted.argmax(axis=1)
    return float(agree.mean())
