"""The layout of inputs: found where the file shows it, said by the source or by the user where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphcut import cli
from graphcut.errors import UsageError
from graphcut.graph import load
from graphcut.graph.model import Model

SHAPE = (1, 8, 12, 3)


def silent_net(*, turns: bool = False, shape: tuple[int, ...] = SHAPE) -> onnx.ModelProto:
    """Return a network whose input no operator turns to NCHW: pixels are summed up and weighted (``turns``: a Conv)."""
    rng = np.random.default_rng(0)
    weights = {"dense": rng.standard_normal((shape[3], 5)), "kernel": rng.standard_normal((4, shape[3], 3, 3))}
    initialisers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    initialisers.append(numpy_helper.from_array(np.array([1, 2]), "axes"))
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
    if turns:
        nodes = [
            helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["turned", "kernel"], ["out"]),
        ]
        ends.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, None))
    else:
        nodes = [
            helper.make_node("Relu", ["image"], ["relu"]),
            helper.make_node("ReduceMean", ["relu", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "dense"], ["out"]),
        ]
        ends.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 5]))
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def run(proto: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"image": image})[0]
    return result


def is_channels_first(model: Model, original: onnx.ModelProto) -> None:
    (image,) = model.inputs
    assert (image.source_layout, image.source_shape, image.shape) == ("NHWC", SHAPE, (1, 3, 8, 12))
    values = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    turned = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(run(model.proto, turned), run(original, values), rtol=1e-4, atol=1e-5)


def test_without_a_word_a_layout_that_does_not_show_is_taken_for_onnx_own(tmp_path: Path) -> None:
    (image,) = load.load(saved(silent_net(), tmp_path)).inputs
    assert (image.source_layout, image.shape) == ("NCHW", SHAPE)


@pytest.mark.parametrize("name", ["", "image"])
def test_a_layout_can_be_said(tmp_path: Path, name: str) -> None:
    proto = silent_net()
    is_channels_first(load.load(saved(proto, tmp_path), input_layouts={name: "NHWC"}), proto)


def test_a_source_that_writes_channels_last_is_believed_where_the_shape_is_an_images(tmp_path: Path) -> None:
    proto = silent_net()
    is_channels_first(load.load(saved(proto, tmp_path), channels_last=True), proto)
    other = silent_net(shape=(1, 8, 12, 7))
    (features,) = load.load(saved(other, tmp_path), channels_last=True).inputs
    assert features.source_layout == "NCHW"
    said = load.load(saved(proto, tmp_path), channels_last=True, input_layouts={"image": "NCHW"})
    assert said.inputs[0].source_layout == "NCHW"


@pytest.mark.parametrize("layouts", [{}, {"": "NHWC"}, {"image": "NHWC"}])
def test_a_layout_that_shows_needs_no_word_and_bears_it(tmp_path: Path, layouts: dict[str, str]) -> None:
    proto = silent_net(turns=True)
    model = load.load(saved(proto, tmp_path), input_layouts=layouts)  # type: ignore[arg-type]
    is_channels_first(model, proto)
    assert "Transpose" not in {node.op_type for node in model.graph.nodes}


def test_a_word_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = saved(silent_net(turns=True), tmp_path)
    with pytest.raises(UsageError, match="input 'image' is NHWC already: the model itself transposes it"):
        load.load(path, input_layouts={"image": "NCHW"})
    with pytest.raises(UsageError, match="no input 'picture': its inputs are image"):
        load.load(path, input_layouts={"picture": "NHWC"})


def test_inspect_shows_source_and_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(saved(silent_net(), tmp_path))
    assert cli.main(["-q", "inspect", path]) == 0
    assert capsys.readouterr().out.startswith("net (onnx), which takes image 1x8x12x3 NCHW\n")
    assert cli.main(["-q", "inspect", path, "--input-layout", "image:NHWC", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["kind"] == "onnx"
    assert model["inputs"] == [
        {"name": "image", "shape": [1, 3, 8, 12], "source_layout": "NHWC", "source_shape": [1, 8, 12, 3]}
    ]
    assert cli.main(["inspect", path, "--input-layout", "HWC"]) == 2
    assert "'HWC' is not a layout" in capsys.readouterr().err
