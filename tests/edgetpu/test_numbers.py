"""The Edge TPU part of docs/explanation/numbers.md is what its script makes today."""

from pathlib import Path

import pytest

from tests.support.places import ROOT
from tools import edgetpu_numbers

SHARED = ROOT.parent / "shared"
NUMBERS = ROOT / "docs" / "explanation" / "numbers.md"
pytestmark = pytest.mark.skipif(not (SHARED / "edgetpu").is_dir(), reason="no real pairs beside the repository")


@pytest.mark.parametrize("part", [edgetpu_numbers.placement, edgetpu_numbers.parameters, edgetpu_numbers.proofs])
def test_the_document_is_current(part: object) -> None:
    assert callable(part)
    assert part(SHARED) in NUMBERS.read_text(encoding="utf-8"), "run python -m tools.edgetpu_numbers"


def test_the_section_replaces_itself_and_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgetpu_numbers, "published", lambda *_: [])
    monkeypatch.setattr(edgetpu_numbers, "sizes", lambda _: "sizes")
    monkeypatch.setattr(edgetpu_numbers, "streaming", lambda _: "streaming")
    target = tmp_path / "numbers.md"
    target.write_text("# Numbers\n\nbefore\n", encoding="utf-8")
    edgetpu_numbers.main([str(SHARED), str(target)])
    target.write_text(f"{target.read_text(encoding='utf-8')}\nafter\n", encoding="utf-8")
    once = target.read_text(encoding="utf-8")
    edgetpu_numbers.main([str(SHARED), str(target)])
    assert target.read_text(encoding="utf-8") == once
    assert once.startswith("# Numbers\n\nbefore\n\n<!-- edgetpu")
    assert once.endswith("-->\n\nafter\n")
