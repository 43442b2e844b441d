"""Rewrites that pay on one target and not on others, chosen by the costs of both forms.

1. A batch normalisation that cannot be folded is a Mul and an Add by one constant per channel. The Edge TPU streams
   those constants at every inference (graphcut.edgetpu.packing, statement 6). As a depthwise 1x1 convolution they are
   weights: cached, or streamed as half the bytes, and multiplied once for each pixel.
2. On other targets the pair stays: nothing streams there, and a depthwise convolution needs more bytes in the file.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphcut.edgetpu.computing import work
from graphcut.edgetpu.layers import DEPTHWISE, Layer
from graphcut.edgetpu.packing import pack_layer
from graphcut.errors import UsageError
from graphcut.graph.passes.affine import pairs_to_depthwise
from graphcut.graph.passes.base import Pass
from graphcut.prediction.device_profiles import DEFAULT, DeviceProfile

ANY, EDGETPU = "any", "edgetpu"
TARGETS = (ANY, EDGETPU)


def passes_for(target: str, device: DeviceProfile = DEFAULT) -> tuple[Pass, ...]:
    """The rewrites for a target, one of ``TARGETS``, that run after those of the catalogue.

    Args:
        target: of the int8 files.
        device: the device whose times decide.

    Raises:
        UsageError: there is no such target.
    """
    if target not in TARGETS:
        raise UsageError(f"there is no target {target!r}", f"use {' or '.join(TARGETS)}")
    if target != EDGETPU:
        return ()
    return (pairs_to_depthwise(lambda channels, height, width: depthwise_pays(channels, height, width, device)),)


def depthwise_pays(channels: int, height: int, width: int, device: DeviceProfile = DEFAULT) -> bool:
    """Whether a depthwise convolution that streams takes less time than a Mul and an Add; a cached one takes even less.

    >>> depthwise_pays(512, 14, 14), depthwise_pays(16, 512, 512)
    (True, False)
    """
    shape = (1, height, width, channels)
    pair = [Layer(name=op, op=op, inputs=(shape,), outputs=(shape,), constants=channels) for op in ("MUL", "ADD")]
    weights = (1, 1, 1, channels)
    single = Layer(name="dw", op=DEPTHWISE, inputs=(shape,), outputs=(shape,), weights=weights, taps=1, words=3)
    return _own_ms([single], device) < _own_ms(pair, device)


def _own_ms(layers: Sequence[Layer], device: DeviceProfile) -> float:
    """Milliseconds of computing and of streaming all parameters."""

    def whole(streamed: int, computed: int) -> float:
        return device.latency_ms(
            host_in=0.0, seam_in=0.0, work=float(computed), off_chip=float(streamed), seam_out=0.0, host_out=0.0
        )

    streamed = sum(pack_layer(each).parameter_bytes for each in layers)
    return whole(streamed, sum(map(work, layers))) - whole(0, 0)
