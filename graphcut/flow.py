"""The flow of a split: load -> plan -> extract -> calibrate -> convert -> combine -> verify -> package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from graphcut import staging
from graphcut.conversion import bias_correction as refining
from graphcut.conversion import range_search, weight_fit
from graphcut.conversion.build import (
    Combined,
    SplitJob,
    at_boundary,
    build,
    choose_ranges,
    combine,
    equalise_channels,
    fit_weights,
    independent_whole,
    refine,
)
from graphcut.conversion.tails import align
from graphcut.conversion.uint8_boundary import typed
from graphcut.conversion.workers import converters
from graphcut.deploy.compilation import compile_split, record
from graphcut.edgetpu import operator_check
from graphcut.edgetpu.loop import Closed
from graphcut.errors import ConversionError, GraphcutError, VerificationError, setting
from graphcut.graph import native
from graphcut.graph.extraction import Extraction
from graphcut.graph.model import Model
from graphcut.graph.passes.parts import split_model
from graphcut.graph.reference import activations
from graphcut.measurement.float_reference import FloatWhole, float_values, prove_chain, seam_tensors, whole_of
from graphcut.measurement.int8_chain import run_chain
from graphcut.measurement.kernel_sets import other_kernels
from graphcut.planning.compare import trade_off
from graphcut.planning.fleet_choice import devices_of
from graphcut.planning.plan_model import make_costed_plan as make_costed_plan
from graphcut.planning.plan_model import make_plan as make_plan
from graphcut.planning.plan_model import measure_with
from graphcut.planning.plan_options import SplitOptions
from graphcut.planning.search import Arrangement, arrangement_of, planned
from graphcut.prepare import export as export
from graphcut.prepare import prepare as prepare
from graphcut.progress import Clock, Event, Report, silent
from graphcut.records import ConvertedSegment, Plan, Samples, Tail, Verification
from graphcut.report import note
from graphcut.result import layout, manifest, onnx_segments
from graphcut.result.manifest import requested
from graphcut.samples import held_out, load_samples
from graphcut.settings import Method
from graphcut.verification import proof as proving
from graphcut.verification.blame import name_operator
from graphcut.workers.pool import Pool

PROVED_ON = 2
"""Random inputs on which extracted segments are run: the same operators in the same order give the same bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitResult:
    """The result of a split: the folder and the records of every stage.

    ``seconds`` is wall time by stage; ``closed`` has the rounds with the Edge TPU compiler, None without one.
    """

    folder: Path
    plan: Plan
    segments: tuple[ConvertedSegment, ...]
    tails: tuple[Tail, ...]
    verification: Verification
    seconds: Mapping[str, float]
    closed: Closed | None = None


_SLOW: frozenset[Method] = frozenset({"equalise", "ranges", "weights"})
"""Methods that ``effort="fast"`` leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """The float segments of a model in a folder.

    Attributes:
        folder: with ``seg1.onnx`` .. and ``meta.json``.
        plan: with predicted sizes of the int8 files.
        files: of the segments, in order.
        samples: the number of random inputs on which their chain gave the bits of the whole.
    """

    folder: Path
    plan: Plan
    files: tuple[Path, ...]
    samples: int


def extract(
    model: Model,
    options: SplitOptions,
    out: Path,
    report: Report = silent,
) -> Extracted:
    """Cut a model and write its float segments alone, whole or not at all.

    Args:
        model: from :func:`prepare`.
        options: how to cut.
        out: the folder to come.
        report: progress.

    Raises:
        VerificationError: the segments one after the other compute something else than the whole; nothing is written.
        GraphcutError: there is no plan, or ``out`` cannot be written.
    """
    clock = Clock(report)
    with native.worker(), staging.staging(out, options.force) as folder:
        with clock("plan"):
            model, arranged = _arranged(model, options)
            chosen = arranged.made
            assert chosen is not None, "the arrangement of a split has its plan"
            chosen = replace(chosen, notes=arranged.notes)
        with clock("extract"):
            extraction = Extraction(model)
            protos = [extraction.segment(segment.inputs, segment.outputs) for segment in chosen.segments]
        with clock("verify"):
            samples = load_samples("random", model.inputs, None, limit=PROVED_ON)
            values = activations(model, samples, seam_tensors(chosen))
            if not prove_chain(chosen, protos, samples, values, folder):
                raise VerificationError(
                    "the segments one after the other compute something else than the whole",
                    f"cut elsewhere ({setting('cuts')})",
                )
        onnx_segments.write(folder, model, chosen, len(samples), requested(model, options))
    files_made = tuple(out / f"seg{each.index}.onnx" for each in chosen.segments)
    return Extracted(folder=out, plan=chosen, files=files_made, samples=len(samples))


def _arranged(model: Model, options: SplitOptions) -> tuple[Model, Arrangement]:
    """The model with its nodes in the order, and its layers in the parts, that the plan asks for."""
    measure = measure_with(options.per_channel)
    if options.given is not None:
        arranged = arrangement_of(model.graph, options.given, measure)
    else:
        arranged, made = planned(model.graph, options.plan, measure, options.min_rank)
        arranged = replace(arranged, made=made)
    if arranged.splits:
        model = split_model(model, arranged.splits)
    return replace(model, graph=arranged.analysis.graph), arranged


def split(
    model: Model,
    samples: Samples,
    options: SplitOptions,
    out: Path,
    report: Report = silent,
    pool: Pool | None = None,
) -> SplitResult:
    """Cut a model, convert every segment, verify the result and write it to ``out`` atomically.

    Args:
        model: from :func:`prepare`.
        samples: calibration samples. Every fifth of 20 or more real ones is kept out of calibration, and the result is
            judged on those, or on ``options.validation``; without either, on the calibration samples.
        options: how.
        out: the folder to come.
        report: progress.
        pool: workers that were started earlier (:func:`graphcut.conversion.workers.converters`); None starts them.

    Raises:
        GraphcutError: of the stage that failed; ``out`` is then unchanged.
    """
    clock = Clock(report)
    if options.requantise:
        model = replace(model, said_ranges={})
    model = replace(model, graph=typed(model.graph, options.input_type, options.output_type))
    staging.check_target(out, options.force, needed_bytes=_estimate(model))
    validation = options.validation
    if validation is None:
        samples, validation = held_out(samples)
    with native.worker(), staging.staging(out, options.force) as folder, _workspace(folder) as work:
        with converters(options.jobs) if pool is None else nullcontext(pool) as workers, _log_kept(workers.logs, out):
            uncut = model
            with clock("plan"):
                model, arranged = _arranged(model, options)
                extraction = Extraction(model)
            job = SplitJob(
                model=model,
                arranged=arranged,
                extraction=extraction,
                samples=samples,
                options=options,
                pool=workers,
                clock=clock,
            )
            built, closed = build(job, work)
            with clock("combine"):
                combined = combine(job, align(built.segments), work)
            methods = set(get_args(Method)) - set(options.without) - (_SLOW if options.effort == "fast" else set())
            searchable = not model.said_ranges and range_search.promises(combined.chain, built.whole, samples)
            if "equalise" in methods and searchable:
                with clock("equalise"):
                    equalised = equalise_channels(job, uncut, built, combined, work)
                uncut, job, built, combined = equalised.uncut, equalised.job, equalised.built, equalised.combined
                model = job.model
            kept = built.kept
            if "ranges" in methods and searchable:
                with clock("ranges"):
                    combined, kept = choose_ranges(job, built, combined, work)
            if "weights" in methods and weight_fit.promises(
                combined.chain, built.whole, model, combined.segments, samples
            ):
                with clock("fit"):
                    combined, kept = fit_weights(job, built.whole, kept, combined, work)
            if "biases" in methods and options.per_channel and refining.promises(combined.chain, built.whole, samples):
                with clock("refine"):
                    combined, kept = refine(job, built.whole, kept, combined, work)
            apart = independent_whole(uncut, job, built.plan, kept, work) if options.independent else None
            combined = at_boundary(job, combined, apart, work)
        chosen = built.plan
        with clock("verify"):
            verification = _verified(model, chosen, combined, built.whole, samples, validation, apart, options, report)
            on_chip = len(chosen.chip_segments)
            segments = tuple(_checked(part, for_cpu=part.segment.index > on_chip) for part in combined.segments)
        with clock("package"):
            layout.lay_out(folder, segments, combined.tails, apart)
            cost = arranged.costed().plan(chosen, devices_of(chosen, options.plan), measured=False)
            layout.write_samples(folder, samples, validation)
            layout.write_job(folder, options.job)
            others = trade_off(
                uncut.graph,
                options.plan,
                measure_with(options.per_channel),
                len(chosen.chip_segments),
                options.min_rank,
            )
            manifest.write(
                folder,
                model,
                chosen,
                cost,
                segments,
                combined.tails,
                samples,
                validation,
                verification,
                options,
                others,
            )
        if options.compiler is not None and closed is not None:
            with clock("compile"):
                compiled = compile_split(
                    folder, options.compiler, seconds=options.compile_seconds, jobs=options.jobs, report=report
                )
                record(compiled, closed)
        note.write(folder)
        if options.with_report:
            _report(folder, report)
    segments, joined = layout.placed(out, segments, combined.tails)
    return SplitResult(
        folder=out,
        plan=replace(chosen, segments=tuple(part.segment for part in combined.segments)),
        segments=segments,
        tails=joined,
        verification=verification,
        seconds=clock.seconds,
        closed=closed,
    )


def _verified(
    model: Model,
    chosen: Plan,
    combined: Combined,
    whole: FloatWhole,
    samples: Samples,
    validation: Samples | None,
    apart: Path | None,
    options: SplitOptions,
    report: Report,
) -> Verification:
    """The proof, on the samples kept out of calibration where there are any."""
    remarks = other_kernels(combined.segments, combined.chain, whole)
    chain, judged_on, known = combined.chain, whole, {}
    if validation is not None:
        known = proving.shown_quality(chain, whole)
        values, before_softmax = float_values(model, chosen, validation)
        judged_on = whole_of(model, chosen, values, before_softmax, whole.chain_exact)
        chain = run_chain(combined.segments, validation, report=report)
    judged_samples = samples if validation is None else validation
    proof = proving.verify(
        chain,
        combined.tails,
        judged_samples,
        judged_on,
        apart,
        held_out=validation is not None,
        calibration_sqnr_db=known,
        synthetic_calibration=samples.synthetic,
        min_sqnr_db=options.min_sqnr_db,
        remarks=remarks,
        report=report,
    )
    return name_operator(proof, combined.segments, judged_samples, report)


def _checked(part: ConvertedSegment, *, for_cpu: bool) -> ConvertedSegment:
    """A segment with what the Edge TPU would run of it: nothing of one for the CPU."""
    found = operator_check.check(part.tflite_path)
    if for_cpu:
        kept = tuple(f"{each.op} {each.name}: {each.reason or 'the segment is for the CPU'}" for each in found.ops)
        return replace(part, on_chip=(0, len(found.ops)), on_cpu=kept)
    on_cpu = tuple(f"{each.op} {each.name}: {each.reason or each.status}" for each in found.on_cpu)
    return replace(part, on_chip=(len(found.ops) - len(on_cpu), len(found.ops)), on_cpu=on_cpu)


def _report(folder: Path, report: Report) -> None:
    """Write the report; a split without one is still valid, so an error becomes a note."""
    from graphcut.report.html.write_report import write_report

    try:
        write_report(folder)
    except GraphcutError as error:
        report(Event(stage="package", note=True, detail=f"the report was not written: {error}"))


def _estimate(model: Model) -> int:
    """Bytes a result needs at most: float segments, int8 files (chain, unsplit, tails) and samples."""
    weights = sum(weight.elements for weight in model.graph.weights.values())
    return 12 * weights + 2**20


@contextmanager
def _log_kept(logs: Path, out: Path) -> Iterator[None]:
    """Keep the converter's log next to ``out`` if a conversion fails, and name it in the error."""
    try:
        yield
    except ConversionError as error:
        kept = out.parent / f"{out.name}.conversion.log"
        said = [path.read_text(errors="replace") for path in sorted(logs.glob("worker*.log"))]
        kept.write_text("\n".join(said))
        raise ConversionError(error.message, f"{error.way_out} (converter log: {kept})") from error


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """A folder for intermediate files on the same filesystem, gone at the end."""
    work = folder / "work"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
