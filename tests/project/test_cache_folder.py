"""Results of earlier runs: whole or not there, bounded, safe under kills and several processes at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from graphcut.cache_folder import EarlierResults, exports, fingerprint, root


def names(results: EarlierResults) -> list[str]:
    return sorted(path.name for path in results.folder.iterdir())


def test_what_was_put_is_there_for_the_next(tmp_path: Path):
    assert EarlierResults(tmp_path).get("a") is None
    EarlierResults(tmp_path).put("a", b"content")
    assert EarlierResults(tmp_path).get("a") == b"content"
    assert EarlierResults(tmp_path).get("b") is None
    assert exports(tmp_path).parent == root(tmp_path) == EarlierResults(tmp_path).folder.parent


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 31, b"x" * 200])
def test_damage_is_found_and_removed(damage: bytes, tmp_path: Path):
    results = EarlierResults(tmp_path)
    results.put("a", b"content" * 20)
    (results.folder / "a").write_bytes(damage)
    assert results.get("a") is None
    assert names(results) == []
    results.put("a", b"made again")
    assert results.get("a") == b"made again"


def test_every_changed_byte_is_found(tmp_path: Path):
    results = EarlierResults(tmp_path)
    results.put("a", b"content")
    whole = (results.folder / "a").read_bytes()
    for place in range(len(whole)):
        (results.folder / "a").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert results.get("a") is None


def test_the_least_recently_used_go_first(tmp_path: Path):
    results = EarlierResults(tmp_path, most_bytes=1000)
    for number, name in enumerate("abc"):
        results.put(name, bytes(250))
        os.utime(results.folder / name, (number, number))
    assert results.get("a") == bytes(250)  # used just now
    results.put("d", bytes(250))
    assert names(results) == ["a", "c", "d"]
    results.put("e", bytes(1001))  # larger than all may be
    assert names(results) == ["a", "c", "d"]


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path: Path):
    results = EarlierResults(tmp_path)
    results.put("a", b"content")
    old, new = (results.folder / f".partial-{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    results.put("b", b"content")
    assert names(results) == [".partial-new", "a", "b"]
    assert results.get(".partial-new") is None  # no whole result either


def test_processes_that_put_and_get_at_once_see_whole_results(tmp_path: Path):
    """Each of four writes all keys, over the bound so that results are removed too; a fifth is killed as it writes."""
    contents = {f"key{number}": bytes([number]) * 50_000 for number in range(8)}
    children = []
    for child in range(5):
        identity = os.fork()
        if not identity:
            code = 1
            try:
                results = EarlierResults(tmp_path, most_bytes=300_000)
                for turn in range(10_000 if child == 4 else 40):
                    name = f"key{(turn + child) % 8}"
                    results.put(name, contents[name])
                    found = {name: results.get(name) for name in contents}
                    assert all(content is None or content == contents[name] for name, content in found.items())
                code = 0
            finally:
                os._exit(code)
        children.append(identity)
    codes = [os.waitstatus_to_exitcode(os.waitpid(identity, 0)[1]) for identity in children[:4]]
    os.kill(children[4], 9)
    os.waitpid(children[4], 0)
    assert codes == [0, 0, 0, 0]
    results = EarlierResults(tmp_path, most_bytes=300_000)
    results.put("last", bytes(1000))
    whole = [path for path in results.folder.iterdir() if not path.name.startswith(".partial-")]
    assert sum(path.stat().st_size for path in whole) <= 300_000


def test_a_folder_that_cannot_be_used_is_no_error(tmp_path: Path):
    (tmp_path / "results").write_text("in the way")
    results = EarlierResults(tmp_path)
    results.put("a", b"content")
    assert results.get("a") is None


def test_the_fingerprint_is_the_same_all_the_time():
    assert fingerprint() == fingerprint()
    assert len(fingerprint()) == 64
