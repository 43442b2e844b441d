"""Operators that only move elements, computed on numpy arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import constant_integers, input_at, integer
from graphcut.graph.passes.reshape import RESHAPING
from graphcut.records import Node

Index = npt.NDArray[np.int64]

REARRANGING = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather"})

REPEATING = frozenset({"Tile", "Expand"})
"""Operators whose output can contain an element more than once."""


def rearranged(net: Net, node: Node, data: Index, output: int) -> Index | None:
    """Output ``output`` of a rearranging node whose first input is ``data``; None where it is not constant."""
    if node.op_type in RESHAPING:
        shape = net.shape(node.outputs[0])
        return None if shape is None else data.reshape(shape)
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        return data.transpose(perm) if isinstance(perm, tuple) else data.transpose()
    if node.op_type == "Split":
        return _split(net, node, data, output)
    if node.op_type == "Slice":
        return _sliced(net, node, data)
    if node.op_type == "Tile":
        repeats = constant_integers(net, node, 1)
        return None if repeats is None else np.tile(data, repeats)
    if node.op_type == "Expand":
        shape = net.shape(node.outputs[0])
        return None if shape is None else np.broadcast_to(data, shape)
    if node.op_type == "Gather":
        indices = net.constant(node.inputs[1])
        return (
            None
            if indices is None
            else np.take(data, np.asarray(indices, dtype=np.int64), axis=integer(node, "axis", 0))
        )
    return None


def _split(net: Net, node: Node, data: Index, output: int) -> Index | None:
    axis = integer(node, "axis", 0) % data.ndim
    sizes = []
    for name in node.outputs:
        shape = net.shape(name)
        if shape is None:
            return None
        sizes.append(shape[axis])
    start = sum(sizes[:output])
    return data.take(range(start, start + sizes[output]), axis=axis)


def _sliced(net: Net, node: Node, data: Index) -> Index | None:
    starts, ends = constant_integers(net, node, 1), constant_integers(net, node, 2)
    if starts is None or ends is None:
        return None
    along = constant_integers(net, node, 3) if input_at(node, 3) else tuple(range(len(starts)))
    steps = constant_integers(net, node, 4) if input_at(node, 4) else (1,) * len(starts)
    if along is None or steps is None:
        return None
    for start, end, axis, step in zip(starts, ends, along, steps, strict=True):
        data = data.take(sliced_indices(data.shape[axis], start, end, step), axis=axis)
    return data


def sliced_indices(size: int, start: int, end: int, step: int) -> range:
    """The positions along an axis of ``size`` that a Slice keeps.

    As the specification of Slice-13 clamps them: backwards, a start before the first element is the first element,
    where Python keeps nothing; an end before it stands for "to the first element", where Python counts from the end.
    """
    start, end = (start + size if start < 0 else start), (end + size if end < 0 else end)
    if step < 0:
        return range(min(max(start, 0), size - 1), min(max(end, -1), size - 1), step)
    return range(min(max(start, 0), size), min(max(end, 0), size), step)


def without_output(net: Net, node: Node, tensor: str) -> list[Node]:
    """What remains of a node when another one produces ``tensor``: a Split with its other outputs, else nothing."""
    if len(node.outputs) == 1:
        return []
    shape = net.shape(tensor)
    assert shape is not None
    unread = net.add_tensor(tensor, "unread", shape)
    return [replace(node, outputs=tuple(unread if name == tensor else name for name in node.outputs))]
