"""Picks: activations that consist of some channels of another one.

1. A *pick* is an activation (1, C', H, W) that consists of some channels of another one (1, C, H, W), unchanged, in
   some order: channel j of the one is channel ``index[j]`` of the other. Slice, Split and Gather over channels are
   picks, and so are a shuffle (Reshape, Transpose, Reshape) and chains of these.
2. Which pick a chain of rearrangements makes is found by sending the numbers 0 .. C*H*W - 1 through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer
from graphcut.graph.passes.rearrange import REARRANGING, rearranged
from graphcut.records import Node

Index = npt.NDArray[np.int64]

LONGEST_CHAIN = 8
"""The most rearrangements followed upwards from one tensor; a shuffle with its split has five."""
MOST_TENSORS = 32
"""The most tensors examined for one space-to-depth; YOLO's Focus has seven, blocks of 4 x 4 pixels 21."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """``tensor`` is the channels ``index`` of ``root`` (statement 1)."""

    root: str
    tensor: str
    index: Index


def find_picks(net: Net) -> list[Pick]:
    """All picks that anything but another rearrangement reads, in order."""
    return [pick for node in net.nodes if node.op_type in REARRANGING for pick in _picks_of(net, node)]


def channels_of(net: Net, tensor: str) -> int:
    """Number of channels of a rank-4 activation."""
    shape = net.shape(tensor)
    assert shape is not None
    return shape[1]


def _picks_of(net: Net, node: Node) -> list[Pick]:
    found = []
    for tensor in node.outputs:
        readers = net.readers(tensor)
        if not tensor or (tensor not in net.outputs and all(item.op_type in REARRANGING for item in readers)):
            continue
        pick = _pick(net, tensor)
        if pick is not None:
            found.append(pick)
    return found


def _pick(net: Net, tensor: str) -> Pick | None:
    """A tensor as a pick of the farthest tensor above it that it is a pick of; None where there is none."""
    if not is_map(net, tensor) or net.dtype(tensor) != "float32":
        return None
    chain: list[tuple[Node, str]] = []
    current = tensor
    for _ in range(LONGEST_CHAIN):
        node = net.producer(current)
        if node is None or node.op_type not in REARRANGING:
            break
        chain.insert(0, (node, current))
        current = node.inputs[0]
    for start in range(len(chain)):
        root = chain[start][0].inputs[0]
        if not is_map(net, root):
            continue
        index = _index(net, root, chain[start:])
        if index is not None and not np.array_equal(index, np.arange(channels_of(net, root))):
            return Pick(root=root, tensor=tensor, index=index)
    return None


def is_map(net: Net, tensor: str) -> bool:
    """Whether a tensor is an activation (1, C, H, W)."""
    shape = net.shape(tensor)
    return shape is not None and len(shape) == 4 and shape[0] == 1 and tensor not in net.weights


def _index(net: Net, root: str, chain: list[tuple[Node, str]]) -> Index | None:
    """Which channel of ``root`` each channel at the chain's end holds (statement 2); None where it is no pick."""
    shape = net.shape(root)
    assert shape is not None
    numbers = np.arange(prod(shape), dtype=np.int64).reshape(shape)
    result = numbers
    for node, output in chain:
        moved = rearranged(net, node, result, node.outputs.index(output))
        if moved is None:
            return None
        result = moved
    if result.ndim != 4 or result.shape[2:] != shape[2:]:
        return None
    area = shape[2] * shape[3]
    index: Index = result[0, :, 0, 0] // area
    return index if np.array_equal(result, numbers[:, index]) else None


def number_map(net: Net, tensor: str, also: frozenset[str] = frozenset()) -> tuple[str, Index] | None:
    """The nearest map that a tensor only rearranges, and which of its elements, numbered, the tensor holds.

    Follows rearrangements and concatenations of them upwards, all of which have to begin at the same map.

    Args:
        net, tensor: where to look.
        also: operators to follow beside those that rearrange (:data:`graphcut.graph.passes.rearrange.REPEATING`).
    """
    root = common_root(net, tensor, also)
    if root is None:
        return None
    shape = net.shape(root)
    assert shape is not None
    numbers = _numbers(net, tensor, {root: np.arange(prod(shape), dtype=np.int64).reshape(shape)}, LONGEST_CHAIN)
    return None if numbers is None else (root, numbers)


def common_root(net: Net, tensor: str, also: frozenset[str] = frozenset()) -> str | None:
    """The one tensor that is left when rearrangements and concatenations are followed to their ends."""
    ends: set[str] = set()
    waiting, seen = [tensor], {tensor}
    while waiting:
        current = waiting.pop()
        node = net.producer(current)
        if node is None or node.op_type not in REARRANGING | also | {"Concat"}:
            ends.add(current)
        elif len(seen) > MOST_TENSORS:
            return None
        else:
            sources = node.inputs if node.op_type == "Concat" else node.inputs[:1]
            waiting += [name for name in sources if name not in seen]
            seen.update(sources)
    root = ends.pop() if len(ends) == 1 else None
    return root if root is not None and root != tensor and is_map(net, root) else None


def _numbers(net: Net, tensor: str, known: dict[str, Index], depth: int) -> Index | None:
    if tensor in known:
        return known[tensor]
    node = net.producer(tensor)
    if node is None or depth == 0:
        return None
    if node.op_type == "Concat":
        parts = [_numbers(net, name, known, depth - 1) for name in node.inputs]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return None
        result: Index | None = np.concatenate(whole, axis=integer(node, "axis", 0))
    else:
        source = _numbers(net, node.inputs[0], known, depth - 1)
        result = None if source is None else rearranged(net, node, source, node.outputs.index(tensor))
    if result is not None:
        known[tensor] = result
    return result
