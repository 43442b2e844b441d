"""A small detector whose end the Edge TPU cannot run."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tests.support.nets import Builder


def detector(seed: int = 0) -> onnx.ModelProto:
    """Two heads on four convolutions: a softmax over the scores of 256 boxes, and an exponential of their sizes."""
    b = Builder(seed)
    trunk = "image"
    for index in range(4):
        channels = (16 if index else 3, 16)
        trunk = b.node("Relu", [b.conv(trunk, f"conv_{index}", channels, stride=1 if index else 2)], f"relu_{index}")
    b.weights.append(numpy_helper.from_array(np.array([1, 256, 4], np.int64), "rows"))

    def head(name: str) -> str:
        turned = b.node("Transpose", [b.conv(trunk, f"{name}_map", (16, 4))], f"{name}_nhwc", perm=[0, 2, 3, 1])
        return b.node("Reshape", [turned, "rows"], f"{name}_rows")

    b.node("Softmax", [head("scores")], "scores", axis=-1)
    half = b.weight("half", np.array([0.5]))
    b.node("Mul", [b.node("Exp", [head("boxes")], "sizes"), half], "boxes")
    return b.model({"image": (1, 3, 32, 32)}, {"scores": (1, 256, 4), "boxes": (1, 256, 4)})
