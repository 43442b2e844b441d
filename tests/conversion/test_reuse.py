"""What is taken from an earlier run is what would be made, and anything that counts makes another key."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import graphcut
from graphcut.cache_folder import EarlierResults
from graphcut.conversion import reuse
from graphcut.progress import Event
from graphcut.quant.kept import Kept
from graphcut.quant.ranges import Observed
from tests.support.places import SHARED


@dataclass(frozen=True)
class Timed:
    name: str
    seconds: float


def test_all_that_counts_is_in_the_key(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    values = np.arange(6, dtype=np.float32)
    different = [
        ("step", 1),
        ("step2", 1),
        ("step", 1.0),
        ("step", "1"),
        ("step", b"1"),
        ("step", None),
        ("step", 1, 1),
        ("step", (1, 1)),
        ("step", ((1,), 1)),
        ("step", {"a": "b"}),
        ("step", {"a": "c"}),
        ("step", values),
        ("step", values.reshape(2, 3)),
        ("step", values.astype(np.float64)),
        ("step", -values),
        ("step", first),
        ("step", second),
        ("step", Timed("a", 1.0)),
        ("step", Timed("b", 1.0)),
    ]
    assert len({reuse.key(*each) for each in different}) == len(different)
    assert reuse.key("step", Timed("a", 1.0)) == reuse.key("step", Timed("a", 2.0))
    assert reuse.key("step", values[::2]) == reuse.key("step", values[::2].copy())
    with pytest.raises(TypeError, match="no key is made of"):
        reuse.key("step", object())


def test_records_come_back_with_their_files(tmp_path: Path):
    results, before, after = EarlierResults(tmp_path / "cache"), tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    (before / "float.tflite").write_bytes(b"float")
    known = before / "known"
    seen = Observed(minimum=-1.0, maximum=2.0, channel_mean=np.array([0.5, 0.25]))
    kept = Kept(ranges={"a": seen}, shifts={"a": np.array([1, 2])}, float_path=before / "float.tflite")
    reuse.keep(results, "key", (kept, known), [known])
    assert reuse.take(results, "other", after) is None
    found = reuse.take(results, "key", after, [after / "known"])
    assert found is not None
    ((taken, there),) = found
    assert there == after / "known"
    assert taken.float_path == after / "float.tflite"
    assert taken.float_path.read_bytes() == b"float"
    assert reuse.key("step", taken) == reuse.key("step", kept)


@pytest.mark.parametrize("evil", [Path.unlink, print, EarlierResults])
def test_nothing_but_records_is_built(evil: object, tmp_path: Path):
    results = EarlierResults(tmp_path)
    results.put("key", pickle.dumps((evil,)))
    assert reuse.take(results, "key", tmp_path) is None


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".tflite", ".onnx", ".npz")
    }


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="needs ../shared/models")
def test_a_split_that_reuses_has_the_bytes_of_one_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[Event] = []
    model = graphcut.load(SHARED / "models" / "resnet8_cifar10.onnx")
    common = {"calibration": "random", "segments": 2, "report": said.append, "samples": 8}
    before = sorted((tmp_path / "graphcut").rglob("*"))
    anew = graphcut.split(model, out=tmp_path / "anew", reuse=False, **common)
    assert sorted((tmp_path / "graphcut").rglob("*")) == before
    graphcut.split(model, out=tmp_path / "first", **common)
    said.clear()
    again = graphcut.split(model, out=tmp_path / "again", independent=True, **common)
    assert "2 from an earlier run" in [event.detail for event in said if event.stage == "convert"]
    assert files(tmp_path / "anew") == files(tmp_path / "first")
    wanted = files(tmp_path / "anew")
    assert {name: data for name, data in files(tmp_path / "again").items() if name in wanted} == wanted
    first, second = (replace(each.verification, independent=None) for each in (anew, again))
    assert first == second
    for damaged in (tmp_path / "graphcut" / "results").iterdir():
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    said.clear()
    graphcut.split(model, out=tmp_path / "healed", **common)
    assert "2 from an earlier run" not in [event.detail for event in said]
    assert files(tmp_path / "healed") == wanted
