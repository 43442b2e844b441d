"""The public Python API: what the command line does, from records to records.

``graphcut.load`` a model, ``analyse`` where it can be cut, ``plan`` the cuts, ``split`` it into a folder and ``verify``
that folder. Sizes are bytes, or text with a unit ("7MiB"). Every error a user can cause is a
:class:`graphcut.errors.GraphcutError`. Heavy modules are imported when a function needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graphcut.progress import Report, silent
from graphcut.records import Analysis, Plan, Preprocessing, Samples, Shape, Verification

if TYPE_CHECKING:
    from graphcut.flow import SplitResult
    from graphcut.graph.model import Model
    from graphcut.planning.plan_options import PlanOptions, Strategy

DEFAULT_BUDGET = "7MiB"
"""What of the 8 MB of an Edge TPU is left for parameters beside the activations of a ResNet."""


def load(
    source: str | Path,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    input_layouts: Mapping[str, Literal["NCHW", "NHWC"]] | None = None,
    cache: Path | None = None,
    report: Report = silent,
) -> Model:
    """Load and normalise a model.

    Args:
        source: an ``.onnx``, ``.keras``, ``.h5``, ``.tflite`` or ``.pt2`` file, a SavedModel folder, the name of a
            recipe ("resnet101") or a Python target ("package.module:factory"), which is imported and run.
        input_shapes: input name -> static shape in the source's own layout, where the source leaves it open.
        input_layouts: input name ("" for all of rank 4) -> layout in the source, where it does not show.
        cache: folder for exports to ONNX; None for the user's cache folder.
        report: told of progress.

    Raises:
        ModelError: the source cannot be read or split.
        UsageError: there is no such source, or the shape of an input is missing.
        DependencyError: the source needs an extra that is not installed.
    """
    from graphcut import flow

    shapes: dict[str, Shape] = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
    return flow.prepare(str(source), input_shapes=shapes, input_layouts=input_layouts, cache=cache, report=report)


def analyse(model: Model, *, min_rank: int = 4, max_seam_tensors: int | None = None) -> Analysis:
    """Find every place where a model can be cut.

    Args:
        model: from :func:`load`.
        min_rank: lowest rank of a tensor to cut at; 2 also takes the vectors around the dense layers.
        max_seam_tensors: N for every place that hands over up to N tensors; None for single ones that all paths pass.
    """
    from graphcut.analysis import candidates as stage

    return stage.analyse(model.graph, min_rank=min_rank, max_seam_tensors=max_seam_tensors)


def plan_options(
    *,
    budget: str | int | None = None,
    segments: int | None = None,
    size_range: str | tuple[int, int] | None = None,
    cuts: Sequence[str] | None = None,
    strategy: Strategy | None = None,
    allow_pre_activation: bool = False,
    max_seam_tensors: int | None = None,
    layer_split: bool = True,
    budget_on: Sequence[str] = ("tflite",),
    limits: Mapping[str, str | float] | None = None,
    max_segments: int | None = None,
    device: str | None = None,
    devices: Sequence[str] = (),
    pins: Sequence[str] = (),
    avoid: Sequence[str] = (),
) -> PlanOptions:
    """Say how to cut: within ``budget`` (7 MiB where nothing is said), or into ``segments`` equal ones, or otherwise.

    Args:
        budget: limit of every int8 file.
        segments: K: the split into K whose largest segment is smallest, or best by another objective.
        size_range: LOW..HIGH for every segment ("2MiB..6MiB", or two numbers).
        cuts: the layers to cut at.
        strategy: the objective (docs/explanation/planning-objectives.md); by default the one that the others imply.
        allow_pre_activation: also cut between an operator and its activation.
        max_seam_tensors: the most tensors that a cut may hand over; None for 1 if there is a plan, else the fewest with
            which there is one.
        layer_split: split layers whose own weights pass the budget by output channels.
        budget_on: what the budget limits: "tflite", "compiled", "parameters".
        limits: further limits: "tflite", "compiled", "parameters", "off-chip", "activations", "seam" (sizes), "macs",
            "latency" (ms) -> value.
        max_segments: at most so many.
        device: "coral-usb", "coral-usb-x86", "coral-pcie" or a profile's path: what runs the segments. Where nothing
            else says how large they may be, nothing may stream on it.
        devices: a chain of devices in order, each NAME or NAME:BUDGET.
        pins, avoid: cuts that must be there, and must not.

    Raises:
        UsageError: a size is nonsense, or options contradict each other.
    """
    from graphcut.planning.plan_options import PlanOptions
    from graphcut.planning.segment_limits import parse_limits
    from graphcut.prediction.device_profiles import DEFAULT, find
    from graphcut.units import parse_bytes, parse_range

    if strategy is None:
        strategy = _called_for(segments, size_range, cuts)
    if isinstance(cuts, str):
        cuts = (cuts,)
    chain = tuple(map(find, devices))
    runs_all = DEFAULT if device is None else find(device)
    given = dict(limits or {})
    bounded = any(name not in ("seam", "latency") for name in given) or any(
        each.budget_bytes for each in (*chain, runs_all)
    )
    by_size = strategy in ("greedy", "fewest", "traffic", "balanced") and not (segments is not None or bounded)
    if budget is None and by_size:
        budget = DEFAULT_BUDGET
        given |= {} if device is None else {"off-chip": 0}
    on = {} if budget is None else {name: budget for name in budget_on if name != "tflite"}
    return PlanOptions(
        strategy=strategy,
        budget_bytes=None if "tflite" not in budget_on else parse_bytes(budget) if isinstance(budget, str) else budget,
        limits=parse_limits(given).stricter(parse_limits(on)),
        max_segments=max_segments,
        device=runs_all,
        devices=chain,
        pins=tuple(pins),
        avoid=tuple(avoid),
        segments=segments,
        range_bytes=parse_range(size_range) if isinstance(size_range, str) else size_range,
        cuts=None if cuts is None else tuple(cuts),
        allow_pre_activation=allow_pre_activation,
        max_seam_tensors=max_seam_tensors,
        layer_split=layer_split,
    )


def _called_for(segments: int | None, size_range: object, cuts: object) -> Strategy:
    """The objective where none is named."""
    if cuts is not None:
        return "given"
    if size_range:
        return "range"
    return "greedy" if segments is None else "balanced"


def plan(
    model: Model,
    *,
    budget: str | int | None = None,
    segments: int | None = None,
    size_range: str | tuple[int, int] | None = None,
    cuts: Sequence[str] | None = None,
    per_channel: bool = True,
    min_rank: int | None = None,
    max_seam_tensors: int | None = None,
    layer_split: bool = True,
) -> Plan:
    """Choose the cuts from predicted sizes; nothing is converted.

    Args:
        model: from :func:`load`.
        budget, segments, size_range, cuts: see :func:`plan_options`.
        per_channel: one weight scale an output channel.
        min_rank: lowest rank of a tensor to cut at; None for 4 if there is a plan, else 2.
        max_seam_tensors, layer_split: see :func:`plan_options`.

    Raises:
        InfeasibleError: nothing satisfies the limits; says what is in the way.
        UsageError: options contradict each other, or a cut is unknown.
    """
    from graphcut import flow

    options = plan_options(
        budget=budget,
        segments=segments,
        size_range=size_range,
        cuts=cuts,
        max_seam_tensors=max_seam_tensors,
        layer_split=layer_split,
    )
    return flow.make_plan(model, options, per_channel=per_channel, min_rank=min_rank)


def split(
    model: Model,
    *,
    calibration: str | Path | Samples,
    out: str | Path,
    budget: str | int | None = None,
    segments: int | None = None,
    size_range: str | tuple[int, int] | None = None,
    cuts: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    samples: int | None = None,
    per_channel: bool = True,
    min_rank: int | None = None,
    max_seam_tensors: int | None = None,
    layer_split: bool = True,
    jobs: int = 2,
    force: bool = False,
    independent: bool = False,
    report: Report = silent,
) -> SplitResult:
    """Cut a model, convert every segment to int8 TFLite, prove the result and write it to a folder.

    Args:
        model: from :func:`load`.
        calibration: a folder of pictures, an ``.npy`` or ``.npz`` file, "random" for synthetic samples, or samples.
        out: the folder to come, written whole or not at all.
        budget, segments, size_range, cuts: see :func:`plan_options`.
        preprocessing: from pixels to the model's input; needed for pictures (a recipe has it:
            ``graphcut.recipes.find("resnet101").preprocessing``).
        samples: most samples to take.
        per_channel: one weight scale an output channel.
        min_rank: lowest rank of a tensor to cut at; None for 4 if there is a plan, else 2.
        max_seam_tensors, layer_split: see :func:`plan_options`.
        jobs: worker processes.
        force: replace an earlier result.
        independent: also convert the whole model in one piece, and compare the chain with it.
        report: told of progress.

    Returns:
        What was made. ``verification.passed`` is the verdict: look at it.

    Raises:
        GraphcutError: of the stage that failed; ``out`` is then as it was.
    """
    from graphcut import files, flow
    from graphcut.planning.plan_options import SplitOptions
    from graphcut.samples import load_samples

    options = plan_options(
        budget=budget,
        segments=segments,
        size_range=size_range,
        cuts=cuts,
        max_seam_tensors=max_seam_tensors,
        layer_split=layer_split,
    )
    files.check_target(Path(out), force)
    if not isinstance(calibration, Samples):
        calibration = load_samples(calibration, model.inputs, preprocessing, limit=samples, report=report)
    chosen = SplitOptions(
        plan=options,
        per_channel=per_channel,
        min_rank=min_rank,
        jobs=jobs,
        force=force,
        independent=independent,
        said=said(preprocessing),
    )
    return flow.split(model, calibration, chosen, Path(out), report)


def said(preprocessing: Preprocessing | None, **further: object) -> Mapping[str, object]:
    """Put what was said beyond the plan into the form that the manifest keeps."""
    from graphcut.result import encode

    return {"preprocessing": encode.preprocessing(preprocessing), **further}


def verify(
    folder: str | Path, *, calibration: str | Path | Samples | None = None, report: Report = silent
) -> Verification:
    """Prove a split that lies in a folder once more.

    Args:
        folder: what :func:`split` wrote.
        calibration: other samples to verify with, as in :func:`split`; None for those kept in the folder.
        report: told of progress.

    Returns:
        What holds; ``passed`` is the verdict.

    Raises:
        UsageError: the folder is no result of graphcut.
        VerificationError: files are missing or are not those that were written.
    """
    from graphcut.result import manifest, reopen
    from graphcut.samples import load_samples

    if calibration is None or isinstance(calibration, Samples):
        return reopen.verify(Path(folder), calibration, report)
    split_before = manifest.read(Path(folder))
    loaded = load_samples(calibration, split_before.inputs, split_before.preprocessing, report=report)
    return reopen.verify(Path(folder), loaded, report)


def recipe_preprocessing(source: str) -> Preprocessing | None:
    """Return how the pictures of a recipe's model are prepared; None for any other source.

    Raises:
        UsageError: no source at all.
    """
    from graphcut import recipes
    from graphcut.sources import registry

    return recipes.find(source).preprocessing if registry.find(source).kind == registry.RECIPE else None
