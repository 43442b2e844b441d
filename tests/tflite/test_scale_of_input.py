"""The operators that keep their input's scale, held against what a real split writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import graphcut
from graphcut.tflite import edit, schema
from graphcut.tflite.scale_of_input import ONNX_OPERATORS, TFLITE_OPERATORS
from tests.support.nets import Builder


def net(op_type: str) -> onnx.ModelProto:
    """Conv, Relu, the operator, Conv: a seam after the operator has one tensor."""
    made = Builder()
    x = made.node("Relu", [made.conv("image", "c1", (3, 16))], "r1")
    if op_type in ("MaxPool", "AveragePool"):
        x = made.node(op_type, [x], "op", kernel_shape=[2, 2], strides=[2, 2])
    elif op_type == "Resize":
        scales = made.weight("scales", np.array([1, 1, 2, 2]))
        x = made.node("Resize", [x, "", scales], "op", mode="linear", coordinate_transformation_mode="half_pixel")
    elif op_type == "Slice":
        ends = [
            numpy_helper.from_array(np.array([value], np.int64), name)
            for name, value in (("starts", 2), ("ends", 20), ("axes", 2))
        ]
        made.weights += ends
        x = made.node("Slice", [x, "starts", "ends", "axes"], "op")
    sides = {"MaxPool": (16, 16), "AveragePool": (16, 16), "Resize": (64, 64), "Slice": (18, 32)}[op_type]
    return made.model({"image": (1, 3, 32, 32)}, {made.conv(x, "c2", (16, 8)): (1, 8, *sides)})


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "Resize", "Slice"])
def test_a_seam_after_such_an_operator_has_the_scale_of_its_input(op_type: str, tmp_path: Path) -> None:
    assert op_type in ONNX_OPERATORS
    onnx.save(net(op_type), tmp_path / "model.onnx")
    made = graphcut.split(
        tmp_path / "model.onnx",
        calibration="random",
        samples=4,
        out=tmp_path / "out",
        cuts=["op"],
        effort="fast",
        reuse=False,
    )
    assert made.verification.exact
    first, second = made.segments
    file = schema.read(first.tflite_path.read_bytes())
    graph = edit.graph_of(file)
    kept = [each for each in graph.operators if schema.op_name(file, each) in TFLITE_OPERATORS]
    assert kept, "the operator is in the segment"
    for each in kept:
        given = int(each.inputs[TFLITE_OPERATORS[schema.op_name(file, each)]])
        assert edit.scale_of(file, given) == edit.scale_of(file, int(each.outputs[0]))
    (seam,) = second.inputs
    assert edit.scale_of(file, int(graph.outputs[0])) == (seam.scale, seam.zero_point)
