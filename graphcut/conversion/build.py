"""Plan, convert and compile repeatedly until nothing streams (:mod:`graphcut.edgetpu.loop` decides what changes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphcut.conversion import bias_correction as refining
from graphcut.conversion import convert, range_search, reuse, weight_fit, whole_model
from graphcut.conversion.checkpoints import Checkpoint, checkpoints, float_maps
from graphcut.conversion.judge import Judge, gains
from graphcut.conversion.tails import align, tails
from graphcut.conversion.uint8_boundary import bytes_with_uint8, uint8_layers, with_uint8_boundary
from graphcut.edgetpu import loop
from graphcut.edgetpu.compiler import DEFAULT_SECONDS, Compiler, CompileResult, compile_files
from graphcut.edgetpu.loop import Closed
from graphcut.errors import ConversionError, InfeasibleError, setting
from graphcut.graph.equalise import equalise
from graphcut.graph.extraction import Extraction
from graphcut.graph.model import Model
from graphcut.graph.passes.parts import split_model
from graphcut.measurement import int8_chain
from graphcut.measurement.float_reference import FloatWhole, float_values, prove_chain, whole_of
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import SplitOptions
from graphcut.planning.search import Arrangement
from graphcut.prediction.sizes import Sizes, corrected, predict
from graphcut.progress import Clock, Event, Report, silent
from graphcut.quant.kept import Kept
from graphcut.records import Analysis, Array, ConvertedSegment, Plan, Samples, Tail
from graphcut.tflite.uint8_edges import with_uint8
from graphcut.units import format_bytes
from graphcut.workers.pool import Pool
from graphcut.workers.threads import threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A plan with converted segments: their records, what each was quantised with, and the float values."""

    plan: Plan
    segments: tuple[ConvertedSegment, ...]
    kept: tuple[Kept, ...]
    whole: FloatWhole


Convert = Callable[[Plan, Path], Built]


def build_until_clean(
    analysis: Analysis,
    sizes: Sizes,
    plan: Callable[[Analysis, Sizes], Plan],
    convert: Convert,
    compiler: Compiler,
    folder: Path,
    *,
    budget_bytes: int | None,
    seconds: int = DEFAULT_SECONDS,
    jobs: int = 2,
    report: Report = silent,
) -> tuple[Built, loop.Closed]:
    """The converted segments of the best round, and all rounds.

    Args:
        analysis: with the candidates.
        sizes: predicted.
        plan: a plan for candidates and sizes.
        convert: convert the segments of a plan into a folder.
        compiler: the Edge TPU compiler.
        folder: for the files of all rounds.
        budget_bytes: limit of every file, int8 and compiled; None for none.
        seconds: time limit of compiling one file.
        jobs: files compiled at a time.
        report: progress.

    Raises:
        InfeasibleError: there is no first plan.
        ConversionError: a segment cannot be converted.
    """
    made: dict[tuple[str, ...], Built] = {}

    def planned(wish: loop.Wish) -> Plan:
        wished = replace(analysis, candidates=loop.respected(analysis.candidates, wish))
        if budget_bytes is None or not wish.forbidden:
            return plan(wished, sizes)
        prefix = loop.inflated(sizes.prefix_bytes, sizes.base_bytes, budget_bytes, wish)
        return plan(wished, replace(sizes, prefix_bytes=prefix, files=None))

    def build(chosen: Plan) -> Sequence[Path]:
        place = folder / f"round{len(made) + 1}"
        place.mkdir()
        built = convert(chosen, place)
        made[chosen.cuts] = replace(built, segments=align(built.segments))
        on_chip = len(chosen.chip_segments)
        return [part.tflite_path for part in made[chosen.cuts].segments[:on_chip]]

    def compiled(files: Sequence[Path], number: int) -> Sequence[CompileResult]:
        place = folder / f"compiled{number}"
        place.mkdir()
        return compile_files(compiler, files, place, seconds=seconds, jobs=jobs, report=report)

    closed = loop.close(planned, build, compiled, analysis.candidates, budget_bytes=budget_bytes)
    return made[closed.plan.cuts], closed


MOST_ROUNDS = 6
"""The most times that a plan is repaired with measured sizes before it is called infeasible."""


def build(job: SplitJob, work: Path) -> tuple[Built, Closed | None]:
    """Converted segments: within the budget, and with a compiler until nothing streams."""
    options, analysis, sizes = job.options, job.arranged.analysis, job.arranged.sizes
    if options.compiler is None:
        chosen = job.arranged.made
        assert chosen is not None, "the arrangement of a split has its plan"
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


def _convert_within_budget(job: SplitJob, chosen: Plan, sizes: Sizes, work: Path) -> Built:
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
                samples=len(samples),
                per_channel=job.options.per_channel,
                results=job.options.results,
                report=clock.report,
            )
            exact = proof.result()
        converted = conversions.segments
        measured = [bytes_with_uint8(part, uint8_layers(model.graph)) for part in converted]
        budget = chosen.budget_bytes
        largest = max(measured[: len(chosen.chip_segments)])
        if budget is None or largest <= budget:
            whole = whole_of(model, chosen, values, before_softmax, exact)
            made = replace(chosen, segments=tuple(part.segment for part in converted))
            return Built(plan=made, segments=converted, kept=conversions.kept, whole=whole)
        if job.options.given is not None:
            raise InfeasibleError(
                f"a segment of the given plan has {format_bytes(largest)}, above its budget of {format_bytes(budget)}",
                "make a plan with a smaller budget",
            )
        clock.report(Event(stage="plan", note=True, detail="a file exceeds the budget: planning again"))
        sizes = corrected(sizes, chosen, measured)
        with clock("plan"):
            chosen = plan(job.arranged.analysis, sizes, job.options.plan)
    raise InfeasibleError(
        f"after {MOST_ROUNDS} plans a segment is still {largest} bytes, above the budget of {budget}",
        f"raise {setting('budget')} slightly",
    )


def combine(job: SplitJob, segments: tuple[ConvertedSegment, ...], work: Path) -> Combined:
    """Join aligned segments into tails; the chain computes meanwhile."""
    outputs = [job.model.graph.layers[name] for name in job.model.graph.outputs]
    with threads(1) as runner:
        chain = runner.submit(int8_chain.run_chain, segments, job.samples)
        joined = tails(segments, outputs, work)
        return Combined(segments=segments, tails=joined, chain=chain.result())


Chain = tuple["Combined", tuple[Kept, ...]]
"""A chain, and what its segments were quantised with."""


def _reused(
    job: SplitJob,
    step: str,
    combined: Combined,
    kept: tuple[Kept, ...],
    whole: FloatWhole,
    work: Path,
    made: Callable[[], Chain],
) -> Chain:
    """What a method makes of a chain, from an earlier run where it did the same (:mod:`graphcut.conversion.reuse`)."""
    results = job.options.results
    if results is None:
        return made()
    parts = combined.segments
    key = reuse.key(step, parts, kept, whole, job.samples.sha256, job.options.effort, job.model.largest_weights)
    known = [path for part in parts for path in (part.onnx_path, part.tflite_path)] + [each.float_path for each in kept]
    folder = work / step
    folder.mkdir()
    taken = reuse.take(results, key, folder, known)
    if taken is None:
        after, knowledge = made()
        same = after.segments == parts
        reuse.keep(results, key, None if same else (after.segments, knowledge), known)
        return after, knowledge
    if taken[0] is None:
        return combined, kept
    segments, knowledge = taken[0]
    return replace(combine(job, segments, folder), segments=segments), knowledge


def refine(job: SplitJob, whole: FloatWhole, kept: tuple[Kept, ...], combined: Combined, work: Path) -> Chain:
    """The chain with refined biases where its outputs gain by it, and what its segments were quantised with."""
    return _reused(job, "refined", combined, kept, whole, work, lambda: _refine(job, whole, kept, combined, work))


def fit_weights(job: SplitJob, whole: FloatWhole, kept: tuple[Kept, ...], combined: Combined, work: Path) -> Chain:
    """The chain with fitted weights where it gains by it, and what its segments were quantised with."""
    return _reused(job, "fitted", combined, kept, whole, work, lambda: _fit_weights(job, whole, kept, combined, work))


def choose_ranges(job: SplitJob, built: Built, combined: Combined, work: Path) -> Chain:
    """The chain with ranges chosen by their effect on its outputs, and what its segments were quantised with."""
    kept, whole = built.kept, built.whole
    return _reused(job, "ranges", combined, kept, whole, work, lambda: _choose_ranges(job, built, combined, work))


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalised:
    """A chain made of the model with like channels, and that model without layers in parts."""

    uncut: Model
    job: SplitJob
    built: Built
    combined: Combined


def equalise_channels(job: SplitJob, uncut: Model, built: Built, combined: Combined, work: Path) -> Equalised:
    """The same plan converted with like channels (:mod:`graphcut.graph.equalise`) where that gains, else as it was.

    It has to gain on the samples that a judge keeps out as well.

    Args:
        job, built, combined: what there is.
        uncut: the model without layers in parts.
        work: an existing folder.
    """
    as_it_was = Equalised(uncut=uncut, job=job, built=built, combined=combined)
    made = equalise(uncut, job.samples)
    if made is None:
        return as_it_was
    folder = work / "equalised"
    folder.mkdir()
    model = split_model(made, job.arranged.splits) if job.arranged.splits else made
    again = replace(job, model=replace(model, graph=job.arranged.analysis.graph))
    again = replace(again, extraction=Extraction(again.model))
    other = _convert_within_budget(again, built.plan, job.arranged.sizes, folder)
    chain = combine(again, align(other.segments), folder)
    before, after = (
        Judge(each.segments, job.samples, whole, _inner(by, each.segments)).losses()
        for each, whole, by in ((combined, built.whole, job), (chain, other.whole, again))
    )
    if not gains(before, after):
        return as_it_was
    gain, guarded = (10 * (old - new) for old, new in zip(before, after, strict=True))
    said = (
        f"channels of {made.passes[-1].matches} activations equalised ({gain:.1f} dB less noise, {guarded:.1f} dB on "
        "samples kept out)"
    )
    segments = tuple(replace(part, notes=(*part.notes, said)) for part in chain.segments)
    return Equalised(uncut=made, job=again, built=other, combined=replace(chain, segments=segments))


def _refine(
    job: SplitJob, whole: FloatWhole, kept: tuple[Kept, ...], combined: Combined, work: Path
) -> tuple[Combined, tuple[Kept, ...]]:
    folder = work / "refined"
    folder.mkdir(exist_ok=True)
    inner = _inner(job, combined.segments)
    judge = Judge(combined.segments, job.samples, whole, inner)
    try:
        report = job.clock.report
        refined = refining.refine_chain(combined.segments, kept, job.samples, whole, folder, judge.left_out, report)
    except ConversionError as error:
        job.clock.report(Event(stage="refine", note=True, detail=f"biases were not refined: {error.message}"))
        return combined, kept
    so_far, gained = judge.losses(), Judge(refined.segments, job.samples, whole, inner).losses()
    again = combine(job, refined.segments, folder)
    before, after = (refining.worst_output(each.chain, whole) for each in (combined, again))
    if not (after > before and gains(so_far, gained)):
        return combined, kept
    return replace(again, segments=refining.noted(refined, before, after)), refined.kept


def _fit_weights(
    job: SplitJob, whole: FloatWhole, kept: tuple[Kept, ...], combined: Combined, work: Path
) -> tuple[Combined, tuple[Kept, ...]]:
    folder = work / "fitted"
    folder.mkdir(exist_ok=True)
    report = job.clock.report
    try:
        fitted = weight_fit.fit_chain(combined.segments, kept, job.samples, whole, folder, report)
    except ConversionError as error:
        report(Event(stage="fit", note=True, detail=f"weights were not fitted: {error.message}"))
        return combined, kept
    inner = _inner(job, combined.segments)
    so_far, gained = (Judge(each, job.samples, whole, inner).losses() for each in (combined.segments, fitted.segments))
    if not gains(so_far, gained):
        return combined, kept
    again = combine(job, fitted.segments, folder)
    return replace(again, segments=weight_fit.noted(fitted, so_far, gained)), fitted.kept


def _choose_ranges(job: SplitJob, built: Built, combined: Combined, work: Path) -> tuple[Combined, tuple[Kept, ...]]:
    folder = work / "ranges"
    folder.mkdir(exist_ok=True)
    effort, report = job.options.effort, job.clock.report
    found = range_search.search(
        combined.segments,
        built.kept,
        job.samples,
        built.whole,
        folder,
        inner=_inner(job, combined.segments),
        effort=effort,
        report=report,
    )
    if found is None:
        return combined, built.kept
    again = combine(job, found.segments, folder)
    return replace(again, segments=range_search.noted(found, combined.segments)), found.kept


def _inner(job: SplitJob, segments: tuple[ConvertedSegment, ...]) -> Mapping[Checkpoint, Array]:
    """The float values of the inner tensors that a judge compares."""
    return float_maps(job.model, job.samples, checkpoints(job.model, job.arranged.analysis, segments))


def at_boundary(job: SplitJob, combined: Combined, apart: Path | None, work: Path) -> Combined:
    """The chain with its boundary in uint8 where that is asked for; the independent whole ``apart`` is changed too."""
    layers = uint8_layers(job.model.graph)
    if not layers:
        return combined
    folder = work / "boundary"
    folder.mkdir()
    if apart is not None:
        apart.write_bytes(with_uint8(apart.read_bytes(), layers))
    return combine(job, with_uint8_boundary(combined.segments, layers, folder), folder)


def independent_whole(model: Model, job: SplitJob, chosen: Plan, kept: Sequence[Kept], work: Path) -> Path:
    """The int8 file of the whole model converted in one piece, with the ranges of the segments."""
    folder = work / "independent"
    folder.mkdir()
    per_channel = job.options.per_channel
    with job.clock("independent"):
        whole = whole_model.uncut(model, chosen, predict(model.graph, per_channel=per_channel))
        values, before_softmax = float_values(model, whole, job.samples)
        return whole_model.convert_whole(
            model,
            whole,
            values,
            before_softmax,
            kept,
            job.pool,
            folder,
            samples=len(job.samples),
            per_channel=per_channel,
            results=job.options.results,
            report=job.clock.report,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitJob:
    """State shared by all rounds of a split."""

    model: Model
    arranged: Arrangement
    extraction: Extraction
    samples: Samples
    options: SplitOptions
    pool: Pool
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """Aligned segments, their tails, and what their chain computes."""

    segments: tuple[ConvertedSegment, ...]
    tails: tuple[Tail, ...]
    chain: int8_chain.ChainRun
