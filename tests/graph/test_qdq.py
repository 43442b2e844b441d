"""Models of quantisation-aware training: read as the float model they mean, their scales kept or taken anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from graphcut import flow
from graphcut.errors import ModelError
from graphcut.planning import plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.samples import load_samples
from tests.support.graph_nets import Values, model, node, normal, ops, random_inputs, run, weights

SCALES = {"x": (0.05, 0), "r1": (0.125, -128), "c2": (0.25, 7)}


def pair(name: str, dtype: type = np.int8) -> tuple[list[NodeProto], dict[str, Values]]:
    scale, zero = SCALES[name]
    point = np.array(zero + (128 if dtype is np.uint8 else 0), dtype)
    nodes = [
        node("QuantizeLinear", f"{name} {name}_s {name}_z", f"{name}_q", f"{name}/quantise"),
        node("DequantizeLinear", f"{name}_q {name}_s {name}_z", f"{name}_d", f"{name}/dequantise"),
    ]
    return nodes, {f"{name}_s": np.array(scale, np.float32), f"{name}_z": point}


def qdq(dtype: type = np.int8, opset: int = 13) -> onnx.ModelProto:
    """Conv, Relu, Conv with rounded activations and weights, and the float sizes around them."""
    parts = {name: pair(name, dtype) for name in SCALES}
    generator = np.random.default_rng(0)
    constants = {name: value for _, held in parts.values() for name, value in held.items()}
    constants |= {
        "w1_i": generator.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8),
        "w1_s": generator.uniform(0.001, 0.004, 8).astype(np.float32),
        "w1_z": np.zeros(8, np.int8),
        **weights(w2=(8, 8, 3, 3)),
    }
    nodes = [
        *parts["x"][0],
        node("DequantizeLinear", "w1_i w1_s w1_z", "w1", "w1/dequantise", axis=0),
        node("Conv", "x_d w1", "c1", "first", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        *parts["r1"][0],
        node("Conv", "r1_d w2", "c2", "second", pads=[1, 1, 1, 1]),
        *parts["c2"][0],
        node("Relu", "c2_d", "y"),
    ]
    return model(nodes, {"x": (1, 3, 16, 16)}, ["y"], constants, opset=opset)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_pairs_go_and_their_ranges_stay(dtype: type) -> None:
    proto = qdq(dtype)
    loaded = normal(proto)
    assert ops(loaded) == ["Conv", "Relu", "Conv", "Relu"]
    for name, (scale, zero) in SCALES.items():
        assert loaded.said_ranges[name] == pytest.approx(((-128 - zero) * scale, (127 - zero) * scale))
    assert "the ranges of 3 of 3 activations are kept" in loaded.notes[0]
    inputs = random_inputs(loaded)
    (wanted,), (found,) = run(proto, inputs), run(loaded.proto, inputs)
    assert np.abs(wanted - found).max() < 0.05 * np.abs(wanted).max(), "what is left is the rounding of the pairs"


def test_integer_inputs_and_outputs_become_real_numbers() -> None:
    proto = qdq(np.uint8)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes[1:-2]])  # from the input's DequantizeLinear to the output's QuantizeLinear
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x_q", TensorProto.UINT8, (1, 3, 16, 16)))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("c2_q", TensorProto.UINT8, None))
    loaded = normal(proto)
    assert ops(loaded) == ["Conv", "Relu", "Conv"]
    assert loaded.inputs[0].name == "x_q"
    assert {"x_q", "r1"} <= set(loaded.said_ranges)


def split(proto: onnx.ModelProto, folder: Path, *, requantise: bool) -> flow.SplitResult:
    path = folder / "net.onnx"
    onnx.save(proto, path)
    prepared = flow.prepare(str(path))
    options = plan_options.SplitOptions(plan=PlanOptions(strategy="given", cuts=("r1",)), jobs=1, requantise=requantise)
    return flow.split(prepared, load_samples("random", prepared.inputs, None, limit=4), options, folder / "out")


@pytest.mark.parametrize("requantise", [False, True])
def test_scales_of_the_file_are_kept_or_taken_from_the_samples(requantise: bool, tmp_path: Path) -> None:
    result = split(qdq(), tmp_path, requantise=requantise)
    assert result.verification.exact
    first, second = result.segments
    for tensor in (*first.inputs, *first.outputs, *second.inputs):
        scale, zero = SCALES[tensor.tensor]
        kept = tensor.scale == pytest.approx(scale, rel=1e-5) and tensor.zero_point == zero
        assert kept != requantise


@pytest.mark.parametrize("change", ["scale", "halves"])
def test_what_is_no_pair_is_refused(change: str) -> None:
    proto = qdq()
    if change == "scale":
        del proto.graph.initializer[[each.name for each in proto.graph.initializer].index("r1_s")]
        proto.graph.input.append(helper.make_tensor_value_info("r1_s", TensorProto.FLOAT, ()))
    else:
        proto.graph.node[6].input[1] = "x_s"
    with pytest.raises(ModelError, match="quantised"):
        normal(proto)
