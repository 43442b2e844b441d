"""Graphs made in tests: random ones for hypothesis, and long ones for speed. Records only, no weights' values."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate

from hypothesis import strategies as st

from graphcut.prediction.sizes import Sizes
from graphcut.records import Graph, Node, Shape, Tensor

MAP: Shape = (1, 8, 6, 6)


def from_nodes(node_bytes: Sequence[int], node_weights: Sequence[int], base_bytes: int) -> Sizes:
    """Return sizes from the bytes and weight bytes that each node adds."""
    return Sizes(
        prefix_bytes=(0, *accumulate(node_bytes)),
        base_bytes=base_bytes,
        prefix_weights=(0, *accumulate(node_weights)),
    )


class Builder:
    """Grows a graph node by node; every output's layer name is the tensor's without its ":0"."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.inputs: list[str] = []
        self.tensors: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}

    def input(self, name: str, shape: Shape = (1, 3, 12, 12)) -> str:
        self.inputs.append(name)
        return self._tensor(name, shape, "float32")

    def weight(self, name: str, shape: Shape, dtype: str = "float32") -> str:
        self.weights[name] = Tensor(name=name, shape=shape, dtype=dtype)
        return name

    def node(self, op_type: str, reads: list[str], *makes: str, shape: Shape = MAP, dtype: str = "float32") -> str:
        """Add a node and give its first output."""
        outputs = tuple(self._tensor(name, shape, dtype) for name in makes)
        self.nodes.append(
            Node(name=f"node_{makes[0]}", op_type=op_type, inputs=tuple(reads), outputs=outputs, attributes={})
        )
        return outputs[0]

    def conv(self, reads: str, makes: str, weights: int = 8, shape: Shape = MAP) -> str:
        return self.node("Conv", [reads, self.weight(f"{makes}/w", (weights,))], makes, shape=shape)

    def graph(self, *outputs: str) -> Graph:
        return Graph(
            nodes=tuple(self.nodes),
            inputs=tuple(self.inputs),
            outputs=outputs,
            tensors=self.tensors,
            weights=self.weights,
            layers={name: name.removesuffix(":0") for name in self.tensors},
        )

    def _tensor(self, name: str, shape: Shape, dtype: str) -> str:
        self.tensors[name] = Tensor(name=name, shape=shape, dtype=dtype)
        return name


_SHAPES: list[Shape] = [MAP, MAP, MAP, (1, 16, 3, 3), (1, 8, 6, 6), (1, 12), (1, 2, 2, 6, 6), (4, 8, 3, 3)]


@st.composite
def dags(draw: st.DrawFn, max_nodes: int = 12) -> Graph:
    """Random graphs without dead nodes: skips, several inputs and outputs, shared weights, nodes of two outputs."""
    build = Builder()
    alive = [build.input(f"in{index}") for index in range(draw(st.sampled_from([1, 1, 1, 2])))]
    for index in range(draw(st.integers(1, max_nodes))):
        op = draw(st.sampled_from(["Conv", "Conv", "Relu", "Relu", "Add", "Concat", "Split", "MaxPool", "Random"]))
        near = st.sampled_from(alive[-3:] if draw(st.booleans()) else alive[-1:])
        reads = [draw(near)]
        if op in ("Add", "Concat"):
            reads.append(draw(st.sampled_from(alive)))
        if op == "Conv":
            weight = f"w{draw(st.integers(0, 9))}"
            reads.append(build.weight(weight, (3 + int(weight[1:]),)))
        if op == "Random" and not draw(st.booleans()):
            op = "Relu"
        makes = [f"t{index}:0"] + ([f"t{index}_1:0"] if op == "Split" else [])
        dtype = draw(st.sampled_from(["float32"] * 9 + ["int64"]))
        build.node(op, [] if op == "Random" else reads, *makes, shape=draw(st.sampled_from(_SHAPES)), dtype=dtype)
        alive += makes
    read = {name for node in build.nodes for name in node.inputs}
    ends = [node.outputs[-1] for node in build.nodes if not read & set(node.outputs)]
    extra = draw(st.lists(st.sampled_from([name for node in build.nodes for name in node.outputs]), max_size=1))
    more = extra if draw(st.integers(0, 4)) == 0 else []
    return build.graph(*dict.fromkeys([*ends, *more]))


def reordered(graph: Graph, seed: int) -> Graph:
    """Put the nodes of a graph into another topological order."""
    chance = random.Random(seed)
    known = {*graph.inputs, *graph.weights, ""}
    left = list(graph.nodes)
    order: list[Node] = []
    while left:
        node = chance.choice([node for node in left if known.issuperset(node.inputs)])
        left.remove(node)
        known.update(node.outputs)
        order.append(node)
    return Graph(
        nodes=tuple(order),
        inputs=graph.inputs,
        outputs=graph.outputs,
        tensors=graph.tensors,
        weights=graph.weights,
        layers=graph.layers,
    )


@st.composite
def chains(draw: st.DrawFn, max_nodes: int = 11) -> tuple[Graph, Sizes]:
    """Make a graph in which most tensors are candidates, with sizes in which ties and weightless nodes occur.

    A file has at least a byte around its content: certificates refuse segments predicted to be empty files.
    """
    build = Builder()
    last = build.input("in")
    shapes: list[Shape] = [(1, 8, 6, 6), (1, 16, 3, 3), (1, 2, 6, 6), (1, 4, 12, 12), (1, 20)]
    count = draw(st.integers(1, max_nodes))
    node_bytes, node_weights = [], []
    for index in range(count):
        op = draw(st.sampled_from(["Conv", "Conv", "Relu", "Add", "MaxPool"]))
        shape = draw(st.sampled_from(shapes))
        if op == "Conv":
            weights = draw(st.integers(0, 60))
            last = build.conv(last, f"t{index}:0", weights, shape)
        else:
            weights = 0
            skip = build.nodes[-1].inputs[0] if op == "Add" and build.nodes else last
            last = build.node(op, [last, skip] if op == "Add" else [last], f"t{index}:0", shape=shape)
        node_weights.append(weights)
        node_bytes.append(weights + draw(st.integers(0, 3)))
    return build.graph(last), from_nodes(node_bytes, node_weights, draw(st.integers(1, 5)))


def residual_chain(blocks: int, weights: int = 1000) -> Graph:
    """Blocks of Conv, Relu, Conv, Add, Relu with a skip around the first four: five nodes each."""
    build = Builder()
    last = build.input("in", (1, 8, 6, 6))
    for index in range(blocks):
        name = f"b{index}"
        first = build.conv(last, f"{name}_conv1:0", weights)
        first = build.node("Relu", [first], f"{name}_relu1:0")
        second = build.conv(first, f"{name}_conv2:0", weights)
        merged = build.node("Add", [second, last], f"{name}_add:0")
        last = build.node("Relu", [merged], f"{name}_out:0")
    return build.graph(last)


def dense_chain(blocks: int, width: int = 8) -> Graph:
    """Stages in which every Conv reads a Concat of all before it in the stage, then a Conv closes the stage."""
    build = Builder()
    last = build.input("in", (1, 8, 6, 6))
    for index in range(blocks):
        made = [last]
        for step in range(width):
            joined = build.node("Concat", list(made), f"s{index}_{step}_concat:0")
            made.append(build.conv(joined, f"s{index}_{step}_conv:0", 100))
        joined = build.node("Concat", list(made), f"s{index}_concat:0")
        last = build.conv(joined, f"s{index}_out:0", 100)
    return build.graph(last)


def sizes_of(graph: Graph, *, per_node: int = 600, base: int = 1000) -> Sizes:
    """Sizes from the weights and a fixed sum for every node."""
    weights = [
        sum(graph.weights[name].elements for name in node.inputs if name in graph.weights) for node in graph.nodes
    ]
    return from_nodes([each + per_node for each in weights], weights, base)


def resnet101() -> Graph:
    """Build the graph of keras.applications.ResNet101 at 224 x 224, batch normalisations folded into the Convs."""
    build = Builder()

    def conv(reads: str, makes: str, kernel: int, out: int, size: int, *, relu: bool = True) -> str:
        channels = build.tensors[reads].shape[1]
        names = [build.weight(f"{makes}/w", (out, channels, kernel, kernel)), build.weight(f"{makes}/b", (out,))]
        made = build.node("Conv", [reads, *names], f"{makes}:0", shape=(1, out, size, size))
        return build.node("Relu", [made], f"{makes}_relu:0", shape=(1, out, size, size)) if relu else made

    last = conv(build.input("input", (1, 3, 224, 224)), "conv1", 7, 64, 112)
    last = build.node("MaxPool", [last], "pool1_pool:0", shape=(1, 64, 56, 56))
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (23, 256), (3, 512)], start=2):
        size = 224 >> stage
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            skip = conv(last, f"{name}_0", 1, 4 * width, size, relu=False) if block == 1 else last
            inner = conv(last, f"{name}_1", 1, width, size)
            inner = conv(inner, f"{name}_2", 3, width, size)
            inner = conv(inner, f"{name}_3", 1, 4 * width, size, relu=False)
            added = build.node("Add", [skip, inner], f"{name}_add:0", shape=(1, 4 * width, size, size))
            last = build.node("Relu", [added], f"{name}_out:0", shape=(1, 4 * width, size, size))
    pooled = build.node("GlobalAveragePool", [last], "avg_pool:0", shape=(1, 2048, 1, 1))
    flat = build.node("Flatten", [pooled], "flatten:0", shape=(1, 2048))
    weights = [build.weight("predictions/w", (2048, 1000)), build.weight("predictions/b", (1000,))]
    logits = build.node("Gemm", [flat, *weights], "logits:0", shape=(1, 1000))
    return build.graph(build.node("Softmax", [logits], "predictions:0", shape=(1, 1000)))
