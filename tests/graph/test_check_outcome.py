"""The outcome of a check of rewrites is taken the next time, for the same file read in the same way."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphcut
from graphcut.cache_folder import EarlierResults
from graphcut.graph import load as loading
from graphcut.graph.check_outcome import KnownVerdict, Verdict
from graphcut.graph.model import Model
from tests.support import nets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return nets.saved(nets.layer_norm(), tmp_path)


def kept(results: EarlierResults) -> list[Path]:
    return sorted(results.folder.iterdir()) if results.folder.is_dir() else []


def same(first: Model, second: Model) -> bool:
    alike = first.proto.SerializeToString(deterministic=True) == second.proto.SerializeToString(deterministic=True)
    return alike and (first.graph, first.notes, first.passes) == (second.graph, second.notes, second.passes)


def test_a_model_is_the_same_the_second_time(path: Path, tmp_path: Path):
    results = EarlierResults(tmp_path / "cache")
    without = loading.load(path)
    assert kept(results) == []
    first = loading.load(path, results=results)
    (entry,) = kept(results)
    entry.write_bytes(entry.read_bytes()[:-1])  # damaged: it is checked again
    again = loading.load(path, results=results)
    second = loading.load(path, results=results)
    assert kept(results) == [entry]
    assert same(without, first)
    assert same(without, again)
    assert same(without, second)


def test_what_is_kept_is_what_is_done(path: Path, tmp_path: Path):
    """A rewrite that an outcome leaves out is not applied."""
    results = EarlierResults(tmp_path / "cache")
    first = loading.load(path, results=results)
    done = next(each.name for each in first.passes if each.matches)
    (entry,) = kept(results)
    known = KnownVerdict(results)
    known._key = entry.name
    known.put(Verdict(left_out=(done,), notes=("left out",), error=0.25))
    second = loading.load(path, results=results)
    assert "left out" in second.notes
    assert next(each.matches for each in second.passes if each.name == done) == 0


def test_another_way_of_reading_is_another_outcome(path: Path, tmp_path: Path):
    results = EarlierResults(tmp_path / "cache")
    loading.load(path, results=results)
    loading.load(path, results=results, channels_last=True)
    assert len(kept(results)) == 2
    other = tmp_path / "other.onnx"
    other.write_bytes(path.read_bytes() + b"\x12\x01x")  # another producer's name
    loading.load(other, results=results)
    assert len(kept(results)) == 3


def test_python_reuses_unless_told_not_to(path: Path, tmp_path: Path):
    graphcut.load(path, cache=tmp_path / "cache", reuse=False)
    assert kept(EarlierResults(tmp_path / "cache")) == []
    graphcut.load(path, cache=tmp_path / "cache")
    assert len(kept(EarlierResults(tmp_path / "cache"))) == 1
