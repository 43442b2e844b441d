"""The facts of a split, read from its folder: the manifest, the int8 files and the kept samples.

1. What a file says for itself is read from the file: operators, their parameters, what the chip takes. What only the
   plan knows (times, other ways to cut) comes from the manifest.
2. Where a segment is compiled, the sizes are those of the compiled file.
3. dB of single operators stand in the manifest under "diagnosis" where ``graphcut diagnose`` measured them; without, an
   operator has the dB of the seam or output that ends its segment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from graphcut import staging
from graphcut.codec import from_json
from graphcut.edgetpu import compiled, file_cost
from graphcut.edgetpu.file_cost import FileCost
from graphcut.errors import GraphcutError, UsageError, setting
from graphcut.planning.plan_options import PlanOptions
from graphcut.prediction.device_profiles import DEFAULT, DeviceProfile
from graphcut.prediction.latency import PartCost
from graphcut.prediction.segment_costs import file_time
from graphcut.records import ConvertedSegment, Evaluation, Samples, Verification
from graphcut.report.html import timeline
from graphcut.report.html.command import preprocessing_words, split_command
from graphcut.report.html.report_facts import (
    Answer,
    Combination,
    Facts,
    OperatorFacts,
    Option,
    ProofFacts,
    SampleError,
    SampleSet,
    SeamError,
    SegmentFacts,
    Timeline,
)
from graphcut.report.html.thumbnails import thumbnail
from graphcut.report.html.tradeoff import SWEPT
from graphcut.result import diagnosis, manifest
from graphcut.result.manifest import Manifest
from graphcut.runtime.job_folder import part_at

Json = Mapping[str, Any]
MOST_PICTURES = 6
"""Samples of a set that get a picture, the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Samples that the ranges were not taken from, and what a split does on them."""

    samples: Samples
    verification: Verification


def facts_of(
    folder: Path,
    *,
    labels: Sequence[str] = (),
    held_out: HeldOut | None = None,
    measured: Timeline | None = None,
) -> Facts:
    """Gather the facts of a split.

    Args:
        folder: that ``graphcut split`` wrote.
        labels: names of the classes, by number; they are used where there are as many as classes.
        held_out: further samples.
        measured: a timeline that was measured; None for an estimated one.

    Raises:
        UsageError: the folder holds no split, or its manifest is damaged.
        UsageError: there is another number of labels than of classes.
        ModelError: a segment's file is missing or damaged.
    """
    split = manifest.read(folder)
    try:
        by_layer = {(each.segment, each.layer): each.sqnr_db for each in diagnosis.kept(split.document)}
        return _facts(split, labels, held_out, measured, by_layer)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged ({error})"
        raise UsageError(f"{folder / staging.MANIFEST} {what}", "split the model again") from error


def _facts(
    split: Manifest,
    labels: Sequence[str],
    held_out: HeldOut | None,
    measured: Timeline | None,
    by_layer: Mapping[tuple[int, str], float],
) -> Facts:
    device = _device(split)
    costs = [file_cost.of_file(part.tflite_path) for part in split.segments]
    made = [_compiled(part) for part in split.segments]
    segments = tuple(
        _segment(split, part, cost, own, device) for part, cost, own in zip(split.segments, costs, made, strict=True)
    )
    verification = split.verification
    judged = "held-out" if verification.held_out else "calibration"
    sets = [_sample_set(judged, _kept_samples(split), verification, split, labels)]
    if held_out is not None:
        given = "others" if verification.held_out else "held-out"
        sets.append(_sample_set(given, held_out.samples, held_out.verification, split, labels))
    return Facts(
        model=split.source.name,
        planned_only=False,
        budget_bytes=split.plan.budget_bytes,
        minimal_k=split.plan.minimal_k,
        lower_bound=split.plan.lower_bound,
        strategy=split.plan.strategy,
        cuts=split.plan.cuts,
        segments=segments,
        combinations=tuple(
            Combination(first=tail.first, last=tail.last, tflite_bytes=tail.tflite_bytes)
            for tail in split.tails
            if tail.first > 1
        ),
        operators=tuple(
            operator
            for part, cost in zip(split.segments, costs, strict=True)
            for operator in _operators(part, cost, device, by_layer, verification)
        ),
        options=options_of(split.document.get("trade_off", {})),
        seams=_seams(split),
        by_operator=bool(by_layer),
        sample_sets=tuple(one for one in sets if one is not None),
        timeline=measured
        or timeline.estimated(
            [_part(split, part, segment) for part, segment in zip(split.segments, segments, strict=True)],
            timeline.link_of(device),
        ),
        evaluation=_evaluation(split),
        proof=ProofFacts(
            verdict=verification.verdict,
            reason=verification.reason,
            held_out=verification.held_out,
            calibration_samples=split.document["calibration"]["samples"],
            calibration_db=verification.calibration_sqnr_db,
            exact=verification.exact,
            float_exact=verification.float_exact,
            samples=verification.samples,
            synthetic=verification.synthetic_calibration,
            agreement=verification.top1_agreement,
            runtime=verification.runtime,
            findings=verification.findings,
        ),
        device=device.name,
        command=split_command(split),
        preprocessing=preprocessing_words(split.preprocessing),
        versions={"graphcut": split.graphcut_version, **split.tools, "runtime": verification.runtime},
        hashes=_hashes(split),
        notes=(*split.plan.notes, *split.document.get("load", {}).get("notes", ())),
    )


def options_of(document: Json) -> tuple[Option, ...]:
    """Read the trade-off of a manifest; ways to cut that have no plan are left out.

    Raises:
        ValueError, TypeError, KeyError: a value is of the wrong kind, or not above zero where it has to be.
    """
    found = [(SWEPT, each) for each in document.get("swept", ())]
    found += [(str(each["name"]), each) for each in document.get("compared", ())]
    return tuple(
        Option(
            name=name,
            k=int(_positive(each["k"])),
            largest_bytes=int(_positive(each["largest_tflite_bytes"])),
            interval_ms=_positive(each["interval_ms"]),
            latency_ms=_positive(each["latency_ms"]),
            off_chip_bytes=int(each["off_chip_bytes"]),
        )
        for name, each in found
        if "k" in each
    )


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{number} is no amount")
    return number


def _device(split: Manifest) -> DeviceProfile:
    options = from_json(PlanOptions, split.options)
    return (options.devices or (options.device,))[0] if "device" in split.options else DEFAULT


def _compiled(part: ConvertedSegment) -> compiled.CompiledFile | None:
    """The compiled twin of a segment's file, where ``graphcut compile`` has made one (statement 2)."""
    path = part_at("", part.tflite_path).compiled
    if path is None:
        return None
    try:
        return compiled.read(path)
    except GraphcutError:
        return None


def _segment(
    split: Manifest, part: ConvertedSegment, cost: FileCost, made: compiled.CompiledFile | None, device: DeviceProfile
) -> SegmentFacts:
    index = part.segment.index
    written = split.document["segments"][index - 1]
    time = file_time(cost, device)
    file = split.document["files"].get(written["tflite"], {})
    return SegmentFacts(
        index=index,
        inputs=part.segment.input_layers,
        outputs=part.segment.output_layers,
        tflite_bytes=part.segment.tflite_bytes,
        measured=True,
        compiled_bytes=cost.compiled.expected_bytes if made is None else made.file_bytes,
        compiled_low=cost.compiled.low_bytes if made is None else made.file_bytes,
        compiled_high=cost.compiled.high_bytes if made is None else made.file_bytes,
        compiled_measured=made is not None,
        parameter_bytes=cost.parameter_bytes,
        room_bytes=time.caching.room_bytes,
        off_chip_bytes=time.caching.off_chip_bytes if made is None else made.streamed_parameter_bytes,
        macs=cost.macs,
        work=cost.work,
        latency_ms=written.get("latency_ms", 0.0),
        sha256=file.get("sha256", ""),
    )


def _evaluation(split: Manifest) -> Evaluation | None:
    kept = split.document.get("evaluation")
    return None if kept is None else from_json(Evaluation, kept)


def _operators(
    part: ConvertedSegment,
    cost: FileCost,
    device: DeviceProfile,
    by_layer: Mapping[tuple[int, str], float],
    verification: Verification,
) -> list[OperatorFacts]:
    ending = None if by_layer else _ending_db(part, verification)
    return [
        OperatorFacts(
            segment=part.segment.index,
            layer=each.packed.layer.name,
            op=each.packed.layer.op,
            parameter_bytes=each.packed.parameter_bytes,
            activation_bytes=each.packed.layer.activation_bytes,
            macs=each.packed.layer.macs,
            on_chip=each.on_chip,
            reason=verdict.reason,
            sqnr_db=by_layer.get((part.segment.index, each.packed.layer.name)) if by_layer else ending,
            streams=each.streams,
            time_ms=timeline.operator_ms(device, each.packed, streams=each.streams) if each.on_chip else None,
        )
        for each, verdict in zip(file_time(cost, device).layers, cost.check.ops, strict=True)
    ]


def _ending_db(part: ConvertedSegment, verification: Verification) -> float | None:
    measured = verification.sqnr_db
    found = [measured[layer] for layer in part.segment.output_layers if layer in measured]
    if not found and "logits" in measured:
        found = [measured["logits"]]
    return min(found, default=None)


def _seams(split: Manifest) -> tuple[SeamError, ...]:
    handed_on = {each["layer"] for each in split.document["seams"]}
    proof = split.verification
    return tuple(
        SeamError(
            layer=layer,
            role="seam" if layer in handed_on else "output",
            sqnr_db=value,
            worst_sample=proof.worst_sample.get(layer, ""),
        )
        for layer, value in proof.sqnr_db.items()
    )


def _part(split: Manifest, part: ConvertedSegment, segment: SegmentFacts) -> PartCost:
    """What one segment costs in the pipeline; a byte an element is handed over."""
    given = {each["int8"]["layer"] for each in split.document["inputs"]}
    results = {each["layer"] for each in split.document["outputs"]}
    seams = {each["layer"]: int(each["int8_bytes"]) for each in split.document["seams"]}
    sizes = {tensor.layer: prod(tensor.shape) for tensor in (*part.inputs, *part.outputs)}
    return PartCost(
        label=f"segment {segment.index}",
        compute_ms=timeline.compute_ms(_device(split), segment.work),
        on_chip_bytes=segment.parameter_bytes - segment.off_chip_bytes,
        off_chip_bytes=segment.off_chip_bytes,
        host_in_bytes=sum(sizes[layer] for layer in part.segment.input_layers if layer in given),
        host_out_bytes=sum(sizes[layer] for layer in part.segment.output_layers if layer in results),
        seam_in_bytes=sum(sizes[layer] for layer in part.segment.input_layers if layer not in given),
        seam_out_bytes=sum(sizes[layer] for layer in part.segment.output_layers if layer in seams),
    )


def _kept_samples(split: Manifest) -> Samples | None:
    """The samples that the split was judged on; None where they cannot be read."""
    try:
        return manifest.read_validation(split) if split.verification.held_out else manifest.read_samples(split)
    except GraphcutError:
        return None


def _sample_set(
    name: str, samples: Samples | None, proof: Verification, split: Manifest, labels: Sequence[str]
) -> SampleSet | None:
    """The samples with their errors; None where the manifest does not have them one by one."""
    if not proof.by_sample:
        return None
    ends = {"logits", *(tensor.layer for tensor in split.tails[0].outputs)}
    errors = [min(value for layer, value in each.sqnr_db.items() if layer in ends) for each in proof.by_sample]
    worst = set(sorted(range(len(errors)), key=lambda number: errors[number])[:MOST_PICTURES])
    classes = prod(split.tails[0].outputs[0].shape)
    is_class = any(each.float_best for each in proof.by_sample)
    if labels and is_class and len(labels) != classes:
        raise UsageError(f"there are {len(labels)} labels and {classes} classes", f"pass the right {setting('labels')}")
    known = labels if is_class else ()
    origin = split.document["calibration"]["origin"] if samples is None else samples.origin
    return SampleSet(
        name=name,
        origin=origin,
        synthetic=proof.synthetic_calibration if name == "calibration" else bool(samples and samples.synthetic),
        samples=tuple(
            SampleError(
                name=each.name,
                sqnr_db=errors[number],
                float_answers=_answers(each.float_best, known),
                int8_answers=_answers(each.int8_best, known),
                picture=_picture(samples, number, split) if samples is not None and number in worst else None,
            )
            for number, each in enumerate(proof.by_sample)
        ),
        agreement=proof.top1_agreement,
    )


def _answers(best: Sequence[tuple[int, float]], labels: Sequence[str]) -> tuple[Answer, ...]:
    return tuple(Answer(label=labels[index] if labels else f"class {index}", score=score) for index, score in best[:3])


def _picture(samples: Samples, number: int, split: Manifest) -> bytes | None:
    images = [array for array in samples.arrays.values() if array.ndim == 4]
    if len(images) != 1 or number >= len(images[0]):
        return None
    return thumbnail(images[0][number], split.preprocessing)


def _hashes(split: Manifest) -> dict[str, str]:
    wanted = [each["tflite"] for each in split.document["segments"]]
    wanted += [each["tflite"] for each in split.document["tails"][:1]]
    wanted.append(split.document["calibration"]["file"])
    found = {name: split.document["files"].get(name, {}).get("sha256", "") for name in wanted}
    return {f"source: {split.source.name}": split.source.sha256, **{name: each for name, each in found.items() if each}}
