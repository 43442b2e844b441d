"""Where the graph can be cut, and why not elsewhere.

1. A *candidate* is an activation that every path from any input of the graph to any of its outputs passes: it dominates
   the outputs. All branches have merged there, so no other tensor crosses the cut (graphcut.analysis.liveness has the
   theorem, and the proof that ``nodes[:position]`` are exactly its producer and the producer's ancestors, whatever the
   topological order).
2. It is not an input or output of the graph, and it fits a seam (graphcut.analysis.seams): a static shape of rank
   ``min_rank`` to 4, batch 1, float. Where a node has several outputs, one of them is a candidate only if all paths
   pass it, as statement 1 implies.
3. With ``max_seam_tensors`` N, every position of the graph's order is a candidate whose seam (frontier, statement 5)
   has 1 to N tensors that all fit. For N = 1 that adds places after early outputs of the graph to those of statement 1,
   for N > 1 places inside branches; both depend on the order.
4. A candidate at which a tensor is fused through (planning.seams, statement 3) is marked ``pre_activation``.
5. Weight bytes are one byte an element of floating-point initialisers. Single numbers (the bounds of a Clip, a factor)
   do not count as weights. A weight that several nodes read counts once in ``weight_bytes_before`` and once in each
   ``weight_bytes_between`` in which it is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from math import prod

from graphcut.analysis.liveness import Lifetimes, lifetimes
from graphcut.analysis.seams import FLOATS, activations, fits, fused_through, fuses, shown, unfit
from graphcut.errors import ModelError, UsageError
from graphcut.records import Analysis, Candidate, Graph, Node
from graphcut.units import format_bytes


def analyse(
    graph: Graph, *, min_rank: int = 4, max_seam_tensors: int | None = None, life: Lifetimes | None = None
) -> Analysis:
    """Find the candidates, by increasing position; linear in the graph, times ``max_seam_tensors``.

    Args:
        graph: normalised.
        min_rank: 4 for feature maps only; 2 also allows the vectors around the global pool and the dense layers.
        max_seam_tensors: None for the tensors that dominate the outputs, whatever the order (statement 1); N for all
            positions of this order with up to N tensors (statement 3).
        life: of the graph, if it is known.

    Raises:
        ModelError: the graph has no operators.
    """
    if not graph.nodes:
        raise ModelError("the model has no operators", "there is nothing to split")
    life = life or lifetimes(graph)
    weights = graph.weights
    lone = _lone(graph, life, min_rank)
    places = dict(lone if max_seam_tensors is None else _several(graph, life, min_rank, max_seam_tensors))
    input_area = _input_area(graph)
    fused = cache(lambda name: fused_through(graph, life, name))
    candidates: list[Candidate] = []
    named: set[str] = set()
    read: dict[str, int] = {}  # weight -> how many candidates come before its last reader so far
    bytes_before = bytes_between = 0
    for position, node in enumerate(graph.nodes[: max(places, default=0)], start=1):
        for name in node.inputs:
            weight = weights.get(name)
            if weight is None or weight.dtype not in FLOATS or (size := weight.elements) <= 1:
                continue
            if name not in read:
                bytes_before += size
            if read.get(name) != len(candidates):
                read[name] = len(candidates)
                bytes_between += size
        names = places.get(position)
        if names is None:
            continue
        tensors = [graph.tensors[name] for name in names]
        layers = tuple([graph.layers[name] for name in names])
        layer = "+".join(layers)
        if layer in named:
            layer += f"@{graph.layers[node.outputs[0]]}"
        named.add(layer)
        candidates.append(
            Candidate(
                tensor="+".join(names),
                layer=layer,
                position=position,
                shape=tensors[-1].shape,
                dtype=tensors[-1].dtype,
                int8_bytes=sum([tensor.elements for tensor in tensors]),
                merged=_merged(graph, life, names[-1]),
                downsampled=max([prod(tensor.shape[2:]) for tensor in tensors]) < input_area,
                pre_activation=any(map(fused, names)),
                weight_bytes_before=bytes_before,
                weight_bytes_between=bytes_between,
                tensors=names,
                layers=layers,
            )
        )
        bytes_between = 0
    return Analysis(
        graph=graph, candidates=tuple(candidates), max_seam_tensors=max_seam_tensors or 1, min_rank=min_rank
    )


def _lone(graph: Graph, life: Lifetimes, min_rank: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Return the positions of statement 1."""
    barred = {*graph.inputs, *graph.outputs}
    for position, (node, count) in enumerate(zip(graph.nodes, life.counts[1:], strict=True), start=1):
        if count != 1:
            continue
        for name in node.outputs:
            if name and life.last[name] >= position:
                if name not in barred and fits(graph, name, min_rank):
                    yield position, (name,)
                break


def _several(graph: Graph, life: Lifetimes, min_rank: int, most: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Return the positions of statement 3."""
    fitting = cache(lambda name: fits(graph, name, min_rank))  # a tensor may be alive at many positions
    for position, names in life.seams(graph, most):
        if all(map(fitting, names)):
            yield position, names


def find_tensor(graph: Graph, name: str) -> str:
    """Return the ONNX tensor with a layer name or tensor name, or the output of a node with that name.

    Raises:
        UsageError: there is none; the error suggests the closest names.
    """
    named = {layer: tensor for tensor, layer in graph.layers.items()}
    if name in named:
        return named[name]
    if name in graph.tensors or name in graph.weights:
        return name
    for node in graph.nodes:
        if node.name == name and len(node.outputs) == 1:
            return node.outputs[0]
    close = _close(name, [*named, *graph.tensors])
    raise UsageError(
        f"there is no tensor or layer {name!r}",
        f"did you mean {' or '.join(close)}?" if close else "`graphcut inspect` lists the layers",
    )


def why(graph: Graph | Analysis, name: str, *, min_rank: int = 4) -> str:
    """Explain in one sentence why a tensor or layer is a candidate or not.

    Raises:
        UsageError: there is no tensor or layer of that name.
    """
    graph = graph.graph if isinstance(graph, Analysis) else graph
    tensor = find_tensor(graph, name)
    if tensor in graph.weights:
        return f"{tensor} is not a candidate: it is a weight, not an activation"
    layer = graph.layers[tensor]
    for names, role in ((graph.inputs, "an input"), (graph.outputs, "an output")):
        if tensor in names:
            return f"{layer} is not a candidate: it is {role} of the model, so a cut there separates nothing"
    life = lifetimes(graph)
    position = life.first[tensor]
    if not life.readers[tensor]:
        return f"{layer} is not a candidate: no operator reads it"
    if life.counts[position] != 1:
        return f"{layer} is not a candidate: {_detour(graph, tensor)}"
    if reason := unfit(graph.tensors[tensor], min_rank):
        return f"{layer} is not a candidate: {reason}"
    found = f"{layer} is a candidate: every path from input to output passes it after {position} of {len(graph.nodes)}"
    found += f" operators ({shown(graph.tensors[tensor])}, {format_bytes(graph.tensors[tensor].elements)} at int8)"
    if fused_through(graph, life, tensor):
        behind = graph.nodes[life.last[tensor]]
        found += f"; plans cut after {graph.layers[behind.outputs[0]]} instead, whose {behind.op_type} is fused into it"
    return found


def _input_area(graph: Graph) -> int:
    """Return H x W of the largest image among the inputs, 0 if none is an image."""
    shapes = [graph.tensors[name].shape for name in graph.inputs]
    return max((prod(shape[2:]) for shape in shapes if len(shape) == 4), default=0)


def _merged(graph: Graph, life: Lifetimes, tensor: str) -> bool:
    """Return whether branches meet in a tensor's producer, or in the one that it is fused into."""
    if not life.first[tensor]:
        return False
    node = graph.nodes[life.first[tensor] - 1]
    read = activations(graph, node)
    if len(read) != 1 or not life.first[read[0]]:
        return len(read) > 1
    producer = graph.nodes[life.first[read[0]] - 1]
    return life.readers[read[0]] == 1 and fuses(graph, producer, node) and _merged(graph, life, read[0])


def _detour(graph: Graph, tensor: str) -> str:
    """Describe a shortest path of layers that bypasses a tensor."""
    path = [graph.layers[name] for name in _path_around(graph, tensor)]
    if not path:
        return "not every path from input to output passes it"
    if len(path) == 1:
        return f"the model's output {path[0]} does not depend on it"
    return f"the path {' -> '.join(path if len(path) <= 5 else [*path[:2], '..', *path[-2:]])} bypasses it"


def _path_around(graph: Graph, tensor: str) -> list[str]:
    """Find a shortest path of activations from before a tensor (or an input) to after it (or an output).

    Breadth first, from all that comes before at once, latest first; linear in the graph.
    """
    readers: dict[str, list[Node]] = {}
    producers: dict[str, Node] = {}
    sources = [name for name in graph.inputs if name != tensor]
    for node in graph.nodes:
        read = activations(graph, node)
        for name in read:
            readers.setdefault(name, []).append(node)
        for name in node.outputs:
            producers[name] = node
        if not read:
            sources += [name for name in node.outputs if name and name != tensor]

    before = _closure([tensor], lambda name: activations(graph, producers[name]) if name in producers else [])
    behind = _closure([tensor], lambda name: [made for node in readers.get(name, ()) for made in node.outputs])
    del before[tensor], behind[tensor]
    order = {name: index for index, name in enumerate(producers)}
    starts = sorted(before, key=lambda name: order.get(name, -1), reverse=True)
    came_from: dict[str, str] = dict.fromkeys([*starts, *sources], "")
    queue = deque(came_from)
    goals = behind.keys() | set(graph.outputs)
    while queue:
        name = queue.popleft()
        if name in goals:
            path = [name]
            while came_from[path[-1]]:
                path.append(came_from[path[-1]])
            return path[::-1]
        for node in readers.get(name, ()):
            for made in node.outputs:
                if made and made != tensor and made not in came_from:
                    came_from[made] = name
                    queue.append(made)
    return []


def _closure(start: Iterable[str], step: Callable[[str], Iterable[str]]) -> dict[str, None]:
    """Return everything that can be reached by repeating a step, including the start."""
    reached = dict.fromkeys(start)
    stack = list(reached)
    while stack:
        for name in step(stack.pop()):
            if name and name not in reached:
                reached[name] = None
                stack.append(name)
    return reached


def _close(name: str, names: list[str]) -> list[str]:
    """Return up to three similar names: those that contain the given one, else those with a similar spelling."""
    known = list(dict.fromkeys(names))
    holding = [each for each in known if name.lower() in each.lower()] if name else []
    return holding[:3] if holding else get_close_matches(name, known, n=3)
