"""Blocks of pixels moved into channels and back, as convolutions with ones.

The converter makes DEPTH_TO_SPACE of them, which the quantiser leaves in float, or STRIDED_SLICE in NCHW with a
TRANSPOSE on either side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer, text
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.picks import Index, channels_of, is_map, number_map
from graphcut.records import Node

LARGEST_BLOCK = 8


def depth_to_space(net: Net) -> int:
    """DepthToSpace by b becomes a ConvTranspose of stride b whose kernels hold one 1 each."""
    matches = 0
    for node in net.walk("DepthToSpace"):
        shape, block = net.shape(node.inputs[0]), integer(node, "blocksize", 1)
        if shape is None or len(shape) != 4 or net.dtype(node.inputs[0]) != "float32" or block > LARGEST_BLOCK:
            continue
        channels = shape[1]
        out = channels // block**2
        kernel = np.zeros((channels, out, block, block), dtype=np.float32)
        for channel in range(channels):
            if text(node, "mode", "DCR") == "DCR":
                place, target = divmod(channel, out)
            else:
                target, place = divmod(channel, block**2)
            kernel[channel, target, place // block, place % block] = 1.0
        attributes = {"kernel_shape": (block, block), "strides": (block, block)}
        inputs = (node.inputs[0], net.add_weight(f"{node.name}_ones", kernel))
        net.replace([node], [replace(node, op_type="ConvTranspose", inputs=inputs, attributes=attributes)])
        matches += 1
    return matches


def space_to_depth(net: Net) -> int:
    """Concat of strided slices, or whatever else gathers blocks of b x b pixels, becomes a Conv of stride b."""
    matches = 0
    for node in net.walk("Concat", "Reshape"):
        found = _gathered(net, node)
        if found is None:
            continue
        root, block, channel, row, column = found
        kernel = np.zeros((len(channel), channels_of(net, root), block, block), dtype=np.float32)
        kernel[np.arange(len(channel)), channel, row, column] = 1.0
        conv = Node(
            name=net.fresh(f"{node.name}_gather"),
            op_type="Conv",
            inputs=(root, net.add_weight(f"{node.name}_ones", kernel)),
            outputs=node.outputs,
            attributes={"kernel_shape": (block, block), "strides": (block, block)},
        )
        net.replace([node], [conv])
        matches += 1
    if matches:
        net.sweep()
    return matches


def _gathered(net: Net, node: Node) -> tuple[str, int, Index, Index, Index] | None:
    """The map, the block, and for each channel of a node's output which channel, row and column of a block it holds."""
    output = node.outputs[0]
    if not is_map(net, output) or net.dtype(output) != "float32":
        return None
    mapped = number_map(net, output)
    if mapped is None:
        return None
    root, numbers = mapped
    before, after = net.shape(root), net.shape(output)
    assert before is not None
    assert after is not None
    block = before[2] // after[2]
    if block < 2 or block > LARGEST_BLOCK or after[2:] != (before[2] // block, before[3] // block):
        return None
    if before[2] % block or before[3] % block:
        return None
    first = numbers[0, :, 0, 0]
    channel, rest = np.divmod(first, before[2] * before[3])
    row, column = np.divmod(rest, before[3])
    rows = np.arange(after[2]) * block
    columns = np.arange(after[3]) * block
    wanted = first[:, None, None] + rows[None, :, None] * before[3] + columns[None, None, :]
    if (row >= block).any() or (column >= block).any() or not np.array_equal(numbers[0], wanted):
        return None
    return root, block, channel, row, column


DEPTH_TO_SPACE = Pass(
    name="depth-to-space",
    reason="DEPTH_TO_SPACE stays in float and pixel shuffles need a GATHER besides; TRANSPOSE_CONV does not",
    apply=depth_to_space,
)
SPACE_TO_DEPTH = Pass(
    name="space-to-depth",
    reason="strided slices put together again (YOLO's Focus) keep the converter in NCHW, a TRANSPOSE on either side",
    apply=space_to_depth,
)
