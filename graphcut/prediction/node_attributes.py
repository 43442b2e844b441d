"""Read nodes as the converter does: attributes, windows, names."""

from __future__ import annotations

from graphcut.records import Node, Shape


def is_same(
    size: Shape,
    made: Shape,
    kernel: Shape,
    strides: Shape,
    dilations: Shape,
    pads: Shape,
) -> bool:
    """Whether a window is written as SAME: its padding equals SAME, or it needs none and has stride 1."""
    if not any(pads) and (max(strides) > 1 or max(kernel) > 1):
        return False
    for axis in (0, 1):
        result = -(-size[axis] // strides[axis])
        total = max((result - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - size[axis], 0)
        if (pads[axis], pads[2 + axis]) != (total // 2, total - total // 2) or made[axis] != result:
            return False
    return True


def bytes_of(name: str) -> int:
    """Length of a name in bytes."""
    return len(name) if name.isascii() else len(name.encode())


def written(name: str) -> int:
    """Length of a name as onnx2tf writes it."""
    return bytes_of(name) + name.count(":") + 2 * name.startswith("/")


def numbers(node: Node, name: str, count: int, default: int) -> tuple[int, ...]:
    """A list of integers; ``default`` repeated ``count`` times where it is not given."""
    values = node.attributes.get(name)
    return tuple(map(int, values)) if isinstance(values, (tuple, list)) else (default,) * count


def number(node: Node, name: str, default: int) -> int:
    """An integer."""
    value = node.attributes.get(name, default)
    return value if isinstance(value, int) else default


def text(node: Node, name: str, default: str) -> str:
    """A string."""
    value = node.attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)
