"""Operators that only move elements, computed on numpy arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import constant_integers, input_at, integer
from graphcut.records import Node

Index = npt.NDArray[np.int64]

REARRANGING = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather"})


def rearranged(net: Net, node: Node, data: Index, output: int) -> Index | None:
    """Output ``output`` of a rearranging node whose first input holds ``data``; None where it is not constant."""
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        shape = net.shape(node.outputs[0])
        return None if shape is None else data.reshape(shape)
    if node.op_type == "Transpose":
        perm = node.attributes.get("perm")
        return data.transpose(perm) if isinstance(perm, tuple) else data.transpose()
    if node.op_type == "Split":
        return _split(net, node, data, output)
    if node.op_type == "Slice":
        return _sliced(net, node, data)
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
        size = data.shape[axis]
        # Backwards past the beginning is written as a large negative end, which Python would count from the end.
        stop = None if step < 0 and end < -size else end
        selection = [slice(None)] * data.ndim
        selection[axis] = slice(start, stop, step)
        data = data[tuple(selection)]
    return data
