"""What the Edge TPU's cost of a layer depends on: shapes, kernel, and the values next to the weights.

1. A layer is one TFLite operator with its fused activation. Shapes are NHWC, weights in TFLite's own order: OHWI for
   CONV_2D, 1HWO for DEPTHWISE_CONV_2D, OI for FULLY_CONNECTED.
2. The *words* of a layer are the 4-byte values stored per output channel in addition to its weights (packing).
3. The *taps* are the kernel positions that meet more than padding.

The same record is made from a TFLite file (:mod:`graphcut.edgetpu.layers_of_file`) and, before any file exists, from
the graph (:mod:`graphcut.edgetpu.layers_of_graph`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Annotated

from graphcut.record_types import OMITTED, derived
from graphcut.records import Shape

CONV, DEPTHWISE, DENSE = "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operator.

    Attributes:
        name: of its first output.
        op: TFLite name ("CONV_2D").
        inputs, outputs: shapes of its activations; constants are not among them.
        activation_bytes: of its inputs and outputs together.
        weights: shape of its weights, None where it has none that the packing formula covers.
        taps: kernel positions that meet more than padding, all of them for a layer without padding.
        words: words per channel.
        constants: elements of constants that are not weights or bias (a MUL by a vector), 0 otherwise.
        window: rows and columns of its input that one output element needs, dilation included; 1 x 1 for all but
            convolutions and pools.
    """

    name: str
    op: str
    inputs: Annotated[tuple[Shape, ...], OMITTED]
    outputs: tuple[Shape, ...]
    activation_bytes: int = 0
    weights: Shape | None = None
    taps: Annotated[int, OMITTED] = 0
    words: Annotated[int, OMITTED] = 0
    constants: Annotated[int, OMITTED] = 0
    window: Annotated[tuple[int, int], OMITTED] = (1, 1)

    @property
    @derived("macs")
    def macs(self) -> int:
        """Multiplications with a weight in one inference."""
        if self.weights is None or not self.outputs:
            return 0
        if self.op == DEPTHWISE:
            return prod(self.outputs[0]) * self.weights[1] * self.weights[2]
        if self.op == CONV:
            return prod(self.outputs[0]) * prod(self.weights[1:])
        if self.op == "TRANSPOSE_CONV":
            return prod(self.inputs[0]) * prod(self.weights[:3])
        return prod(self.outputs[0]) * self.weights[-1]

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights, one per element."""
        return 0 if self.weights is None else prod(self.weights)


def byte_activations(*shapes: Shape) -> int:
    """Bytes of activations of these shapes, one byte per element."""
    return sum(prod(shape) for shape in shapes)


def live_taps(kernel: int, stride: int, dilation: int, size: int, before: int, result: int) -> int:
    """The number of kernel positions along one axis that meet the input, not only padding.

    Args:
        kernel, stride, dilation: of the convolution along the axis.
        size: input elements along the axis.
        before: elements of padding before the first.
        result: output elements along the axis.

    >>> live_taps(3, 2, 1, 2, 0, 1)
    2
    """
    return len(taps_alive(kernel, stride, dilation, size, before, result))


def taps_alive(kernel: int, stride: int, dilation: int, size: int, before: int, result: int) -> list[int]:
    """The kernel positions along one axis that meet the input; arguments as for :func:`live_taps`."""
    alive = []
    for tap in range(kernel):
        reach = before - tap * dilation  # place * stride >= reach meets the input, and < reach + size
        first, last = max(-(-reach // stride), 0), min((reach + size - 1) // stride, result - 1)
        if first <= last:
            alive.append(tap)
    return alive


def same_padding(kernel: int, stride: int, dilation: int, size: int) -> int:
    """Elements of padding that TFLite's SAME puts before the first of ``size``."""
    result = -(-size // stride)
    return max((result - 1) * stride + (kernel - 1) * dilation + 1 - size, 0) // 2


def dilated(kernel: int, dilation: int) -> int:
    """Elements spanned by a kernel of that many positions.

    >>> dilated(3, 2)
    5
    """
    return (kernel - 1) * max(dilation, 1) + 1
