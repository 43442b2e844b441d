"""Where the repository and the data folder beside it are."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def eight_photographs(folder: Path) -> Path:
    """A new folder ``photographs`` in ``folder`` with the eight pictures of ImageNet's subjects.

    They are beside sets of other pictures in the data folder.
    """
    target = folder / "photographs"
    target.mkdir()
    for path in sorted((SHARED / "images").iterdir()):
        if path.suffix in (".bmp", ".jpg"):
            shutil.copy(path, target)
    return target
