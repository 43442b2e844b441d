"""Where the graph can be cut, and why not elsewhere.

1. A *candidate* is an activation that every path from any input of the graph to any of its outputs passes: it
   dominates the outputs. All branches have merged there, so it alone crosses the cut (graphcut.stages.frontier has
   the theorem, and the proof that ``nodes[:position]`` are exactly its producer and the producer's ancestors,
   whatever the topological order).
2. It is no input or output of the graph, has a static shape of rank ``min_rank`` to 4, batch 1, and is float.
   Where a node has several outputs, one of them is a candidate only if it carries everything by itself, which
   statement 1 says already.
3. A candidate whose only reader would be fused into its producer (Conv + Relu, Conv + Clip, a batch normalisation
   or a bias behind a convolution) is marked ``pre_activation``: a cut there would keep the two apart. Which pairs
   fuse is the TFLite schema's ActivationFunctionType and the operators that have such a field.
4. Weight bytes are one byte an element of floating-point initialisers. Single numbers (the bounds of a Clip, a factor)
   are no weights. A weight that several nodes read counts once in ``weight_bytes_before`` and once in each
   ``weight_bytes_between`` in which it is read.

Not seen here: the values of weights, so every Clip counts as one that fuses; the layout, so a tensor between two
transposes is a candidate like any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from math import prod

from graphcut.errors import ModelError, UsageError
from graphcut.records import Analysis, Candidate, Graph, Node, Tensor
from graphcut.stages.frontier import Lifetimes, lifetimes
from graphcut.units import format_bytes

MAX_RANK = 4
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_ACTIVATIONS = frozenset({"Relu", "Clip"})
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_TAKE_ACTIVATIONS = _LINEAR | {"Add", "Sub", "Mul", "Div", "BatchNormalization", "MaxPool", "AveragePool"}


def analyse(graph: Graph, *, min_rank: int = 4) -> Analysis:
    """Find the candidates, by rising position; linear in the graph.

    Args:
        graph: normalised.
        min_rank: 4 for feature maps only; 2 also takes the vectors around the global pool and the dense layers.

    Raises:
        ModelError: the graph has no operators.
    """
    if not graph.nodes:
        raise ModelError("the model has no operators", "there is nothing to split")
    life = lifetimes(graph)
    sizes = {
        name: tensor.elements
        for name, tensor in graph.weights.items()
        if tensor.dtype in _FLOATS and tensor.elements > 1
    }
    input_area = _input_area(graph)
    barred = {*graph.inputs, *graph.outputs}
    candidates: list[Candidate] = []
    before: set[str] = set()
    between: set[str] = set()
    bytes_before = bytes_between = 0
    for position, node in enumerate(graph.nodes, start=1):
        for weight in sizes.keys() & node.inputs:
            if weight not in before:
                before.add(weight)
                bytes_before += sizes[weight]
            if weight not in between:
                between.add(weight)
                bytes_between += sizes[weight]
        if life.counts[position] != 1:
            continue
        name = next((output for output in node.outputs if output and life.last[output] >= position), None)
        if name is None or name in barred or _unfit(graph.tensors[name], min_rank):
            continue
        tensor = graph.tensors[name]
        candidates.append(
            Candidate(
                tensor=name,
                layer=graph.layers[name],
                position=position,
                shape=tensor.shape,
                dtype=tensor.dtype,
                int8_bytes=tensor.elements,
                merged=_merged(graph, life, node),
                downsampled=prod(tensor.shape[2:]) < input_area,
                pre_activation=_pre_activation(graph, life, position),
                weight_bytes_before=bytes_before,
                weight_bytes_between=bytes_between,
            )
        )
        between.clear()
        bytes_between = 0
    return Analysis(graph=graph, candidates=tuple(candidates))


def find_tensor(graph: Graph, name: str) -> str:
    """Give the ONNX tensor that a layer name, a tensor name or the name of a node with one output stands for.

    Raises:
        UsageError: there is none; the message offers the closest names.
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
        f"no tensor or layer is called {name!r}",
        f"did you mean {' or '.join(close)}?" if close else "`graphcut inspect` lists the layers",
    )


def why(graph: Graph | Analysis, name: str, *, min_rank: int = 4) -> str:
    """Say in one sentence why a tensor or layer is a candidate or is none.

    Raises:
        UsageError: nothing is called so.
    """
    graph = graph.graph if isinstance(graph, Analysis) else graph
    tensor = find_tensor(graph, name)
    if tensor in graph.weights:
        return f"{tensor} is no candidate: it is a weight, not an activation"
    shown = graph.layers[tensor]
    for names, role in ((graph.inputs, "an input"), (graph.outputs, "an output")):
        if tensor in names:
            return f"{shown} is no candidate: it is {role} of the model, so there is nothing to cut off"
    life = lifetimes(graph)
    position = life.first[tensor]
    if not life.readers[tensor]:
        return f"{shown} is no candidate: nothing reads it"
    if life.counts[position] != 1:
        return f"{shown} is no candidate: {_detour(graph, tensor)}"
    if unfit := _unfit(graph.tensors[tensor], min_rank):
        return f"{shown} is no candidate: {unfit}"
    found = f"{shown} is a candidate: every path from input to output passes it after {position} of {len(graph.nodes)}"
    found += f" operators ({_shape(graph.tensors[tensor])}, {format_bytes(graph.tensors[tensor].elements)} at int8)"
    if _pre_activation(graph, life, position):
        behind = graph.nodes[life.last[tensor]]
        found += (
            f"; plans cut behind {graph.layers[behind.outputs[0]]} instead, whose {behind.op_type} is fused into it"
        )
    return found


def _unfit(tensor: Tensor, min_rank: int) -> str:
    """Say what keeps a tensor's type from being a candidate's (statement 2); empty where nothing does."""
    rank = len(tensor.shape)
    if any(size < 1 for size in tensor.shape):
        return f"its shape {_shape(tensor)} is not static"
    if tensor.dtype not in _FLOATS:
        return f"it holds {tensor.dtype}, and only floating-point activations can be quantised at a seam"
    if rank < min_rank:
        return f"it has rank {rank} ({_shape(tensor)}), and cuts are taken from rank {min_rank}"
    if rank > MAX_RANK:
        return f"it has rank {rank} ({_shape(tensor)}), and cuts are taken up to rank {MAX_RANK}"
    if rank and tensor.shape[0] != 1:
        return f"its first dimension is {tensor.shape[0]} ({_shape(tensor)}), not a batch of 1"
    return ""


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) if size > 0 else "?" for size in tensor.shape) or "scalar"


def _input_area(graph: Graph) -> int:
    """Give H x W of the largest image among the inputs, 0 where none is an image."""
    shapes = [graph.tensors[name].shape for name in graph.inputs]
    return max((prod(shape[2:]) for shape in shapes if len(shape) == 4), default=0)


def _activations(graph: Graph, node: Node) -> list[str]:
    """Give the activations a node reads, each once, in order."""
    return [name for name in dict.fromkeys(node.inputs) if name and name not in graph.weights]


def _fuses(graph: Graph, producer: Node, reader: Node) -> bool:
    """Tell whether converters fuse the reader into the producer (statement 3)."""
    if reader.op_type in _ACTIVATIONS:
        return producer.op_type in _TAKE_ACTIVATIONS
    if reader.op_type == "BatchNormalization":
        return producer.op_type in _LINEAR
    return reader.op_type == "Add" and producer.op_type in _LINEAR and len(_activations(graph, reader)) == 1


def _pre_activation(graph: Graph, life: Lifetimes, position: int) -> bool:
    """Tell whether the candidate at a position has one reader only, and that one is fused."""
    producer = graph.nodes[position - 1]
    name = next(output for output in producer.outputs if output and life.last[output] >= position)
    return life.readers[name] == 1 and _fuses(graph, producer, graph.nodes[life.last[name]])


def _merged(graph: Graph, life: Lifetimes, node: Node) -> bool:
    """Tell whether branches meet in the node, or in the one into which it is fused."""
    read = _activations(graph, node)
    if len(read) != 1 or not life.first[read[0]]:
        return len(read) > 1
    producer = graph.nodes[life.first[read[0]] - 1]
    return life.readers[read[0]] == 1 and _fuses(graph, producer, node) and _merged(graph, life, producer)


def _detour(graph: Graph, tensor: str) -> str:
    """Name a shortest path of layers that goes around a tensor."""
    path = [graph.layers[name] for name in _path_around(graph, tensor)]
    if not path:
        return "not every path from input to output passes it"
    if len(path) == 1:
        return f"the model's output {path[0]} does not pass it"
    return f"the path {' -> '.join(path if len(path) <= 5 else [*path[:2], '..', *path[-2:]])} goes around it"


def _path_around(graph: Graph, tensor: str) -> list[str]:
    """Find a shortest path of activations from before a tensor (or an input) to behind it (or an output).

    Breadth first, from all that comes before at once, the latest first; linear in the graph.
    """
    readers: dict[str, list[Node]] = {}
    producers: dict[str, Node] = {}
    sources = [name for name in graph.inputs if name != tensor]
    for node in graph.nodes:
        read = _activations(graph, node)
        for name in read:
            readers.setdefault(name, []).append(node)
        for name in node.outputs:
            producers[name] = node
        if not read:
            sources += [name for name in node.outputs if name and name != tensor]

    before = _closure([tensor], lambda name: _activations(graph, producers[name]) if name in producers else [])
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
    """Give all that can be reached by repeating a step, the start included."""
    reached = dict.fromkeys(start)
    stack = list(reached)
    while stack:
        for name in step(stack.pop()):
            if name and name not in reached:
                reached[name] = None
                stack.append(name)
    return reached


def _close(name: str, names: list[str]) -> list[str]:
    """Give up to three names like the wanted one: those that hold it, else those spelt nearly so."""
    known = list(dict.fromkeys(names))
    holding = [each for each in known if name.lower() in each.lower()] if name else []
    return holding[:3] if holding else get_close_matches(name, known, n=3)
