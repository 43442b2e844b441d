"""The tables of docs/explanation/reliability.md follow from result files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import reliability_table

FUZZ = {
    "campaign": "fuzz",
    "date": "2026-01-02",
    "commit": "a",
    "kinds": {
        "npz": {"files": 1200, "codes": {"0": 200, "4": 998, "1": 1, "signal 8": 1}, "faults": {"native SIGFPE": 1}},
        "onnx": {"files": 3, "codes": {"0": 2, "1": 1}, "faults": {"exit code 1": 1, "traceback KeyError: 'a|b'": 1}},
    },
}
CRASH = {
    "campaign": "crash",
    "date": "2026-01-03",
    "commit": "b",
    "kinds": {"a bundle": {"kills": 20, "old": 14, "new": 5, "faults": ["a bundle at rename 1: OUT is lost"]}},
}


def test_every_number_comes_from_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reliability_table.BEGIN}\nold\n{reliability_table.END}\nafter\n")
    monkeypatch.setattr(reliability_table, "PAGE", page)
    paths = []
    for number, document in enumerate((FUZZ, {**FUZZ, "date": "2026-01-01"}, CRASH)):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(document))
    assert reliability_table.main([str(path) for path in paths]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text.splitlines()
    for line in (
        "| arrays, `.npz` | 2026-01-01 to 2026-01-02 | 2,400 | 400 | 1,996 | 2 |",
        "| ONNX, fields changed | 2026-01-01 to 2026-01-02 | 6 | 4 | 0 | 2 |",
        "| all | | 2,406 | | | |",
        "| 2026-01-02 | ONNX, fields changed | 1 | `traceback KeyError: 'a/b'` |",
        "| 2026-01-03 | a bundle | 1 | `a bundle at rename 1: OUT is lost` |",
        "| a bundle | 2026-01-03 | 20 | 14 | 5 | 1 |",
    ):
        assert line in text.splitlines()


def test_every_kind_of_file_has_a_name() -> None:
    from tests.fuzz.campaign import CAMPAIGNS

    assert {each.name for each in CAMPAIGNS} == set(reliability_table.KINDS)


def test_the_page_has_its_place_for_the_tables() -> None:
    text = reliability_table.PAGE.read_text(encoding="utf-8")
    assert text.count(reliability_table.BEGIN) == text.count(reliability_table.END) == 1
