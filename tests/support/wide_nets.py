"""Models that single tensors cannot cut, or whose layers are larger than a budget; seeded weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tests.support.nets import Builder

VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
VGG19 = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
SMALL_VGG = ((1, 8), (1, 16))


def unet(width: int = 8, depth: int = 3, seed: int = 0) -> onnx.ModelProto:
    """Pooled convolutions down (``down0`` ..), transposed ones and a Concat with the skip up; one map as output."""
    b = Builder(seed)
    x, channels = "image", 3
    skips: list[tuple[str, int]] = []
    for level in range(depth):
        x = b.node("Relu", [b.conv(x, f"down{level}_conv", (channels, width << level))], f"down{level}")
        channels = width << level
        skips.append((x, channels))
        x = b.node("MaxPool", [x], f"pool{level}", kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Relu", [b.conv(x, "bottom_conv", (channels, 2 * channels))], "bottom")
    channels *= 2
    for level, (skip, across) in reversed(list(enumerate(skips))):
        weights = b.weight(f"up{level}/w", b.rng.standard_normal((channels, across, 2, 2)) * channels**-0.5)
        x = b.node("ConvTranspose", [x, weights], f"up{level}", kernel_shape=[2, 2], strides=[2, 2])
        x = b.node("Concat", [x, skip], f"join{level}", axis=1)
        x = b.node("Relu", [b.conv(x, f"merge{level}_conv", (2 * across, across))], f"merge{level}")
        channels = across
    x = b.conv(x, "mask", (channels, 4), kernel=1)
    return b.model({"image": (1, 3, 32, 32)}, {x: (1, 4, 32, 32)})


def pyramid(seed: int = 0) -> onnx.ModelProto:
    """A backbone whose three levels meet top-down (nearest upsampling), with an output of its own for each level."""
    b = Builder(seed)
    x = b.node("Relu", [b.conv("image", "stem_conv", (3, 8), stride=2)], "stem")
    levels = []
    for number, (before, width) in enumerate([(8, 16), (16, 24), (24, 32)]):
        x = b.node("Relu", [b.conv(x, f"level{number}_conv", (before, width), stride=2)], f"level{number}")
        levels.append((x, width))
    upper, outputs = "", {}
    for number, (level, width) in reversed(list(enumerate(levels))):
        side = b.conv(level, f"side{number}", (width, 16), kernel=1)
        if upper:
            scales = b.weight(f"scales{number}", np.array([1, 1, 2, 2]))
            up = b.node("Resize", [upper, "", scales], f"up{number}", mode="nearest", nearest_mode="floor",
                        coordinate_transformation_mode="asymmetric")  # fmt: skip
            side = b.node("Add", [side, up], f"sum{number}")
        upper = b.node("Relu", [b.conv(side, f"smooth{number}", (16, 16))], f"pyramid{number}")
        outputs[b.conv(upper, f"head{number}", (16, 6), kernel=1)] = (1, 6, 16 >> number, 16 >> number)
    return b.model({"image": (1, 3, 64, 64)}, dict(sorted(outputs.items())))


def vgg(
    blocks: Sequence[tuple[int, int]], size: int, hidden: Sequence[int], classes: int, seed: int = 0
) -> onnx.ModelProto:
    """Convolutions and pools, then dense layers ``fc1`` ..; ``vgg(VGG16, 224, (4096, 4096), 1000)`` is VGG16."""
    b = Builder(seed)
    rng = b.rng

    def weight(name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 200
        return b.weight(name, rng.standard_normal(shape, dtype=np.float32) * np.float32((2 / fan_in) ** 0.5))

    x, channels = "image", 3
    for number, (count, width) in enumerate(blocks, start=1):
        for index in range(1, count + 1):
            name = f"block{number}_conv{index}"
            inputs = [x, weight(f"{name}/w", width, channels, 3, 3), weight(f"{name}/b", width)]
            x = b.node("Relu", [b.node("Conv", inputs, name, kernel_shape=[3, 3], pads=[1] * 4)], f"{name}_relu")
            channels = width
        x = b.node("MaxPool", [x], f"block{number}_pool", kernel_shape=[2, 2], strides=[2, 2])
        size //= 2
    x, features = b.node("Flatten", [x], "flatten"), channels * size * size
    for number, units in enumerate([*hidden, classes], start=1):
        name = f"fc{number}"
        x = b.node("Gemm", [x, weight(f"{name}/w", units, features), weight(f"{name}/b", units)], name, transB=1)
        features = units
        if number <= len(hidden):
            x = b.node("Relu", [x], f"{name}_relu")
    return b.model({"image": (1, 3, size << len(blocks), size << len(blocks))}, {x: (1, classes)})
