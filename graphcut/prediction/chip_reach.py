"""Where a graph leaves the Edge TPU: which nodes have to run on the CPU, and why.

1. A node *leaves the chip* if one of the operators that it becomes (graphcut.prediction.lowering) is computed in float
   or is outside the limits of the Edge TPU (graphcut.edgetpu.limits). Those that depend on values of weights, which are
   not read here, are checked after conversion (graphcut.edgetpu.operator_check).
2. An operator about which the vendor's compiler is known to change its mind (``DOUBTFUL``) leaves the chip only where
   no layer with weights depends on it: there it costs nothing to keep it off.
3. Everything that depends on such a node runs on the CPU too, as the compiler does it. So the graph divides into the
   nodes that the chip runs, and the rest after them.
4. What crosses has to fit a seam (graphcut.analysis.seams, statement 1); a node that makes something else for the rest
   joins the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from graphcut.analysis.seams import fits, unfit
from graphcut.edgetpu.limits import Operand, Operation, limit
from graphcut.errors import InfeasibleError, setting
from graphcut.prediction.lowering import Itemised
from graphcut.prediction.node_attributes import number, numbers
from graphcut.records import Graph, Node, Shape

DOUBTFUL = {"TRANSPOSE": "the compiler leaves it on the CPU in some versions"}
_FLOAT = frozenset({"DEQUANTIZE", "QUANTIZE"})
_NAMES = {"REDUCESUM": "SUM", "REDUCEMIN": "REDUCE_MIN", "LPNORMALIZATION": "L2_NORMALIZATION"}
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class Left(NamedTuple):
    """A node that leaves the chip by itself."""

    op: str
    layer: str
    reason: str

    def __str__(self) -> str:
        """Show it as the notes of a split do."""
        return f"{self.op} {self.layer}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipReach:
    """A graph divided at the end of the chip.

    Attributes:
        graph: with the nodes that the chip runs first, each part in its order.
        border: how many those are.
        left: the nodes that leave the chip by themselves, in order; the others after the border depend on them.
    """

    graph: Graph
    border: int
    left: tuple[Left, ...]


def chip_reach(graph: Graph) -> ChipReach:
    """Divide a graph at the end of the chip; linear in the graph.

    Raises:
        InfeasibleError: no layer with weights comes before the first node that leaves the chip.
    """
    left = dict(_leaving(graph))
    behind = _behind(graph, set(left))
    while unfitting := _unfitting(graph, behind):
        left |= unfitting
        behind = _behind(graph, behind | set(unfitting))
    first = [node for index, node in enumerate(graph.nodes) if index not in behind]
    found = tuple(left[index] for index in sorted(left))
    if found and not any(node.op_type in _WEIGHTED for node in first):
        raise InfeasibleError(
            f"the Edge TPU runs no layer of this model before {found[0]}", f"leave {setting('until')} out"
        )
    rest = [graph.nodes[index] for index in sorted(behind)]
    return ChipReach(graph=replace(graph, nodes=(*first, *rest)) if rest else graph, border=len(first), left=found)


def front(graph: Graph, border: int) -> Graph:
    """The nodes before the border as a graph of its own: what the rest reads is output, as is what it delivers."""
    made = {name for node in graph.nodes[:border] for name in node.outputs}
    read = {name for node in graph.nodes[border:] for name in node.inputs}
    crossing = [name for node in graph.nodes[:border] for name in node.outputs if name in read]
    outputs = tuple(dict.fromkeys((*(name for name in graph.outputs if name in made), *crossing)))
    uint8 = tuple(name for name in graph.uint8 if name in made or name in graph.inputs)
    return replace(graph, nodes=graph.nodes[:border], outputs=outputs, uint8=uint8)


def _leaving(graph: Graph) -> Iterator[tuple[int, Left]]:
    """The nodes of statements 1 and 2, by index."""
    operators = Itemised(graph).nodes
    weighted = _before_weights(graph)
    for index, (node, lowered) in enumerate(zip(graph.nodes, operators, strict=True)):
        layer = graph.layers.get(node.outputs[0], node.outputs[0])
        codes = [_NAMES.get(each.code[0], each.code[0]) for each in lowered]
        kept = [code for code in codes if code not in _FLOAT]
        if "DEQUANTIZE" in codes:
            yield index, Left(kept[0], layer, "it has no int8 form and is computed in float")
            continue
        for code in kept:
            broken = limit(_operation(graph, node, code))
            if broken is not None:
                yield index, Left(code, layer, broken[1])
                break
            if code in DOUBTFUL and index not in weighted:
                yield index, Left(code, layer, DOUBTFUL[code])
                break


def _before_weights(graph: Graph) -> set[int]:
    """Indices of the nodes on which a layer with weights depends."""
    found: set[int] = set()
    wanted: set[str] = set()
    for index in reversed(range(len(graph.nodes))):
        node = graph.nodes[index]
        depended = not wanted.isdisjoint(node.outputs)
        if depended:
            found.add(index)
        if depended or node.op_type in _WEIGHTED:
            wanted.update(node.inputs)
    return found


def _behind(graph: Graph, left: set[int]) -> set[int]:
    """The nodes of statement 3: those that leave the chip, and all that depend on them."""
    found: set[int] = set()
    made: set[str] = set()
    for index, node in enumerate(graph.nodes):
        if index in left or not made.isdisjoint(node.inputs):
            found.add(index)
            made.update(name for name in node.outputs if name)
    return found


def _unfitting(graph: Graph, behind: set[int]) -> dict[int, Left]:
    """Nodes before the border that make something which cannot be handed over (statement 4)."""
    read = {name for index in behind for name in graph.nodes[index].inputs}
    found = {}
    for index, node in enumerate(graph.nodes):
        wrong = [name for name in node.outputs if index not in behind and name in read and not fits(graph, name, 1)]
        if wrong:
            reason = f"its output cannot be handed over ({unfit(graph.tensors[wrong[0]], 1)})"
            found[index] = Left(node.op_type, graph.layers.get(wrong[0], wrong[0]), reason)
    return found


def _operation(graph: Graph, node: Node, code: str) -> Operation:
    """An operator as the limits take it: activations in int8, constants as far as limits need them."""
    fed = [_operand(graph, node, name) for name in node.inputs if name in graph.tensors]
    made = tuple(_operand(graph, node, name) for name in node.outputs if name in graph.tensors)
    height, width = numbers(node, "dilations", 2, 1)[:2] if code.endswith("CONV_2D") else (1, 1)
    options = SimpleNamespace(dilationHFactor=height, dilationWFactor=width, axis=number(node, "axis", 1))
    inputs: tuple[Operand, ...] = tuple(fed)
    if code == "PAD":
        inputs = (*fed, Operand(name="pads", shape=(0, 2), type="INT32", values=()))
    elif code == "SPLIT":
        inputs = (Operand(name="axis", shape=(1,), type="INT32", values=(1,)), *fed)
    elif code == "STRIDED_SLICE":
        places = [Operand(name=name, shape=(1,), type="INT32", values=np.array([1])) for name in ("begin", "end")]
        inputs = (*fed, *places, Operand(name="strides", shape=(1,), type="INT32", values=np.array([2])))
    elif code in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
        inputs = (*fed, Operand(name="axes", shape=(0,), type="INT32", values=_axes(graph, node)))
    return Operation(op=code, version=1, inputs=inputs, outputs=made, options=options)


def _operand(graph: Graph, node: Node, name: str) -> Operand:
    tensor = graph.tensors[name]
    channels_last = not (node.op_type == "Softmax" and number(node, "axis", -1) not in (1, -3))
    return Operand(name=graph.layers.get(name, name), shape=_shape(tensor.shape, channels_last), type="INT8")


def _shape(shape: Shape, channels_last: bool) -> Shape:
    """The shape in a file: maps are NHWC there, but a Softmax over another axis than channels turns them back."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 and channels_last else shape


def _axes(graph: Graph, node: Node) -> tuple[int, ...]:
    """Axes that a reduction of a map reduces, as in the file; none where they are not attributes."""
    axes = node.attributes.get("axes")
    rank = len(graph.tensors[node.inputs[0]].shape)
    if not isinstance(axes, tuple | list):
        return ()
    known = [int(axis) % rank for axis in axes]
    return tuple([{0: 0, 1: 3, 2: 1, 3: 2}[axis] for axis in known]) if rank == 4 else tuple(known)
