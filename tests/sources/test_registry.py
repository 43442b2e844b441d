"""Which adapter serves which source, and what no adapter takes."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from graphcut import flow
from graphcut.errors import ModelError, UsageError
from graphcut.progress import Event, silent
from graphcut.sources import adapters as package
from graphcut.sources import cache, registry
from graphcut.sources.adapter import Request
from tests.support.nets import residual

SOURCES = {
    "net.onnx": "onnx",
    "dir.h5/NET.ONNX": "onnx",
    "resnet101": "recipe",
    "mine.toml": "recipe",
    "net.keras": "keras",
    "net.h5": "keras",
    "net.hdf5": "keras",
    "net.tflite": "tflite",
    "net.pt2": "torch-export",
    "nets:resnet": "torch",
    "package.nets:Factory.make": "torch",
    "net.pt": "pickle",
    "weights.pth": "pickle",
    "weights.safetensors": "pickle",
    "resnet999": "recipe",  # which knows close names
}


@pytest.mark.parametrize(("source", "kind"), SOURCES.items())
def test_one_adapter_serves_a_source(source: str, kind: str) -> None:
    assert registry.find(source).kind == kind
    assert sum(adapter.matches(source) for adapter in registry.adapters()) <= 1


def test_every_module_of_the_package_is_an_adapter() -> None:
    modules = {path.stem for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"}
    assert len(registry.adapters()) == len(modules)
    assert len({adapter.kind for adapter in registry.adapters()}) == len(modules)


def test_a_saved_model_is_known_by_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder without a saved_model\.pb: MODEL is .*SavedModel folder"):
        registry.find(str(tmp_path))
    (tmp_path / "saved_model.pb").touch()
    assert registry.find(str(tmp_path)).kind == "saved-model"


def test_a_file_of_no_known_kind_is_read_as_onnx(tmp_path: Path) -> None:
    path = tmp_path / "model.dat"
    path.write_bytes(residual().SerializeToString())
    model = flow.prepare(str(path))
    assert (model.source.kind, model.source.name) == ("onnx", "model")
    assert model.source.sha256 == sha256(path.read_bytes()).hexdigest()


def test_a_file_with_a_colon_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets:resnet").write_text("no model")
    assert registry.find("nets:resnet").kind == "onnx"


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl", "pytorch_model.bin"])
def test_pickles_are_refused_unread(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x80\x04cposix\nsystem\n")
    with pytest.raises(ModelError, match=r"is a Python pickle.*torch\.export\.save\(.*package\.module:factory"):
        flow.prepare(str(path))


def test_a_file_is_no_target_but_nearly(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a target is a module, not a file: .*pass nets:resnet"):
        flow.prepare(f"{tmp_path}/nets.py:resnet")


def test_files_of_weights_are_refused() -> None:
    with pytest.raises(ModelError, match="contains weights only"):
        flow.prepare("model.safetensors")


def test_the_notes_of_a_source_reach_the_user_and_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(residual().SerializeToString())
    adapter = registry.find(str(path))
    made = adapter.to_onnx(Request(source=str(path)), silent)

    class Told:
        kind = "told"
        what = "a test"

        def matches(self, source: str) -> bool:
            return source == "told"

        def to_onnx(self, request: Request, report: object) -> object:
            del request, report
            return type(made)(path=path, name="known", sha256="f" * 64, notes=("told so",))

    known = registry.adapters()
    monkeypatch.setattr(registry, "adapters", lambda: (Told(), *known))
    events: list[Event] = []
    model = flow.prepare("told", report=events.append)
    assert (model.source.kind, model.source.name, model.source.sha256) == ("told", "known", "f" * 64)
    assert "told so" in model.notes
    assert [event.detail for event in events if event.note] == ["told so"]


def test_a_folders_hash_is_of_its_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "variables").mkdir(parents=True)
    (folder / "variables" / "x").write_bytes(b"1")
    first = cache.sha256_of(folder)
    (folder / "variables" / "x").write_bytes(b"2")
    second = cache.sha256_of(folder)
    (folder / "variables" / "x").rename(folder / "x")
    assert len({first, second, cache.sha256_of(folder)}) == 3
    with pytest.raises(UsageError, match="does not exist"):
        cache.sha256_of(tmp_path / "b")


def test_a_key_does_not_depend_on_the_order() -> None:
    assert cache.key({"a": 1, "b": [2]}) == cache.key(json.loads('{"b": [2], "a": 1}'))
    assert cache.key({"a": 1}) != cache.key({"a": "1"})
