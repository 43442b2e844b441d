"""Plan, convert and compile in turns until nothing streams (:mod:`graphcut.edgetpu.loop` decides what changes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphcut.edgetpu import loop
from graphcut.edgetpu.compiler import DEFAULT_SECONDS, Compiler, CompileResult, compile_files
from graphcut.progress import Report, silent
from graphcut.quant.kept import Kept
from graphcut.records import Analysis, ConvertedSegment, Plan
from graphcut.stages.combine import align
from graphcut.stages.float_whole import FloatWhole
from graphcut.stages.sizes import Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A plan whose segments were converted: their records, what each was quantised with, and the float whole."""

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
        InfeasibleError: there is not even a first plan.
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
        return [part.tflite_path for part in made[chosen.cuts].segments]

    def compiled(files: Sequence[Path], number: int) -> Sequence[CompileResult]:
        place = folder / f"compiled{number}"
        place.mkdir()
        return compile_files(compiler, files, place, seconds=seconds, jobs=jobs, report=report)

    closed = loop.close(planned, build, compiled, analysis.candidates, budget_bytes=budget_bytes)
    return made[closed.plan.cuts], closed
