"""Measure time and memory of analysis and planning on generated graphs of 1,000 to 100,000 nodes.

1. *residual*: blocks of Conv, Relu, Conv, Add, Relu with a skip around the first four, one after the other.
2. *dense*: stages in which every Conv reads a Concat of all maps before it in the stage, eight of them.
3. *skips*: the residual chain with a map of its first block added in its last one, so that two tensors are alive
   everywhere, no single one separates anything, and plans need seams of two.

The time covers what ``graphcut plan`` does between loading a model and showing the plan: predicted sizes, candidates,
orders, and the plan for a budget of a twentieth of the whole. Each graph is measured in a separate process, whose peak
memory is shown. The exit code is 1 if the largest graph exceeds the limits.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from graphcut.planning.make_plan import plan, whole_bytes
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import arrange
from graphcut.prediction.sizes import predict
from graphcut.records import Graph, Node, Shape, Tensor
from graphcut.report.tables import table
from graphcut.units import MIB

NODES = (1_000, 10_000, 100_000)
MOST_SECONDS = 5.0
MOST_BYTES = 512 * MIB
MAP: Shape = (1, 8, 6, 6)
SEGMENTS = 20


class Grower:
    """Builds a graph node by node; every activation is a map of the same shape."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        self.input = self._tensor("input", MAP)

    def add(self, op_type: str, *reads: str) -> str:
        """Add a node; each Conv gets its own weights."""
        name = f"{op_type.lower()}{len(self.nodes)}"
        inputs = list(reads)
        channels = sum(self.tensors[read].shape[1] for read in reads)
        if op_type == "Conv":
            for kind, shape in (("w", (MAP[1], channels, 3, 3)), ("b", (MAP[1],))):
                self.weights[f"{name}/{kind}"] = Tensor(name=f"{name}/{kind}", shape=shape, dtype="float32")
                inputs.append(f"{name}/{kind}")
        made = (1, channels if op_type == "Concat" else MAP[1], *MAP[2:])
        attributes: dict[str, object] = {"axis": 1} if op_type == "Concat" else {}
        if op_type == "Conv":
            attributes = {"pads": (1, 1, 1, 1), "kernel_shape": (3, 3)}
        self.nodes.append(
            Node(name=name, op_type=op_type, inputs=tuple(inputs), outputs=(name,), attributes=attributes)
        )
        return self._tensor(name, made)

    def graph(self, output: str) -> Graph:
        """Return the graph built so far."""
        return Graph(
            nodes=tuple(self.nodes),
            inputs=(self.input,),
            outputs=(output,),
            tensors=self.tensors,
            weights=self.weights,
            layers={name: name for name in self.tensors},
        )

    def _tensor(self, name: str, shape: Shape) -> str:
        self.tensors[name] = Tensor(name=name, shape=shape, dtype="float32")
        return name


def residual(nodes: int) -> Graph:
    """Build the graph of statement 1."""
    grow = Grower()
    return grow.graph(_blocks(grow, grow.input, nodes))


def skips(nodes: int) -> Graph:
    """Build the graph of statement 3."""
    grow = Grower()
    first = _blocks(grow, grow.input, 5)
    return grow.graph(grow.add("Add", _blocks(grow, first, nodes - 1), first))


def dense(nodes: int) -> Graph:
    """Build the graph of statement 2."""
    grow = Grower()
    last = grow.input
    while len(grow.nodes) < nodes:
        maps = [last]
        while len(maps) < 9:
            maps.append(grow.add("Conv", grow.add("Concat", *maps)))
        last = grow.add("Conv", grow.add("Concat", *maps))
    return grow.graph(last)


def _blocks(grow: Grower, last: str, nodes: int) -> str:
    while len(grow.nodes) < nodes:
        inner = grow.add("Conv", grow.add("Relu", grow.add("Conv", last)))
        last = grow.add("Relu", grow.add("Add", inner, last))
    return last


SHAPES: dict[str, Callable[[int], Graph]] = {"residual": residual, "dense": dense, "skips": skips}


def measure(shape: str, nodes: int) -> tuple[int, int, int, float, int]:
    """Plan one graph; return its nodes, K, the most tensors at a cut, seconds, and the peak memory in bytes."""
    graph = SHAPES[shape](nodes)
    few = SHAPES[shape](NODES[0])
    options = PlanOptions(budget_bytes=whole_bytes(predict(few)) * len(graph.nodes) // len(few.nodes) // SEGMENTS)
    begin = time.perf_counter()
    arranged = arrange(graph, options, predict)
    made = plan(arranged.analysis, arranged.sizes, options)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # in KiB on Linux
    return len(graph.nodes), made.k, made.seam_tensors, seconds, peak


def main() -> int:
    """Measure all graphs and print the table."""
    rows = []
    failed = []
    for shape in SHAPES:
        before = None
        for wanted in NODES:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                nodes, k, tensors, seconds, peak = process.submit(measure, shape, wanted).result()
            ratio = "" if before is None else f"{seconds / before:.1f}"
            before = seconds
            cells = (shape, f"{nodes:,}", str(k), str(tensors), f"{seconds:.2f}", ratio, f"{peak / MIB:.0f}")
            rows.append(cells)
            if wanted == NODES[-1] and (seconds > MOST_SECONDS or peak > MOST_BYTES):
                failed.append(f"{shape} took {seconds:.1f} s and {peak / MIB:.0f} MiB")
    headers = ("graph", "nodes", "K", "seam tensors", "seconds", "x before", "peak MiB")
    print(table(headers, rows, right=headers[1:]))
    print(f"limits for {NODES[-1]:,} nodes: {MOST_SECONDS:g} s, {MOST_BYTES // MIB} MiB")
    for line in failed:
        print(f"past them: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
