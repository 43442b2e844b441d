"""Write pools in forms that TFLite supports (see :mod:`graphcut.graph.passes.window`)."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import Ints, axes, input_at, integer, zero_padding
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.facts import nonnegative
from graphcut.graph.passes.steps import Steps
from graphcut.graph.passes.window import Window, declared_ends, window_of, with_padding
from graphcut.records import Node

Float = npt.NDArray[np.float32]

MAP_AXES = (2, 3)
PRODUCTS = frozenset({"Mul", "Sigmoid", "HardSwish", "Gelu", "Tanh", "Div", "Sub"})
CEIL_DOES_NOT_COUNT = 19
"""Opset from which what ceil_mode adds to a window does not count."""
LARGEST_KERNEL = 64
"""AveragePool of larger maps is not tried: the converter runs out of memory with huge kernels."""


def global_pools(net: Net) -> int:
    """A mean over the whole map, however it is written, becomes GlobalAveragePool (and Flatten)."""
    matches = 0
    for node in net.walk("ReduceMean", "AveragePool"):
        if node.op_type == "ReduceMean":
            matches += _mean_to_global(net, node)
        else:
            matches += _window_to_global(net, node)
    return matches


def _window_to_global(net: Net, node: Node) -> int:
    """An AveragePool whose one window holds the whole map: the mean, times the share of what counts that is map."""
    window = window_of(net, node)
    if window is None or window.out != (1, 1) or window.dilations != (1, 1):
        return 0
    reach = zip(window.kernel, window.begins, window.size, strict=True)
    if any(kernel - begin < size for kernel, begin, size in reach):
        return 0
    pool = replace(node, op_type="GlobalAveragePool", inputs=node.inputs[:1], attributes={})
    share = prod(window.size) / prod(window.kernel) * float(_shares(window, *_counted(net, node, window)).item())
    if np.isclose(share, 1, rtol=1e-6, atol=0):
        net.replace([node], [pool])
        return 1
    steps = Steps(net, node, node.outputs[0])
    shape = net.shape(node.outputs[0])
    assert shape is not None
    mean = steps.add("GlobalAveragePool", node.inputs[:1], shape)
    steps.add("Mul", (mean, steps.constant("share", share, ())), shape)
    net.replace([node], steps.made())
    return 1


def _mean_to_global(net: Net, node: Node) -> int:
    shape = net.shape(node.inputs[0])
    if shape is None or len(shape) != 4 or axes(net, node, 4) != MAP_AXES or net.dtype(node.inputs[0]) != "float32":
        return 0
    if not input_at(node, 1) and "axes" not in node.attributes:
        return 0
    pool = replace(node, op_type="GlobalAveragePool", inputs=node.inputs[:1], attributes={})
    if integer(node, "keepdims", 1):
        net.replace([node], [pool])
        return 1
    pooled = net.add_tensor(node.outputs[0], "pooled", (*shape[:2], 1, 1))
    flatten = Node(
        name=net.fresh(f"{node.name}_flatten"),
        op_type="Flatten",
        inputs=(pooled,),
        outputs=node.outputs,
        attributes={"axis": 1},
    )
    net.replace([node], [replace(pool, outputs=(pooled,)), flatten])
    return 1


def _counted(net: Net, node: Node, window: Window) -> tuple[Ints, Ints]:
    """How much of an AveragePool's padding it divides by, at the begins and the ends.

    What ceil_mode adds counts up to opset 18 only: so onnxruntime 1.26 has it, and the specification of AveragePool-19.
    """
    if not integer(node, "count_include_pad", 0):
        return (0, 0), (0, 0)
    return window.begins, declared_ends(node) if net.opset >= CEIL_DOES_NOT_COUNT else window.ends


def padding_into_conv(net: Net) -> int:
    """Zero padding before a Conv becomes part of its ``pads``."""
    matches = 0
    for node in net.walk("Pad"):
        padding = zero_padding(net, node)
        if padding is None or len(padding[0]) != 4 or any(padding[0][:2]) or any(padding[1][:2]):
            continue
        for conv in net.readers(node.outputs[0]):
            window = window_of(net, conv) if conv.op_type == "Conv" else None
            if window is None or conv.inputs[0] != node.outputs[0] or node.outputs[0] in conv.inputs[1:]:
                continue
            begins = _sum(padding[0][2:], window.begins)
            ends = _sum(padding[1][2:], window.ends)
            folded = with_padding(replace(conv, inputs=(node.inputs[0], *conv.inputs[1:])), begins, ends)
            net.replace([conv], [folded])
            matches += 1
    net.sweep()
    return matches


def _sum(first: Ints, second: Ints) -> Ints:
    return tuple(a + b for a, b in zip(first, second, strict=True))


def padded_max_pools(net: Net) -> int:
    """Padding of a MaxPool that is not SAME becomes a Pad of zeros, where nothing is below zero.

    Where the pool's only reader is a Relu, the two are swapped first: the maximum of rectified values is the rectified
    maximum. Otherwise the edges of the map are mirrored, which adds no new values to a window.
    """
    matches = 0
    proved = nonnegative(net)
    for node in net.walk("MaxPool"):
        window = window_of(net, node)
        if window is None or any(node.outputs[1:]) or not _needs_padding(node, window):
            continue
        if window.same:
            net.replace([node], [with_padding(node, window.begins, window.ends)])
            matches += 1
            continue
        relu = net.only_reader(node.outputs[0])
        if node.inputs[0] in proved:
            net.replace([node], _with_pad(net, node, window, node.inputs[0], node.outputs))
        elif relu is not None and relu.op_type == "Relu":
            shape = net.shape(node.inputs[0])
            assert shape is not None
            rectified = net.add_tensor(node.inputs[0], "relu", shape)
            before = replace(relu, inputs=node.inputs[:1], outputs=(rectified,))
            net.replace([node, relu], [before, *_with_pad(net, node, window, rectified, relu.outputs)])
        elif _mirrors(window):
            net.replace([node], _with_pad(net, node, window, node.inputs[0], node.outputs, mode="reflect"))
        else:
            continue
        matches += 1
    return matches


def _mirrors(window: Window) -> bool:
    """Whether what a mirrored edge brings into a window is in that window anyway, so that its maximum stays."""
    return window.dilations == (1, 1) and all(
        max(begin, end) <= (kernel - 1) // 2 and max(begin, end) < size
        for kernel, begin, end, size in zip(window.kernel, window.begins, window.ends, window.size, strict=True)
    )


def global_max_pools(net: Net) -> int:
    """A maximum over the whole map, however it is written, becomes a MaxPool with one window."""
    matches = 0
    for node in net.walk("GlobalMaxPool", "ReduceMax"):
        shape = net.shape(node.inputs[0])
        if shape is None or len(shape) != 4 or net.dtype(node.inputs[0]) != "float32":
            continue
        if node.op_type == "ReduceMax" and (axes(net, node, 4) != MAP_AXES or not integer(node, "keepdims", 1)):
            continue
        attributes: dict[str, object] = {"kernel_shape": shape[2:]}
        net.replace([node], [replace(node, op_type="MaxPool", inputs=node.inputs[:1], attributes=attributes)])
        matches += 1
    return matches


def pools_of_products(net: Net) -> int:
    """GlobalAveragePool before Flatten becomes AveragePool where no convolution or Relu is before it."""
    matches = 0
    for node in net.walk("GlobalAveragePool"):
        before, after = net.producer(node.inputs[0]), net.only_reader(node.outputs[0])
        shape = net.shape(node.inputs[0])
        if before is None or after is None or shape is None or len(shape) != 4 or max(shape[2:]) > LARGEST_KERNEL:
            continue
        if after.op_type != "Flatten" or before.op_type not in PRODUCTS:
            continue
        attributes: dict[str, object] = {"kernel_shape": shape[2:]}
        net.replace([node], [replace(node, op_type="AveragePool", attributes=attributes)])
        matches += 1
    return matches


def padded_average_pools(net: Net) -> int:
    """Padding of an AveragePool that TFLite does not know becomes a Pad of zeros.

    A pool divides by the elements inside the map, and by the declared padding if it counts that: the Pad's pool is
    multiplied by kernel elements / elements that count, a constant map.
    """
    matches = 0
    for node in net.walk("AveragePool"):
        window = window_of(net, node)
        if window is None or not window.padded or window.dilations != (1, 1):
            continue
        counted = _counted(net, node, window)
        if counted == (window.begins, window.ends):
            net.replace([node], _with_pad(net, node, window, node.inputs[0], node.outputs))
        elif not any(map(any, counted)) and window.same:
            if not integer(node, "ceil_mode", 0):
                continue
            net.replace([node], [_uncounted(with_padding(node, window.begins, window.ends))])
        else:
            shape = net.shape(node.outputs[0])
            assert shape is not None
            pooled = net.add_tensor(node.outputs[0], "pooled", shape)
            factors = net.add_weight(f"{node.name}_factors", _shares(window, *counted))
            mul = Node(
                name=net.fresh(f"{node.name}_scale"),
                op_type="Mul",
                inputs=(pooled, factors),
                outputs=node.outputs,
                attributes={},
            )
            net.replace([node], [*_with_pad(net, node, window, node.inputs[0], (pooled,)), mul])
        matches += 1
    return matches


def _shares(window: Window, begins: Ints, ends: Ints) -> Float:
    """Kernel elements over elements inside the map and the padding that counts, (1, 1, H, W)."""
    inside = []
    for axis in range(2):
        starts = np.arange(window.out[axis]) * window.strides[axis] - window.begins[axis]
        stops = np.minimum(starts + window.kernel[axis], window.size[axis] + ends[axis])
        inside.append(stops - np.maximum(starts, -begins[axis]))
    counts = np.outer(inside[0], inside[1])
    factors: Float = (window.kernel[0] * window.kernel[1] / counts).astype(np.float32)
    return factors.reshape(1, 1, *factors.shape)


def _needs_padding(node: Node, window: Window) -> bool:
    """Whether a pool pads in a way that TFLite does not know (see the window module)."""
    return window.padded and (bool(integer(node, "ceil_mode", 0)) or not window.same)


def _with_pad(
    net: Net, node: Node, window: Window, source: str, outputs: tuple[str, ...], mode: str = "constant"
) -> list[Node]:
    """A Pad (of zeros, unless another mode is said) by a window's padding, and the pool without padding after it."""
    shape = net.shape(node.inputs[0])
    assert shape is not None
    height, width = (
        size + begin + end for size, begin, end in zip(window.size, window.begins, window.ends, strict=True)
    )
    padded = net.add_tensor(outputs[0], "padded", (*shape[:2], height, width))
    pads = np.array([0, 0, *window.begins, 0, 0, *window.ends], dtype=np.int64)
    pad = Node(
        name=net.fresh(f"{node.name}_pad"),
        op_type="Pad",
        inputs=(source, net.add_weight(f"{node.name}_pads", pads)),
        outputs=(padded,),
        attributes={"mode": mode},
    )
    return [pad, _uncounted(with_padding(replace(node, inputs=(padded,), outputs=outputs), (0, 0), (0, 0)))]


def _uncounted(pool: Node) -> Node:
    """A pool that does not count padding."""
    return replace(
        pool, attributes={key: value for key, value in pool.attributes.items() if key != "count_include_pad"}
    )


GLOBAL_POOLS = Pass(
    name="global-pools",
    reason="with a pool whose kernel covers the map, and ceil_mode, the converter used more than 24 GB; a ReduceMean "
    "stays in NCHW after a TRANSPOSE",
    apply=global_pools,
)
GLOBAL_MAX_POOLS = Pass(
    name="global-max-pools",
    reason="REDUCE_MAX stays in float, and in NCHW between two TRANSPOSE; MAX_POOL_2D becomes int8",
    apply=global_max_pools,
)
POOLS_OF_PRODUCTS = Pass(
    name="pools-of-products",
    reason="a global pool after x * sigmoid(x) and before Flatten stays in NCHW after a TRANSPOSE; AveragePool "
    "is always NHWC",
    apply=pools_of_products,
)
PADDING_INTO_CONV = Pass(
    name="padding-into-conv",
    reason="an explicit Pad before Conv fails in the converter (NASNet), and is a separate operator",
    apply=padding_into_conv,
)
PADDED_MAX_POOLS = Pass(
    name="padded-max-pools",
    reason="MaxPool padding other than SAME becomes PADV2, which the quantiser gives scales of the wrong rank",
    apply=padded_max_pools,
)
PADDED_AVERAGE_POOLS = Pass(
    name="padded-average-pools",
    reason="AveragePool padding other than SAME becomes PADV2, which the quantiser gives scales of the wrong rank",
    apply=padded_average_pools,
)
