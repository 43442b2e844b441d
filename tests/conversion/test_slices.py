"""Slices of maps along any axis: written without TRANSPOSE, and foreseen to the byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphcut
from graphcut.tflite import edit, schema
from tests.support.nets import Builder, saved

WAYS = {
    "rows": ([8], [16], [2], [1]),
    "columns": ([0], [8], [3], [1]),
    "rows and columns": ([4, 4], [12, 12], [2, 3], [1, 1]),
    "channels": ([0], [4], [1], [1]),
    "every second row": ([0], [16], [2], [2]),
}


def sliced(way: str) -> tuple[onnx.ModelProto, str]:
    """Two convolutions, what is sliced from their map, and a convolution after it; the name of the slice."""
    b = Builder(0)
    x = "image"
    for number, channels in enumerate(((3, 8), (8, 8))):
        x = b.node("Relu", [b.conv(x, f"conv_{number}", channels)], f"relu_{number}")
    size = np.zeros((1, 8, 16, 16), np.float32)
    if way == "halves":
        b.nodes.append(onnx.helper.make_node("Split", [x], ["upper", "lower"], name="halves", axis=2))
        x, size = b.node("Add", ["upper", "lower"], "part"), size[:, :, :8]
    else:
        starts, ends, axes, steps = WAYS[way]
        for name, values in (("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps)):
            b.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        x = b.node("Slice", [x, "starts", "ends", "axes", "steps"], "part")
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            size = np.take(size, range(start, end, step), axis=axis)
    b.conv(x, "last", (size.shape[1], 4))
    return b.model({"image": (1, 3, 16, 16)}, {"last": (1, 4, *size.shape[2:])}), x


@pytest.mark.parametrize("way", [*WAYS, "halves"])
def test_a_segment_that_ends_in_a_slice_has_the_size_foreseen(way: str, tmp_path: Path):
    proto, part = sliced(way)
    model = graphcut.load(saved(proto, tmp_path))
    foreseen = graphcut.plan(model, cuts=[part])
    split = graphcut.split(
        model, calibration="random", out=tmp_path / "out", cuts=[part], effort="fast", min_sqnr=0.0, reuse=False
    )
    assert split.verification.exact
    for segment in split.segments:
        written = schema.read(segment.tflite_path.read_bytes())
        assert "TRANSPOSE" not in [schema.op_name(written, each) for each in edit.graph_of(written).operators]
    assert [each.tflite_bytes for each in split.plan.segments] == [each.tflite_bytes for each in foreseen.segments]
