"""``graphcut cache``: every kind that is kept is listed, and only what belongs to the cache is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphcut.cache_folder import EarlierResults, exports
from tests.cli.test_cli import Graphcut


@pytest.fixture
def graphcut(capsys: pytest.CaptureFixture[str]) -> Graphcut:
    return Graphcut(capsys)


def test_an_empty_cache(graphcut: Graphcut, tmp_path: Path) -> None:
    ended = graphcut("cache", "list", "--cache", tmp_path / "none", "--json")
    assert ended.document["total_bytes"] == 0
    assert [each["last_used"] for each in ended.document["kinds"]] == [None, None]
    assert graphcut("cache", "clear", "--cache", tmp_path / "none").code == 0


def test_kinds_are_listed_and_nothing_else_is_removed(graphcut: Graphcut, tmp_path: Path) -> None:
    EarlierResults(tmp_path).put("ab" * 32, b"x" * 1000)
    exports(tmp_path).mkdir()
    (exports(tmp_path) / "model-1.onnx").write_bytes(b"y" * 500)
    (exports(tmp_path) / "model-1.onnx.sha256").write_text("z")
    mine = [tmp_path / "thesis.tex", exports(tmp_path) / "notes.txt", tmp_path / "results" / "a.onnx"]
    for path in mine:
        path.write_text("years")
    kinds = {each["kind"]: each for each in graphcut("cache", "list", "--cache", tmp_path, "--json").document["kinds"]}
    assert (kinds["exports"]["files"], kinds["exports"]["total_bytes"]) == (2, 501)
    assert (kinds["results"]["files"], kinds["results"]["total_bytes"]) == (1, 1032)
    assert "1.5 KiB in " in graphcut("cache", "list", "--cache", tmp_path).out
    assert graphcut("cache", "clear", "--cache", tmp_path).out.startswith("removed 3 files, 1.5 KiB, from ")
    assert EarlierResults(tmp_path).get("ab" * 32) is None
    assert [path.read_text() for path in mine] == ["years"] * 3
    assert graphcut("cache", "list", "--cache", tmp_path, "--json").document["total_bytes"] == 0
