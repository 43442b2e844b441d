"""Normalise a model as its author exported it into the one form that the later stages expect.

1. Opset 13 or newer, one default domain, no functions, no control flow, dense float32 activations.
2. Batch 1, static shapes everywhere, weights as initialisers that are not inputs.
3. Images NCHW. Nodes in topological order, every one with a unique name.
4. Every rewrite that matched is checked: the result equals that of the exported model to float32 precision
   (:mod:`graphcut.graph.model_check`). A wrong rewrite is found by bisection, dropped, and named in a note. The outcome
   is kept for the next time the same file is read (:mod:`graphcut.graph.check_outcome`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from onnx import ModelProto

from graphcut.errors import GraphcutError, ModelError
from graphcut.graph import names, protobuf
from graphcut.graph.check_outcome import KnownVerdict, Verdict
from graphcut.graph.ingest import Ingested, batch_error, enter, size_error
from graphcut.graph.model import Model
from graphcut.graph.model_check import BROKEN, NONE, Baseline, Difference
from graphcut.graph.model_range import WHOLE, ModelRange, take
from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.catalogue import PASSES
from graphcut.graph.passes.clean import sweep
from graphcut.graph.passes.constants import FOLD
from graphcut.graph.qdq import Range
from graphcut.graph.split_outputs import split_outputs
from graphcut.graph.topology import graph_of
from graphcut.progress import Event, Report
from graphcut.records import Layout, ModelInput, PassReport, Shape, Source


def normalise(
    proto: ModelProto,
    source: Source,
    *,
    input_shapes: Mapping[str, Shape],
    report: Report,
    passes: Sequence[Pass] = PASSES,
    parts_as_outputs: bool = False,
    chosen: ModelRange = WHOLE,
    known: KnownVerdict | None = None,
) -> Model:
    """Normalise a model that has been read (module docstring).

    Args:
        proto: with all weights inside; it is modified.
        source: where it came from.
        input_shapes: static shapes for inputs with open dimensions.
        report: receives progress and notes.
        passes: the rewrites, in order.
        parts_as_outputs: make the parts of joined outputs separate outputs (:mod:`graphcut.graph.split_outputs`).
        chosen: where the normalised graph begins and ends (:mod:`graphcut.graph.model_range`).
        known: which rewrites were right an earlier time, and where that is kept; None to check and forget.

    Raises:
        UsageError: ``parts_as_outputs``, and no output is joined; ``chosen`` is no range of the model.
        ModelError: the model contains something that cannot be split; names the node or tensor.
    """
    entry = enter(proto, input_shapes)
    earlier = known.get() if known else None
    try:
        if earlier is not None:
            net, reports, notes = _as_before(entry, passes, earlier)
        else:
            baseline = Baseline(entry)
            with _model_first(baseline):
                net, reports, notes, verdict = _rewritten(entry, passes, baseline)
            if known:
                known.put(verdict)
    except ModelError as error:
        if not entry.resized:
            raise
        raise size_error(entry.resized, error) from error
    if chosen:
        take(net, chosen, entry.modules)
    if parts_as_outputs:
        notes += split_outputs(net)
    _refuse_outputs(net)
    report(Event(stage="load", done=2, total=3, detail="naming layers"))
    final = _final(net, entry)
    said = {name: found for name, found in entry.ranges.items() if name in net.tensors}
    graph = graph_of(net, names.layer_names(net.nodes, tuple(net.inputs), net.outputs, entry.modules))
    return Model(
        proto=final,
        graph=graph,
        source=source,
        inputs=tuple(_model_input(entry, net, name) for name in net.inputs),
        nhwc_outputs=tuple(name for name in net.outputs if name in net.nhwc_outputs),
        notes=(*entry.notes, *_range_notes(entry, said), *notes, *_output_notes(net)),
        said_ranges=said,
        passes=tuple(reports),
    )


@contextmanager
def _model_first(baseline: Baseline) -> Iterator[None]:
    """Raise the model's own error where a rewrite fails on a model that does not run.

    Rewrites rely on guarantees of the format, such as indices within their dimension, which onnxruntime checks.
    """
    try:
        yield
    except GraphcutError:
        raise
    except Exception:
        baseline.outputs()
        raise


def _range_notes(entry: Ingested, said: Mapping[str, Range]) -> list[str]:
    if not entry.ranges:
        return []
    return [f"the file is quantised (QDQ): the ranges of {len(said)} of {len(entry.ranges)} activations are kept"]


def _refuse_outputs(net: Net) -> None:
    """Raise ModelError for outputs that no int8 segment can make."""
    for name in net.outputs:
        source = name
        while (maker := net.producer(source)) is not None and maker.op_type == "Identity":
            source = maker.inputs[0]
        dtype = net.dtype(name)
        if net.outputs.count(name) > 1:
            raise ModelError(f"output {name!r} is listed twice", "export the model with every output once")
        if source in net.inputs:
            raise ModelError(f"output {name!r} is the input {source!r}", "export the model without this output")
        if source in net.weights:
            raise ModelError(f"output {name!r} is the same for every input", "export the model without this output")
        if dtype not in (None, "float32"):
            made_by = f" ({maker.op_type})" if maker is not None else ""
            raise ModelError(
                f"output {name!r}{made_by} has the type {dtype}; int8 segments can only produce outputs that are "
                f"float32 in the model",
                "export the model without the operators at its end that select or compare (ArgMax, TopK, ...)",
            )


Rewritten = tuple[Net, list[PassReport], list[str]]
"""The net with all passes applied that keep its result, what they did, and notes on those that do not."""


def _as_before(entry: Ingested, passes: Sequence[Pass], earlier: Verdict) -> Rewritten:
    """The passes that kept the result an earlier time."""
    kept = [item for item in passes if item.name not in earlier.left_out]
    net = entry.net.copy()
    matches = [item.apply(net) for item in kept]
    sweep(net)
    net.infer()
    return net, _reports(entry, passes, kept, matches, earlier.error), list(earlier.notes)


def _rewritten(
    entry: Ingested, passes: Sequence[Pass], baseline: Baseline
) -> tuple[Net, list[PassReport], list[str], Verdict]:
    """The passes that keep the result, found by checking it, and which these are."""
    kept, notes = list(passes), list[str]()
    done = _applied(entry, kept, baseline)
    if not done.difference.accepted:
        _require_entry(entry, baseline)
    while not done.difference.accepted:
        wrong, difference = _culprit(entry, kept, done, baseline)
        kept.remove(wrong)
        notes.append(
            f"rewrite {wrong.name} not applied: it would change the result by {difference.error:.1e} (limit "
            f"{difference.limit:.1e}); it exists because {wrong.reason}"
        )
        done = _applied(entry, kept, baseline)
    error = done.difference.error
    left_out = tuple(item.name for item in passes if item not in kept)
    reports = _reports(entry, passes, kept, done.matches, error)
    return done.net, reports, notes, Verdict(left_out=left_out, notes=tuple(notes), error=error)


def _reports(
    entry: Ingested, passes: Sequence[Pass], kept: Sequence[Pass], matches: Sequence[int], error: float
) -> list[PassReport]:
    counts = dict(zip((item.name for item in kept), matches, strict=True))
    return [_report(FOLD, entry.folded, error), *(_report(item, counts.get(item.name, 0), error) for item in passes)]


def _culprit(entry: Ingested, passes: Sequence[Pass], done: _Done, baseline: Baseline) -> tuple[Pass, Difference]:
    """The first pass that makes a correct result wrong, found by bisection.

    With none of the passes the result is right and with all it is wrong; O(log n) applications.
    """
    matched = [position for position, count in enumerate(done.matches) if count]
    if not matched:
        raise ModelError(
            f"the model computes a different result every time it runs (relative difference "
            f"{done.difference.error:.1e})",
            "remove random or numerically unstable operators from the model",
        )
    right, wrong, difference = 0, len(matched), done.difference
    while wrong - right > 1:
        middle = (right + wrong) // 2
        tried = _applied(entry, passes[: matched[middle - 1] + 1], baseline).difference
        if tried.accepted:
            right = middle
        else:
            wrong, difference = middle, tried
    return passes[matched[wrong - 1]], difference


def _report(item: Pass, matches: int, error: float) -> PassReport:
    return PassReport(name=item.name, reason=item.reason, matches=matches, relative_error=error if matches else None)


def _require_entry(entry: Ingested, baseline: Baseline) -> None:
    """Raise ModelError where the model already computes a different result before any rewrite."""
    difference = baseline.difference_of(entry.net)
    if difference.accepted:
        return
    error = difference.error
    if entry.batch > 1:
        raise batch_error(entry.batch)
    if entry.raised_from is not None:
        raise ModelError(
            f"raised from opset {entry.raised_from} to {entry.net.opset}, the model computes a different result "
            f"(relative difference {error:.1e})",
            f"export it with opset {entry.net.opset}",
        )
    raise ModelError(
        f"with its constants folded, the model computes a different result (relative difference {error:.1e})",
        "remove random or numerically unstable operators from the model",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """A copy of the net with some passes applied, how often each matched, and the difference they make."""

    net: Net
    matches: tuple[int, ...]
    difference: Difference


def _applied(entry: Ingested, passes: Sequence[Pass], baseline: Baseline) -> _Done:
    net = entry.net.copy()
    matches = tuple([item.apply(net) for item in passes])
    sweep(net)
    try:
        net.infer()
    except ModelError:
        return _Done(net=net, matches=matches, difference=BROKEN)
    if any(matches) or entry.folded or entry.raised_from is not None or entry.batch > 1:
        return _Done(net=net, matches=matches, difference=baseline.difference_of(net))
    baseline.outputs()
    return _Done(net=net, matches=matches, difference=NONE)


def _final(net: Net, entry: Ingested) -> ModelProto:
    """The net as a model, in the message that was read: unchanged weights stay where they are."""
    unknown = net.unknown()
    if unknown is not None:
        raise ModelError(
            f"node {unknown.name!r} ({unknown.op_type}) has an output whose shape depends on the data",
            "export the model with static shapes",
        )
    final = protobuf.rebuilt(
        entry.proto,
        net.name,
        net.opset,
        net.protos(),
        list(net.inputs.values()),
        net.output_infos(),
        {name: None if array is entry.weights.get(name) else array for name, array in net.weights.items()},
    )
    made = [name for node in net.nodes for name in node.outputs if name and name not in net.outputs]
    final.graph.value_info.extend(protobuf.value_info(net.tensors[name]) for name in made)
    return final


def _model_input(entry: Ingested, net: Net, name: str) -> ModelInput:
    shape = net.inputs[name].shape
    declared = entry.net.inputs[name].shape if name in entry.net.inputs else shape
    layout: Layout = "other"
    if len(shape) == 4:
        layout = "NHWC" if name in net.nhwc_inputs else "NCHW"
    return ModelInput(name=name, shape=shape, source_layout=layout, source_shape=declared)


def _output_notes(net: Net) -> list[str]:
    return [
        f"output {name!r} is NCHW in the ONNX segments, and NHWC in the TFLite files, as the model declares it"
        for name in net.outputs
        if name in net.nhwc_outputs
    ]
