"""Keras files that are refused before TensorFlow is needed, and the names of Keras' layers."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from graphcut import flow
from graphcut.errors import DependencyError, ModelError, UsageError
from graphcut.sources import keras_check, keras_names

CONV = {"module": "keras.layers", "class_name": "Conv2D", "config": {"name": "conv"}, "registered_name": None}


def sequential(*layers: Mapping[str, Any]) -> dict[str, Any]:
    config = {"name": "net", "layers": list(layers)}
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


def layer(class_name: str, name: str, **further: Any) -> dict[str, Any]:
    entry = {"module": "keras.layers", "class_name": class_name, "config": {"name": name}, "registered_name": None}
    entry["config"].update(further.pop("config", {}))
    return entry | further


def archive(path: Path, config: object) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        made.writestr("metadata.json", "{}")
    return path


def hdf5(path: Path, config: object) -> Path:
    with h5py.File(path, "w") as made:
        made.attrs["model_config"] = json.dumps(config)
    return path


LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None, "closure": None}}
REFUSED = [
    (layer("Lambda", "twice"), r"layer 'twice' \(Lambda\) contains Python code"),
    (layer("TorchModuleWrapper", "inner"), r"layer 'inner' .* contains a Python pickle"),
    (layer("TFSMLayer", "inner"), r"layer 'inner' .* contains the path of another model"),
    (layer("Activation", "act", config={"activation": LAMBDA}), "layer 'act' contains a Python lambda"),
    (layer("Odd", "odd", module=None, registered_name="mine>Odd"), "layer 'odd' needs 'mine>Odd'"),
    (layer("Odd", "odd", module="mymodels.layers", registered_name="Odd"), "layer 'odd' needs 'Odd'"),
    (layer("get_file", "fetch", module="keras.utils"), "layer 'fetch' needs 'keras.utils.get_file'"),
    (layer("exec", "run", module="builtins"), "layer 'run' needs 'builtins.exec'"),
    (layer("Dense", "d", config={"kernel_initializer": layer("system", "x", module="os")}), "needs 'os.system'"),
    (layer("TFOpLambda", "op", config={"function": "io.write_file"}), "layer 'op' calls tf.io.write_file"),
    (layer("TimeDistributed", "t", config={"layer": layer("Lambda", "deep")}), r"layer 'deep' \(Lambda\)"),
]


@pytest.mark.parametrize(("entry", "reason"), REFUSED)
@pytest.mark.parametrize("write", [archive, hdf5])
def test_code_is_refused_whatever_the_file(tmp_path: Path, entry: Any, reason: str, write: Any) -> None:
    path = write(tmp_path / ("net.keras" if write is archive else "net.h5"), sequential(CONV, entry))
    with pytest.raises(ModelError, match=reason) as caught:
        flow.prepare(str(path), cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_layers_of_keras_are_let_through(tmp_path: Path) -> None:
    relu = {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function"}
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    tensor = {"class_name": "__keras_tensor__", "config": {"shape": [None, 8], "dtype": "float32"}}
    entry = layer("Conv2D", "conv", config={"activation": relu, "dtype": policy}, inbound_nodes=[{"args": [tensor]}])
    operator = layer("TFOpLambda", "tf.nn.relu", config={"function": "nn.relu"})
    config = sequential(entry, operator, layer("Softmax", "probabilities"))
    read = keras_check.read_config(archive(tmp_path / "net.keras", config), "net")
    keras_check.refuse_code(read, "net")
    keras_check.refuse_unknown(read, {"Conv2D", "Softmax"}, {"relu"}, "net")
    with pytest.raises(ModelError, match="layer 'conv' needs 'relu'"):
        keras_check.refuse_unknown(read, {"Conv2D"}, {"gelu"}, "net")


def test_a_layer_that_only_says_its_class_is_looked_up(tmp_path: Path) -> None:
    bare = {"class_name": "Odd", "config": {"name": "odd"}}
    read = keras_check.read_config(hdf5(tmp_path / "net.h5", sequential(CONV, bare)), "net.h5")
    keras_check.refuse_code(read, "net.h5")
    with pytest.raises(ModelError, match=r"net\.h5: layer 'odd' needs 'Odd'"):
        keras_check.refuse_unknown(read, {"Conv2D", "Sequential"}, (), "net.h5")


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def without_architecture(path: Path) -> Path:
    with h5py.File(path, "w") as made:
        made.create_group("layers")
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda folder: cut(archive(folder / "a.keras", sequential(CONV)), 0.6),
            "is not a .keras file, or it is truncated",
        ),
        (lambda folder: cut(hdf5(folder / "a.h5", sequential(CONV)), 0.6), r"is truncated or damaged \(HDF5"),
        (lambda folder: written(folder / "a.h5", b"a text file\n"), "is neither a .keras nor an HDF5 file"),
        (lambda folder: written(folder / "a.keras", b""), r"is neither a .keras nor an HDF5 file \(it is empty\)"),
        (lambda folder: written(folder / "a.h5", b"\x89HDF" + bytes(200)), r"is truncated or damaged \(HDF5"),
        (lambda folder: archive(folder / "a.keras", "{nothing"), "its architecture is not JSON"),
        (lambda folder: archive(folder / "a.keras", "[1, 2]"), "its architecture is not a layer"),
        (lambda folder: without_architecture(folder / "a.h5"), "contains weights only, not the architecture"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, make: Any, reason: str) -> None:
    path = make(tmp_path)
    with pytest.raises(ModelError, match=reason) as caught:
        flow.prepare(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        flow.prepare(str(tmp_path / "a.keras"))
    (tmp_path / "b.h5").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        flow.prepare(str(tmp_path / "b.h5"))


def test_a_good_file_without_tensorflow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    path = archive(tmp_path / "net.keras", sequential(CONV))
    with pytest.raises(
        DependencyError, match="Keras files need packages that are not installed: tensorflow, keras"
    ) as caught:
        flow.prepare(str(path))
    assert f"{sys.executable} -m pip install" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "config", "layers", "layer", "module", "name", "registered_name", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_architecture_is_read_or_refused_in_one_line(config: Any) -> None:
    whole = sequential({"class_name": "Conv2D", "config": {"name": "c", "inner": config}})
    said = ""
    try:
        keras_check.refuse_code(whole, "net")
        keras_check.refuse_unknown(whole, {"Conv2D"}, (), "net")
    except ModelError as error:
        said = str(error)
    assert "\n" not in said


def graph(*names: str) -> onnx.GraphProto:
    tensors = ["input", *names]
    nodes = [
        helper.make_node("Relu", [before], [after], name=after.removesuffix(":0"))
        for before, after in zip(tensors, names, strict=False)
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("input", names[-1])]
    return helper.make_graph(nodes, "g", values[:1], values[1:])


@pytest.mark.parametrize(
    ("tensors", "layers", "settled"),
    [
        (
            ("net_1/conv2d_1/convolution:0", "net_1/conv2d_1_1/convolution:0", "net_1/Relu:0", "head"),
            {"net", "conv2d", "conv2d_1"},
            ["net/conv2d/convolution:0", "net/conv2d_1/convolution:0", "net/Relu:0", "head"],
        ),
        (
            ("net_1/shared_1/convolution:0", "net_1/shared_2/convolution:0", "out"),
            {"net", "shared"},
            ["net/shared/convolution:0", "net/shared/convolution_2:0", "out"],
        ),
        (
            ("model/conv2d/BiasAdd:0", "model/conv2d_1/BiasAdd:0", "out"),
            {"model", "conv2d", "conv2d_1"},
            ["model/conv2d/BiasAdd:0", "model/conv2d_1/BiasAdd:0", "out"],
        ),
    ],
)
def test_keras_numbers_are_dropped_where_keras_put_them(
    tensors: tuple[str, ...], layers: set[str], settled: list[str]
) -> None:
    made = graph(*tensors)
    keras_names.settle(made, frozenset(layers))
    assert [node.output[0] for node in made.node] == settled
    assert made.output[0].name == settled[-1]
    onnx.checker.check_model(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]))
