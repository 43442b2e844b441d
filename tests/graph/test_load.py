"""Real files, good and bad: what loads, what is said, and that every refusal is one line that names the culprit."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphcut.errors import GraphcutError, ModelError, UsageError
from graphcut.graph.load import load
from graphcut.progress import Event
from graphcut.records import ModelInput
from tests.support import places
from tests.support.graph_nets import ints, model, node, run, weights

SHARED = places.SHARED / "models"


def conv_net(**changes: object) -> onnx.ModelProto:
    return model(
        [node("Conv", "x w", "c", "first"), node("Relu", "c", "y", "second")],
        {"x": (1, 4, 8, 8)},
        ["y"],
        weights(w=(40, 4, 3, 3)),
        **changes,  # type: ignore[arg-type]
    )


def saved(proto: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def refusal(path: Path, **options: object) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(GraphcutError) as caught:
        load(path, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.way_out
    return text


# Good files


def test_a_file_loads_with_its_hash_and_name(tmp_path: Path) -> None:
    path = saved(conv_net(), tmp_path)
    loaded = load(path)
    assert loaded.source.kind == "onnx"
    assert loaded.source.name == "net"
    assert loaded.source.sha256 == sha256(path.read_bytes()).hexdigest()
    assert loaded.inputs == (ModelInput(name="x", shape=(1, 4, 8, 8), source_layout="NCHW", source_shape=(1, 4, 8, 8)),)
    assert loaded.notes == ()
    onnx.checker.check_model(loaded.proto, full_check=True)


def test_loading_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    path = saved(conv_net(), tmp_path)
    first, second = (load(path).proto.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_external_data_beside_the_model_is_read_and_counts_into_the_hash(tmp_path: Path) -> None:
    proto = conv_net()
    values = {"x": np.ones((1, 4, 8, 8), np.float32)}
    wanted = run(proto, values)
    path = tmp_path / "net.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=0)
    loaded = load(path)
    np.testing.assert_array_equal(run(loaded.proto, values)[0], wanted[0])
    data = bytearray((tmp_path / "net.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "net.data").write_bytes(data)
    assert load(path).source.sha256 != loaded.source.sha256


def test_a_symbolic_batch_is_fixed_to_one_and_said(tmp_path: Path) -> None:
    proto = model([node("Relu", "x", "y")], {"x": ("N", 3, 4, 4)}, ["y"])
    events: list[Event] = []
    loaded = load(saved(proto, tmp_path), report=events.append)
    assert loaded.inputs[0].shape == (1, 3, 4, 4)
    assert loaded.notes == ("batch fixed to 1",)
    assert [event.detail for event in events if event.note] == ["batch fixed to 1"]


def test_a_fixed_batch_becomes_one_where_the_model_allows(tmp_path: Path) -> None:
    proto = model([node("Conv", "x w", "y")], {"x": (8, 4, 6, 6)}, ["y"], weights(w=(2, 4, 3, 3)))
    loaded = load(saved(proto, tmp_path))
    assert loaded.graph.tensors["y"].shape == (1, 2, 4, 4)
    assert loaded.notes == ("batch fixed to 1 (the file says 8)",)


def test_a_batch_baked_into_the_model_is_refused(tmp_path: Path) -> None:
    nodes = [node("Reshape", "x shape", "f"), node("Gemm", "f w", "y")]
    proto = model(nodes, {"x": (8, 4, 2, 2)}, ["y"], {"shape": ints(8, 16), **weights(w=(16, 3))})
    assert "batch size 8" in refusal(saved(proto, tmp_path))


def test_an_old_opset_is_raised_and_computes_the_same(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c s b m v", "n"),
        node("Clip", "n", "r", min=0.0, max=6.0),
        node("Upsample", "r scales", "u", mode="nearest"),
        node("ReduceMean", "u", "g", axes=[2, 3], keepdims=0),
        node("Softmax", "g", "y"),
    ]
    constants = weights(w=(5, 4, 3, 3), s=(5,), b=(5,), m=(5,)) | {"v": np.ones(5, np.float32)}
    constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    proto = model(nodes, {"x": (1, 4, 6, 6)}, ["y"], constants, opset=9, ir_version=4)
    for name, value in constants.items():
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
    loaded = load(saved(proto, tmp_path))
    assert "opset 9 raised to 17" in loaded.notes
    assert loaded.graph.inputs == ("x",)
    assert loaded.proto.opset_import[0].version == 17
    values = {"x": np.random.default_rng(1).standard_normal((1, 4, 6, 6)).astype(np.float32)}
    np.testing.assert_allclose(run(loaded.proto, values)[0], run(proto, values)[0], rtol=1e-5)


@pytest.mark.parametrize("opset", [13, 15, 17, 19, 21])
def test_newer_opsets_stay(opset: int, tmp_path: Path) -> None:
    loaded = load(saved(conv_net(opset=opset, ir_version=10), tmp_path))
    assert loaded.proto.opset_import[0].version == opset
    assert not loaded.notes


def test_half_precision_is_made_float32(tmp_path: Path) -> None:
    constants = {"w": weights(w=(2, 4, 3, 3))["w"].astype(np.float16)}
    nodes = [node("Conv", "x w", "c"), node("Cast", "c", "y", to=TensorProto.FLOAT16)]
    loaded = load(saved(model(nodes, {"x": (1, 4, 8, 8)}, ["y"], constants, dtype=TensorProto.FLOAT16), tmp_path))
    assert {tensor.dtype for tensor in (*loaded.graph.tensors.values(), *loaded.graph.weights.values())} == {"float32"}
    assert loaded.notes == ("float16 weights and activations converted to float32",)


def test_an_input_of_bytes_that_is_cast_becomes_float32(tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "f", to=TensorProto.FLOAT), node("Conv", "f w", "y")]
    proto = model(nodes, {"x": (1, 4, 8, 8)}, ["y"], weights(w=(2, 4, 3, 3)), dtype=TensorProto.UINT8)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    loaded = load(saved(proto, tmp_path))
    assert [item.op_type for item in loaded.graph.nodes] == ["Conv"]
    assert "'x'" in loaded.notes[0]


def test_nodes_are_sorted_named_and_unique(tmp_path: Path) -> None:
    proto = model(
        [
            node("Relu", "b", "y", "same"),
            node("Relu", "a", "b", "same"),
            node("Relu", "x", "a"),
            node("Relu", "x", "z"),
        ],
        {"x": (1, 4, 8, 8)},
        ["y", "z"],
    )
    loaded = load(saved(proto, tmp_path))
    names = [item.name for item in loaded.graph.nodes]
    assert all(names)
    assert len(set(names)) == 4
    made: set[str] = {"x"}
    for item in loaded.graph.nodes:
        assert made.issuperset(item.inputs)
        made.update(item.outputs)


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    proto = model([node("Relu", "x", "a"), node("Twice", "a", "y", domain="mine")], {"x": (1, 4, 8, 8)}, ["y"])
    body = [node("Add", "p p", "q")]
    proto.functions.append(helper.make_function("mine", "Twice", ["p"], ["q"], body, [helper.make_opsetid("", 17)]))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    loaded = load(saved(proto, tmp_path))
    assert [item.op_type for item in loaded.graph.nodes] == ["Relu", "Add"]
    values = {"x": np.ones((1, 4, 8, 8), np.float32)}
    np.testing.assert_array_equal(run(loaded.proto, values)[0], np.full((1, 4, 8, 8), 2, np.float32))


def test_open_shapes_can_be_given(tmp_path: Path) -> None:
    proto = model([node("Conv", "x w", "y")], {"x": ("N", 4, "H", "W")}, ["y"], weights(w=(2, 4, 3, 3)))
    loaded = load(saved(proto, tmp_path), input_shapes={"x": (1, 4, 10, 12)})
    assert loaded.graph.tensors["y"].shape == (1, 2, 8, 10)


def test_module_paths_in_the_metadata_become_layer_names(tmp_path: Path) -> None:
    proto = conv_net()
    scopes = "['', 'backbone', 'backbone.stem', 'backbone.stem.conv', 'conv2d']"
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    assert load(saved(proto, tmp_path)).graph.layers["c"] == "backbone.stem.conv"


# Bad files


def garbage(folder: Path) -> Path:
    path = folder / "noise.onnx"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    return path


def text(folder: Path) -> Path:
    path = folder / "readme.onnx"
    path.write_text("# not a model\n" * 50)
    return path


def truncated(folder: Path) -> Path:
    path = saved(conv_net(), folder)
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def empty(folder: Path) -> Path:
    path = folder / "empty.onnx"
    path.touch()
    return path


def other_protobuf(folder: Path) -> Path:
    return saved(helper.make_opsetid("", 17), folder)  # type: ignore[arg-type]


def lfs_pointer(folder: Path) -> Path:
    path = folder / "pointer.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    return path


def huge(folder: Path) -> Path:
    path = folder / "huge.onnx"
    with path.open("wb") as stream:
        stream.truncate(2**31 + 10)
    return path


def missing_external(folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(conv_net(), path, save_as_external_data=True, location="lost.bin", size_threshold=0)
    (folder / "lost.bin").unlink()
    return path


def short_external(folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(conv_net(), path, save_as_external_data=True, location="short.bin", size_threshold=0)
    (folder / "short.bin").write_bytes(b"1234")
    return path


def with_location(location: str, folder: Path) -> Path:
    proto = conv_net()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return saved(proto, folder)


def outside(folder: Path) -> Path:
    inner = folder / "models"
    inner.mkdir()
    (folder / "secret.bin").write_bytes(bytes(40 * 4 * 9 * 4))
    return with_location("../secret.bin", inner)


def absolute(folder: Path) -> Path:
    return with_location("/etc/hostname", folder)


def linked(folder: Path) -> Path:
    inner = folder / "models"
    inner.mkdir()
    (folder / "secret.bin").write_bytes(bytes(40 * 4 * 9 * 4))
    (inner / "link.bin").symlink_to(folder / "secret.bin")
    return with_location("link.bin", inner)


def wrong_weight(folder: Path) -> Path:
    proto = conv_net()
    proto.graph.initializer[0].raw_data = bytes(12)
    return saved(proto, folder)


def foreign_domain(folder: Path) -> Path:
    proto = model([node("FusedMagic", "x", "y", "magic", domain="com.acme")], {"x": (1, 4, 8, 8)}, ["y"])
    proto.opset_import.append(helper.make_opsetid("com.acme", 1))
    return saved(proto, folder)


def unknown_operator(folder: Path) -> Path:
    return saved(model([node("Frobnicate", "x", "y", "frob")], {"x": (1, 4, 8, 8)}, ["y"]), folder)


def conditional(folder: Path) -> Path:
    branches = {
        name: helper.make_graph(
            [node("Relu", "x", name)], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        )
        for name in ("then_branch", "else_branch")
    }
    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum limit", "flag"),
        node("If", "flag", "y", "decide", **branches),
    ]
    proto = model(nodes, {"x": (1, 4)}, ["y"], {"limit": np.array(0, np.float32)})
    return saved(proto, folder)


def looping(folder: Path) -> Path:
    counter = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    going, value = (
        helper.make_tensor_value_info(name, kind, []) for name, kind in (("go", TensorProto.BOOL), ("v", 1))
    )
    outputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("go_on", TensorProto.BOOL), ("r", 1))]
    body = helper.make_graph(
        [node("Identity", "go", "go_on"), node("Relu", "v", "r")], "body", [counter, going, value], outputs
    )
    constants = {"three": ints(3), "yes": np.array(True)}
    return saved(model([node("Loop", "three yes x", "y", "spin", body=body)], {"x": (1, 4)}, ["y"], constants), folder)


def strings(folder: Path) -> Path:
    return saved(model([node("Identity", "x", "y")], {"x": (1, 4)}, ["y"], dtype=TensorProto.STRING), folder)


def sequences(folder: Path) -> Path:
    proto = model([node("SequenceConstruct", "x", "s"), node("Relu", "x", "y")], {"x": (1, 4)}, ["y"])
    proto.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    return saved(proto, folder)


def quantised(folder: Path) -> Path:
    nodes = [node("DynamicQuantizeLinear", "x", "q s z", "quantise"), node("DequantizeLinear", "q s z", "y")]
    return saved(model(nodes, {"x": (1, 4, 8, 8)}, ["y"]), folder)


def recurrent(folder: Path) -> Path:
    constants = weights(w=(1, 20, 4), r=(1, 20, 5))
    nodes = [node("LSTM", "x w r", "y", "memory", hidden_size=5)]
    return saved(model(nodes, {"x": (3, 1, 4)}, ["y"], constants), folder)


def no_outputs(folder: Path) -> Path:
    return saved(model([node("Relu", "x", "y")], {"x": (1, 4)}, []), folder)


def no_inputs(folder: Path) -> Path:
    return saved(model([node("Relu", "x", "y")], {}, ["y"], weights(x=(1, 4))), folder)


def cyclic(folder: Path) -> Path:
    nodes = [node("Add", "x b", "a", "one"), node("Relu", "a", "b", "two"), node("Relu", "b", "y", "three")]
    return saved(model(nodes, {"x": (1, 4)}, ["y"]), folder)


def dangling(folder: Path) -> Path:
    return saved(model([node("Add", "x ghost", "y", "haunted")], {"x": (1, 4)}, ["y"]), folder)


def twice_made(folder: Path) -> Path:
    nodes = [node("Relu", "x", "y", "one"), node("Abs", "x", "y", "two")]
    return saved(model(nodes, {"x": (1, 4)}, ["y"]), folder)


def made_input(folder: Path) -> Path:
    nodes = [node("Relu", "x", "a", "one"), node("Abs", "a", "x", "two")]
    return saved(model(nodes, {"x": (1, 4)}, ["x"]), folder)


def made_weight(folder: Path) -> Path:
    nodes = [node("Add", "x w", "a", "one"), node("Abs", "a", "w", "two"), node("Relu", "w", "y", "three")]
    return saved(model(nodes, {"x": (1, 4)}, ["y"], weights(w=(4,))), folder)


def two_weights(folder: Path) -> Path:
    proto = conv_net()
    proto.graph.initializer.append(proto.graph.initializer[0])
    return saved(proto, folder)


def misfit(folder: Path) -> Path:
    return saved(
        model([node("Conv", "x w", "y", "wrong")], {"x": (1, 4, 8, 8)}, ["y"], weights(w=(2, 5, 3, 3))), folder
    )


def open_shape(folder: Path) -> Path:
    proto = model([node("Conv", "image w", "y")], {"image": ("N", 3, "H", "W")}, ["y"], weights(w=(2, 3, 3, 3)))
    return saved(proto, folder)


def no_shape(folder: Path) -> Path:
    proto = model([node("Relu", "image", "y")], {"image": (1,)}, ["y"])
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    return saved(proto, folder)


def data_dependent(folder: Path) -> Path:
    return saved(model([node("NonZero", "x", "i", "find"), node("Cast", "i", "y", to=1)], {"x": (1, 4)}, ["y"]), folder)


def future_opset(folder: Path) -> Path:
    return saved(conv_net(opset=99), folder)


def tokens(folder: Path) -> Path:
    nodes = [node("Gather", "table x", "y", "embed")]
    return saved(model(nodes, {"x": (1, 16)}, ["y"], weights(table=(10, 4)), dtype=TensorProto.INT64), folder)


def calls_itself(folder: Path) -> Path:
    """Through another function; onnx's inliner takes the process down on it."""
    proto = model([node("One", "x", "y", domain="own")], {"x": (1, 4)}, ["y"])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for name, called in (("One", "Two"), ("Two", "One")):
        body = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node(called, ["r"], ["b"], domain="own")]
        proto.functions.append(helper.make_function("own", name, ["a"], ["b"], body, opsets))
    proto.opset_import.append(opsets[1])
    return saved(proto, folder)


def not_numbers(folder: Path) -> Path:
    proto = conv_net()
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values[1, 2, 0, 0] = np.nan
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    return saved(proto, folder)


def too_large(folder: Path) -> Path:
    return saved(model([node("Relu", "x", "y")], {"x": (1, 3, 60000, 60000)}, ["y"]), folder)


def control_characters(folder: Path) -> Path:
    nodes = [node("Relu", "x", "y")]
    nodes[0].output[0] = "y\x1b[31m"
    return saved(model(nodes, {"x": (1, 4)}, ["y\x1b[31m"]), folder)


def _with_output(extra: str, nodes: list[onnx.NodeProto], folder: Path, dtype: int = TensorProto.FLOAT) -> Path:
    proto = model([node("Relu", "x", "y"), *nodes], {"x": (1, 4)}, ["y"], {"kept": np.ones((1, 4), np.float32)})
    proto.graph.output.append(helper.make_tensor_value_info(extra, dtype, None))
    return saved(proto, folder)


def weight_is_output(folder: Path) -> Path:
    return _with_output("kept", [], folder)


def input_is_output(folder: Path) -> Path:
    return _with_output("x", [], folder)


def output_twice(folder: Path) -> Path:
    return _with_output("y", [], folder)


def picks(folder: Path) -> Path:
    return _with_output("best", [node("ArgMax", "y", "best", axis=1)], folder, TensorProto.INT64)


def compares(folder: Path) -> Path:
    return _with_output("more", [node("Greater", "y kept", "more")], folder, TensorProto.BOOL)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (garbage, ["noise.onnx"]),
        (text, ["readme.onnx"]),
        (truncated, ["net.onnx", "truncated"]),
        (empty, ["empty.onnx is empty"]),
        (other_protobuf, ["net.onnx"]),
        (lfs_pointer, ["Git LFS pointer", "git lfs pull"]),
        (huge, ["2.0 GiB", "external data"]),
        (missing_external, ["'w'", "lost.bin", "missing"]),
        (short_external, ["'w'", "short.bin"]),
        (outside, ["'w'", "../secret.bin", "outside"]),
        (absolute, ["'w'", "/etc/hostname", "outside"]),
        (linked, ["'w'", "link.bin", "outside"]),
        (wrong_weight, ["'w'", "40"]),
        (foreign_domain, ["'magic'", "com.acme"]),
        (unknown_operator, ["'frob'", "'Frobnicate'"]),
        (conditional, ["'decide'", "If", "depends on 'flag'"]),
        (looping, ["'spin'", "Loop", "control flow"]),
        (strings, ["'x'", "string tensor"]),
        (sequences, ["'s'", "sequence"]),
        (quantised, ["'quantise'", "already quantised"]),
        (recurrent, ["'memory'", "LSTM"]),
        (no_outputs, ["no outputs"]),
        (no_inputs, ["no inputs"]),
        (cyclic, ["cycle", "'one'"]),
        (dangling, ["'haunted'", "'ghost'"]),
        (twice_made, ["'y'", "'one'", "'two'"]),
        (made_input, ["'two'", "produces 'x', which is also the name of an input"]),
        (made_weight, ["'two'", "produces 'w', which is also the name of a weight"]),
        (two_weights, ["weight 'w' is declared twice"]),
        (misfit, ["'wrong'", "for 5 channels"]),
        (open_shape, ["'image'", "input_shapes={'image': (1, 3, 224, 224)}"]),
        (no_shape, ["'image'", "input_shapes={'image': (1, 3, 224, 224)}"]),
        (data_dependent, ["'find'", "NonZero"]),
        (future_opset, ["99"]),
        (tokens, ["'x'", "int64"]),
        (calls_itself, ["recursively", "One, Two"]),
        (control_characters, ["'y\\x1b[31m'", "control characters"]),
        (not_numbers, ["'w'", "'first'", "NaN"]),
        (too_large, ["1x3x60000x60000", "too large"]),
        (weight_is_output, ["'kept'", "same for every input"]),
        (input_is_output, ["'x' is the input"]),
        (output_twice, ["'y' is listed twice"]),
        (picks, ["'best' (ArgMax) has the type int64"]),
        (compares, ["'more' (Greater) has the type bool"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_files_are_refused_in_one_line(make: Callable[[Path], Path], said: list[str], tmp_path: Path) -> None:
    message = refusal(make(tmp_path))
    assert all(part in message for part in said), message


def test_files_that_are_not_there_or_not_files(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing.onnx")
    assert "folder" in refusal(tmp_path)
    if os.geteuid() != 0:
        path = saved(conv_net(), tmp_path)
        path.chmod(0)
        assert "cannot be read" in refusal(path)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"image": (1, 4, 8, 8)}, ["'image'", "x"]),
        ({"x": (1, 5, 8, 8)}, ["'x'", "1x5x8x8", "1x4x8x8"]),
        ({"x": (1, 4, 8)}, ["1x4x8"]),
        ({"x": (0, 4, 8, 8)}, ["0x4x8x8"]),
    ],
)
def test_wrong_shapes_given_by_the_user(shapes: dict[str, tuple[int, ...]], said: list[str], tmp_path: Path) -> None:
    path = saved(conv_net(), tmp_path)
    with pytest.raises(UsageError) as caught:
        load(path, input_shapes=shapes)
    assert all(part in str(caught.value) for part in said), str(caught.value)


def test_another_size_than_the_declared_one_is_taken(tmp_path: Path) -> None:
    loaded = load(saved(conv_net(), tmp_path), input_shapes={"x": (1, 4, 16, 12)})
    assert loaded.graph.tensors["y"].shape == (1, 40, 14, 10)
    assert loaded.notes == ("input 'x' has the shape 1x4x16x12 instead of the declared 1x4x8x8",)


def test_a_size_that_the_graph_does_not_allow_is_refused(tmp_path: Path) -> None:
    head = [node("Conv", "x w", "c"), node("Reshape", "c flat", "f"), node("Gemm", "f dense", "y")]
    for flat in (ints(1, 72), ints(-1, 72)):  # the second one would make several results of a larger map
        constants = {**weights(w=(2, 4, 3, 3), dense=(72, 5)), "flat": flat}
        proto = model(head, {"x": (1, 4, 8, 8)}, ["y"], constants)
        proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5)))
        path = saved(proto, tmp_path)
        assert load(path).graph.tensors["y"].shape == (1, 5)
        with pytest.raises(UsageError, match=r"has the shape 1x4x14x14 instead of .* which the model does not allow"):
            load(path, input_shapes={"x": (1, 4, 14, 14)})


def test_a_weight_stored_as_a_list_of_numbers_loads(tmp_path: Path) -> None:
    proto = conv_net()
    values = numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].float_data.extend(values.ravel().tolist())
    loaded = load(saved(proto, tmp_path))
    assert loaded.graph.weights["w"].shape == (40, 4, 3, 3)


@pytest.mark.parametrize("name", ["mobilenet_v2_imagenet", "resnet8_cifar10", "ultraface_rfb_320"])
def test_real_models_load(name: str) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not there: real models lie in ../shared/models")
    loaded = load(path)
    assert all(tensor.shape for tensor in loaded.graph.tensors.values())
    assert all(not any(size < 1 for size in tensor.shape) for tensor in loaded.graph.tensors.values())
    assert "BatchNormalization" not in {item.op_type for item in loaded.graph.nodes}
    errors = [item.relative_error for item in loaded.passes if item.relative_error is not None]
    assert errors
    assert max(errors) < 1e-5


def test_model_error_is_the_kind_of_error_for_a_bad_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load(empty(tmp_path))
