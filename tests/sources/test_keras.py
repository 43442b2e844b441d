"""The Keras source. What needs TensorFlow itself is marked ``keras``; the rest runs everywhere."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphcut import cache_folder, recipes
from graphcut.errors import DependencyError, ModelError, OutputError, UsageError
from graphcut.progress import Event, silent
from graphcut.recipes import Recipe
from graphcut.sources import cache, canonicalise, keras
from tests.support.places import ROOT

VERSIONS = {"tensorflow": "2", "keras": "3", "tf2onnx": "1"}
TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
needs_keras = pytest.mark.skipif(not TENSORFLOW, reason="the keras extra is not installed (make test-full installs it)")


@pytest.fixture
def small() -> Recipe:
    """Return the smallest model of the shipped applications at its smallest size."""
    return replace(recipes.find("mobilenetv2"), name="small", input_shape=(32, 32, 3))


def test_the_key_holds_all_that_changes_the_bytes_and_nothing_else(tmp_path: Path) -> None:
    recipe = recipes.find("mobilenetv2")
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"one")
    with_weights = replace(recipe, weights=weights)
    keys = [
        keras.key(recipe, VERSIONS),
        keras.key(replace(recipe, application="ResNet50"), VERSIONS),
        keras.key(replace(recipe, input_shape=(96, 96, 3)), VERSIONS),
        keras.key(replace(recipe, seed=1), VERSIONS),
        keras.key(replace(recipe, opset=16), VERSIONS),
        keras.key(recipe, {**VERSIONS, "keras": "4"}),
        keras.key(with_weights, VERSIONS),
    ]
    assert len(set(keys)) == len(keys)
    weights.write_bytes(b"two")
    assert keras.key(with_weights, VERSIONS) != keys[-1]
    assert keras.key(replace(recipe, name="other"), dict(reversed(VERSIONS.items()))) == keys[0]


def test_the_cache_is_where_the_desktop_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder.root() == tmp_path / "graphcut"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says to ignore it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder.root() == tmp_path / ".cache" / "graphcut"


@pytest.mark.skipif(TENSORFLOW, reason="the keras extra is installed here")
def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DependencyError) as caught:
        keras.cached_export(recipes.find("resnet101"), tmp_path, silent)
    assert "tensorflow" in str(caught.value)
    assert f"{sys.executable} -m pip install" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_cached_export_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metadata, "version", lambda package: VERSIONS[package])
    recipe = recipes.find("resnet101")
    kept = tmp_path / "exports" / f"resnet101-{keras.key(recipe, VERSIONS)[:16]}.onnx"
    with cache.staging(kept) as part:
        part.write_bytes(b"kept")
    events: list[Event] = []
    assert keras.cached_export(recipe, tmp_path, events.append) == kept
    assert kept.read_bytes() == b"kept"
    assert [event.detail for event in events] == ["using resnet101 from the cache"]


def two_convolutions(names: tuple[str, str, str], order: tuple[int, ...]) -> onnx.GraphProto:
    """Return a graph whose initialisers have these names and stand in this order, among them one that is not read."""
    rng = np.random.default_rng(0)
    held = [
        numpy_helper.from_array(rng.standard_normal((4, 3, 1, 1)).astype(np.float32), names[0]),
        numpy_helper.from_array(rng.standard_normal((4, 4, 1, 1)).astype(np.float32), names[1]),
        numpy_helper.from_array(np.zeros(4, np.float32), names[2]),
        numpy_helper.from_array(np.ones(1, np.float32), "nobody"),
    ]
    nodes = [
        helper.make_node("Conv", ["input", names[0], names[2]], ["a"], name="first"),
        helper.make_node("Conv", ["a", names[1], names[2]], ["b"], name="second"),
    ]
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])
    stray = helper.make_tensor_value_info("stray", TensorProto.FLOAT, [1])
    output = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 4, 8, 8])
    return helper.make_graph(nodes, "g", [picture, stray], [output], [held[i] for i in order])


def test_initialisers_are_named_by_their_first_reader_whatever_they_were_called() -> None:
    one = two_convolutions(("x", "y", "z"), (0, 1, 2, 3))
    other = two_convolutions(("p/kernel", "second/kernel", "first/kernel"), (3, 2, 0, 1))
    for graph in (one, other):
        canonicalise.settle_names(graph)
    assert one.SerializeToString() == other.SerializeToString()
    assert [value.name for value in one.initializer] == ["first/kernel", "first/bias", "second/kernel"]
    assert list(one.node[1].input) == ["a", "second/kernel", "first/bias"]


def numbered(first: str, second: str) -> onnx.GraphProto:
    """Return a chain of four nodes, two of which carry these numbers behind one name."""
    nodes = [
        helper.make_node("Relu", ["input"], ["a"], name="squeeze__2"),
        helper.make_node("Relu", ["a"], [f"squeeze__{first}:0"], name=f"squeeze__{first}"),
        helper.make_node("Relu", [f"squeeze__{first}:0"], [f"squeeze__{second}:0"], name=f"squeeze__{second}"),
        helper.make_node("Relu", [f"squeeze__{second}:0"], ["out__9"], name="plain"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("input", "out__9")]
    return helper.make_graph(nodes, "g", values[:1], values[1:])


def test_numbers_behind_names_follow_the_order_of_the_nodes() -> None:
    one, other = numbered("470", "12__80"), numbered("31", "7")
    for graph in (one, other):
        canonicalise.settle_numbers(graph)
    assert one.SerializeToString() == other.SerializeToString()
    assert [node.name for node in one.node] == ["squeeze__1", "squeeze__2", "squeeze__3", "plain"]
    assert list(one.node[2].output) == list(one.node[3].input) == ["squeeze__3:0"]
    assert list(one.node[3].output) == ["out__9"], "the graph's outputs keep their names"
    onnx.checker.check_model(helper.make_model(one, opset_imports=[helper.make_opsetid("", 17)]))


def test_a_new_name_does_not_collide_with_an_activation() -> None:
    graph = two_convolutions(("x", "y", "z"), (0, 1, 2))
    graph.node[0].output[0] = graph.node[1].input[0] = "first/kernel"
    canonicalise.settle_names(graph)
    onnx.checker.check_model(helper.make_model(_one_input(graph), opset_imports=[helper.make_opsetid("", 17)]))


def _one_input(graph: onnx.GraphProto) -> onnx.GraphProto:
    canonicalise.settle_inputs(graph, ("input",))
    return graph


def test_inputs_that_nothing_reads_are_dropped_and_others_refused() -> None:
    graph = two_convolutions(("x", "y", "z"), (0, 1, 2))
    canonicalise.settle_inputs(graph, ("input",))
    assert [value.name for value in graph.input] == ["input"]
    graph = two_convolutions(("x", "y", "z"), (0, 1, 2))
    graph.node[1].input[0] = "stray"
    with pytest.raises(ModelError, match="stray"):
        canonicalise.settle_inputs(graph, ("input",))


def test_a_constant_that_tf2onnx_left_an_input_becomes_one() -> None:
    graph = two_convolutions(("x", "y", "z"), (0, 1, 2))
    graph.node[1].input[0] = "mean:0"
    graph.input.append(helper.make_tensor_value_info("mean:0", onnx.TensorProto.FLOAT, (1, 1, 1, 3)))
    canonicalise.settle_inputs(graph, ("input",), {"mean:0": np.full((1, 1, 1, 3), 0.5, np.float32)})
    assert [value.name for value in graph.input] == ["input"]
    (mean,) = [value for value in graph.initializer if value.name == "mean:0"]
    assert numpy_helper.to_array(mean).tolist() == [[[[0.5, 0.5, 0.5]]]]


def test_erfc_is_written_with_erf() -> None:
    node = helper.make_node("Erfc", ["x"], ["y"], name="gelu")
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 5)) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    canonicalise.settle_erfc(graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    x = np.array([[-2, -0.5, 0, 0.5, 2]], np.float32)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    assert y == pytest.approx(np.array([[math.erfc(value) for value in x[0]]]), abs=1e-6)


@pytest.mark.keras
@needs_keras
class TestWithTensorFlow:
    def test_two_processes_write_the_same_bytes(self, small: Recipe, tmp_path: Path) -> None:
        events: list[Event] = []
        files = [keras.export(small, tmp_path / name, events.append) for name in ("a.onnx", "b.onnx")]
        assert hashlib.sha256(files[0].read_bytes()).digest() == hashlib.sha256(files[1].read_bytes()).digest()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
        model = onnx.load(files[0])
        onnx.checker.check_model(model, full_check=True)
        assert [value.name for value in model.graph.input] == ["input"]
        shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
        assert shape == [1, 32, 32, 3]
        assert any("block_1_expand_relu" in node.name for node in model.graph.node)
        assert [(event.done, event.total) for event in events[:4]] == [(0, 3), (1, 3), (2, 3), (3, 3)]

    def test_another_seed_gives_other_weights(self, small: Recipe, tmp_path: Path) -> None:
        one, other = (keras.export(replace(small, seed=seed), tmp_path / f"{seed}.onnx", silent) for seed in (0, 1))
        assert one.read_bytes() != other.read_bytes()

    def test_an_application_that_keras_does_not_have(self, small: Recipe, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no 'ResNet9'.*ResNet101"):
            keras.export(replace(small, application="ResNet9"), tmp_path / "x.onnx", silent)
        assert list(tmp_path.iterdir()) == []

    def test_weights_that_do_not_fit(self, small: Recipe, tmp_path: Path) -> None:
        weights = tmp_path / "w.weights.h5"
        weights.write_bytes(b"no weights")
        with pytest.raises(ModelError, match="cannot build MobileNetV2"):
            keras.export(replace(small, weights=weights), tmp_path / "x.onnx", silent)
        assert [path.name for path in tmp_path.iterdir()] == [weights.name]

    def test_a_place_that_cannot_be_written(self, small: Recipe, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(OutputError, match="cannot be written"):
            keras.export(small, tmp_path / "file" / "x.onnx", silent)

    def test_ctrl_c_leaves_no_file_and_no_process(self, tmp_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from graphcut import recipes; from graphcut.sources import keras\n"
            "target = Path(sys.argv[1]) / 'x.onnx'\n"
            "keras.export(recipes.find('mobilenetv2'), target, lambda event: print('x', flush=True))\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "x\n"
        time.sleep(1)
        children = descendants(process.pid)
        assert children
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode != 0
        assert list(tmp_path.iterdir()) == []
        assert not [pid for pid in children if running(pid)]


def descendants(root: int) -> list[int]:
    listed = Path(f"/proc/{root}/task/{root}/children")
    if not listed.exists():
        pytest.skip("the kernel does not list children in /proc")
    return [int(pid) for pid in listed.read_text().split()]


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
