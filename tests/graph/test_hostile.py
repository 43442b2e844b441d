"""Files that attack: strides of zero, parameters that are too short, names that are no text, sizes without end.

Each would crash a native library, exhaust the machine or end in a traceback; each is one line before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from graphcut.errors import ModelError
from graphcut.graph.budget import MOST_NODES
from graphcut.graph.load import load


def window(op_type: str, weights: tuple[tuple[int, ...], ...] = (), **attributes: object) -> ModelProto:
    """A model of one node on 1 x 4 x 8 x 8, with weights of some shapes."""
    names = [f"w{number}" for number in range(len(weights))]
    return one(helper.make_node(op_type, ["x", *names], ["y"], name="bad", **attributes), weights)


def one(node: onnx.NodeProto, weights: tuple[tuple[int, ...], ...] = ()) -> ModelProto:
    arrays = [numpy_helper.from_array(np.ones(shape, np.float32), f"w{n}") for n, shape in enumerate(weights)]
    graph = helper.make_graph(
        [node],
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        arrays,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


CONV = ((6, 4, 3, 3), (6,))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (window("MaxPool", kernel_shape=[2, 2], strides=[0, 0]), "strides is [0, 0]"),
        (window("AveragePool", kernel_shape=[0, 2]), "kernel_shape is [0, 2]"),
        (window("MaxPool", kernel_shape=[2, 2], strides=[1]), "strides has 1 values"),
        (window("MaxPool", kernel_shape=[2, 2], pads=[0, 0]), "pads has 2 values"),
        (window("MaxPool", kernel_shape=[2, 2], pads=[0, -1, 0, 0]), "pads is [0, -1, 0, 0]"),
        (window("MaxPool", kernel_shape=[2, 2], dilations=[2**40, 1]), f"dilations is [{2**40}, 1]"),
        (window("Conv", CONV, strides=[1, 0]), "strides is [1, 0]"),
        (window("Conv", CONV, dilations=[0, 1]), "dilations is [0, 1]"),
        (window("Conv", CONV, group=0), "group is 0"),
        (window("Conv", ((6, 1, 3, 3), (6,)), group=4), "6 channels cannot be divided into 4 groups"),
        (window("Conv", CONV, kernel_shape=[5, 5]), "its weight has the kernel (3, 3)"),
        (window("Conv", ((6, 4, 3, 3), (1,))), "its bias is 1, but there are 6 channels"),
        (window("Conv", ((6, 4, 3, 3), (6, 1))), "its bias is 6x1, but there are 6 channels"),
        (window("Conv", ((6, 3, 3, 3), (6,))), "its weight is for 3 channels"),
        (window("Conv", ((6, 4), (6,))), "its weight has 2 dimensions"),
        (window("ConvTranspose", ((4, 3, 2, 2), (2,))), "its bias is 2, but there are 3 channels"),
        (window("ConvTranspose", ((4, 3, 3, 3),), output_padding=[0, 1]), "output_padding is 1; it must be less than"),
        (
            window("ConvTranspose", ((4, 3, 3, 3),), output_padding=[2, 2], strides=[2, 2], dilations=[3, 3]),
            "output_padding is 2; it must be less than the stride of 2",
        ),
        (window("ConvTranspose", ((4, 3, 3, 3),), output_shape=[10, 11]), "its windows cover only 10 along axis 3"),
        (
            window("ConvTranspose", ((4, 3, 3, 3),), output_shape=[1, 3, 19, 17], strides=[2, 2]),
            "its windows cover only 17 along axis 2",
        ),
        (window("ConvTranspose", ((4, 3, 2, 2),), output_padding=[-1, 0]), "output_padding is [-1, 0]"),
        (window("BatchNormalization", ((4,), (4,), (3,), (4,))), "its input 'w2' is 3, but there are 4 channels"),
        (window("InstanceNormalization", ((4,), (2,))), "its input 'w1' is 2, but there are 4 channels"),
        (window("SpaceToDepth", blocksize=0), "blocksize is 0"),
        (window("LRN", size=0), "size is 0"),
    ],
)
def test_windows_and_parameters_are_checked_before_anything_runs(model: ModelProto, said: str, tmp_path: Path) -> None:
    assert said in refusal(model, tmp_path)
    assert "'bad'" in refusal(model, tmp_path)


def unknown_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 99


def typeless_weight(model: ModelProto) -> None:
    model.graph.initializer.add(name="w", dims=[1])


def negative_size(model: ModelProto) -> None:
    model.graph.initializer.add(name="w", dims=[-3], data_type=TensorProto.FLOAT)


def endless_size(model: ModelProto) -> None:
    model.graph.initializer.add(name="w", dims=[2**31, 2**40], data_type=TensorProto.FLOAT)


def too_short(model: ModelProto) -> None:
    model.graph.initializer.add(name="w", dims=[3], data_type=TensorProto.FLOAT, raw_data=b"12345")


def short_attribute(model: ModelProto) -> None:
    value = TensorProto(dims=[2], data_type=TensorProto.INT64)
    model.graph.node[0].attribute.add(name="value", type=AttributeProto.TENSOR, t=value)


def untyped_attribute(model: ModelProto) -> None:
    model.graph.node[0].attribute.add(name="pads")


def twice(model: ModelProto) -> None:
    model.graph.node[0].attribute.extend([helper.make_attribute("alpha", 1.0), helper.make_attribute("alpha", 2.0)])


def ancient_and_future(model: ModelProto) -> None:
    model.opset_import[0].version = -(2**40)


def endless_name(model: ModelProto) -> None:
    model.graph.node[0].name = "n" * 100_000


def escapes(model: ModelProto) -> None:
    model.graph.node[0].op_type = "Relu\x1b]0;owned\x07"


def many_dimensions(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.ClearField("dim")
    for _ in range(5000):
        model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)


def huge_batch(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**22


def huge_image(model: ModelProto) -> None:
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 40_000


def many_weights(model: ModelProto) -> None:
    for number in range(200_000):
        model.graph.initializer.add(name=f"w{number}", dims=[1], data_type=TensorProto.FLOAT, float_data=[1.0])


def doubling_functions(model: ModelProto) -> None:
    """Fifty functions, each of which calls the one before it twice: 2^50 nodes."""
    model.opset_import.add(domain="local", version=1)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    for number in range(50):
        called = ("Relu", "") if number == 0 else (f"F{number - 1}", "local")
        nodes = [helper.make_node(called[0], [a], [b], domain=called[1]) for a, b in (("a", "b"), ("b", "c"))]
        model.functions.append(helper.make_function("local", f"F{number}", ["a"], ["c"], nodes, imports))
    model.graph.node[0].op_type, model.graph.node[0].domain = "F49", "local"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (unknown_type, "an unknown type (99)"),
        (typeless_weight, "an unknown type (0)"),
        (negative_size, "impossible dimensions (-3)"),
        (endless_size, "more than fit into a file"),
        (too_short, "weight 'w' does not contain the 3 numbers"),
        (short_attribute, "does not contain the 2 numbers"),
        (untyped_attribute, "attribute 'pads' of node 'fine' (Relu) has no type"),
        (twice, "attribute 'alpha' is declared twice"),
        (ancient_and_future, f"the impossible version {-(2**40)}"),
        (endless_name, "100000 characters"),
        (escapes, "control characters ('Relu\\x1b]0;owned\\x07')"),
        (many_dimensions, "5000 dimensions"),
        (huge_batch, "too large"),
        (huge_image, "1x4x40000x40000"),
        (many_weights, "200,000 weights"),
        (doubling_functions, "over 10^12 nodes with its local functions inlined"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damaged_messages_are_refused(damage: Callable[[ModelProto], None], said: str, tmp_path: Path) -> None:
    model = one(helper.make_node("Relu", ["x"], ["y"], name="fine"))
    damage(model)
    message = refusal(model, tmp_path)
    assert said in message
    assert len(message) < 500


@pytest.mark.parametrize("field", ["op_type", "name", "domain", "input", "output"])
def test_text_that_is_not_utf8_is_refused(field: str, tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="fine")
    if field in ("input", "output"):
        getattr(node, field)[0] = "QQQQ"
    else:
        setattr(node, field, "QQQQ")
    content = one(node).SerializeToString()
    assert b"QQQQ" in content
    path = tmp_path / "bytes.onnx"
    path.write_bytes(content.replace(b"QQQQ", b"Q\xff\xfeQ"))
    with pytest.raises(ModelError, match="is not UTF-8 text"):
        load(path)


def test_external_data_of_inner_values_is_read_from_the_models_folder_only(tmp_path: Path) -> None:
    """A Constant's value may be external data: it comes from beside the model, and from nowhere else."""
    value = TensorProto(name="c", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="../secret.bin")
    model = one(helper.make_node("Relu", ["x"], ["y"], name="fine"))
    model.opset_import.add(domain="local", version=1)
    constant = helper.make_node("Constant", [], ["k"], value=value)
    added = helper.make_node("Add", ["a", "k"], ["b"])
    model.functions.append(
        helper.make_function("local", "Reads", ["a"], ["b"], [constant, added], [helper.make_opsetid("", 17)])
    )
    model.graph.node[0].op_type, model.graph.node[0].domain = "Reads", "local"
    (tmp_path / "secret.bin").write_bytes(b"1234")
    inside = tmp_path / "inside"
    inside.mkdir()
    assert "outside the model's folder" in refusal(model, inside)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"offset": "-4"}, "which has 4"),
        ({"offset": str(2**70)}, "which has 4"),
        ({"length": str(2**62)}, "which has 4"),
        ({"length": "-1"}, "which has 4"),
        ({"offset": "9" * 5000}, "characters"),
        ({"offset": "x"}, "its offset or length is no number"),
        ({"location": "a" * 300}, "cannot be read"),
        ({"location": "pipe"}, "missing"),
    ],
)
def test_places_of_external_data_are_checked(entries: dict[str, str], said: str, tmp_path: Path) -> None:
    import os

    model = one(helper.make_node("Relu", ["x"], ["y"], name="fine"))
    tensor = model.graph.initializer.add(
        name="w", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
    )
    for key, text in {"location": "data.bin", **entries}.items():
        tensor.external_data.add(key=key, value=text)
    (tmp_path / "data.bin").write_bytes(b"1234")
    os.mkfifo(tmp_path / "pipe")
    assert said in refusal(model, tmp_path)


def test_as_many_nodes_as_allowed_are_read(tmp_path: Path) -> None:
    assert MOST_NODES >= 10_000
    model = one(helper.make_node("Relu", ["x"], ["n0"], name="first"))
    for number in range(MOST_NODES):
        model.graph.node.append(helper.make_node("Relu", [f"n{number}"], [f"n{number + 1}"]))
    model.graph.output[0].name = f"n{MOST_NODES}"
    assert f"{MOST_NODES + 1:,} nodes" in refusal(model, tmp_path)


def refusal(model: ModelProto, folder: Path) -> str:
    """The one line with which a model is refused."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.FLOAT])
@pytest.mark.parametrize("dims", [[6, 4, 3, 3], [864]])
def test_a_weight_whose_type_does_not_fit_its_bytes_is_refused(kind: int, dims: list[int], tmp_path: Path) -> None:
    """A scale of one dimension is read before the weights are."""
    model = window("Conv", CONV)
    model.graph.initializer[0].dims[:] = dims
    model.graph.initializer[0].data_type = kind
    model.graph.initializer[0].raw_data += b"\0\0\0\0"
    model.graph.node.add(op_type="QuantizeLinear", input=["y", "w0", "zero"], output=["q"])
    assert "weight 'w0' does not contain the" in refusal(model, tmp_path)


@pytest.mark.parametrize(
    ("op_type", "name", "value"),
    [("Conv", "group", [1]), ("Conv", "group", 1.0), ("Conv", "strides", 1), ("Softmax", "axis", "1")],
)
def test_attributes_of_another_type_are_refused(op_type: str, name: str, value: object, tmp_path: Path) -> None:
    model = window(op_type, CONV if op_type == "Conv" else (), **{name: value})
    assert f"attribute {name!r} of node 'bad' ({op_type}) is not of the operator's type" in refusal(model, tmp_path)


@pytest.mark.parametrize("count", [1, 30])
def test_functions_that_call_each_other_in_branches_are_counted(count: int, tmp_path: Path) -> None:
    """One that calls itself in a branch, and thirty of which each calls the next one in both branches."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = []
    for number in range(count):
        follower = f"F{number + 1}" if number + 1 < count > 1 else "F0" if count == 1 else "Relu"
        made = helper.make_node(follower, ["a"], ["q"], domain="" if follower == "Relu" else "local")
        branch = helper.make_graph([made], "branch", [], [helper.make_tensor_value_info("q", TensorProto.FLOAT, None)])
        nodes = [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
            helper.make_node("If", ["c"], ["b"], then_branch=branch, else_branch=branch),
        ]
        functions.append(helper.make_function("local", f"F{number}", ["a"], ["b"], nodes, imports))
    model = one(helper.make_node("F0", ["x"], ["y"], domain="local"))
    model.opset_import.add(domain="local", version=1)
    model.functions.extend(functions)
    assert ("recursively (F0)" if count == 1 else "nodes with its local functions inlined") in refusal(model, tmp_path)


def test_external_data_in_a_circle_of_links_is_missing(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").symlink_to("weights.bin")
    model = window("Conv", CONV)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    assert "'weights.bin', which is missing from" in refusal(model, tmp_path)


@pytest.mark.parametrize("size", [(16, 16), (17, 17), (18, 18)])
def test_an_output_shape_that_the_windows_reach_is_read(size: tuple[int, int], tmp_path: Path) -> None:
    model = window("ConvTranspose", ((4, 3, 3, 3),), output_shape=list(size), strides=[2, 2])
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert load(path).graph.tensors["y"].shape == (1, 3, *size)


def test_a_shape_that_onnx_infers_wrongly_is_refused(tmp_path: Path) -> None:
    model = window("ConvTranspose", ((4, 3, 3, 3),), output_shape=[2, 2])
    assert "'y', but the model computes (1, 3, 2, 2)" in refusal(model, tmp_path)


def test_a_model_without_a_rewrite_whose_result_changes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is wrong when it is first compared and right when it is compared again."""
    from graphcut.graph.model_check import BROKEN, Baseline

    right = Baseline.difference_of
    answers = [BROKEN]
    monkeypatch.setattr(Baseline, "difference_of", lambda *given: answers.pop() if answers else right(*given))
    path = tmp_path / "model.onnx"
    model = window("Conv", CONV)
    model.opset_import[0].version = 9
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="a different result every time it runs"):
        load(path)
