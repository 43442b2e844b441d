"""The cache of exports: what is damaged in it is never used, and what killed exports left is removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphcut.progress import Event
from graphcut.sources import cache, exporting


def put(target: Path, content: bytes) -> None:
    with cache.staging(target) as part:
        part.write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "flipped", "hash lost", "hash cut", "hash not text"])
def test_a_damaged_entry_is_made_again(damage: str, tmp_path: Path) -> None:
    target = tmp_path / "exports" / "net-1.onnx"
    said: list[Event] = []
    assert not exporting.cached(target, "net", said.append)
    put(target, b"a model of many bytes")
    assert exporting.cached(target, "net", said.append)
    digest = target.with_name("net-1.onnx.sha256")
    match damage:
        case "cut":
            target.write_bytes(b"a model")
        case "flipped":
            target.write_bytes(b"a model of many bytez")
        case "hash lost":
            digest.unlink()
        case "hash cut":
            digest.write_text(digest.read_text()[:10])
        case "hash not text":
            digest.write_bytes(b"\xff\xfe")
    assert not exporting.cached(target, "net", said.append)
    assert "damaged in the cache" in said[-1].detail
    put(target, b"made again")
    assert exporting.cached(target, "net", said.append)
    assert sorted(path.name for path in target.parent.iterdir()) == ["net-1.onnx", "net-1.onnx.sha256"]


def test_what_killed_exports_left_is_removed_and_what_runs_is_not(tmp_path: Path) -> None:
    target = tmp_path / "net.onnx"
    child = os.fork()
    if child == 0:
        with cache.staging(target) as part:
            part.write_bytes(b"half")
            os._exit(9)
    os.waitpid(child, 0)
    mine = tmp_path / ".graphcut-export-mine"  # without our mark: somebody else's
    mine.mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    with cache.staging(tmp_path / "other.onnx") as running:
        running.write_bytes(b"other")
        put(target, b"whole")
        assert running.is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".graphcut-export-mine",
        *("net.onnx", "net.onnx.sha256", "other.onnx", "other.onnx.sha256"),
    ]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), cache.staging(tmp_path / "net.onnx") as part:
        part.parent.write_bytes(b"fails")
    assert list(tmp_path.iterdir()) == []
