"""Architectures for the tables of docs/explanation/numbers.md: structure-only files, Keras models, and VGG by hand.

Costs depend on shapes, not on weights. Architectures without a structure-only file are exported from Keras if that
extra is installed. VGG16 at 224 pixels has half a gigabyte of unneeded weights, so its graph is built here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphcut import flow
from graphcut.errors import DependencyError
from graphcut.graph.load import load
from graphcut.records import Graph, Node, Shape, Tensor
from tools.edgetpu_published import graph_at

VGG = {
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""Convolutions between two pools."""


class Grower:
    """Builds a chain node by node."""

    def __init__(self, shape: Shape) -> None:
        self.nodes: list[Node] = []
        self.tensors = {"input": Tensor(name="input", shape=shape, dtype="float32")}
        self.weights: dict[str, Tensor] = {}
        self.last = "input"

    def add(self, op_type: str, name: str, shape: Shape, weights: Sequence[Shape] = (), **attributes: object) -> None:
        """Add a node that reads the output of the previous one."""
        read = [self.last]
        for index, each in enumerate(weights):
            read.append(f"{name}/{index}")
            self.weights[read[-1]] = Tensor(name=read[-1], shape=each, dtype="float32")
        node = Node(name=name, op_type=op_type, inputs=tuple(read), outputs=(name,), attributes=attributes)
        self.nodes.append(node)
        self.tensors[name] = Tensor(name=name, shape=shape, dtype="float32")
        self.last = name

    def graph(self) -> Graph:
        """Return the graph built so far."""
        names = {name: name for name in self.tensors}
        return Graph(
            nodes=tuple(self.nodes),
            inputs=("input",),
            outputs=(self.last,),
            tensors=self.tensors,
            weights=self.weights,
            layers=names,
        )


def vgg(name: str, size: int = 224) -> Graph:
    """Return VGG16 or VGG19 as Keras defines them: 3x3 convolutions, pools, three dense layers, a softmax."""
    grow = Grower((1, 3, size, size))
    channels = 3
    for stage, (count, width) in enumerate(zip(VGG[name], (64, 128, 256, 512, 512), strict=True), start=1):
        for number in range(1, count + 1):
            layer, shape = f"block{stage}_conv{number}", (1, width, size, size)
            grow.add("Conv", f"{layer}/conv", shape, [(width, channels, 3, 3), (width,)], pads=(1, 1, 1, 1))
            grow.add("Relu", layer, shape)
            channels = width
        size //= 2
        shape = (1, width, size, size)
        grow.add("MaxPool", f"block{stage}_pool", shape, kernel_shape=(2, 2), strides=(2, 2))
    grow.add("Flatten", "flatten", (1, channels * size * size))
    for layer, read, made in (("fc1", channels * size * size, 4096), ("fc2", 4096, 4096), ("predictions", 4096, 1000)):
        relu = layer != "predictions"
        grow.add("Gemm", f"{layer}/dense" if relu else "logits", (1, made), [(made, read), (made,)], transB=1)
        grow.add("Relu" if relu else "Softmax", layer, (1, made))
    return grow.graph()


def zoo(shared: Path, name: str, size: int) -> Graph:
    """Return the graph of a structure-only file at a square input size."""
    with tempfile.TemporaryDirectory() as work:
        return graph_at(shared / "zoo" / f"{name}.onnx", size, Path(work))


def application(name: str, size: int, cache: Path | None) -> Graph | None:
    """Return the graph of a Keras application; None if the keras extra is not installed."""
    with tempfile.TemporaryDirectory() as work:
        recipe = Path(work) / f"{name}_{size}.toml"
        recipe.write_text(
            f'source = "keras"\napplication = "{name}"\ninput_shape = [{size}, {size}, 3]\nseed = 0\nopset = 17\n\n'
            "[preprocessing]\nmean = [0.0]\nstd = [1.0]\n"
        )
        try:
            return flow.prepare(str(recipe), cache=cache).graph
        except DependencyError:
            return None


def file(path: Path) -> Graph:
    """Return the graph of an ONNX file."""
    return load(path).graph
