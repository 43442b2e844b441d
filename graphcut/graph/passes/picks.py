"""Picks: activations that hold some channels of another one.

1. A *pick* is an activation (1, C', H, W) that holds some channels of another one (1, C, H, W), unchanged, in some
   order: channel j of the one is channel ``index[j]`` of the other. Slice, Split and Gather over channels are picks,
   and so is a shuffle (Reshape, Transpose, Reshape), and whatever they are chained to.
2. Which pick a chain of rearrangements makes is found by sending the numbers 0 .. C*H*W - 1 through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from graphcut.graph.net import Net
from graphcut.graph.passes.rearrange import REARRANGING, rearranged
from graphcut.records import Node

Index = npt.NDArray[np.int64]

LONGEST_CHAIN = 8
"""Rearrangements followed upwards from one tensor; a shuffle with its split has five."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """``tensor`` holds the channels ``index`` of ``root`` (statement 1)."""

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
    if not _is_map(net, tensor) or net.dtype(tensor) != "float32":
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
        if not _is_map(net, root):
            continue
        index = _index(net, root, chain[start:])
        if index is not None and not np.array_equal(index, np.arange(channels_of(net, root))):
            return Pick(root=root, tensor=tensor, index=index)
    return None


def _is_map(net: Net, tensor: str) -> bool:
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
