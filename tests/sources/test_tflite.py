"""TFLite files that are refused before TensorFlow is needed, and the names and edges of what is made of them."""

from __future__ import annotations

import sys
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graphcut import flow
from graphcut.errors import DependencyError, ModelError, UsageError
from graphcut.sources import tflite_check, tflite_names, tflite_rewrite
from graphcut.tflite import schema
from tests.support.places import SHARED

FUSED = "net/conv/relu/Relu6;net/conv/bn/FusedBatchNormV3;net/conv/Conv2D"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (FUSED, "net/conv/relu/Relu6"),
        (f"{FUSED}_prequant", "net/conv/relu/Relu6"),
        (f"{FUSED}_prequant__204:0", "net/conv/relu/Relu6__204:0"),
        ("net_1/dw_1/depthwise1", "net_1/dw_1/depthwise"),
        ("net_1/head_1/MatMul2;net_1/head_1/Add", "net_1/head_1/MatMul"),
        ("net/project/FusedBatchNormV3", "net/project/FusedBatchNormV3"),
        ("net/project/FusedBatchNormV31", "net/project/FusedBatchNormV3"),
        ("net/conv/Conv2D", "net/conv/Conv2D"),
        ("net/conv/Conv2D1", "net/conv/Conv2D"),
        ("net/a/Relu61", "net/a/Relu6"),
        ("net/conv1", "net/conv1"),
        ("StatefulPartitionedCall/net/gap/Mean", "net/gap/Mean"),
        ("StatefulPartitionedCall_1:0", "StatefulPartitionedCall_1:0"),
        ("gap/Mean_prequant_Squeeze__71:0", "gap/Mean_Squeeze__71:0"),
        ("Relu__5:0", "Relu__5:0"),
    ],
)
def test_the_last_of_the_fused_operators_gives_the_name(name: str, wanted: str) -> None:
    assert tflite_names.readable(name) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("serving_default_image:0", "image"), ("serve_image:0", "image"), ("input", "input"), ("input_1:0", "input_1")],
)
def test_entry_points_lose_their_prefix(name: str, wanted: str) -> None:
    assert tflite_names.entry_name(name) == wanted


@given(st.lists(st.sampled_from([FUSED, f"{FUSED}_prequant", "a;b", "a", "", "a_2"]), max_size=6))
def test_names_stay_distinct(names: list[str]) -> None:
    distinct = list(dict.fromkeys(name for name in names if name))
    tensors = ["x", *distinct, "y"]
    nodes = [helper.make_node("Relu", [a], [b], name=b) for a, b in pairwise(tensors)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    tflite_names.settle(graph, {}, {})
    onnx.checker.check_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), full_check=True)


def integer_graph() -> onnx.GraphProto:
    """What tf2onnx leaves of a network with integer edges: int8 -> float, two readers, float -> uint8, transposed."""
    scalars = {"scale": 0.5, "zero": 3.0, "out_scale": 0.25}
    weights = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in scalars.items()]
    weights.append(numpy_helper.from_array(np.array(10, np.uint8), "out_zero"))
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["cast", "zero"], ["sub"]),
        helper.make_node("Mul", ["sub", "scale"], ["real"]),
        helper.make_node("Relu", ["real"], ["relu_prequant"]),
        helper.make_node("Add", ["real", "relu_prequant"], ["sum_prequant"]),
        helper.make_node("QuantizeLinear", ["sum_prequant", "out_scale", "out_zero"], ["raw"]),
        helper.make_node("Transpose", ["raw"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("QuantizeLinear", ["relu_prequant", "out_scale", "out_zero"], ["direct"]),
    ]
    given_ = [helper.make_tensor_value_info("image", TensorProto.INT8, [1, 2, 3])]
    made = [
        helper.make_tensor_value_info("turned", TensorProto.UINT8, [1, 3, 2]),
        helper.make_tensor_value_info("direct", TensorProto.UINT8, [1, 2, 3]),
    ]
    return helper.make_graph(nodes, "g", given_, made, weights)


def run(graph: onnx.GraphProto, image: np.ndarray) -> list[np.ndarray]:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    results: list[np.ndarray] = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {model.graph.input[0].name: image})
    return results


def test_integer_edges_become_the_real_numbers_they_stand_for() -> None:
    graph = integer_graph()
    image = np.random.default_rng(0).integers(-40, 40, (1, 2, 3), np.int8)
    before = run(graph, image)
    tflite_names.settle(graph, {"image": "picture"}, {"turned": "sum"})
    assert [value.name for value in (*graph.input, *graph.output)] == ["picture", "sum", "direct"]
    assert not {"Cast", "QuantizeLinear", "Sub"} & {node.op_type for node in graph.node}
    after = run(graph, (image.astype(np.float32) - 3) * 0.5)
    for steps, values in zip(before, after, strict=True):
        assert values.dtype == np.float32
        real = (steps.astype(np.float32) - 10) * 0.25
        inside = (steps > 0) & (steps < 255)
        assert inside.any()
        assert float(np.abs(real - values)[inside].max()) <= 0.125


def test_an_integer_input_with_other_readers_is_left_alone() -> None:
    graph = integer_graph()
    graph.node.append(helper.make_node("Identity", ["image"], ["again"]))
    graph.output.append(helper.make_tensor_value_info("again", TensorProto.INT8, [1, 2, 3]))
    tflite_names.settle(graph, {}, {})
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.INT8
    assert "Cast" in {node.op_type for node in graph.node}


def real_file(tmp_path: Path) -> Path:
    found = SHARED / "models" / "mobilenet_v2_imagenet_ptq.tflite"
    if not found.exists():
        pytest.skip("no shared data here (mobilenet_v2_imagenet_ptq.tflite)")
    path = tmp_path / "net.tflite"
    path.write_bytes(found.read_bytes())
    return path


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.3, 0.99])
def test_a_file_cut_short_is_one_line(tmp_path: Path, share: float) -> None:
    path = real_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"is empty|is damaged|is not a TFLite file") as caught:
        flow.prepare(str(path), cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_text_file_called_tflite(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_text("this is a text file, not a model\n")
    with pytest.raises(ModelError, match="is not a TFLite file"):
        flow.prepare(str(path))
    with pytest.raises(UsageError, match="does not exist"):
        flow.prepare(str(tmp_path / "other.tflite"))


def test_a_good_file_without_tensorflow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    path = real_file(tmp_path)
    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(
        DependencyError, match="TFLite files need packages that are not installed: tensorflow, keras"
    ) as caught:
        flow.prepare(str(path))
    assert f"{sys.executable} -m pip install" in str(caught.value)


def test_a_quantised_file_is_seen(tmp_path: Path) -> None:
    path = real_file(tmp_path)
    checked = tflite_check.check(path, "net.tflite")
    assert checked.quantised
    assert not checked.rewritten


def test_a_compiled_file_and_a_custom_operator_are_refused(tmp_path: Path) -> None:
    path = real_file(tmp_path)
    model = schema.read(path.read_bytes())
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode = 32, 32
    for custom, reason in (
        (b"edgetpu-custom-op", "is already compiled for the Edge TPU"),
        (b"MyOp", "is produced by the custom operator 'MyOp'"),
    ):
        code.customCode = custom
        path.write_bytes(schema.write(model))
        with pytest.raises(ModelError, match=reason):
            tflite_check.check(path, "net.tflite")


@pytest.mark.parametrize(
    ("code", "reason"), [(44, "UNIDIRECTIONAL_SEQUENCE_LSTM. is recurrent"), (119, "WHILE. is control flow")]
)
def test_recurrence_and_control_flow_are_refused_by_name(tmp_path: Path, code: int, reason: str) -> None:
    path = real_file(tmp_path)
    model = schema.read(path.read_bytes())
    operator = model.subgraphs[0].operators[3]
    changed = model.operatorCodes[operator.opcodeIndex]
    changed.builtinCode, changed.deprecatedBuiltinCode = code, min(code, 127)
    path.write_bytes(schema.write(model))
    with pytest.raises(ModelError, match=rf"net\.tflite: '.+' \({reason}"):
        tflite_check.check(path, "net.tflite")


def test_tensors_that_share_a_name_get_their_own(tmp_path: Path) -> None:
    path = real_file(tmp_path)
    model = schema.read(path.read_bytes())
    tensors = model.subgraphs[0].tensors
    for tensor in tensors[-4:]:
        tensor.name = b"same"
    tensors[-5].name = b""
    path.write_bytes(schema.write(model))
    assert tflite_check.check(path, "net.tflite").rewritten
    other = tmp_path / "other.tflite"
    tflite_rewrite.rewrite(path, "net.tflite", other, {}, {})
    assert not tflite_check.check(other, "net.tflite").rewritten
    names = [schema.tensor_name(tensor) for tensor in schema.read(other.read_bytes()).subgraphs[0].tensors]
    assert {"same", "same_2", "same_3", "same_4", f"tensor_{len(names) - 5}"} <= set(names)
