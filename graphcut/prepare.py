"""The first stages, for those that need no others: any source to a normalised model.

What comes after them (:mod:`graphcut.flow`) takes longer to import than they take for a small model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from graphcut import files
from graphcut.cache_folder import EarlierResults
from graphcut.errors import UsageError
from graphcut.graph import load as loading
from graphcut.graph.extraction import Extraction, save
from graphcut.graph.model import Model
from graphcut.graph.model_range import ModelRange
from graphcut.prediction.chip_reach import chip_reach, front
from graphcut.prediction.target_rewrites import ANY, passes_for
from graphcut.progress import Event, Report, silent
from graphcut.records import Shape
from graphcut.settings import Until
from graphcut.sources import registry
from graphcut.sources.adapter import Request


def prepare(
    source: str,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    input_layouts: Mapping[str, Literal["NCHW", "NHWC"]] | None = None,
    cache: Path | None = None,
    signature: str | None = None,
    target: str = ANY,
    split_outputs: bool = False,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    reuse: bool = False,
    report: Report = silent,
) -> Model:
    """The normalised model of any source that :mod:`graphcut.sources` has an adapter for.

    Args:
        source, input_shapes, input_layouts, signature, target, split_outputs, inputs, outputs, report: as
            :func:`graphcut.api.load` takes them.
        cache: folder of the cache; None for the user's.
        reuse: take what an earlier time found out about the same file.

    Raises:
        UsageError: nothing there, the shape of an input is missing, ``split_outputs`` and no output is joined, or
            ``inputs`` and ``outputs`` are no range of the model.
        ModelError: it cannot be read or split.
        DependencyError: it needs an extra that is not installed.
    """
    request = Request(source=source, input_shapes=input_shapes or {}, cache=cache, signature=signature)
    adapter, made = registry.to_onnx(request, report)
    model = loading.load(
        made.path,
        input_shapes=made.input_shapes,
        input_layouts=input_layouts,
        channels_last=made.channels_last,
        extra_passes=passes_for(target),
        parts_as_outputs=split_outputs,
        chosen=ModelRange(inputs=tuple(inputs), outputs=tuple(outputs)),
        results=EarlierResults(cache) if reuse else None,
        report=report,
    )
    origin = replace(model.source, kind=adapter.kind, name=made.name, sha256=made.sha256 or model.source.sha256)
    return replace(model, source=origin, notes=(*made.notes, *model.notes), target=target)


def rest_path(out: Path) -> Path:
    """Where :func:`export` writes what the CPU runs: ``model.onnx`` -> ``model_cpu.onnx``."""
    return out.with_name(f"{out.stem}_cpu{out.suffix}")


def _save_until(model: Model, out: Path, until: Until | None, report: Report) -> None:
    """Write a model, in two files where the Edge TPU cannot run all of it and is to end the first."""
    if until is None:
        save(model.proto, out)
        return
    reach = chip_reach(model.graph)
    if not reach.left:
        report(Event(stage="export", note=True, detail="no operator has to run on the CPU: nothing is cut off"))
        save(model.proto, out)
        return
    graph = reach.graph
    extraction = Extraction(replace(model, graph=graph))
    before = front(graph, reach.border)
    made = {name for node in before.nodes for name in node.outputs}
    read = dict.fromkeys(name for node in graph.nodes[reach.border :] for name in node.inputs)
    crossing = tuple(name for name in read if name in made or name in graph.inputs)
    save(extraction.segment(graph.inputs, before.outputs), out)
    save(extraction.segment(crossing, tuple(name for name in graph.outputs if name not in made)), rest_path(out))
    reasons = "; ".join(map(str, reach.left))
    report(Event(stage="export", note=True, detail=f"{rest_path(out)} has the rest, for the CPU: {reasons}"))


def export(
    source: str,
    out: Path,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    cache: Path | None = None,
    signature: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    until: Until | None = None,
    force: bool = False,
    report: Report = silent,
) -> Path:
    """Write the ONNX file that an adapter makes of a source of another kind, or a range of a model; its path.

    With ``until``, what the Edge TPU runs of the model is written, and the rest beside it (:func:`rest_path`).

    Raises:
        UsageError: the source is an ONNX file already and no range is given, or ``out`` exists.
        InfeasibleError: no layer comes before what the Edge TPU cannot run.
        GraphcutError: of the adapter.
    """
    if until is not None:
        files.check_file(rest_path(out), force)
    if inputs or outputs or until is not None:
        files.check_file(out, force)
        model = prepare(
            source,
            input_shapes=input_shapes,
            cache=cache,
            signature=signature,
            inputs=inputs,
            outputs=outputs,
            report=report,
        )
        _save_until(model, out, until, report)
        return out
    if registry.find(source).kind == registry.ONNX:
        raise UsageError(f"{source} is an ONNX file already", "use it as it is")
    files.check_file(out, force)
    _, made = registry.to_onnx(
        Request(source=source, input_shapes=input_shapes or {}, cache=cache, signature=signature), report
    )
    files.copy_file(made.path, out)
    return out
