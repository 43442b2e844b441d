"""Every ``graphcut.x.y`` that a docstring, a comment or a page names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.places import ROOT

NAMED = re.compile(r"(?<![\w./-])graphcut(?:\.[A-Za-z_]\w*)+")
NOT_NAMES = {"graphcut.json", "graphcut.egg", "graphcut.toml", "graphcut.example", "graphcut.pth"}
FILES = sorted(
    path
    for folder, pattern in (("graphcut", "*.py"), ("tools", "*.py"), ("docs", "*.md"), (".", "*.md"))
    for path in ((ROOT / folder).glob(pattern) if folder == "." else (ROOT / folder).rglob(pattern))
    if path.name != "CHANGELOG.md"
)


def is_there(name: str) -> bool:
    """Say whether a module, or a word that a module's file defines, has this name."""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        path = ROOT.joinpath(*words[:length])
        found = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if found.is_file():
            text = found.read_text(encoding="utf-8")
            rest = words[length:]
            return not rest or re.search(rf"\b{rest[0]}\b", text) is not None
        if path.is_dir() and length == len(words):
            return True
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_named_is_there(path: Path) -> None:
    named = set(NAMED.findall(path.read_text(encoding="utf-8"))) - NOT_NAMES
    assert sorted(name for name in named if not is_there(name)) == []
