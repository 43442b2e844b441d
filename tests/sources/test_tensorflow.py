"""Keras files, SavedModels and TFLite files with TensorFlow itself; needs the keras extra."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from graphcut import flow
from graphcut.errors import GraphcutError, ModelError, UsageError
from graphcut.graph.model import Model
from graphcut.records import Array, Shape
from graphcut.sources import registry
from graphcut.sources.adapter import Export, Request
from tests.support.places import ROOT

SHARED = ROOT.parent / "shared"
pytestmark = [
    pytest.mark.keras,
    pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="the keras extra is not installed"),
]
SIZED = ("small.keras", "float.tflite")
LAYERS = ["image", "stem_relu", "dw", "pw", "join", "down", "gap"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    made = subprocess.run(
        [sys.executable, "-m", "tests.support.keras_models", str(folder)],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def export(path: Path, cache: Path, shapes: dict[str, Shape] | None = None) -> Export:
    return registry.to_onnx(Request(source=str(path), cache=cache, input_shapes=shapes or {}), lambda _: None)[1]


def load(path: Path, cache: Path, shapes: dict[str, Shape] | None = None) -> Model:
    return flow.prepare(str(path), cache=cache, input_shapes=shapes)


def shared(path: str) -> Path:
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"no shared data here ({path})")
    return found


def run(path: Path, *values: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    results: list[Array] = session.run(None, dict(zip(names, values, strict=True)))
    return results


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("small.keras", "keras"),
        ("small.h5", "keras"),
        ("keras2.h5", "keras"),
        ("small_saved", "saved-model"),
        ("float.tflite", "tflite"),
        ("weights.tflite", "tflite"),
        ("inside.tflite", "tflite"),
        ("whole.tflite", "tflite"),
    ],
)
def test_layers_keep_their_names_from_every_source(models: Path, cache: Path, source: str, kind: str) -> None:
    model = load(models / source, cache)
    names = set(model.graph.layers.values())
    assert set(LAYERS) <= names, names
    assert model.source.kind == kind
    assert model.source.name == Path(source).stem
    (given,) = model.inputs
    assert (given.name, given.source_layout, given.shape) == ("image", "NHWC", (1, 3, 32, 32))
    quantised = source in ("weights.tflite", "inside.tflite", "whole.tflite")
    assert any("quantised" in note for note in model.notes) == quantised


def test_the_sources_of_one_model_agree(models: Path, cache: Path) -> None:
    image = np.random.default_rng(1).random((1, 32, 32, 3), np.float32)
    (wanted,) = run(export(models / "small.keras", cache).path, image)
    for source, tolerance in (
        ("small.h5", 1e-6),
        ("small_saved", 1e-6),
        ("float.tflite", 1e-5),
        ("weights.tflite", 0.05),
        ("inside.tflite", 0.05),
        ("whole.tflite", 0.05),
    ):
        (got,) = run(export(models / source, cache).path, image)
        assert float(np.abs(got - wanted).max()) < tolerance, source


def test_a_sequential_model_is_the_functional_model_of_its_layers(models: Path, cache: Path) -> None:
    image = np.random.default_rng(1).random((1, 20, 20, 3), np.float32)
    (wanted,) = run(export(models / "functional.keras", cache).path, image)
    for source in ("sequential.keras", "sequential.h5"):
        path = export(models / source, cache).path
        assert [each.name for each in onnx.load(path).graph.output] == ["head"]
        (got,) = run(path, image)
        assert float(np.abs(got - wanted).max()) < 1e-6, source
    (other,) = run(export(models / "sequential2.h5", cache).path, image)
    assert other.shape == wanted.shape, "of Keras 2, with weights of its own"


def test_an_export_is_made_once_for_a_file_and_a_shape(models: Path, cache: Path, tmp_path: Path) -> None:
    first = export(models / "small.h5", cache)
    before = first.path.stat().st_mtime_ns
    other = tmp_path / "small.h5"
    shutil.copy(models / "small.h5", other)
    assert export(other, cache).path == first.path
    assert first.path.stat().st_mtime_ns == before
    one, two = (export(models / "open.keras", cache, {"picture": (1, size, size, 3)}).path for size in (16, 24))
    assert one != two
    assert not list((cache / "exports").glob("*.log"))


def test_several_inputs_and_outputs_keep_their_order(models: Path, cache: Path) -> None:
    path = export(models / "several.keras", cache).path
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == ["right", "left"]
    assert [value.name for value in graph.output] == ["z", "a"]
    layers = set(load(models / "several.keras", cache).graph.layers.values())
    assert {"right", "left", "shared"} <= layers


def test_heavy_kernels_go_past_tf2onnx_and_come_out_the_same(models: Path, cache: Path) -> None:
    made = onnx.load(export(models / "heavy.keras", cache).path).graph
    assert [value.name for value in made.input] == ["image"]
    kernels = {node.name: node.input[1] for node in made.node if node.op_type == "MatMul"}
    shapes = {value.name: tuple(value.dims) for value in made.initializer}
    assert [shapes[name] for name in kernels.values()] == [(2304, 2048), (2048, 2000), (2000, 5)]
    assert all(name.endswith("/kernel") for name in kernels.values())


def test_grouped_convolutions_constants_and_gelu_come_out_of_keras(models: Path, cache: Path) -> None:
    graph = onnx.load(export(models / "grouped.keras", cache).path).graph
    assert [value.name for value in graph.input] == ["image"]
    assert {"Conv", "Erf"} <= {node.op_type for node in graph.node}
    assert not [node.op_type for node in graph.node if "Call" in node.op_type or node.op_type == "Erfc"]


def test_an_open_shape_needs_a_number(models: Path, cache: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r"input 'picture' has an open shape \(\?x\?x\?x3\).*input_shapes={'picture': \(1, 224, 224, 3\)}",
    ):
        load(models / "open.keras", cache)
    with pytest.raises(UsageError, match=r"input 'picture' has the shape 1x16x16x4 instead of the declared \?x\?x\?x3"):
        load(models / "open.keras", cache, {"picture": (1, 16, 16, 4)})
    with pytest.raises(UsageError, match="no input 'other'"):
        load(models / "several.keras", cache, {"other": (1, 16, 16, 3)})
    assert load(models / "open.keras", cache, {"picture": (1, 16, 24, 3)}).inputs[0].shape == (1, 3, 16, 24)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("lambda.keras", r"layer 'twice' \(Lambda\) contains Python code"),
        ("lambda.h5", r"layer 'twice' \(Lambda\) contains Python code"),
        ("custom.keras", "layer 'plain' needs 'Plain', which is not part of Keras"),
        ("custom.h5", "layer 'plain' needs 'Plain', which is not part of Keras"),
        ("function.keras", "layer 'act' needs 'doubled', which is not part of Keras"),
        ("function.h5", "layer 'act' needs 'doubled', which is not part of Keras"),
        ("small.weights.h5", "contains weights only"),
        ("bare", "has no signature"),
        ("writes", r"\(WriteFile\).* has side effects"),
        ("python", r"\(PyFunc\).* has side effects"),
        ("table", r"contains a table or file \(resource\)"),
    ],
)
def test_code_in_a_model_is_refused(models: Path, cache: Path, source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        load(models / source, cache)
    assert "\n" not in str(caught.value)
    assert not (models / "written").exists()


@pytest.mark.parametrize("damage", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_saved_model_that_is_cut_short(models: Path, cache: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(models / "small_saved", folder)
    content = (folder / damage).read_bytes()
    (folder / damage).write_bytes(content[: len(content) // 3])
    with pytest.raises(GraphcutError) as caught:
        load(folder, cache)
    assert "\n" not in str(caught.value)
    log = Path(str(caught.value).rpartition("the full message is in ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_resnet8_from_keras_is_the_reference_model(cache: Path) -> None:
    path = shared("models/resnet8_cifar10.h5")
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32, 3)).astype(np.float32)
    made = export(path, cache).path
    for image in images:
        (got,), (wanted,) = run(made, image), run(shared("models/resnet8_cifar10.onnx"), image)
        assert float(np.abs(got - wanted).max()) < 1e-5
    layers = list(load(path, cache).graph.layers.values())
    assert {"activation_1", "add", "conv2d_5", "add_2"} <= set(layers)


def test_a_quantised_mobilenet_comes_out_as_the_float_model(cache: Path) -> None:
    path = shared("models/mobilenet_v2_imagenet_ptq.tflite")
    photographs = sorted(shared("images").rglob("*.jp*g"))[:3]
    made = export(path, cache)
    assert len(photographs) == 3
    for photograph in photographs:
        pixels = np.asarray(Image.open(photograph).convert("RGB").resize((224, 224)), np.float32)
        image = (pixels / 127.5 - 1)[None]
        (got,), (logits,) = run(made.path, image), run(shared("models/mobilenet_v2_imagenet.onnx"), image)
        wanted = np.exp(logits - logits.max())
        assert float(np.abs(got - wanted / wanted.sum()).max()) < 1e-5
    model = load(path, cache)
    assert model.inputs[0].source_layout == "NHWC"
    assert {"Conv2d_0_0", "expanded_conv_1/project", "expanded_conv_16/depthwise"} <= set(model.graph.layers.values())


@pytest.mark.parametrize(
    ("name", "layers", "shape"),
    [
        ("lstm.keras", ["memory"], (1, 5)),
        ("lstm2.h5", ["memory"], (1, 5)),
        ("gru.keras", ["memory"], (1, 6, 5)),
        ("both.keras", ["forward_memory", "backward_memory"], (1, 10)),
        ("cells.keras", ["memory"], (1, 4)),
    ],
)
def test_recurrent_layers_of_known_length_are_unrolled(
    models: Path, cache: Path, name: str, layers: list[str], shape: Shape
) -> None:
    model = load(models / name, cache)  # the export is compared with Keras
    assert not {"Loop", "Scan", "LSTM", "GRU"} & {node.op_type for node in model.graph.nodes}
    assert model.graph.tensors[model.graph.outputs[0]].shape == shape
    for layer in layers:
        assert any(f"layer {layer!r}" in note and "its 6 steps were unrolled" in note for note in model.notes)
    assert load(models / name, cache).notes == model.notes, "from the cache"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_lines.keras", "layer 'memory' (LSTM) is recurrent over an unknown number of steps"),
        ("long.keras", "layer 'memory' (LSTM) is recurrent over 300 steps; the limit is 256"),
        ("long_saved", "is a loop, probably of a recurrent layer"),
    ],
)
def test_other_recurrent_layers_are_refused_by_name(models: Path, cache: Path, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=re.escape(said)) as caught:
        export(models / name, cache)
    assert "unroll" in str(caught.value)


def test_an_open_length_that_is_given_is_unrolled(models: Path, cache: Path) -> None:
    model = load(models / "open_lines.keras", cache, {"lines": (1, 4, 8)})
    assert any("its 4 steps were unrolled" in note for note in model.notes)


@pytest.mark.parametrize("source", ["small.keras", "keras2.h5", "float.tflite", "whole.tflite"])
def test_another_input_size_is_taken_where_the_graph_allows_it(models: Path, cache: Path, source: str) -> None:
    model = load(models / source, cache, {"image": (1, 45, 40, 3)})
    assert model.inputs[0].shape == (1, 3, 45, 40)
    assert any(note.startswith("input 'image' has the shape 1x45x40x3 instead of") for note in model.notes)
    assert load(models / source, cache, {"image": (1, 45, 40, 3)}).notes == model.notes, "from the cache"


def test_another_size_computes_what_keras_computes_for_it(models: Path, cache: Path) -> None:
    """SAME pads another way for 45 than for 32: the padding must be that of the new size."""
    image = np.random.default_rng(1).random((1, 45, 40, 3), np.float32)
    found = [run(export(models / source, cache, {"image": image.shape}).path, image)[0] for source in SIZED]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize(("source", "name"), [("small.keras", "image"), ("float.tflite", "image")])
def test_a_size_that_the_graph_does_not_allow_is_refused(models: Path, cache: Path, source: str, name: str) -> None:
    with pytest.raises(UsageError, match="allow"):
        export(models / source, cache, {name: (1, 32, 32, 4)})


def test_a_pose_network_whose_score_is_near_zero_on_noise_is_read(cache: Path) -> None:
    model = load(shared("models/mp_pose_landmark_full.tflite"), cache)
    assert len(model.graph.outputs) == 5


def test_a_signature_is_chosen_by_name(models: Path, cache: Path) -> None:
    path = str(models / "two")
    for name, channels in (("small", 4), ("large", 9)):
        model = flow.prepare(path, cache=cache, signature=name)
        assert model.graph.tensors[model.graph.outputs[0]].shape[1] == channels
    with pytest.raises(ModelError, match=r"several signatures \(large, small\), none is 'serving_default'") as caught:
        flow.prepare(path, cache=cache)
    assert "signature='large'" in str(caught.value)
    with pytest.raises(UsageError, match="has no signature 'other': it has large, small"):
        flow.prepare(path, cache=cache, signature="other")
    with pytest.raises(UsageError, match="is not a SavedModel: it has no signatures"):
        flow.prepare(str(models / "small.keras"), cache=cache, signature="small")
