"""Drop chains of rearrangements that change nothing.

1. A *round trip* is a chain of rearrangements (slices, splits, gathers, reshapes, transposes, concatenations) whose
   result holds every element of the tensor it starts from, in the same order and shape: a Gather of all channels in
   order, two reversals, a Split whose parts are concatenated again.
2. The readers of the result read the start instead. Where the result is an output of the model that cannot take the
   place of the start, an Identity makes it.
3. Whether a chain is one is found by sending the numbers 0 .. n - 1 through it. Elements that change places and come
   back through anything but rearrangements are not looked for.
"""

from __future__ import annotations

from math import prod

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.picks import LONGEST_CHAIN, number_map
from graphcut.graph.passes.rearrange import REARRANGING, Index, rearranged, without_output
from graphcut.records import Node


def drop_round_trips(net: Net) -> int:
    """Let the readers of every round trip's result read its start; returns the number of round trips."""
    matches = 0
    for node in net.walk(*REARRANGING, "Concat"):
        for tensor in node.outputs:
            start = _start(net, node, tensor) if tensor else None
            if start is not None:
                _drop(net, net.node(node.name), tensor, start)
                matches += 1
    if matches:
        net.sweep()
    return matches


def _start(net: Net, node: Node, tensor: str) -> str | None:
    """The farthest tensor of which ``tensor`` holds every element in its place; None where there is none."""
    shape = net.shape(tensor)
    if shape is None:
        return None
    if node.op_type == "Concat":
        found = number_map(net, tensor) if len(node.inputs) > 1 else None
        return found[0] if found is not None and _in_order(found[1]) and net.shape(found[0]) == shape else None
    chain: list[tuple[Node, str]] = []
    current = tensor
    for _ in range(LONGEST_CHAIN):
        maker = net.producer(current)
        if maker is None or maker.op_type not in REARRANGING:
            break
        chain.insert(0, (maker, current))
        current = maker.inputs[0]
    for position, (first, _) in enumerate(chain):
        start = first.inputs[0]
        if net.shape(start) == shape and start not in net.weights and _returns(net, start, chain[position:]):
            return start
    return None


def _returns(net: Net, start: str, chain: list[tuple[Node, str]]) -> bool:
    """Whether a chain brings every element back to its place (statement 3)."""
    shape = net.shape(start)
    assert shape is not None
    result = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    for node, output in chain:
        moved = rearranged(net, node, result, node.outputs.index(output))
        if moved is None:
            return False
        result = moved
    return _in_order(result)


def _in_order(numbers: Index) -> bool:
    return bool(np.array_equal(numbers.reshape(-1), np.arange(numbers.size)))


def _drop(net: Net, node: Node, tensor: str, start: str) -> None:
    """Take a round trip out (statement 2)."""
    if tensor not in net.outputs:
        net.reread(tensor, start)
    elif len(node.outputs) > 1 or not net.bypass(node, start):
        name = net.fresh(f"{node.name}_same")
        same = Node(name=name, op_type="Identity", inputs=(start,), outputs=(tensor,), attributes={})
        net.replace([node], [*without_output(net, node, tensor), same])


DROP_ROUND_TRIPS = Pass(
    name="drop-round-trips",
    reason="a Gather of everything in order or a double reversal computes nothing, but the converter keeps it",
    apply=drop_round_trips,
)
