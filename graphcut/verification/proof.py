"""Prove that the segments compute what the whole model computes.

1. *Exact*: the chain of int8 segments, the unsplit int8 model and every prefix + tail give the same bytes at the
   model's outputs for every sample, in one runtime and kernel set.
2. *Close*: at every seam and at the outputs the chain is compared with the whole float model in onnxruntime. Where an
   output has a final softmax, the tensor before it is compared ("logits"): an int8 softmax of many classes may be the
   same number for every input, which would hide errors.
3. **Independent*, on request: the chain is compared with the whole model converted in one piece
   (graphcut.conversion.whole_model).
4. *Meaningful*: an output, or a part of one with a range of its own, that is constant, saturated or noise fails,
   whatever the other figures (graphcut.verification.verdict).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.int8_chain import (
    THREADS,
    ChainLink,
    ChainRun,
    Collected,
    Int8,
    beside_float,
    judged_by_logits,
    logits_key,
    opened,
    run_links,
)
from graphcut.measurement.int8_chain import quality as quality_of
from graphcut.measurement.metrics import MEANINGLESS_DB, sqnr_db
from graphcut.measurement.output_parts import output_parts
from graphcut.progress import Event, Report, silent
from graphcut.records import Array, Independent, OutputPart, SampleResult, Samples, SeamTensor, Tail, Verification
from graphcut.runtime import litert
from graphcut.verification.verdict import MIN_SQNR_DB, judge, part_faults

SATURATED_SHARE = 0.25
"""Share of an output's values at the end of the int8 range that counts as saturated (unless the range ends at zero)."""
BEST_CLASSES = 5
"""Number of classes kept for each sample."""

Best = tuple[tuple[tuple[int, float], ...], ...]
"""By sample: class and score, best first."""


def verify(
    chain: ChainRun,
    tails: Sequence[Tail],
    samples: Samples,
    whole: FloatWhole,
    independent: Path | None = None,
    *,
    held_out: bool = False,
    calibration_sqnr_db: Mapping[str, float] | None = None,
    synthetic_calibration: bool | None = None,
    min_sqnr_db: float = MIN_SQNR_DB,
    remarks: Sequence[str] = (),
    threads: int = THREADS,
    report: Report = silent,
) -> Verification:
    """Run the unsplit model and every tail on all samples, compare them with the chain, and the chain with float.

    Args:
        chain: the result of :func:`run_chain`.
        tails: the unsplit model (``first == 1``) and the tails.
        samples: the model's inputs (NCHW).
        whole: the results of the whole float model on the same samples.
        independent: the int8 file of the whole model converted in one piece, if there is one.
        held_out: these samples were not used for calibration.
        calibration_sqnr_db: dB at seams and outputs on the calibration samples, where ``held_out``.
        synthetic_calibration: those samples are synthetic; None where they are ``samples``.
        min_sqnr_db: dB below which an output fails; 0 for no limit.
        remarks: reasons why the result is weak, whatever the figures.
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
        findings.append("the float chain of the ONNX segments differs from the whole float model")
    quality, by_sample, faults, said = _compare(collected, whole, len(samples))
    parts = _parts(collected, whole)
    faults += part_faults(parts)
    said += [*_little_said(samples), *remarks]
    apart = None if independent is None else _independent(tails[0], independent, samples, collected, threads)
    if apart is not None and not apart.exact:
        noise = min(quality[name] for name in (whole.outputs if len(whole.outputs) > 1 else ("logits",)))
        if not apart.sqnr_db >= noise:
            faults.append(
                f"the whole model converted in one piece is {apart.sqnr_db:.1f} dB from the chain, further than int8 "
                f"is "
                f"from float ({noise:.1f} dB)"
            )
    findings += faults
    synthetic = samples.synthetic if synthetic_calibration is None else synthetic_calibration
    top1 = _top1(collected, whole)
    verdict, reason = judge(
        findings,
        parts,
        top1_agreement=top1,
        samples=len(samples),
        synthetic=synthetic or samples.synthetic,
        held_out=held_out,
        min_sqnr_db=min_sqnr_db,
        remarks=remarks,
    )
    return Verification(
        passed=verdict != "FAILED",
        exact=exact,
        float_exact=whole.chain_exact,
        samples=len(samples),
        synthetic_calibration=synthetic,
        sqnr_db=quality,
        top1_agreement=top1,
        worst_sample={name: samples.names[int(np.argmin(values))] for name, values in by_sample.items()},
        independent=apart,
        runtime=litert.describe(),
        findings=(*findings, *said),
        by_sample=_by_sample(samples.names, by_sample, *_best(collected, whole)),
        verdict=verdict,
        reason=reason,
        parts=parts,
        held_out=held_out,
        calibration_sqnr_db=calibration_sqnr_db or {},
        input_ranges={name: (float(array.min()), float(array.max())) for name, array in samples.arrays.items()},
        min_sqnr_db=min_sqnr_db,
    )


def shown_quality(chain: ChainRun, whole: FloatWhole) -> dict[str, float]:
    """SQNR in dB of a chain against float at every seam and output, by the names shown in a verification."""
    names = {layer: _shown(layer, whole) for layer in (*whole.seams, *whole.outputs)}
    return {names[layer]: value for layer, value in quality_of(chain, whole, names).items()}


def _shown(layer: str, whole: FloatWhole) -> str:
    return "logits" if layer in whole.outputs and len(whole.outputs) == 1 else layer


def _parts(collected: Collected, whole: FloatWhole) -> tuple[OutputPart, ...]:
    """The parts of every output, each compared with float."""
    found: list[OutputPart] = []
    for layer in whole.outputs:
        steps, scale, wanted = beside_float(layer, collected, whole)
        found += output_parts(layer, wanted, litert.dequantise(steps, *scale))
    return tuple(found)


def _independent(unsplit: Tail, path: Path, samples: Samples, collected: Collected, threads: int) -> Independent:
    """Run the whole model converted in one piece on every sample and compare it with the chain."""
    runner = opened(path.read_bytes(), replace(unsplit, tflite_path=path))
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
    link, got = ChainLink(part, threads), Collected(values={}, scales={})
    for number in range(len(samples)):
        run_links([link], samples, number, got)
    compared = {name: collected.values[name] for name in got.values}
    return compare(compared, got.values, {name: collected.scales[name] for name in got.scales}, got.scales)


def _differs(tail: Tail, edges: Sequence[Mapping[str, Int8]], wanted: Mapping[str, list[Int8]], threads: int) -> str:
    """Names of the outputs whose bytes differ from the chain's on any sample."""
    runner = opened(tail.tflite_path.read_bytes(), tail, threads=threads)
    differing: set[str] = set()
    for number, values in enumerate(edges):
        results = runner([values[tensor.layer] for tensor in tail.inputs])
        for tensor, result in zip(tail.outputs, results, strict=True):
            if result.tobytes() != wanted[tensor.layer][number].tobytes():
                differing.add(tensor.layer)
    return ", ".join(sorted(differing))


def _compare(
    collected: Collected, whole: FloatWhole, samples: int
) -> tuple[dict[str, float], dict[str, list[float]], list[str], list[str]]:
    """Compare every seam and output with float: dB of all samples, of each one, faults and remarks."""
    quality: dict[str, float] = {}
    by_sample: dict[str, list[float]] = {}
    faults: list[str] = []
    remarks: list[str] = []
    for layer, values in whole.outputs.items():
        if judged_by_logits(layer, collected, whole):
            remarks += _softmax_remark(layer, collected, values)
    for layer in (*whole.seams, *whole.outputs):
        is_output, shown = layer in whole.outputs, _shown(layer, whole)
        steps, scale, wanted = beside_float(layer, collected, whole)
        got = litert.dequantise(steps, *scale)
        quality[shown] = sqnr_db(wanted, got)
        each = wanted.reshape(samples, -1), got.reshape(samples, -1)
        by_sample[shown] = [sqnr_db(*pair) for pair in zip(*each, strict=True)]
        faults += _meaningless(shown, steps, *scale, wanted, quality[shown] if is_output else None)
    return quality, by_sample, faults, remarks


def _little_said(samples: Samples) -> list[str]:
    """A remark if the samples say little about real inputs."""
    if all(float(np.ptp(array)) == 0 for array in samples.arrays.values()):
        return ["all values of the samples are equal: the result says nothing about other inputs"]
    if len(samples) > 1 and all(bool((array == array[:1]).all()) for array in samples.arrays.values()):
        return ["all samples are the same: the result says nothing about other inputs"]
    return []


def _meaningless(name: str, steps: Int8, scale: float, zero_point: int, wanted: Array, db: float | None) -> list[str]:
    if steps.min() == steps.max() and float(np.ptp(wanted)) > 0:
        return [f"{name} is meaningless: the same int8 number {int(steps.min())} everywhere on every sample"]
    exact = wanted / scale + zero_point
    limits = np.iinfo(steps.dtype)
    for end in (limits.min, limits.max):
        # Where float itself is at the end of the range (a sigmoid at 1), so is int8.
        stuck = float(np.mean((steps == end) & (np.abs(exact - end) > 1)))
        if end != zero_point and stuck > SATURATED_SHARE:
            return [f"{name} is meaningless: {stuck:.0%} of its int8 values are saturated at {end}"]
    if db is not None and not db >= MEANINGLESS_DB:
        return [f"{name} is meaningless: {db:.1f} dB against float is noise ({MEANINGLESS_DB:g} dB is the minimum)"]
    return []


def _softmax_remark(layer: str, collected: Collected, values: Array) -> list[str]:
    steps = np.concatenate(collected.values[layer])
    if steps.min() != steps.max():
        return []
    return [
        f"{layer} is meaningless in int8: a softmax in steps of 1/256 is the same everywhere (largest float "
        f"probability {float(values.max()):.2g}), so its logits are compared"
    ]


def _top1(collected: Collected, whole: FloatWhole) -> float | None:
    """Share of samples with the float model's class; None unless one output has the shape (1, classes)."""
    scores = _class_scores(collected, whole)
    if scores is None:
        return None
    wanted, got, _ = scores
    agree: npt.NDArray[Any] = got.argmax(axis=1) == wanted.argmax(axis=1)
    return float(agree.mean())


def _class_scores(collected: Collected, whole: FloatWhole) -> tuple[Array, Array, bool] | None:
    """Scores (N, classes) of float and of the chain, and whether a softmax follows; None if there are no classes."""
    if len(whole.outputs) != 1:
        return None
    (layer, values), *_ = whole.outputs.items()
    has_logits = judged_by_logits(layer, collected, whole)
    wanted = whole.logits[layer] if has_logits else values
    if wanted.ndim != 2 or wanted.shape[1] < 2:
        return None
    key = logits_key(layer) if has_logits else layer
    return wanted, litert.dequantise(np.concatenate(collected.values[key]), *collected.scales[key]), has_logits


def _best(collected: Collected, whole: FloatWhole) -> tuple[Best, Best]:
    """The best classes of every sample in float and in the chain; empty if there are no classes."""
    scores = _class_scores(collected, whole)
    if scores is None:
        return (), ()
    wanted, got, has_logits = scores
    return _best_of(wanted, has_logits), _best_of(got, has_logits)


def _best_of(scores: Array, as_probabilities: bool) -> Best:
    values = scores.astype(np.float64)
    if as_probabilities:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :BEST_CLASSES]
    return tuple(
        tuple((int(index), float(f"{row[index]:.6g}")) for index in indices)
        for row, indices in zip(values, order, strict=True)
    )


def _by_sample(
    names: Sequence[str], by_sample: Mapping[str, Sequence[float]], float_best: Best, int8_best: Best
) -> tuple[SampleResult, ...]:
    return tuple(
        SampleResult(
            name=name,
            sqnr_db={layer: values[number] for layer, values in by_sample.items()},
            float_best=float_best[number] if len(float_best) == len(names) else (),
            int8_best=int8_best[number] if len(int8_best) == len(names) else (),
        )
        for number, name in enumerate(names)
    )


def compare(
    chain: Mapping[str, Sequence[Int8]],
    whole: Mapping[str, Sequence[Int8]],
    chain_scales: Mapping[str, tuple[float, int]],
    whole_scales: Mapping[str, tuple[float, int]],
) -> Independent:
    """Compare int8 outputs of the chain and of the independent whole model on all samples (statement 3).

    Args:
        chain, whole: name of an output, or of what its final softmax reads -> int8 values by sample.
        chain_scales, whole_scales: the same names -> scale and zero point.
    """
    differing = elements = 0
    largest = 0
    worst = float("inf")
    same_scales = all(chain_scales[name] == whole_scales[name] for name in chain)
    for name, values in chain.items():
        ours, theirs = np.concatenate(values), np.concatenate(whole[name])
        steps = np.abs(ours.astype(np.int32) - theirs.astype(np.int32))
        differing += int(np.count_nonzero(steps))
        elements += steps.size
        largest = max(largest, int(steps.max(initial=0)))
        wanted = litert.dequantise(theirs, *whole_scales[name])
        worst = min(worst, sqnr_db(wanted, litert.dequantise(ours, *chain_scales[name])))
    return Independent(
        exact=differing == 0 and same_scales,
        differing_share=differing / max(elements, 1),
        largest_step=largest,
        sqnr_db=worst,
    )
