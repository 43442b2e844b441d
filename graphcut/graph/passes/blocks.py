"""Write space-to-depth and depth-to-space as convolutions with ones, and repeated pixels as Resize.

The converter makes DEPTH_TO_SPACE of them, which the quantiser leaves in float, or STRIDED_SLICE in NCHW with a
TRANSPOSE on either side.
"""

from __future__ import annotations

from math import prod

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer, text
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.picks import Index, channels_of, common_root, is_map, number_map
from graphcut.graph.passes.rearrange import REARRANGING, REPEATING
from graphcut.records import Array, Node

LARGEST_BLOCK = 8


def depth_to_space(net: Net) -> int:
    """DepthToSpace by b becomes a ConvTranspose of stride b whose kernels hold one 1 each.

    So does its form in old exports of PyTorch's pixel_shuffle: Reshape, Transpose, Reshape.
    """
    matches = 0
    for node in net.walk("DepthToSpace", "Reshape"):
        found = _spread_by(net, node) if node.op_type == "DepthToSpace" else _spread(net, node)
        if found is None:
            continue
        root, block, target, row, column = found
        channels = len(target)
        kernel = np.zeros((channels, channels // block**2, block, block), dtype=np.float32)
        kernel[np.arange(channels), target, row, column] = 1.0
        name = node.name if node.op_type == "DepthToSpace" else net.fresh(f"{node.name}_spread")
        _replace_by_conv(net, node, name, "ConvTranspose", root, kernel)
        matches += 1
    if matches:
        net.sweep()
    return matches


def _replace_by_conv(net: Net, node: Node, name: str, op_type: str, root: str, kernel: Array) -> None:
    """Let a convolution of the map ``root``, with the kernel's size as its stride, make a node's output."""
    block = kernel.shape[2:]
    conv = Node(
        name=name,
        op_type=op_type,
        inputs=(root, net.add_weight(f"{node.name}_ones", kernel)),
        outputs=node.outputs,
        attributes={"kernel_shape": block, "strides": block},
    )
    net.replace([node], [conv])


def _spread_by(net: Net, node: Node) -> tuple[str, int, Index, Index, Index] | None:
    """As :func:`_spread`, of a DepthToSpace."""
    shape, block = net.shape(node.inputs[0]), integer(node, "blocksize", 1)
    if shape is None or len(shape) != 4 or net.dtype(node.inputs[0]) != "float32" or block > LARGEST_BLOCK:
        return None
    channel = np.arange(shape[1])
    if text(node, "mode", "DCR") == "DCR":
        place, target = np.divmod(channel, shape[1] // block**2)
    else:
        target, place = np.divmod(channel, block**2)
    row, column = np.divmod(place, block)
    return node.inputs[0], block, target, row, column


def _spread(net: Net, node: Node) -> tuple[str, int, Index, Index, Index] | None:
    """The map, the block, and for each of the map's channels where in a node's output it goes.

    That is the output channel, and the row and column in a block of pixels. None where a node does something else.
    """
    output = node.outputs[0]
    root = common_root(net, output) if is_map(net, output) and net.dtype(output) == "float32" else None
    before, after = net.shape(root or ""), net.shape(output)
    if root is None or before is None or after is None:
        return None
    block = after[2] // before[2]
    if not 2 <= block <= LARGEST_BLOCK or after[1:] != (before[1] // block**2, before[2] * block, before[3] * block):
        return None
    mapped = number_map(net, output)
    if mapped is None or before[1] % block**2:
        return None
    # Where every pixel of the first block of each output channel comes from, and whether all blocks do as it does.
    blocks = mapped[1][0].reshape(after[1], before[2], block, before[3], block).transpose(0, 2, 4, 1, 3)
    source, first = np.divmod(blocks[..., 0, 0], before[2] * before[3])
    pixels = np.arange(before[2] * before[3]).reshape(before[2:])
    if first.any() or not np.array_equal(blocks, source[..., None, None] * pixels.size + pixels):
        return None
    channel = np.argsort(source.reshape(-1), kind="stable")
    if not np.array_equal(source.reshape(-1)[channel], np.arange(before[1])):
        return None
    target, place = np.divmod(channel, block**2)
    row, column = np.divmod(place, block)
    return root, block, target, row, column


def repeat_to_resize(net: Net) -> int:
    """Pixels repeated by Tile, Expand, Gather or Concat, each in rows and columns of its own, become a Resize."""
    matches = 0
    for node in net.walk("Reshape", "Gather"):
        found = _repeated(net, node)
        if found is None:
            continue
        root, down, across = found
        scales = net.add_weight(f"{node.name}_scales", np.array([1, 1, down, across], dtype=np.float32))
        resize = Node(
            name=net.fresh(f"{node.name}_repeat"),
            op_type="Resize",
            inputs=(root, "", scales),
            outputs=node.outputs,
            attributes={
                "mode": "nearest",
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor",
            },
        )
        net.replace([node], [resize])
        matches += 1
    if matches:
        net.sweep()
    return matches


def _repeated(net: Net, node: Node) -> tuple[str, int, int] | None:
    """The map, and how often a node's output has each of its rows and columns; None where it has something else."""
    output = node.outputs[0]
    if any(reader.op_type in REARRANGING for reader in net.readers(output)) or not is_map(net, output):
        return None
    root = common_root(net, output, REPEATING) if net.dtype(output) == "float32" else None
    before, after = net.shape(root or ""), net.shape(output)
    if root is None or before is None or after is None or after[1] != before[1]:
        return None
    down, across = after[2] // before[2], after[3] // before[3]
    if down * across < 2 or after[2:] != (before[2] * down, before[3] * across):
        return None
    mapped = number_map(net, output, REPEATING)
    numbers = np.arange(prod(before)).reshape(before)
    if mapped is None or not np.array_equal(mapped[1], numbers.repeat(down, axis=2).repeat(across, axis=3)):
        return None
    return root, down, across


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
        _replace_by_conv(net, node, net.fresh(f"{node.name}_gather"), "Conv", root, kernel)
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
    reason="DEPTH_TO_SPACE stays in float, and pixel shuffles also need a GATHER; TRANSPOSE_CONV becomes int8",
    apply=depth_to_space,
)
SPACE_TO_DEPTH = Pass(
    name="space-to-depth",
    reason="concatenated strided slices (YOLO's Focus) stay in NCHW, with a TRANSPOSE on either side",
    apply=space_to_depth,
)
REPEAT_TO_RESIZE = Pass(
    name="repeat-to-resize",
    reason="TILE and products with maps of ones stay in float and in NCHW; RESIZE_NEAREST_NEIGHBOR becomes int8",
    apply=repeat_to_resize,
)
