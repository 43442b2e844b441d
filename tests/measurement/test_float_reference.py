"""The float reference: the same bits however many samples run at a time, in one piece or in a chain."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphcut.graph.reference import Reference


def _layers() -> onnx.ModelProto:
    """A convolution and a dense layer whose sums are long enough to be divided among threads."""
    rng = np.random.default_rng(3)
    weights = {
        "w": rng.normal(size=(96, 64, 3, 3)).astype(np.float32) / 24,
        "v": rng.normal(size=(96 * 36, 50)).astype(np.float32) / 60,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["y"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["z"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 6, 6])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 50])
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "layers", [x], [z], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_bits_do_not_depend_on_what_runs_beside(at_once: int):
    reference = Reference(_layers())
    samples = [{"x": np.random.default_rng(n).normal(size=(1, 64, 6, 6)).astype(np.float32)} for n in range(6)]
    alone = [reference.run(sample)["z"] for sample in samples]
    found = [made["z"] for made in reference.run_all(samples, at_once=at_once)]
    assert [each.tobytes() for each in found] == [each.tobytes() for each in alone]


def test_samples_come_back_in_order():
    reference = Reference(_layers())
    samples = [{"x": np.full((1, 64, 6, 6), n, np.float32)} for n in range(4)]
    norms = [float(np.abs(made["z"]).sum()) for made in reference.run_all(samples)]
    assert norms == sorted(norms)
    assert norms[0] == 0
