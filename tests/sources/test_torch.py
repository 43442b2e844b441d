"""PyTorch programs and targets: what is refused before PyTorch is needed, and, marked ``torch``, PyTorch itself."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcut import flow
from graphcut.errors import DependencyError, ModelError, UsageError
from graphcut.records import Shape
from graphcut.sources import pt2_check
from tests.support.places import ROOT

TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="the torch extra is not installed")
SPEC = json.dumps(
    [
        1,
        {
            "type": "builtins.tuple",
            "context": "null",
            "children_spec": [{"type": None, "context": None, "children_spec": []}],
        },
    ]
)


def program() -> dict[str, Any]:
    """Return a program of one convolution and one batch normalisation, as torch.export.save writes it."""
    conv = {
        "target": "torch.ops.aten.conv2d.default",
        "name": "conv2d",
        "inputs": [{"name": "input", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "conv2d"}}],
        "metadata": {
            "nn_module_stack": "L__self__,,nets.Net;L__self__stem,stem,torch.nn.Conv2d",
            "stack_trace": "a('b')",
        },
        "is_hop_single_tensor_return": None,
    }
    norm = {
        "target": "torch.ops.aten.batch_norm.default",
        "name": "batch_norm",
        "inputs": [{"name": "training", "arg": {"as_bool": False}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "batch_norm"}}],
        "metadata": {"nn_module_stack": "L__self__,,nets.Net;L__self__bn,layer1.bn,torch.nn.BatchNorm2d"},
    }
    sizes = [
        {"as_expr": {"expr_str": "Symbol('s77', positive=True, integer=True)", "hint": {"as_int": 2}}},
        {"as_int": 3},
    ]
    return {
        "graph_module": {
            "graph": {"nodes": [conv, norm], "tensor_values": {"x": {"sizes": sizes}}, "sym_int_values": {}},
            "signature": {"input_specs": [{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}]},
            "module_call_graph": [
                {"fqn": "", "signature": {"in_spec": SPEC, "out_spec": SPEC, "forward_arg_names": ["x"]}}
            ],
        },
        "range_constraints": {"s77": {"min_val": 1, "max_val": None}},
        "guards_code": [],
        "torch_version": "2.13.0+cpu",
    }


def weight() -> dict[str, Any]:
    meta = {"dtype": 7, "sizes": [{"as_int": 1}], "device": {"type": "cpu", "index": None}}
    return {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}


def archive(
    path: Path, graph: object, weights: dict[str, Any] | None = None, further: dict[str, bytes] | None = None
) -> Path:
    config = {"config": {"stem.weight": weight()} if weights is None else weights}
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("net/models/model.json", json.dumps(graph))
        made.writestr("net/data/weights/model_weights_config.json", json.dumps(config))
        made.writestr("net/data/weights/weight_0", bytes(4))
        made.writestr("net/data/constants/model_constants_config.json", '{"config": {}}')
        made.writestr("net/data/sample_inputs/model.pt", b"pickle")
        made.writestr("net/archive_format", b"pt2")
        for name, content in (further or {}).items():
            made.writestr(name, content)
    return path


def test_a_plain_program_is_let_through(tmp_path: Path) -> None:
    pt2_check.check(archive(tmp_path / "net.pt2", program()), "net.pt2")


def node(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda graph: graph["graph_module"]["graph"]["nodes"][0].update(fields)


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        *keys, last = path.split("/")
        for key in keys:
            graph = graph[int(key) if isinstance(graph, list) else key]
        graph[int(last) if isinstance(graph, list) else last] = value

    return change


EXPRESSION = "graph_module/graph/tensor_values/x/sizes/0/as_expr/expr_str"
CALL = "graph_module/module_call_graph/0/signature"
TRAINING = "graph_module/graph/nodes/1/inputs/0/arg"
ENUM = {"__enum__": True, "fqn": "antigravity:X", "name": "y"}
HOSTILE = [
    (node(target="torch.hub.load"), "layer 'stem' calls 'torch.hub.load'"),
    (node(target="torch.ops.aten.from_file.default"), "calls 'torch.ops.aten.from_file.default'"),
    (node(target="_operator.attrgetter"), "calls '_operator.attrgetter'"),
    (node(target="torch.ops.torchvision.nms.default"), "is not one of PyTorch's own"),
    (node(target="torch.ops.quantized_decomposed.quantize_per_tensor.default"), "is already quantised"),
    (node(target="#extension:op"), "is not one of PyTorch's own"),
    (node(name="x = __import__('os').system('true')"), "where a name is expected"),
    (node(name="x\nimport os"), "where a name is expected"),
    (node(outputs=[{"as_custom_obj": {"name": "obj", "class_fqn": "a.B"}}]), "contains a custom object"),
    (at("graph_module/graph/nodes/0/inputs/0/arg", {"as_operator": "torch.hub.load"}), "where a name is expected"),
    (at(EXPRESSION, "__import__('os').system('true')"), "where a name is expected"),
    (at(EXPRESSION, "Symbol('s77').__class__"), "where a name is expected"),
    (at("range_constraints", {"exec('1')": {"min_val": 1}}), "where a name is expected"),
    (at(f"{CALL}/forward_arg_names", ["x, y=print(1)"]), "where a name is expected"),
    (at(f"{CALL}/in_spec", SPEC.replace("builtins.tuple", "nets.Config")), "where a name is expected"),
    (at(f"{CALL}/in_spec", SPEC.replace('"null"', json.dumps(json.dumps([ENUM])))), "where a name is expected"),
    (at(TRAINING, {"as_bool": True}), r"layer 'layer1.bn' was exported for training: call model.eval\(\)"),
]


@pytest.mark.parametrize(("change", "reason"), HOSTILE)
@pytest.mark.parametrize("old", [False, True])
def test_a_program_that_is_more_than_arithmetic(tmp_path: Path, change: Any, reason: str, old: bool) -> None:
    graph = program()
    change(graph)
    path = tmp_path / "net.pt2"
    if old:
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("serialized_exported_program.json", json.dumps(graph))
            made.writestr("serialized_state_dict.pt", b"pickle")
            made.writestr("version", b"8.1")
    else:
        archive(path, graph)
    with pytest.raises(ModelError, match=reason) as caught:
        flow.prepare(str(path), cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_pickle": True}, "weight 'stem.weight' is a Python pickle"),
        ({"path_name": "opaque_obj_0"}, "'stem.weight' is a Python object"),
        ({"path_name": "custom_obj_0"}, "'stem.weight' is a Python object"),
        ({"path_name": "../weight_0"}, "'stem.weight' is a Python object"),
        ({"tensor_meta": {"device": {"type": "cuda", "index": 0}}}, r"is on device 'cuda': call model.cpu\(\)"),
    ],
)
def test_weights_that_are_no_plain_tensors(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = archive(tmp_path / "net.pt2", program(), {"stem.weight": weight() | changes})
    with pytest.raises(ModelError, match=reason):
        pt2_check.check(path, "net.pt2")


@pytest.mark.parametrize(
    ("further", "reason"),
    [
        ({"net/data/aotinductor/model/model.so": b"\x7fELF"}, "contains compiled code"),
        ({"net/code/run.py": b"import os"}, "contains an unexpected file"),
        ({"net/../../x": b""}, "contains an unexpected file"),
        ({"net/data.pkl": b"\x80\x02."}, "is a Python pickle or a TorchScript file"),
        ({"net/models/other.json": b"{}"}, "contains 2 programs"),
    ],
)
def test_archives_that_hold_more(tmp_path: Path, further: dict[str, bytes], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        pt2_check.check(archive(tmp_path / "net.pt2", program(), further=further), "net.pt2")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"this is text\n", "is not a .pt2 file, or it is truncated"),
        (b"PK\x03\x04" + bytes(40), "is not a .pt2 file, or it is truncated"),
    ],
)
def test_files_that_are_no_archive(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        flow.prepare(str(path))


def test_an_archive_cut_short_or_of_another_kind(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.pt2", program())
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ModelError, match="truncated"):
        pt2_check.check(path, "net.pt2")
    with pytest.raises(ModelError, match="is damaged: it contains no graph"):
        pt2_check.check(archive(path, []), "net.pt2")
    with pytest.raises(ModelError, match="does not list its weights"):
        pt2_check.check(archive(path, program(), [1]), "net.pt2")  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", "{}")
    with pytest.raises(ModelError, match="without an ExportedProgram"):
        pt2_check.check(path, "net.pt2")
    with pytest.raises(UsageError, match="does not exist"):
        flow.prepare(str(tmp_path / "other.pt2"))


def places(value: Any, path: str = "") -> list[str]:
    """Return the path of every text in a program that PyTorch does more with than keep it."""
    if isinstance(value, dict):
        return [
            each
            for key, inner in value.items()
            if key not in pt2_check._FREE
            for each in places(inner, f"{path}/{key}")
        ]
    if isinstance(value, list):
        return [each for index, inner in enumerate(value) for each in places(inner, f"{path}/{index}")]
    return [path.removeprefix("/")] if isinstance(value, str) else []


@given(
    st.sampled_from(places(program())),
    st.sampled_from(["print(1)", "a;b", "__import__('os')", "[x for x in y]", "`x`"]),
)
def test_no_text_in_a_program_can_be_code(place: str, text: str) -> None:
    graph = copy.deepcopy(program())
    at(place, text)(graph)
    with pytest.raises(ValueError, match=r"JSON|Expecting") if place.endswith("_spec") else pytest.raises(ModelError):
        pt2_check._check_nodes(graph, "net")
        pt2_check._check_words(graph, "net")


def test_a_target_needs_the_shape_of_its_input() -> None:
    with pytest.raises(UsageError, match=r"does not declare the shape of its.*input_shapes={'x': \(1, 3, 224, 224\)}"):
        flow.prepare("nets:resnet")


@pytest.mark.parametrize("source", ["net.pt2", "nets:resnet"])
def test_without_pytorch_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    if source.endswith(".pt2"):
        source = str(archive(tmp_path / source, program()))
    with pytest.raises(DependencyError, match="need packages that are not installed: torch, onnxscript") as caught:
        flow.prepare(source, input_shapes={"x": (1, 3, 32, 32)}, cache=tmp_path / "cache")
    assert f"{sys.executable} -m pip install" in str(caught.value)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the module ``nets`` and the programs that its ``save`` writes."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text((ROOT / "tests" / "torch_models.py").read_text())
    made = subprocess.run(
        [sys.executable, "-c", "import nets; nets.save()"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    return folder


X: dict[str, Shape] = {"x": (1, 3, 32, 32)}


@pytest.mark.torch
@needs_torch
class TestWithPyTorch:
    def test_a_program_and_its_target_are_the_same_model(
        self, nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(nets)
        program = flow.prepare("net.pt2", cache=tmp_path)
        target = flow.prepare("nets:net", input_shapes=X, cache=tmp_path)
        assert (program.source.kind, target.source.kind) == ("torch-export", "torch")
        assert (program.source.name, target.source.name) == ("net", "net")
        for model in (program, target):
            layers = set(model.graph.layers.values())
            assert {"x", "stem", "pool", "layer1.0", "layer1.1.down.1", "layer1.1", "fc"} <= layers
            assert (model.inputs[0].source_layout, model.inputs[0].shape) == ("NCHW", (1, 3, 32, 32))
        for model in (program, target):
            session = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
            (got,) = session.run(None, {"x": np.ones((1, 3, 32, 32), np.float32)})
            np.testing.assert_allclose(got, np.load(nets / "ones.npy"), rtol=0, atol=1e-5)

    def test_no_line_of_the_users_code_stays_in_the_file(self, nets: Path, tmp_path: Path) -> None:
        flow.prepare(str(nets / "net.pt2"), cache=tmp_path)
        (path,) = (tmp_path / "exports").glob("*.onnx")
        assert str(nets).encode() not in path.read_bytes()
        assert b"forward" not in path.read_bytes()
        assert onnx.load(path).graph.node[0].metadata_props[0].key == "pkg.torch.onnx.name_scopes"

    def test_open_dimensions_are_asked_for(self, nets: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"open shape \(1x3x\?x\?\): .*input_shapes={'x': \(1, 3, 224, 224\)}"):
            flow.prepare(str(nets / "open.pt2"), cache=tmp_path)
        model = flow.prepare(str(nets / "open.pt2"), cache=tmp_path, input_shapes={"x": (1, 3, 48, 64)})
        assert model.inputs[0].shape == (1, 3, 48, 64)

    def test_inputs_go_by_name_whatever_their_order(
        self, nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(nets)
        shapes: dict[str, Shape] = {"right": (1, 3, 16, 16), "left": (1, 3, 8, 8)}
        model = flow.prepare("nets:Two", input_shapes=shapes, cache=tmp_path)
        assert {each.name: each.shape for each in model.inputs} == shapes
        assert len(model.graph.outputs) == 2

    def test_a_branch_that_depends_on_values_is_watched_and_said(
        self, nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(nets)
        model = flow.prepare("nets:Branching", input_shapes=X, cache=tmp_path)
        assert any("exported by tracing one run" in note for note in model.notes)
        assert "conv" in model.graph.layers.values()

    @pytest.mark.parametrize(
        ("target", "error", "reason"),
        [
            ("nonets:net", UsageError, "there is no module 'nonets'"),
            ("nets.inner:net", UsageError, "there is no module|importing nets.inner failed"),
            ("nets:nett", UsageError, "nets has no 'nett': did you mean net?"),
            ("nets:TEXT", UsageError, "is a str, which cannot be called"),
            ("nets:a_dict", ModelError, "returned a dict, not a torch.nn.Module"),
            ("nets:fails", ModelError, "calling it without arguments failed: the weights are gone"),
            ("nets:needs_more", ModelError, "calling it without arguments failed: .*missing 1 required"),
            ("nets:quits", ModelError, "calling it exits the program"),
            ("broken:net", ModelError, "importing broken failed: division by zero"),
            ("importing:net", ModelError, "importing importing failed: No module named 'not_installed'"),
            ("nets:Two", UsageError, r"forward\(left, right\) does not accept the inputs x"),
            ("nets:Wide", ModelError, "running it on x 1x3x32x32 failed: .*to have 5 channels"),
        ],
    )
    def test_what_can_be_wrong_with_a_target(
        self,
        nets: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        target: str,
        error: type[Exception],
        reason: str,
    ) -> None:
        monkeypatch.chdir(nets)
        (nets / "broken.py").write_text("1 / 0\n")
        (nets / "importing.py").write_text("import not_installed\n")
        with pytest.raises(error, match=reason) as caught:
            flow.prepare(target, input_shapes=X, cache=tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_pickle_among_the_example_inputs_is_not_run(self, nets: Path, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        hostile = b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
        with zipfile.ZipFile(nets / "net.pt2") as good, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
            for info in good.infolist():
                content = hostile if info.filename.endswith("sample_inputs/model.pt") else good.read(info)
                bad.writestr(info.filename, content)
        with pytest.raises(ModelError, match=r"torch\.export\.load failed"):
            flow.prepare(str(tmp_path / "bad.pt2"), cache=tmp_path)
        assert not mark.exists()

    def test_a_program_saved_for_training_or_as_pickle(self, nets: Path) -> None:
        with pytest.raises(ModelError, match="was exported for training"):
            flow.prepare(str(nets / "training.pt2"))
        with pytest.raises(ModelError, match="is a Python pickle or a TorchScript file"):
            flow.prepare(str(nets / "pickle.pt2"))
