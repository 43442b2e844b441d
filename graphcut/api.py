"""The public Python API: what the command line does, from records to records.

``graphcut.load`` a model, ``analyse`` where it can be cut, ``plan`` the cuts, ``split`` it into a folder, and ``open``
a folder that exists; the last two return a :class:`Split`. Sizes are bytes, or text with a unit ("7MiB"). Settings are
those of the command line, by the names of :mod:`graphcut.settings`. Every error a user can cause is a
:class:`graphcut.GraphcutError`. Heavy modules are imported when a function needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from graphcut.progress import Report, silent
from graphcut.records import Analysis, Plan, Preprocessing, Samples, SegmentTimes, Shape, Verification
from graphcut.settings import DEFAULT_BUDGET, PlanSettings, SplitSettings, Strategy, Until, table, takes
from graphcut.split_folder import Split

if TYPE_CHECKING:
    from graphcut.edgetpu.compiler import CompileResult
    from graphcut.edgetpu.file_cost import FileCost
    from graphcut.edgetpu.operator_check import Check
    from graphcut.flow import Extracted
    from graphcut.graph.model import Model
    from graphcut.planning.plan_options import PlanOptions


def load(
    source: str | Path,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    input_layouts: Mapping[str, Literal["NCHW", "NHWC"]] | None = None,
    cache: Path | None = None,
    signature: str | None = None,
    target: str = "any",
    split_outputs: bool = False,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    reuse: bool = True,
    report: Report = silent,
) -> Model:
    """Load and normalise a model.

    Args:
        source: an ``.onnx``, ``.keras``, ``.h5``, ``.tflite`` or ``.pt2`` file, a SavedModel folder, the name of a
            recipe ("resnet101") or a Python target ("package.module:factory"), which is imported and run.
        input_shapes: input name -> static shape in the source's own layout, for open dimensions or another size.
        input_layouts: input name ("" for all of rank 4) -> layout in the source, if it cannot be detected.
        cache: folder for exports to ONNX and for results of earlier runs; None for the user's cache folder.
        signature: of a SavedModel with several; None for its serving signature, or the only one.
        target: "edgetpu" also applies rewrites that help only there.
        split_outputs: make the parts of joined outputs (boxes and scores) separate outputs, each with its own int8
            scale.
        inputs, outputs: layers or tensors where the model begins and ends, to leave off a head or take a range; none
            for its own. Inputs inside the model take float32 NCHW arrays.
        reuse: take from the cache which rewrites of the same file were right an earlier time; False to check again.
        report: receives progress.

    Raises:
        ModelError: the source cannot be read or split.
        UsageError: there is no such source or target, the shape of an input is missing, or ``split_outputs`` and no
            output is joined, or ``inputs`` and ``outputs`` are no range of the model.
        DependencyError: the source needs an extra that is not installed.
    """
    from graphcut.graph import native

    with native.worker():  # it starts while this process imports
        from graphcut.prepare import prepare

        shapes: dict[str, Shape] = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
        return prepare(
            str(source),
            input_shapes=shapes,
            input_layouts=input_layouts,
            cache=cache,
            signature=signature,
            target=target,
            split_outputs=split_outputs,
            inputs=_several(inputs),
            outputs=_several(outputs),
            reuse=reuse,
            report=report,
        )


def export(
    source: str | Path,
    out: str | Path,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    cache: Path | None = None,
    signature: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    until: Until | None = None,
    force: bool = False,
    report: Report = silent,
) -> Path:
    """Write the ONNX file that graphcut makes of a model of another kind, or a range of any model.

    Args:
        source: as in :func:`load`; an ONNX file only with ``inputs``, ``outputs`` or ``until``.
        out: the file to write.
        input_shapes, cache, signature, report: see :func:`load`.
        inputs, outputs: see :func:`load`; the range is written as graphcut normalises it, images NCHW.
        until: "chip" to end the file where the Edge TPU cannot go on; what is left is written to ``NAME_cpu.onnx``.
        force: replace a file that exists.

    Raises:
        UsageError: the source is an ONNX file already and no range is given, or the file exists.
        GraphcutError: see :func:`load`.
    """
    from graphcut import prepare

    shapes: dict[str, Shape] = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
    return prepare.export(
        str(source),
        Path(out),
        input_shapes=shapes,
        cache=cache,
        signature=signature,
        inputs=_several(inputs),
        outputs=_several(outputs),
        until=until,
        force=force,
        report=report,
    )


def analyse(model: Model | str | Path, *, min_rank: int = 4, max_seam_tensors: int | None = None) -> Analysis:
    """Find every place where a model can be cut.

    Args:
        model: from :func:`load`, or what :func:`load` takes.
        min_rank: lowest rank of a tensor to cut at; 2 also allows the vectors around the dense layers.
        max_seam_tensors: N allows cuts where up to N tensors cross; None allows single tensors that all paths pass.
    """
    from graphcut.analysis import candidates

    return candidates.analyse(_loaded(model).graph, min_rank=min_rank, max_seam_tensors=max_seam_tensors)


@takes(PlanSettings)
def plan_options(**settings: Unpack[PlanSettings]) -> PlanOptions:
    """Return options for planning: a budget (7 MiB by default), K equal segments, or others.

    Raises:
        UsageError: a size cannot be read, a setting is unknown, or settings contradict each other.
    """
    from graphcut.errors import UsageError, setting
    from graphcut.planning.plan_options import PlanOptions
    from graphcut.planning.segment_limits import parse_limits
    from graphcut.prediction.device_profiles import DEFAULT, find, fleet_of
    from graphcut.units import parse_bytes, parse_range

    _require_known(settings, PlanSettings)
    budget, segments, size_range = settings.get("budget"), settings.get("segments"), settings.get("size_range")
    cuts = settings.get("cuts")
    device = settings.get("device")
    runs_all = DEFAULT if device is None else find(device)
    devices = settings.get("devices", ())
    several = _several(str(devices) if isinstance(devices, int) else devices)
    fleet = fleet_of(several, runs_all)
    chain = () if fleet else tuple(map(find, several))
    strategy = settings.get("strategy") or ("throughput" if fleet else _called_for(segments, size_range, cuts))
    times = settings.get("times")
    if times is not None and not fleet:
        raise UsageError(
            f"{setting('times')} is for a number of devices",
            f"add {setting('devices', 2)}, or leave {setting('times')} out",
        )
    given = dict(settings.get("limits") or {})
    bounded = any(name not in ("seam", "latency") for name in given) or any(
        each.budget_bytes for each in (*chain, runs_all)
    )
    by_size = strategy in ("greedy", "fewest", "traffic", "balanced") and not (segments is not None or bounded)
    if budget is None and by_size:
        budget = DEFAULT_BUDGET
        given |= {} if device is None else {"off-chip": 0}
    budget_on = settings.get("budget_on", ("tflite",))
    on = {} if budget is None else {name: budget for name in budget_on if name != "tflite"}
    return PlanOptions(
        strategy=strategy,
        budget_bytes=None if "tflite" not in budget_on else parse_bytes(budget) if isinstance(budget, str) else budget,
        limits=parse_limits(given).stricter(parse_limits(on)),
        max_segments=settings.get("max_segments"),
        device=runs_all,
        devices=chain,
        fleet=fleet,
        micro_batch=settings.get("micro_batch", 8),
        times=times if times is None or isinstance(times, SegmentTimes) else SegmentTimes.load(Path(times)),
        pins=_several(settings.get("pins", ())),
        avoid=_several(settings.get("avoid", ())),
        segments=segments,
        range_bytes=parse_range(size_range) if isinstance(size_range, str) else size_range,
        cuts=None if cuts is None else _several(cuts),
        until=settings.get("until"),
        allow_pre_activation=settings.get("allow_pre_activation", False),
        max_seam_tensors=settings.get("max_seam_tensors"),
        layer_split=settings.get("layer_split", True),
    )


@takes(PlanSettings)
def target_of(**settings: Unpack[PlanSettings]) -> str:
    """Return the target of :func:`load` that settings of a plan imply: "edgetpu" where they name an Edge TPU.

    Raises:
        UsageError: see :func:`plan_options`.
    """
    if settings.get("until"):
        return "edgetpu"
    if not (settings.get("device") or settings.get("devices")):
        return "any"
    options = plan_options(**settings)
    kinds = {each.kind for each in options.fleet or options.devices or (options.device,)}
    return "edgetpu" if kinds - {"cpu"} else "any"


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _called_for(segments: int | None, size_range: object, cuts: object) -> Strategy:
    """Return the objective if none is named."""
    if cuts is not None:
        return "given"
    if size_range:
        return "range"
    return "greedy" if segments is None else "balanced"


def _require_known(settings: Mapping[str, object], known: type) -> None:
    from difflib import get_close_matches

    from graphcut.errors import UsageError

    allowed = list(table(known))
    for name in settings:
        if name not in allowed:
            close = get_close_matches(name, allowed, n=1)
            way_out = f"did you mean {close[0]}?" if close else f"choose from {', '.join(allowed)}"
            raise UsageError(f"there is no setting {name!r}", way_out)


def _of_plan(settings: SplitSettings) -> PlanSettings:
    """Return the settings that affect where to cut."""
    kept: PlanSettings = {name: value for name, value in settings.items() if name in table(PlanSettings)}  # type: ignore[assignment]
    return kept


@takes(PlanSettings)
def plan(model: Model | str | Path, **settings: Unpack[PlanSettings]) -> Plan:
    """Choose the cuts from predicted sizes; nothing is converted.

    Args:
        model: from :func:`load`, or what :func:`load` takes.
        settings: where to cut; docs/reference/cli.md explains each.

    Raises:
        InfeasibleError: nothing satisfies the limits; the error names what does not fit.
        UsageError: settings contradict each other, or a cut is unknown.
    """
    from graphcut.planning.plan_model import make_plan

    options = plan_options(**settings)
    per_channel, min_rank = settings.get("per_channel", True), settings.get("min_rank")
    return make_plan(_loaded(model, target=target_of(**settings)), options, per_channel=per_channel, min_rank=min_rank)


@takes(PlanSettings)
def extract(
    model: Model | str | Path,
    out: str | Path,
    *,
    force: bool = False,
    report: Report = silent,
    **settings: Unpack[PlanSettings],
) -> Extracted:
    """Write the segments of a model as ONNX files alone, for Netron and other tools; nothing is converted.

    Args:
        model: from :func:`load`, or what :func:`load` takes. A range of it (``inputs`` and ``outputs`` of
            :func:`load`) stays in one piece where no setting says where to cut.
        out: the folder to write, whole or not at all: ``seg1.onnx`` .. and ``meta.json``.
        force: replace an earlier result.
        report: receives progress.
        settings: where to cut; docs/reference/cli.md explains each.

    Returns:
        The folder, the plan and the files. One after the other they gave the bits of the whole on random inputs.

    Raises:
        UsageError: settings contradict each other, or ``out`` exists.
        VerificationError: the segments do not compute what the whole computes.
    """
    from graphcut import flow
    from graphcut.planning.plan_options import SplitOptions

    _require_known(settings, PlanSettings)
    loaded = _loaded(model, report, target_of(**settings))
    cutting: PlanSettings = settings
    if not set(settings) - {"per_channel"} and (loaded.range_inputs or loaded.range_outputs):
        cutting = {**settings, "segments": 1}
    plan = plan_options(**cutting)
    per_channel, min_rank = settings.get("per_channel", True), settings.get("min_rank")
    options = SplitOptions(
        plan=plan,
        min_rank=min_rank,
        per_channel=per_channel,
        force=force,
    )
    return flow.extract(loaded, options, Path(out), report)


@takes(SplitSettings)
def split(
    model: Model | str | Path,
    *,
    calibration: str | Path | Samples,
    out: str | Path,
    plan: Plan | None = None,
    validation: str | Path | Samples | None = None,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    seed: int = 0,
    compiler: str | None = None,
    report: Report = silent,
    **settings: Unpack[SplitSettings],
) -> Split:
    """Cut a model, convert every segment to int8 TFLite, prove the result and write it to a folder.

    Args:
        model: from :func:`load`, or what :func:`load` takes.
        calibration: a folder of pictures, an ``.npy`` or ``.npz`` file, "random" for synthetic samples, or samples.
        out: the folder to write; it is written atomically.
        plan: a plan to apply, from :func:`plan` or ``Plan.load``; None to make one.
        validation: data for the verdict; None to exclude every fifth of 20 or more samples from calibration.
        preprocessing: from pixels to the model's input; needed for pictures. None for that of a recipe.
        samples: the most samples to use.
        seed: of synthetic samples.
        compiler: path of edgetpu_compiler, or "docker:IMAGE": compile, and plan again until nothing streams.
        report: receives progress.
        settings: where to cut and how to convert; docs/reference/cli.md explains each.

    Returns:
        The split. Check ``verification.verdict``: it says whether the int8 model still does what the float model does.

    Raises:
        UsageError: settings contradict each other, or ``out`` exists.
        GraphcutError: of the stage that failed; ``out`` is then unchanged.
    """
    from graphcut import flow, staging
    from graphcut.cache_folder import EarlierResults
    from graphcut.edgetpu.compiler import find
    from graphcut.errors import UsageError
    from graphcut.planning.plan_options import SplitOptions
    from graphcut.samples import load_samples

    _require_known(settings, SplitSettings)
    cutting = _of_plan(settings)
    if plan is not None and set(cutting) - {"per_channel"}:
        raise UsageError(f"both a plan and {min(cutting)} are given", "use one of the two")
    staging.check_target(Path(out), settings.get("force", False))
    if preprocessing is None and not hasattr(model, "graph"):
        preprocessing = recipe_preprocessing(str(model))
    loaded = _loaded(model, report, target_of(**cutting) if plan is None else plan.target)
    if not isinstance(calibration, Samples):
        calibration = load_samples(calibration, loaded.inputs, preprocessing, limit=samples, seed=seed, report=report)
    if validation is not None and not isinstance(validation, Samples):
        validation = load_samples(validation, loaded.inputs, preprocessing, limit=samples, seed=seed, report=report)
    options = SplitOptions(
        plan=plan_options(**cutting),
        given=plan,
        per_channel=settings.get("per_channel", True),
        min_rank=settings.get("min_rank"),
        jobs=settings.get("jobs", 2),
        force=settings.get("force", False),
        independent=settings.get("independent", False),
        requantise=settings.get("requantise", False),
        validation=validation,
        min_sqnr_db=settings.get("min_sqnr", 10.0),
        effort=settings.get("effort", "normal"),
        results=EarlierResults() if settings.get("reuse", True) else None,
        input_type=settings.get("input_type", "int8"),
        output_type=settings.get("output_type", "int8"),
        without=tuple(settings.get("without", ())),
        compiler=None if compiler is None else find(compiler),
        preprocessing=preprocessing,
        seed=seed,
    )
    result = flow.split(loaded, calibration, options, Path(out), report)
    return Split.of(result.folder)


def open(folder: str | Path) -> Split:
    """Open a folder that :func:`split` wrote.

    Raises:
        UsageError: the folder is not a split, or its manifest is damaged.
    """
    return Split.of(Path(folder))


def verify(
    folder: str | Path, *, calibration: str | Path | Samples | None = None, report: Report = silent
) -> Verification:
    """Verify a split again; see :meth:`Split.verify`."""
    return open(folder).verify(calibration=calibration, report=report)


def check(path: str | Path) -> Check:
    """Check an int8 TFLite file against the limits of the Edge TPU, operator by operator.

    Raises:
        ModelError: the file cannot be read, or is not an int8 file.
    """
    from graphcut.edgetpu import operator_check

    return operator_check.check(Path(path))


def cost(path: str | Path) -> FileCost:
    """Predict the cost of an int8 TFLite file on the Edge TPU: parameters, compiled size, room, multiplications.

    Raises:
        ModelError: the file cannot be read, or is already compiled.
    """
    from graphcut.edgetpu import file_cost

    return file_cost.of_file(Path(path))


def compile(
    path: str | Path,
    out: str | Path | None = None,
    *,
    compiler: str | None = None,
    compiler_options: Sequence[str] = (),
    compile_seconds: int = 180,
    report: Report = silent,
) -> CompileResult:
    """Compile one int8 TFLite file for the Edge TPU; a whole split: :meth:`Split.compile`.

    Args:
        path: the file.
        out: the folder for the results; None for the file's own.
        compiler: path of edgetpu_compiler, or "docker:IMAGE"; None for the one on PATH.
        compiler_options: further options of the compiler, such as ``("-d", "-k", "4")``.
        compile_seconds: time limit.
        report: receives progress.

    Raises:
        DependencyError: there is no compiler.
        ModelError: the file cannot be read, or is already compiled.
    """
    from dataclasses import replace

    from graphcut.edgetpu import compiler as compilers
    from graphcut.edgetpu import layers_of_file

    path = Path(path)
    layers_of_file.uncompiled(path)
    folder = path.parent if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found = replace(compilers.find(compiler), options=tuple(compiler_options))
    (made,) = compilers.compile_files(found, [path], folder, seconds=compile_seconds, report=report)
    return made


def recipe_preprocessing(source: str) -> Preprocessing | None:
    """Return how the pictures of a recipe's model are prepared; None for any other source.

    Raises:
        UsageError: there is no such source.
    """
    from graphcut import recipes
    from graphcut.sources import registry

    return recipes.find(source).preprocessing if registry.find(source).kind == registry.RECIPE else None


def _loaded(model: Model | str | Path, report: Report = silent, target: str = "any") -> Model:
    return load(model, target=target, report=report) if isinstance(model, str | Path) else model
