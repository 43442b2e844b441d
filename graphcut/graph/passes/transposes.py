"""Make channels-last islands channels-first, which is ONNX's own layout and the one that the converter expects.

1. An *island* is a set of rank-4 activations in NHWC, closed under the operators that connect them: it begins at
   transposes to NHWC or at inputs of the model, ends at transposes to NCHW or at outputs of the model, and every
   operator between has a form in NCHW.
2. Turning an island drops the transposes at its boundary. It is turned only if there is at least one.
3. An input or output of the model that is on an island becomes NCHW itself and is recorded as such.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes import turning
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.turning import TO_NCHW, TO_NHWC
from graphcut.records import Node


@dataclass(slots=True, kw_only=True)
class _Island:
    """An island while it is explored: tensors in NHWC, the operators between them, the transposes at its boundary."""

    tensors: dict[str, None] = field(default_factory=dict)
    inner: dict[str, Node] = field(default_factory=dict)
    arrivals: dict[str, Node] = field(default_factory=dict)
    departures: dict[str, Node] = field(default_factory=dict)
    closed: bool = True


def turn_islands(net: Net) -> int:
    """Turn every channels-last island; returns the number of dropped transposes. Linear: islands do not overlap."""
    seen: set[str] = set()
    starts = [name for name in net.inputs if net.rank(name) == 4]
    starts += [node.outputs[0] for node in net.nodes if _is_transpose(node, TO_NHWC)]
    matches = 0
    for start in starts:
        if start in seen:
            continue
        island = _explore(net, start)
        seen.update(island.tensors)
        if island.closed and (island.arrivals or island.departures):
            _turn(net, island)
            matches += len(island.arrivals) + len(island.departures)
    return matches


def _is_transpose(node: Node, perm: tuple[int, ...]) -> bool:
    return node.op_type == "Transpose" and node.attributes.get("perm") == perm


def _explore(net: Net, start: str) -> _Island:
    """All that is connected to a tensor through operators that do not care about the layout (statement 1)."""
    island = _Island(tensors={start: None})
    waiting = [start]
    while waiting:
        tensor = waiting.pop()
        maker = net.producer(tensor)
        if maker is not None and _is_transpose(maker, TO_NHWC):
            island.arrivals[maker.name] = maker
        elif maker is not None:
            waiting += _join(net, island, maker)
        for reader in net.readers(tensor):
            if _is_transpose(reader, TO_NCHW):
                island.departures[reader.name] = reader
            else:
                waiting += _join(net, island, reader)
    return island


def _join(net: Net, island: _Island, node: Node) -> list[str]:
    """Take an operator into the island; returns the tensors that come with it."""
    if node.name in island.inner:
        return []
    tensors = turning.activations_of(net, node)
    if tensors is None:
        island.closed = False
        return []
    island.inner[node.name] = node
    new = [name for name in tensors if name not in island.tensors]
    island.tensors.update(dict.fromkeys(new))
    return new


def _turn(net: Net, island: _Island) -> None:
    for node in island.inner.values():
        turning.turn(net, node, island.tensors)
    for tensor in island.tensors:
        shape = net.shape(tensor)
        assert shape is not None
        net.set_shape(tensor, tuple(shape[axis] for axis in TO_NCHW))
        if tensor in net.inputs:
            net.nhwc_inputs.add(tensor)
        if tensor in net.outputs:
            net.nhwc_outputs.add(tensor)
    for name in (*island.arrivals, *island.departures):
        node = net.node(name)
        if not net.bypass(node, node.inputs[0]):
            net.replace([node], [replace(node, op_type="Identity", attributes={})])


def merge_transposes(net: Net) -> int:
    """A transpose after a transpose becomes one, or none."""
    matches = 0
    for node in net.walk("Transpose"):
        first = net.producer(node.inputs[0])
        if first is None or first.op_type != "Transpose":
            continue
        perm, before = node.attributes.get("perm"), first.attributes.get("perm")
        if not isinstance(perm, tuple) or not isinstance(before, tuple):
            continue
        merged = tuple(before[axis] for axis in perm)
        if merged == tuple(range(len(merged))):
            matches += net.bypass(node, first.inputs[0])
            continue
        net.replace([node], [replace(node, inputs=first.inputs, attributes={"perm": merged})])
        matches += 1
    if matches:
        net.sweep()
    return matches


def plain_transposes(net: Net) -> int:
    """A transpose that moves only axes of size 1 is a reshape."""
    matches = 0
    for node in net.walk("Transpose"):
        shape, after = net.shape(node.inputs[0]), net.shape(node.outputs[0])
        perm = node.attributes.get("perm")
        if shape is None or after is None or not isinstance(perm, tuple):
            continue
        moved = [axis for axis in perm if shape[axis] != 1]
        if moved != sorted(moved):
            continue
        target = net.add_weight(f"{node.name}_shape", np.array(after, dtype=np.int64))
        net.replace([node], [replace(node, op_type="Reshape", inputs=(*node.inputs, target), attributes={})])
        matches += 1
    return matches


TURN_ISLANDS = Pass(
    name="channels-first",
    reason="every transposition in the file is another one in the converted model, which is channels-last already",
    apply=turn_islands,
)
MERGE_TRANSPOSES = Pass(
    name="merge-transposes",
    reason="two transpositions in a row can be one, or none",
    apply=merge_transposes,
)
PLAIN_TRANSPOSES = Pass(
    name="plain-transposes",
    reason="a transposition of axes of size 1 moves nothing; as a reshape it costs nothing",
    apply=plain_transposes,
)
