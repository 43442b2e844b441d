"""The picture of a terminal in README: a real run, drawn without links to other places."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tools import terminal_picture


def test_what_was_taken_back_is_gone() -> None:
    written = "\x1b[?25lbar 1\r\n\r\x1b[1A\x1b[2Kbar 2\r\n\r\x1b[1A\x1b[2K\x1b[?25h\x1b[2mdone\x1b[0m\r\nresult\r\n"
    assert terminal_picture.screen(written) == ["\x1b[2mdone\x1b[0m", "result"]
    assert terminal_picture.screen("1 of 2\r2 of 2\r\n\r\nend") == ["2 of 2", "", "end"]


def test_a_command_is_run_and_drawn(tmp_path: Path) -> None:
    program = "import sys; print(sys.stdout.isatty()); [print('line', i) for i in range(9)]; sys.exit(3)"
    picture = tmp_path / "terminal.svg"
    code = terminal_picture.main([str(picture), "--keep", "2", "1", "--", sys.executable, "-c", program])
    text = picture.read_text()
    assert code == 3
    assert [word for word in ("True", "line&#160;0", "line&#160;8") if word not in text] == []
    assert "line&#160;4" not in text


@pytest.mark.parametrize("picture", [ROOT / "docs" / "images" / "terminal.svg"])
def test_the_picture_asks_for_nothing_and_is_small(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    assert len(text) < 200_000
    assert re.findall(r"(?:href|src)=|url\(['\"]?http|@import|@font-face", text) == []
    assert "PASSED" in text
