"""A check of a plan that does not search: it shares the predicted sizes with what made it, and no other code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from graphcut.prediction.sizes import Sizes
from graphcut.records import Analysis, Graph, Plan, Segment


class BrokenPlanError(AssertionError):
    """A plan contradicts itself or the graph, which is a bug, not a user error."""


class _Names(NamedTuple):
    """What the nodes of a segment produce and read (weights too), and what is needed after it."""

    made: set[str]
    read: set[str]
    wanted: set[str]


def check(plan: Plan, analysis: Analysis, sizes: Sizes) -> None:
    """Check all claims of a plan; linear in the graph.

    1. The segments follow each other without a gap and hold every node once.
    2. What crosses a cut is what the cut says, and nothing else; every node finds what it reads, every segment gets
       what it takes from an earlier one or from the model's inputs; each output of the graph leaves the segment that
       makes it.
    3. Sizes are those of the table, together they hold the whole, and none passes the budget.
    4. K lies between the bounds; the greedy plan reaches the lowest.

    Raises:
        BrokenPlanError: naming all that is wrong, one line each.
    """
    names = _names(plan, analysis.graph)
    wrong = [
        *_coverage(plan, analysis.graph),
        *_seams(plan, analysis, names),
        *_flow(plan, analysis.graph, names),
        *_sizes(plan, sizes),
        *_bounds(plan),
    ]
    if wrong:
        raise BrokenPlanError(f"the {plan.strategy} plan is broken:\n" + "\n".join(wrong))


def _coverage(plan: Plan, graph: Graph) -> Iterator[str]:
    expected = 0
    for number, segment in enumerate(plan.segments, start=1):
        if segment.index != number:
            yield f"segment {number} is numbered {segment.index}"
        if segment.start != expected:
            yield f"segment {number} starts at node {segment.start}, not {expected}"
        if segment.stop <= segment.start:
            yield f"segment {number} contains no node"
        expected = segment.stop
    if expected != len(graph.nodes):
        yield f"the last segment ends at node {expected} of {len(graph.nodes)}"


def _seams(plan: Plan, analysis: Analysis, names: Sequence[_Names]) -> Iterator[str]:
    if len(plan.candidates) != len(plan.segments) - 1:
        yield f"{len(plan.candidates)} cuts for {len(plan.segments)} segments"
        return
    positions = {cut.position for cut in plan.candidates}
    known = {candidate for candidate in analysis.candidates if candidate.position in positions}
    for cut, before, (_, _, wanted) in zip(plan.candidates, plan.segments, names, strict=False):
        if cut not in known:
            yield f"the cut {cut.layer} is not a candidate of the analysis"
        if cut.position != before.stop:
            yield f"the cut {cut.layer} is at {cut.position}, but segment {before.index} ends at {before.stop}"
        if set(cut.tensors) != wanted or len(cut.tensors) != len(wanted):
            crosses = ", ".join(sorted(wanted)) or "nothing"
            yield f"the cut {cut.layer} is not what crosses after segment {before.index}: {crosses}"


def _flow(plan: Plan, graph: Graph, names: Sequence[_Names]) -> Iterator[str]:
    """Run the segments on names instead of values."""
    weights, delivered = graph.weights, set(graph.inputs)
    for segment, own in zip(plan.segments, names, strict=True):
        for name in sorted(set(segment.inputs) - delivered):
            yield f"segment {segment.index} reads {name}, which nothing before it produces"
        known = {*segment.inputs, ""}
        for node in graph.nodes[segment.start : segment.stop]:
            missing = [name for name in node.inputs if name not in known and name not in weights]
            if missing:
                yield f"node {node.name} of segment {segment.index} lacks {', '.join(sorted(set(missing)))}"
            known.update(node.outputs)
        delivered.update(segment.outputs)
        yield from _ends(segment, graph, own)
    for name in sorted(set(graph.outputs) - delivered):
        yield f"no segment produces the model's output {name}"


def _ends(segment: Segment, graph: Graph, own: _Names) -> Iterator[str]:
    for name in sorted(set(segment.outputs) - own.made):
        yield f"segment {segment.index} does not produce its output {name}"
    for name in sorted((own.wanted & own.made) - set(segment.outputs)):
        yield f"segment {segment.index} does not hand over {name}, which is needed after it"
    for name in sorted(set(segment.outputs) - own.wanted - set(graph.outputs)):
        yield f"segment {segment.index} hands over {name}, which nothing after it reads"
    for name in sorted(set(segment.inputs) - own.read):
        yield f"segment {segment.index} reads {name} but does not use it"
    for names in (segment.inputs, segment.outputs):
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"segment {segment.index} lists {name} twice"
    if segment.input_layers != tuple(graph.layers[name] for name in segment.inputs):
        yield f"segment {segment.index} misnames its inputs"
    if segment.output_layers != tuple(graph.layers[name] for name in segment.outputs):
        yield f"segment {segment.index} misnames its outputs"


def _names(plan: Plan, graph: Graph) -> list[_Names]:
    """The names of every segment; needed is what exists after it (the graph's inputs too) and a later one reads."""
    found: list[_Names] = []
    later: set[str] = set()
    for segment in reversed(plan.segments):
        nodes = graph.nodes[segment.start : segment.stop]
        made = set(chain.from_iterable([node.outputs for node in nodes]))
        read = set(chain.from_iterable([node.inputs for node in nodes]))
        found.append(_Names(made, read, later))
        later = (later | read.difference(graph.weights, ("",))) - made
    return found[::-1]


def _sizes(plan: Plan, sizes: Sizes) -> Iterator[str]:
    content = weights = 0
    for segment in plan.segments:
        planned, expected = (
            sizes.segment_bytes(segment.start, segment.stop),
            sizes.file_bytes(segment.start, segment.stop),
        )
        content += planned - sizes.base_bytes
        weights += segment.weight_bytes
        if segment.tflite_bytes != expected:
            yield f"segment {segment.index} is recorded with {segment.tflite_bytes} bytes, not {expected}"
        limited = segment in plan.chip_segments
        if limited and plan.budget_bytes is not None and planned > plan.budget_bytes:
            yield f"segment {segment.index} has {planned} bytes; the budget is {plan.budget_bytes}"
    if content != sizes.prefix_bytes[-1]:
        yield f"the segments contain {content} bytes, the whole {sizes.prefix_bytes[-1]}"
    if weights != sizes.prefix_weights[-1]:
        yield f"the segments contain {weights} bytes of weights, the whole {sizes.prefix_weights[-1]}"


def _bounds(plan: Plan) -> Iterator[str]:
    if plan.budget_bytes is None:
        if plan.minimal_k is not None or plan.lower_bound is not None:
            yield "there are bounds without a budget"
        return
    if plan.minimal_k is None or plan.lower_bound is None:
        yield "there is a budget without bounds"
        return
    if not 1 <= plan.lower_bound <= plan.minimal_k <= plan.k:
        yield f"lower bound {plan.lower_bound}, minimum {plan.minimal_k}, K {plan.k} are not in order"
    count = len(plan.chip_segments)
    if plan.strategy == "greedy" and count != plan.minimal_k:
        yield f"greedy needs {count} segments where {plan.minimal_k} are sufficient"
