"""Which parameters stay on the chip and which stream at every inference: by whole layers, in the compiler's order.

1. The *room* is the chip's memory minus what activations need (graphcut.edgetpu.tile_memory).
2. Layers are cached whole or not at all. Dense layers come first, then the layers that occupy most; of equal layers,
   the earlier one. A layer that does not fit is skipped, and smaller ones after it are still tried.
3. A layer of more than ``LARGEST_CACHED`` bytes is never cached, nor is a MUL or ADD with a constant for each channel
   (graphcut.edgetpu.packing, statement 6).
4. A cached layer occupies whole groups of 64 rows; a streamed one sends its bytes in the file.

Source: for some room the rule reproduces what streams, to the precision of the print, in all published tails of
ResNet-50, ResNet-101, InceptionV3 and DenseNet201, and in every network of edgetpu_ladders.json whose sizes are those
of its description. Largest first alone fails for ResNets: their dense layer of 2.004 MiB is cached before a third
convolution of 2.252 MiB. ``LARGEST_CACHED`` lies between 6.75 MiB, which is cached, and 7.17 MiB, which streams even
alone.
Statement 2 takes O(n log n) for n layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphcut.edgetpu.computing import passes
from graphcut.edgetpu.layers import DENSE
from graphcut.edgetpu.packing import Packed
from graphcut.edgetpu.tile_memory import CHIP_BYTES, reserved
from graphcut.units import MIB

LARGEST_CACHED = 7 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """Which parameters of a run of layers are cached and which are streamed.

    Attributes:
        room_bytes: for cached parameters.
        on_chip_bytes: occupied by those that are cached; what the compiler prints as used.
        off_chip_bytes: of the layers that stream; what the compiler prints as streamed.
        sent_bytes: sent at every inference: more than ``off_chip_bytes`` where a layer is sent several times
            (graphcut.edgetpu.computing, statement 5).
        streamed: indices of the layers that stream, rising.
    """

    room_bytes: int
    on_chip_bytes: int
    off_chip_bytes: int
    sent_bytes: int
    streamed: tuple[int, ...]


def never_cached(packed: Packed) -> bool:
    """Whether a layer streams regardless of the room (statement 3)."""
    return packed.always_streams or packed.on_chip_bytes > LARGEST_CACHED


def room_beside(reserved: int) -> int:
    """Room for parameters next to activations of that many bytes."""
    return max(CHIP_BYTES - reserved, 0)


def cache(layers: Sequence[Packed], *, input_bytes: int = 0, room_bytes: int | None = None) -> Caching:
    """Decide which of these layers, in execution order, are cached.

    Args:
        layers: on the chip.
        input_bytes: of the segment's own inputs, which are kept whole.
        room_bytes: for parameters; None takes it from the activations.
    """
    if room_bytes is None:
        room_bytes = room_beside(max([input_bytes, *reserved([each.layer for each in layers])]))
    candidates = [index for index, each in enumerate(layers) if each.on_chip_bytes and not never_cached(each)]
    candidates.sort(key=lambda index: (layers[index].layer.op != DENSE, -layers[index].on_chip_bytes, index))
    left, cached = room_bytes, set[int]()
    for index in candidates:
        if layers[index].on_chip_bytes <= left:
            left -= layers[index].on_chip_bytes
            cached.add(index)
    # Tables of a SOFTMAX occupy no room of this kind and do not stream.
    streamed = tuple(
        index
        for index, each in enumerate(layers)
        if index not in cached and each.parameter_bytes and (each.on_chip_bytes or each.always_streams)
    )
    return Caching(
        room_bytes=room_bytes,
        on_chip_bytes=room_bytes - left,
        off_chip_bytes=sum(layers[index].parameter_bytes for index in streamed),
        sent_bytes=round(sum(layers[index].parameter_bytes * passes(layers[index].layer) for index in streamed)),
        streamed=streamed,
    )
