"""Checks of windows, groups and parameter sizes, made before a native library computes with them.

onnxruntime divides by strides and groups without checking them, and reads one bias value per channel whatever the
    length of the bias. Shape inference divides too. So these are checked before either runs:

1. Strides, dilations, kernels, groups and block sizes are at least 1, pads at least 0, and none is above ``LARGEST``.
2. There is one of each for every axis of the window; ``kernel_shape`` matches the weight.
3. Groups divide channels; a weight has as many channels as the tensor that it is applied to; a bias, scale, mean or
   variance has one value per channel.
4. The windows of a ConvTranspose reach its whole output: ``output_padding`` is less than the stride, and
   ``output_shape`` exceeds what the windows cover by less than a stride. Otherwise onnxruntime reads past its buffer,
   and foreign memory becomes part of the result.

A check is skipped while its shapes are unknown: :func:`refuse_misfits` is called again when they are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from graphcut.errors import ModelError
from graphcut.graph.net import Net
from graphcut.records import Node, Shape

LARGEST = 2**20
"""Of a stride, pad, dilation or side of a kernel."""

_WEIGHTED = frozenset({"Conv", "ConvTranspose"})
_WINDOWED = _WEIGHTED | {"MaxPool", "AveragePool", "LpPool", "MaxUnpool"}
_AT_LEAST_ONE = ("kernel_shape", "strides", "dilations", "output_shape")
_AT_LEAST_ZERO = ("pads", "output_padding")
_POSITIVE: Mapping[str, tuple[str, ...]] = {
    "Conv": ("group",),
    "ConvTranspose": ("group",),
    "DepthToSpace": ("blocksize",),
    "SpaceToDepth": ("blocksize",),
    "LRN": ("size",),
    "LpPool": ("p",),
    "GlobalLpPool": ("p",),
    "LpNormalization": ("p",),
    "GroupNormalization": ("num_groups",),
    "RoiAlign": ("output_height", "output_width"),
    "MaxRoiPool": ("pooled_shape",),
    "Attention": ("q_num_heads", "kv_num_heads"),
    "Split": ("num_outputs",),
}
_PER_CHANNEL: Mapping[str, tuple[int, ...]] = {"BatchNormalization": (1, 2, 3, 4), "InstanceNormalization": (1, 2)}
"""Operator -> inputs with one value per channel."""

ShapeOf = Callable[[str], Shape | None]


def refuse_misshapen(nodes: Iterable[Node], weights: Mapping[str, Shape]) -> None:
    """Refuse nodes that break a rule of the module docstring, as far as the shapes of the weights show it.

    Raises:
        ModelError: names the node and the attribute or parameter.
    """
    for node in nodes:
        _check(node, weights.get)


def refuse_misfits(net: Net) -> None:
    """Refuse nodes that break a rule of the module docstring, given the shapes of the activations.

    Raises:
        ModelError: names the node and the attribute or parameter.
    """
    for node in net.nodes:
        _check(node, net.shape)


def _check(node: Node, shape_of: ShapeOf) -> None:
    for name in _POSITIVE.get(node.op_type, ()):
        _in_range(node, name, 1)
    if node.op_type in _PER_CHANNEL:
        _check_per_channel(node, shape_of)
    if node.op_type not in _WINDOWED:
        return
    for name in _AT_LEAST_ONE:
        _in_range(node, name, 1)
    for name in _AT_LEAST_ZERO:
        _in_range(node, name, 0)
    axes = _axes(node, shape_of)
    for name in (*_AT_LEAST_ONE, *_AT_LEAST_ZERO):
        value = node.attributes.get(name)
        wanted = None if axes is None else 2 * axes if name == "pads" else axes
        if isinstance(value, tuple) and wanted is not None and len(value) != wanted:
            if name == "output_shape" and len(value) == wanted + 2:
                continue  # older exporters write batch and channels as well
            raise _error(node, f"{name} has {len(value)} values; its window needs {wanted}")
    if node.op_type in _WEIGHTED:
        _check_weight(node, shape_of)
    if node.op_type == "ConvTranspose":
        _check_reach(node, axes, shape_of)


def _check_reach(node: Node, axes: int | None, shape_of: ShapeOf) -> None:
    """Statement 4."""
    if axes is None:
        return
    strides = _per_axis(node, "strides", axes, 1)
    padding = _per_axis(node, "output_padding", axes, 0)
    for stride, more in zip(strides, padding, strict=True):
        if more >= stride:
            raise _error(node, f"output_padding is {more}; it must be less than the stride of {stride}")
    fed, weight = shape_of(node.inputs[0]), shape_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if fed is None or weight is None or "output_shape" not in node.attributes:
        return
    wanted = _per_axis(node, "output_shape", axes, 0)
    dilations = _per_axis(node, "dilations", axes, 1)
    for axis, (size, stride, dilation) in enumerate(zip(wanted, strides, dilations, strict=True)):
        reached = stride * (fed[axis + 2] - 1) + dilation * (weight[axis + 2] - 1) + 1
        if size >= reached + stride:
            raise _error(
                node, f"output_shape is {list(wanted)}; its windows cover only {reached} along axis {axis + 2}"
            )


def _per_axis(node: Node, name: str, axes: int, default: int) -> tuple[int, ...]:
    """An attribute with one number for each axis of the window; the last ones, where it has batch and channels too."""
    value = node.attributes.get(name)
    found = value if isinstance(value, tuple) else (default,) * axes
    return tuple(int(each) for each in found[-axes:] if isinstance(each, int))


def _axes(node: Node, shape_of: ShapeOf) -> int | None:
    """How many axes the window has: those of the weight, the kernel or the input."""
    shape = shape_of(node.inputs[1]) if node.op_type in _WEIGHTED and len(node.inputs) > 1 else None
    if shape is not None:
        if len(shape) < 3:
            raise _error(node, f"its weight has {len(shape)} dimensions; it needs at least 3")
        return len(shape) - 2
    kernel = node.attributes.get("kernel_shape")
    if isinstance(kernel, tuple):
        return len(kernel)
    fed = shape_of(node.inputs[0]) if node.inputs else None
    return len(fed) - 2 if fed is not None else None


def _check_weight(node: Node, shape_of: ShapeOf) -> None:
    weight = shape_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None:
        return
    group = node.attributes.get("group", 1)
    assert isinstance(group, int)
    kernel = node.attributes.get("kernel_shape", weight[2:])
    if kernel != weight[2:]:
        raise _error(node, f"kernel_shape is {kernel}, but its weight has the kernel {weight[2:]}")
    transposed = node.op_type == "ConvTranspose"
    made = weight[1] * group if transposed else weight[0]
    read = weight[0] if transposed else weight[1] * group
    if 0 in weight:
        raise _error(node, f"its weight is empty ({'x'.join(map(str, weight))})")
    if weight[0] % group:
        raise _error(node, f"{weight[0]} channels cannot be divided into {group} groups")
    fed = shape_of(node.inputs[0])
    if fed is not None and (len(fed) != len(weight) or fed[1] != read):
        raise _error(
            node, f"its weight is for {read} channels, but its input is {'x'.join(map(str, fed)) or 'a number'}"
        )
    bias = shape_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if bias is not None and bias != (made,):
        raise _error(node, f"its bias is {'x'.join(map(str, bias)) or 'a number'}, but there are {made} channels")


def _check_per_channel(node: Node, shape_of: ShapeOf) -> None:
    if node.attributes.get("spatial", 1) == 0:
        return  # until opset 8: one value for each element
    positions = [position for position in _PER_CHANNEL[node.op_type] if position < len(node.inputs)]
    shapes = {position: shape_of(node.inputs[position]) for position in positions}
    fed = shape_of(node.inputs[0]) if node.inputs else None
    wanted = fed[1] if fed is not None and len(fed) > 1 else None
    for position, shape in shapes.items():
        if shape is None:
            continue
        if wanted is None and len(shape) == 1:
            wanted = shape[0]
        if shape != (wanted,):
            found = "x".join(map(str, shape)) or "a number"
            raise _error(node, f"its input {node.inputs[position]!r} is {found}, but there are {wanted} channels")


def _in_range(node: Node, name: str, least: int) -> None:
    value = node.attributes.get(name)
    if value is None:
        return
    values = value if isinstance(value, tuple) else (value,)
    for each in values:
        if not isinstance(each, int) or not least <= each <= LARGEST:
            raise _error(
                node,
                f"{name} is {list(values) if len(values) > 1 else each}; it must be between {least} and {LARGEST}",
            )


def _error(node: Node, what: str) -> ModelError:
    return ModelError(f"node {node.name!r} ({node.op_type}): {what}", "the file is not valid ONNX; export it again")
