"""Operators as the converter writes them, from shapes, attributes and the lengths of names only.

Equal operators are the same object: a large graph has few different ones (graphcut.tflite.file_size uses that).
"""

from __future__ import annotations

from functools import cache
from math import prod

from graphcut.prediction.node_attributes import is_same
from graphcut.records import Shape
from graphcut.tflite.table_bytes import Activation, Constant, Fields, Operator

_GROUPED = 6
_VERSIONS = {
    **{"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1, "QUANTIZE": 1, "EXP": 1, "DIV": 1},
    **{"HARD_SWISH": 1, "PRELU": 1, "ELU": 1, "SQRT": 1, "NEG": 1},
}
"""Versions of int8 operators (graphcut.tflite.legacy_form) that are not 2."""


@cache
def operator_of(
    code: str,
    reads: int,
    makes: int,
    tensors: tuple[Constant | Activation, ...],
    options: Fields | None,
    vectors: int = 0,
) -> Operator:
    """An operator with its usual version."""
    return Operator((code, _VERSIONS.get(code, 2)), reads, makes, tensors, options, vectors)


@cache
def quantize(name: int, rank: int) -> Operator:
    """A QUANTIZE whose output name has this length."""
    return operator_of("QUANTIZE", 1, 1, (Activation(name, rank),), None)


@cache
def convolution(
    shape: Shape,
    fed: Shape,
    made: Shape,
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    group: int,
    per_channel: bool,
    name: int,
    fused: int | None,
) -> tuple[Operator, ...]:
    """The operators of a Conv with weights of a shape, between two maps.

    ``fused`` is the length of the name that an activation fused into it gives its output; None without one.
    """
    depthwise = shape[1] == 1 and group == fed[1] and group > 1
    same = is_same(fed[2:], made[2:], shape[2:], strides, dilations, pads)
    kind = "depthwise" if depthwise else "conv"
    scales = shape[0] if per_channel else 1
    constants = (
        Constant(name + len(f"_{kind}_filter"), 4, prod(shape), scales, 3 if depthwise and scales > 1 else 0),
        Constant(name + len(f"_{kind}_bias"), 1, 4 * shape[0], scales),
    )
    tail: Fields = ((3, 4),) if depthwise else ()
    act, across, down = (4, 5, 6) if depthwise else (3, 4, 5)
    options = present((0, 1, int(not same)), (1, 4, 1), (2, 4, 1)) + tail
    options += present((act, 1, int(fused is not None)), (across, 4, dilations[1] - 1), (down, 4, dilations[0] - 1))
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    version = _GROUPED if not depthwise and shape[1] != fed[1] else _VERSIONS[code]
    output = Activation(name + len("_output_nhwc") if fused is None else fused, len(made))
    operator = Operator((code, version), 3, 1, (*constants, output), options)
    return (operator,) if same or not any(pads) else (pad(name, "_pads_nhwc", "_input_nhwc_padded"), operator)


def pad(name: int, amounts: str, made: str) -> Operator:
    """A PAD of a map."""
    return operator_of("PAD", 2, 1, (Constant(name + len(amounts), 2, 32), Activation(name + len(made), 4)), None)


def present(*fields: tuple[int, int, int]) -> Fields:
    """The entries of (number, bytes, value) whose value is not 0."""
    return tuple((number, size) for number, size, value in fields if value)
