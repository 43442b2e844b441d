"""Estimate the size of a compiled file and whether its parameters stay on the chip, with intervals.

1. A compiled file is two executables, each rounded up to 4096 bytes, plus about 17 kB. The one that loads parameters
   contains them and some instructions, the other one the instructions of the network. Parameters are exact (packing);
   the instructions of a network (``instruction_bytes``) are a fit, good to about a third.
2. The *room* for parameters is what activations leave (graphcut.edgetpu.tile_memory). Whether parameters fit depends on
   what they occupy there (graphcut.edgetpu.packing, statement 8), not by their bytes in the file.
3. The compiler's own rule is not published. Two of 24 published segments are listed as streaming far below any room;
   both figures equal that of the tail that begins with the same segment, so they may be errors in the list: the same
   list gives a segment of DenseNet201 the on-chip figure of its tail. No probability here goes above ``MOST_CERTAIN``.

Sources: layout from real compiled files; instruction figures fitted to the segments, tails and whole networks that
github.com/pm2550/TPU_Models publishes for ResNet-50, ResNet-101 and InceptionV3 and, for operators that those do not
have, to every second file of DenseNet201 (compiler 16.0.384591198), depthwise from MobileNet pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import erf, sqrt

from graphcut.edgetpu.caching import room_beside
from graphcut.edgetpu.layers import CONV, DENSE, DEPTHWISE, Layer
from graphcut.edgetpu.packing import up
from graphcut.units import MIB

PAGE = 4096
_WRAPPING = 12288 + 4180 + 524  # multi-executable, package, TFLite file around it
_LOADER, _LOADER_A_LAYER, _LOADER_TABLES = 1800, 125, 3776
_NETWORK_TABLES, _NETWORK_BASE = 4768, 4800
_CPU_OP_BYTES = 500  # table, tensors and names of an operator that stays in the TFLite file

_CONV, _CONV_UNEVEN = 500, 2300
_DEPTHWISE, _DEPTHWISE_UNEVEN = 1500, 5700
_BY_OP = {
    **{DENSE: 1600, "MEAN": 19000, "SOFTMAX": 0, "MAX_POOL_2D": 11400, "AVERAGE_POOL_2D": 11400},
    **{"CONCATENATION": 500, "RESHAPE": 200},
}
_OTHER = 1300
_AFFINE = 450
"""More, for a MUL or ADD whose constants stream."""
_LARGE_ACTIVATION, _A_LARGE_ACTIVATION = 3_100_000, 19_800

LOW_SHARE, HIGH_SHARE = 0.6, 1.5
"""A network's instructions lie between these shares of the estimate in nine of ten published files."""

LEAST_CERTAIN, MOST_CERTAIN = 0.02, 0.95
_SPREAD, _SPREAD_A_MIB, _MOST_SPREAD = 0.1, 0.3, 0.9
"""Error of the room in MiB: a constant, and more for each MiB of activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A size with its interval: nine of ten published files lie in low .. high."""

    expected_bytes: int
    low_bytes: int
    high_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether nothing will stream.

    Attributes:
        probability: that all parameters stay on the chip; never 0 or 1.
        room_bytes: expected room for parameters at these activations.
        margin_bytes: room minus what the parameters would occupy; negative where they do not fit.
    """

    probability: float
    room_bytes: int
    margin_bytes: int

    @property
    def fits(self) -> bool:
        """More likely than not."""
        return self.probability >= 0.5


def instruction_bytes(layer: Layer) -> int:
    """Bytes of instructions that a layer adds to the network's executable."""
    large = max(0.0, layer.activation_bytes / _LARGE_ACTIVATION - 1) * _A_LARGE_ACTIVATION
    uneven = any(size % 4 for size in layer.outputs[0][1:3]) if layer.outputs and len(layer.outputs[0]) == 4 else False
    if layer.op == CONV or layer.op == "TRANSPOSE_CONV":
        own = _CONV + _CONV_UNEVEN * uneven
    elif layer.op == DEPTHWISE:
        own = _DEPTHWISE + _DEPTHWISE_UNEVEN * uneven
    else:
        own = _BY_OP.get(layer.op, _OTHER) + _AFFINE * (layer.op in ("MUL", "ADD") and layer.constants > 1)
    return int(own + large)


def output_tables(layer_outputs: Iterable[Sequence[int]]) -> int:
    """Bytes of the tables with the layout of outputs: 4 * (2 H + 3 W) each."""
    return sum(4 * (2 * shape[1] + 3 * shape[2]) for shape in layer_outputs if len(shape) == 4)


def compiled_bytes(
    parameter_bytes: int, weighted_layers: int, instructions: int, outputs: int = 140, cpu_bytes: int = 0
) -> Estimate:
    """The size of a compiled file, in constant time.

    Args:
        parameter_bytes: of its layers on the chip (packing).
        weighted_layers: how many of them have weights.
        instructions: sum of :func:`instruction_bytes`.
        outputs: :func:`output_tables` of its outputs.
        cpu_bytes: constants of operators left on the CPU, with ``cpu_share``.

    >>> compiled_bytes(4493312, 3, 9700).expected_bytes  # published: 4543072
    4543072
    """
    loader = up(parameter_bytes + _LOADER + _LOADER_A_LAYER * weighted_layers + _LOADER_TABLES, PAGE)

    def size(network: float) -> int:
        executed = up(round(network) + _NETWORK_TABLES + outputs, PAGE)
        return _WRAPPING + loader + executed + cpu_bytes

    network = _NETWORK_BASE + instructions
    low, high = size(LOW_SHARE * network) - 2 * PAGE, size(HIGH_SHARE * network) + 2 * PAGE
    return Estimate(expected_bytes=size(network), low_bytes=low, high_bytes=high)


def cpu_share(constant_bytes: int, operators: int) -> int:
    """Bytes that operators left on the CPU keep in the file, given those of their constants."""
    return constant_bytes + _CPU_OP_BYTES * operators


def fit(on_chip_bytes: int, always_streamed: int, reserved_bytes: int) -> Fit:
    """Whether parameters stay on the chip, in constant time.

    Args:
        on_chip_bytes: that the parameters of the layers on the chip would occupy.
        always_streamed: bytes of parameters that are never cached.
        reserved_bytes: that activations take.
    """
    room = room_beside(reserved_bytes)
    margin = (room - on_chip_bytes) / MIB
    spread = min(_SPREAD + _SPREAD_A_MIB * reserved_bytes / MIB, _MOST_SPREAD)
    probability = 0.0 if always_streamed else 0.5 * (1 + erf(margin / spread / sqrt(2)))
    return Fit(
        probability=round(min(max(probability, LEAST_CERTAIN), MOST_CERTAIN), 3),
        room_bytes=room,
        margin_bytes=room - on_chip_bytes,
    )
