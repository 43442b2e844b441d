"""Work with a split in a folder: its float chain as the reference, and single runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from graphcut.errors import UsageError
from graphcut.graph.float_chain import float_chain
from graphcut.measurement import int8_chain, kernel_sets
from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.int8_chain import Int8, quantised_input
from graphcut.progress import Event, Report, silent
from graphcut.records import (
    Array,
    ConvertedSegment,
    Samples,
    SeamTensor,
    Tail,
    Verification,
)
from graphcut.result import layout, manifest
from graphcut.runtime.chain import Chain
from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import Opener, dequantise
from graphcut.runtime.isolated import IsolatedOpener
from graphcut.runtime.job_folder import part_at, read_job, require_unchanged
from graphcut.runtime.pipeline import Pipeline, Settings, is_chain, unsaid
from graphcut.runtime.placement import Placement, place
from graphcut.verification import certificate_of_model
from graphcut.verification import proof as proving
from graphcut.verification.blame import name_operator


def float_whole(segments: Sequence[ConvertedSegment], outputs: Sequence[SeamTensor], samples: Samples) -> FloatWhole:
    """The float whole as the chain of the folder's ONNX segments, which was proved equal to it when they were cut.

    Args:
        segments: of the folder, in order.
        outputs: the model's outputs, in order.
        samples: the model's inputs.
    """
    chain = float_chain([part.onnx_path for part in segments], samples)
    ends = {tensor.tensor for tensor in outputs}
    seams = {tensor.layer: tensor.tensor for part in segments for tensor in part.outputs if tensor.tensor not in ends}
    layers = {tensor.tensor: tensor.layer for tensor in outputs}
    return FloatWhole(
        seams={layer: chain.values[name] for layer, name in seams.items()},
        outputs={tensor.layer: chain.values[tensor.tensor] for tensor in outputs},
        logits={layers[name]: values for name, values in chain.logits.items() if name in layers},
        chain_exact=True,
    )


def _stream(
    segments: Sequence[ConvertedSegment],
    tails: Sequence[Tail],
    samples: Iterable[Samples],
    k: int | None,
    *,
    opener: Opener | None = None,
    placement: Placement | None = None,
    batch: int = 1,
    note: Callable[[str], None] = unsaid,
) -> Iterator[dict[str, Array]]:
    """Run every sample through the chain, or through seg1 .. seg(k-1) and the tail.

    Args:
        segments: of the folder, in order.
        tails: of the folder.
        samples: the model's inputs; the next ones are asked for when the ones before are under way.
        k: None for the chain; 1 for the unsplit model; k for the combination k.
        opener: makes interpreters; two threads each by default.
        placement: of the parts on devices; more than one make a pipeline. None for the CPU.
        batch: inputs that a device with several parts takes together.
        note: receives faults of a pipeline.

    Yields:
        For each sample: layer name of each model output -> float32 values (NHWC where the rank is 4).

    Raises:
        UsageError: there is no combination k.
        RunError: a part cannot be opened or run.
    """
    chosen: list[tuple[str, ConvertedSegment | Tail]] = [(f"segment {each.segment.index}", each) for each in segments]
    if k is not None:
        tail = next((tail for tail in tails if tail.first == k), None)
        if tail is None:
            raise UsageError(f"there is no tail from segment {k}", f"choose 1 to {len(segments)}")
        chosen = [*chosen[: k - 1], ("unsplit" if k == 1 else f"tail {k}..{tail.last}", tail)]
    parts = [part_at(label, each.tflite_path) for label, each in chosen]
    entering = {tensor.layer: tensor for _, each in chosen for tensor in each.inputs}
    outputs = tails[0].outputs
    names = [tensor.layer for tensor in outputs]
    made: Opener = opener or IsolatedOpener(threads=2)
    with ExitStack() as stack:
        runner: Chain | Pipeline
        if placement is None or is_chain(placement):
            devices = (CPU,) if placement is None else placement.stations[0].devices
            runner = stack.enter_context(Chain(parts, made, devices=devices, outputs=names))
        else:
            settings = Settings(batch=batch)
            runner = stack.enter_context(
                Pipeline(parts, made, placement=placement, outputs=names, settings=settings, note=note)
            )
        read = [entering[edge.name] for edge in runner.inputs]
        given = (
            [quantised_input(tensor, each, number) for tensor in read]
            for each in samples
            for number in range(len(each))
        )
        results = map(runner.run, given) if isinstance(runner, Chain) else runner.run(given)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            yield _as_float(outputs, dict(zip(names, result, strict=True)))


def _as_float(outputs: Sequence[SeamTensor], values: Mapping[str, Int8]) -> dict[str, Array]:
    return {t.layer: dequantise(values[t.layer], t.scale, t.zero_point) for t in outputs}


def run(
    folder: Path,
    samples: Samples,
    tail: int | None = None,
    *,
    opener: Opener | None = None,
    devices: str | Sequence[Device] = "",
    report: Report = silent,
) -> tuple[Mapping[str, Array], ...]:
    """Run samples through a folder; see :func:`stream`."""
    return tuple(stream(folder, [samples], tail, opener=opener, devices=devices, report=report))


def stream(
    folder: Path,
    samples: Iterable[Samples],
    tail: int | None = None,
    *,
    opener: Opener | None = None,
    devices: str | Sequence[Device] = "",
    report: Report = silent,
) -> Iterator[Mapping[str, Array]]:
    """Run samples through the chain of a folder, or through a prefix and the tail from segment ``tail``.

    Args:
        folder: of a split.
        samples: the model's inputs, read while earlier ones run.
        tail: None for the chain; 1 for the unsplit model.
        opener: makes interpreters; two threads each by default.
        devices: one for all parts, or several for a pipeline; "" for what was planned, or the CPU.
        report: receives faults.

    Raises:
        VerificationError: a file is not the one that was verified.

    Returns:
        For each sample, in order: layer name of each output -> float32 values (NHWC where the rank is 4).
    """
    opened = manifest.read(folder)
    used = [part.tflite_path for part in (opened.segments if tail is None else opened.segments[: tail - 1])]
    used += [part.tflite_path for part in opened.tails if part.first == tail]
    require_unchanged(folder, opened.document["files"], used)

    def note(text: str) -> None:
        report(Event(stage="run", note=True, detail=text))

    job = read_job(folder, tail=tail) if tail != 1 else read_job(folder, unsplit=True)
    if isinstance(devices, str):
        placement = job.placement(devices)
    else:
        placement = place([part.label for part in job.parts], devices)
    for text in () if placement is None else placement.notes:
        note(text)
    return _stream(
        opened.segments,
        opened.tails,
        samples,
        tail,
        opener=opener,
        placement=placement,
        batch=job.batch,
        note=note,
    )


def verify(folder: Path, samples: Samples | None = None, report: Report = silent) -> Verification:
    """Verify a split in a folder again.

    The float whole is the chain of its ONNX segments, whose hashes say that they are the ones proved equal to it.

    Args:
        folder: made by :func:`split`.
        samples: what to verify on; None for the samples kept out of calibration, or the calibration samples where
            there are none.
        report: progress.

    Raises:
        UsageError: the folder contains no split.
        VerificationError: a file is missing or not the one that was written, or the plan's certificate does not hold.
    """
    opened = manifest.read(folder)
    manifest.check_files(opened)
    certificate = manifest.read_certificate(opened)
    if certificate is not None:
        certificate_of_model.require(certificate_of_model.findings(certificate, opened.plan.chip_segments), str(folder))
    validation = manifest.read_validation(opened) if samples is None else samples
    chosen = manifest.read_samples(opened) if validation is None else validation
    whole = float_whole(opened.segments, opened.tails[0].outputs, chosen)
    whole = replace(whole, chain_exact=opened.verification.float_exact)
    apart = layout.independent_tflite(folder)
    kept = apart if opened.verification.independent is not None else None
    chain = int8_chain.run_chain(opened.segments, chosen, report=report)
    proof = proving.verify(
        chain,
        opened.tails,
        chosen,
        whole,
        kept,
        held_out=validation is not None,
        calibration_sqnr_db=opened.verification.calibration_sqnr_db,
        synthetic_calibration=opened.verification.synthetic_calibration,
        min_sqnr_db=opened.verification.min_sqnr_db,
        remarks=kernel_sets.other_kernels(opened.segments, chain, whole),
        report=report,
    )
    return name_operator(proof, opened.segments, chosen, report)
