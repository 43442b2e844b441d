"""The arithmetic of sliding windows, and one form for padding.

TFLite has two paddings: VALID (none) and SAME (``ceil(size / stride)`` outputs, the odd element at the end). Any other
    padding of a pool must become a separate operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import Ints, integer, integers, text
from graphcut.graph.passes.base import Pass
from graphcut.records import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A two-dimensional window over a map; every tuple is (H, W).

    Attributes:
        size, out: of the map before and after.
        kernel, strides, dilations: as in ONNX.
        begins, ends: padding; ``ends`` is what the output size implies, so ceil_mode is in it.
    """

    size: Ints
    out: Ints
    kernel: Ints
    strides: Ints
    dilations: Ints
    begins: Ints
    ends: Ints

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return any(self.begins) or any(self.ends)

    @property
    def same(self) -> bool:
        """Whether the padding is TensorFlow's SAME."""
        begins, ends = same_padding(self.size, self.kernel, self.strides, self.dilations)
        fits = tuple(-(-size // stride) for size, stride in zip(self.size, self.strides, strict=True))
        return fits == self.out and begins == self.begins and ends == self.ends


def extent(kernel: int, dilation: int) -> int:
    """How many elements a kernel spans."""
    return (kernel - 1) * dilation + 1


def same_padding(size: Ints, kernel: Ints, strides: Ints, dilations: Ints, *, lower: bool = False) -> tuple[Ints, Ints]:
    """Begins and ends of SAME padding; the odd element at the end, or at the begin for SAME_LOWER."""
    totals = [
        max((-(-length // stride) - 1) * stride + extent(k, dilation) - length, 0)
        for length, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True)
    ]
    small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (large, small) if lower else (small, large)


def window_of(net: Net, node: Node) -> Window | None:
    """The window of a rank-4 Conv, MaxPool or AveragePool without auto_pad; None for any other node."""
    before, after = net.shape(node.inputs[0]), net.shape(node.outputs[0])
    if before is None or after is None or len(before) != 4 or text(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    kernel = integers(node, "kernel_shape", _weight_kernel(net, node))
    if len(kernel) != 2:
        return None
    strides, dilations = integers(node, "strides", (1, 1)), integers(node, "dilations", (1, 1))
    pads = integers(node, "pads", (0, 0, 0, 0))
    begins, declared = pads[:2], pads[2:]
    ends = declared
    if integer(node, "ceil_mode", 0):
        needed = [
            (outputs - 1) * stride + extent(k, dilation) - size - begin
            for outputs, stride, k, dilation, size, begin in zip(
                after[2:], strides, kernel, dilations, before[2:], begins, strict=True
            )
        ]
        ends = tuple(max(need, end) for need, end in zip(needed, declared, strict=True))
        if any(end >= k for end, k in zip(ends, kernel, strict=True)):
            # A window that begins after the map: exporters and runtimes disagree about whether it exists.
            return None
    return Window(
        size=before[2:],
        out=after[2:],
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        begins=begins,
        ends=ends,
    )


def _weight_kernel(net: Net, node: Node) -> Ints:
    shape = net.shape(node.inputs[1]) if len(node.inputs) > 1 and node.op_type == "Conv" else None
    return tuple(shape[2:]) if shape is not None else ()


def with_padding(node: Node, begins: Sequence[int], ends: Sequence[int]) -> Node:
    """The node with explicit padding and nothing implied."""
    attributes = {key: value for key, value in node.attributes.items() if key not in ("auto_pad", "ceil_mode", "pads")}
    return replace(node, attributes={**attributes, "pads": (*begins, *ends)})


def explicit_padding(net: Net) -> int:
    """auto_pad of Conv and pools, and a ceil_mode that changes nothing, become numbers in ``pads``."""
    matches = 0
    for node in net.walk("Conv", "MaxPool", "AveragePool"):
        if text(node, "auto_pad", "NOTSET") == "NOTSET":
            window = window_of(net, node)
            if window is None or not integer(node, "ceil_mode", 0) or window.ends != declared_ends(node):
                continue
            net.replace([node], [with_padding(node, window.begins, window.ends)])
            matches += 1
            continue
        plain = replace(node, attributes={key: v for key, v in node.attributes.items() if key != "auto_pad"})
        window = window_of(net, plain)
        if window is None:
            continue
        begins: Ints = (0, 0)
        ends: Ints = (0, 0)
        if text(node, "auto_pad", "") != "VALID":
            lower = text(node, "auto_pad", "") == "SAME_LOWER"
            begins, ends = same_padding(window.size, window.kernel, window.strides, window.dilations, lower=lower)
        net.replace([node], [with_padding(node, begins, ends)])
        matches += 1
    return matches


def declared_ends(node: Node) -> Ints:
    """The padding after the input that a node declares, of a map."""
    return integers(node, "pads", (0, 0, 0, 0))[2:]


EXPLICIT_PADDING = Pass(
    name="explicit-padding",
    reason="the other rewrites and the converter need padding as numbers, not as auto_pad and ceil_mode",
    apply=explicit_padding,
)
