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
from graphcut.graph.extraction import save
from graphcut.graph.model import Model
from graphcut.graph.model_range import ModelRange
from graphcut.prediction.target_rewrites import ANY, passes_for
from graphcut.progress import Report, silent
from graphcut.records import Shape
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
    return replace(model, source=origin, notes=(*made.notes, *model.notes))


def export(
    source: str,
    out: Path,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    cache: Path | None = None,
    signature: str | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    force: bool = False,
    report: Report = silent,
) -> Path:
    """Write the ONNX file that an adapter makes of a source of another kind, or a range of a model; its path.

    Raises:
        UsageError: the source is an ONNX file already and no range is given, or ``out`` exists.
        GraphcutError: of the adapter.
    """
    if inputs or outputs:
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
        save(model.proto, out)
        return out
    if registry.find(source).kind == registry.ONNX:
        raise UsageError(f"{source} is an ONNX file already", "use it as it is")
    files.check_file(out, force)
    _, made = registry.to_onnx(
        Request(source=source, input_shapes=input_shapes or {}, cache=cache, signature=signature), report
    )
    files.copy_file(made.path, out)
    return out
