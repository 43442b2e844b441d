"""The one way through: load -> plan -> extract -> calibrate -> convert -> combine -> verify -> package."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from graphcut.edgetpu.compiler import DEFAULT_SECONDS, Compiler
from graphcut.edgetpu.loop import Closed
from graphcut.errors import ConversionError, InfeasibleError, UsageError
from graphcut.graph import load as loading
from graphcut.graph.extract import Extraction
from graphcut.graph.model import Model
from graphcut.graph.passes.parts import split_model
from graphcut.progress import Clock, Event, Report, silent
from graphcut.quant.kept import Kept
from graphcut.records import Analysis, Array, ConvertedSegment, Graph, Plan, Samples, Shape, Tail, Verification
from graphcut.report import edgetpu, manifest, note
from graphcut.runtime.devices import CPU, Device
from graphcut.runtime.interpreter import Opener
from graphcut.runtime.layout import require_unchanged
from graphcut.sources import registry
from graphcut.sources.adapter import Request
from graphcut.stages import confirm, convert, independent, package, rerun
from graphcut.stages import refine as refining
from graphcut.stages import verify as proving
from graphcut.stages.arrange import Arrangement, arrange
from graphcut.stages.close_loop import Built, build_until_clean
from graphcut.stages.combine import align, tails
from graphcut.stages.compile import compile_split
from graphcut.stages.costs import Costs
from graphcut.stages.float_whole import float_values, prove_chain, whole_of
from graphcut.stages.plan import PlanOptions, plan
from graphcut.stages.planning.measured import corrected
from graphcut.stages.sizes import Sizes, predict
from graphcut.workers.converters import converters
from graphcut.workers.pool import Pool
from graphcut.workers.threads import threads

MOST_ROUNDS = 6
"""Times a plan is repaired with measured sizes before it is called infeasible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """What a split is asked to do.

    Attributes:
        plan: how to cut.
        min_rank: lowest rank of a tensor to cut at; None for 4 where that suffices, else 2.
        per_channel: one weight scale an output channel (else one a tensor).
        jobs: worker processes.
        force: replace an earlier result.
        independent: also convert the whole model in one piece, and compare the chain with it.
        compiler: the Edge TPU compiler; with one, plans are made again until nothing streams; None: not compiled.
        compile_seconds: time limit of compiling one file.
        said: the options as the user gave them, for the manifest.
    """

    plan: PlanOptions
    min_rank: int | None = None
    per_channel: bool = True
    jobs: int = 2
    force: bool = False
    independent: bool = False
    compiler: Compiler | None = None
    compile_seconds: int = DEFAULT_SECONDS
    said: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"{self.jobs} worker processes convert nothing", "give 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitResult:
    """What a split made: the folder and the records of every stage.

    ``seconds`` is wall time by stage; ``closed`` tells of the rounds with the Edge TPU compiler, None without one.
    """

    folder: Path
    plan: Plan
    segments: tuple[ConvertedSegment, ...]
    tails: tuple[Tail, ...]
    verification: Verification
    seconds: Mapping[str, float]
    closed: Closed | None = None


def prepare(
    source: str,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    input_layouts: Mapping[str, Literal["NCHW", "NHWC"]] | None = None,
    cache: Path | None = None,
    report: Report = silent,
) -> Model:
    """The normalised model of any source that :mod:`graphcut.sources` has an adapter for.

    Raises:
        UsageError: nothing there, or the shape of an input is missing.
        ModelError: it cannot be read or split.
        DependencyError: it needs an extra that is not installed.
    """
    request = Request(source=source, input_shapes=input_shapes or {}, cache=cache)
    adapter, made = registry.to_onnx(request, report)
    model = loading.load(
        made.path,
        input_shapes=made.input_shapes,
        input_layouts=input_layouts,
        channels_last=made.channels_last,
        report=report,
    )
    origin = replace(model.source, kind=adapter.kind, name=made.name, sha256=made.sha256 or model.source.sha256)
    return replace(model, source=origin, notes=(*made.notes, *model.notes))


def make_plan(model: Model, options: PlanOptions, *, per_channel: bool = True, min_rank: int | None = None) -> Plan:
    """Arrange, analyse and plan with predicted sizes."""
    arranged = arrange(model.graph, options, _measure(per_channel), min_rank)
    return replace(plan(arranged.analysis, arranged.sizes, options), notes=arranged.notes)


def make_costed_plan(
    model: Model, options: PlanOptions, *, per_channel: bool = True, min_rank: int | None = None
) -> tuple[Plan, Costs]:
    """The same with the costs of the graph that the plan is of."""
    arranged = arrange(model.graph, options, _measure(per_channel), min_rank)
    analysis, sizes = arranged.analysis, arranged.sizes
    costs = arranged.costs or Costs(analysis.graph, sizes, per_channel=per_channel)
    made = arranged.made or plan(analysis, sizes, options, costs)
    return replace(made, notes=arranged.notes), costs


def _measure(per_channel: bool) -> Callable[[Graph], Sizes]:
    return lambda graph: predict(graph, per_channel=per_channel)


def _arranged(model: Model, options: SplitOptions) -> tuple[Model, Arrangement]:
    """The model with its nodes in the order, and its layers in the parts, that the plan asks for."""
    arranged = arrange(model.graph, options.plan, _measure(options.per_channel), options.min_rank)
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
    """Cut a model, convert every segment, prove the result and write it to ``out`` whole or not at all.

    Args:
        model: from :func:`prepare`.
        samples: calibration samples, also what the result is verified on.
        options: how.
        out: the folder to come.
        report: progress.
        pool: workers that were started earlier (:func:`graphcut.workers.converters.converters`); None starts them.

    Raises:
        GraphcutError: of the stage that failed; ``out`` is then as it was.
    """
    clock = Clock(report)
    package.check_target(out, options.force, needed_bytes=_estimate(model))
    with package.staging(out, options.force) as folder, _workspace(folder) as work:
        with converters(options.jobs) if pool is None else nullcontext(pool) as workers, _log_kept(workers.logs, out):
            uncut = model
            with clock("plan"):
                model, arranged = _arranged(model, options)
                extraction = Extraction(model)
            job = _Job(model, arranged, extraction, samples, options, workers, clock)
            built, closed = _build(job, work)
            with clock("combine"):
                combined = _combine(job, align(built.segments), work)
            kept = built.kept
            if options.per_channel and refining.promises(combined.chain, built.whole, samples):
                with clock("refine"):
                    combined, kept = _refine(job, built, combined, work)
            apart = _independent_whole(uncut, job, built.plan, kept, work) if options.independent else None
        chosen = built.plan
        with clock("verify"):
            verification = proving.verify(combined.chain, combined.tails, samples, built.whole, apart, report=report)
        with clock("package"):
            package.lay_out(folder, combined.segments, combined.tails, apart)
            package.write_samples(folder, samples)
            manifest.write(folder, model, chosen, combined.segments, combined.tails, samples, verification, options)
        if options.compiler is not None and closed is not None:
            with clock("compile"):
                compiled = compile_split(
                    folder, options.compiler, seconds=options.compile_seconds, jobs=options.jobs, report=report
                )
                edgetpu.record(compiled, closed)
        note.write(folder)
    opened = manifest.read(out)
    return SplitResult(
        folder=out,
        plan=replace(chosen, segments=tuple(part.segment for part in combined.segments)),
        segments=opened.segments,
        tails=opened.tails,
        verification=verification,
        seconds=clock.seconds,
        closed=closed,
    )


def verify(folder: Path, samples: Samples | None = None, report: Report = silent) -> Verification:
    """Prove a split that lies in a folder again.

    The float whole is the chain of its ONNX segments, whose hashes say that they are the ones proved equal to it.

    Args:
        folder: made by :func:`split`.
        samples: what to verify on; None for the calibration samples kept there.
        report: progress.

    Raises:
        UsageError: the folder holds no split.
        VerificationError: a file is missing or not the one that was written, or the plan's certificate does not hold.
    """
    opened = manifest.read(folder)
    manifest.check_files(opened)
    certificate = manifest.read_certificate(opened)
    if certificate is not None:
        confirm.require(confirm.findings(certificate, [part.segment for part in opened.segments]), str(folder))
    chosen = manifest.read_samples(opened) if samples is None else samples
    whole = rerun.float_whole(opened.segments, opened.tails[0].outputs, chosen)
    whole = replace(whole, chain_exact=opened.verification.float_exact)
    apart = package.independent_tflite(folder)
    kept = apart if opened.verification.independent is not None else None
    chain = proving.run_chain(opened.segments, chosen, report=report)
    proved = proving.verify(chain, opened.tails, chosen, whole, kept, report=report)
    return replace(proved, synthetic_calibration=opened.verification.synthetic_calibration)


def run(
    folder: Path,
    samples: Samples,
    tail: int | None = None,
    *,
    opener: Opener | None = None,
    devices: Sequence[Device] = (CPU,),
    report: Report = silent,
) -> tuple[Mapping[str, Array], ...]:
    """Run samples through the chain of a folder, or through a prefix and the tail from segment ``tail``.

    Args:
        folder: of a split.
        samples: the model's inputs.
        tail: None for the chain; 1 for the unsplit model.
        opener: makes interpreters; two threads each by default.
        devices: one for all parts, or several for a pipeline.
        report: told of faults.

    Raises:
        VerificationError: a file is not the one that was verified.

    Returns:
        For each sample: layer name of each output -> float32 values (NHWC where the rank is 4).
    """
    opened = manifest.read(folder)
    used = [part.tflite_path for part in (opened.segments if tail is None else opened.segments[: tail - 1])]
    used += [part.tflite_path for part in opened.tails if part.first == tail]
    require_unchanged(folder, opened.document["files"], used)

    def note(text: str) -> None:
        report(Event(stage="run", note=True, detail=text))

    return rerun.run(opened.segments, opened.tails, samples, tail, opener=opener, devices=devices, note=note)


def _build(job: _Job, work: Path) -> tuple[Built, Closed | None]:
    """Converted segments: within the budget, and with a compiler until nothing streams."""
    options, analysis, sizes = job.options, job.arranged.analysis, job.arranged.sizes
    if options.compiler is None:
        with job.clock("plan"):
            chosen = plan(analysis, sizes, options.plan)
        return _convert_within_budget(job, chosen, sizes, work), None

    def planned(wished: Analysis, wished_sizes: Sizes) -> Plan:
        with job.clock("plan"):
            return plan(wished, wished_sizes, options.plan)

    return build_until_clean(
        analysis,
        sizes,
        planned,
        lambda chosen, place: _convert_within_budget(job, chosen, sizes, place),
        options.compiler,
        work,
        budget_bytes=options.plan.budget_bytes,
        seconds=options.compile_seconds,
        jobs=options.jobs,
        report=job.clock.report,
    )


def _convert_within_budget(job: _Job, chosen: Plan, sizes: Sizes, work: Path) -> Built:
    """Convert and measure; plan again with the measured sizes while a file breaks the budget."""
    model, samples, clock = job.model, job.samples, job.clock
    for _ in range(MOST_ROUNDS):
        chosen = replace(chosen, notes=job.arranged.notes)
        with clock("extract"):
            protos = [job.extraction.segment(segment.inputs, segment.outputs) for segment in chosen.segments]
        with clock("calibrate"):
            values, before_softmax = float_values(model, chosen, samples)
        with clock("convert"), threads(1) as prover:
            proof = prover.submit(prove_chain, chosen, protos, samples, values, work)
            conversions = convert.convert(
                model,
                chosen,
                protos,
                values,
                before_softmax,
                job.pool,
                work,
                per_channel=job.options.per_channel,
                report=clock.report,
            )
            exact = proof.result()
        converted = conversions.segments
        measured = [part.segment.tflite_bytes for part in converted]
        budget = chosen.budget_bytes
        if budget is None or max(measured) <= budget:
            whole = whole_of(model, chosen, values, before_softmax, exact)
            made = replace(chosen, segments=tuple(part.segment for part in converted))
            return Built(plan=made, segments=converted, kept=conversions.kept, whole=whole)
        clock.report(Event(stage="plan", note=True, detail="a file came out above the budget: planning again"))
        sizes = corrected(sizes, chosen, measured)
        with clock("plan"):
            chosen = plan(job.arranged.analysis, sizes, job.options.plan)
    raise InfeasibleError(
        f"after {MOST_ROUNDS} plans a segment is still {max(measured)} bytes, above the budget of {budget}",
        "raise --budget a little",
    )


def _combine(job: _Job, segments: tuple[ConvertedSegment, ...], work: Path) -> _Combined:
    """Join aligned segments into tails; the chain computes meanwhile."""
    outputs = [job.model.graph.layers[name] for name in job.model.graph.outputs]
    with threads(1) as runner:
        chain = runner.submit(proving.run_chain, segments, job.samples)
        joined = tails(segments, outputs, work)
        return _Combined(segments=segments, tails=joined, chain=chain.result())


def _refine(job: _Job, built: Built, combined: _Combined, work: Path) -> tuple[_Combined, tuple[Kept, ...]]:
    """The chain with refined biases where its outputs gain by it, and what its segments were quantised with."""
    folder = work / "refined"
    folder.mkdir()
    try:
        report = job.clock.report
        refined = refining.refine_chain(combined.segments, built.kept, job.samples, built.whole, folder, report)
    except ConversionError as error:
        job.clock.report(Event(stage="refine", note=True, detail=f"biases were not refined: {error.message}"))
        return combined, built.kept
    again = _combine(job, refined.segments, folder)
    before, after = (refining.worst_output(each.chain, built.whole) for each in (combined, again))
    if not after > before:
        return combined, built.kept
    return replace(again, segments=refining.noted(refined, before, after)), refined.kept


def _independent_whole(model: Model, job: _Job, chosen: Plan, kept: Sequence[Kept], work: Path) -> Path:
    """The int8 file of the whole model converted in one piece, with the ranges of the segments."""
    folder = work / "independent"
    folder.mkdir()
    per_channel = job.options.per_channel
    with job.clock("independent"):
        whole = independent.uncut(model, chosen, predict(model.graph, per_channel=per_channel))
        values, before_softmax = float_values(model, whole, job.samples)
        return independent.convert_whole(
            model,
            whole,
            values,
            before_softmax,
            kept,
            job.pool,
            folder,
            per_channel=per_channel,
            report=job.clock.report,
        )


def _estimate(model: Model) -> int:
    """Bytes a result needs at most: float segments, int8 files (chain, unsplit, tails) and samples."""
    weights = sum(weight.elements for weight in model.graph.weights.values())
    return 12 * weights + 2**20


@dataclass(frozen=True, slots=True)
class _Job:
    """What every round of a split has in common."""

    model: Model
    arranged: Arrangement
    extraction: Extraction
    samples: Samples
    options: SplitOptions
    pool: Pool
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class _Combined:
    """Aligned segments, their tails, and what their chain computes."""

    segments: tuple[ConvertedSegment, ...]
    tails: tuple[Tail, ...]
    chain: proving.ChainRun


@contextmanager
def _log_kept(logs: Path, out: Path) -> Iterator[None]:
    """Keep what the converter said beside ``out`` where a conversion fails, and say where it is."""
    try:
        yield
    except ConversionError as error:
        kept = out.parent / f"{out.name}.conversion.log"
        said = [path.read_text(errors="replace") for path in sorted(logs.glob("worker*.log"))]
        kept.write_text("\n".join(said))
        raise ConversionError(error.message, f"{error.way_out} (log of the converter: {kept})") from error


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """A folder for intermediate files on the same filesystem, gone at the end."""
    work = folder / "work"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
