"""Print the section of CHANGELOG.md for the version in pyproject.toml: ``python tools/release_notes.py [TAG]``.

If a tag is given, it must match that version (``v0.1.0``), so that no release gets a wrong number.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the notes; return 1 if the tag or the changelog does not match the version."""
    parser = argparse.ArgumentParser(description="Print the changelog of the version in pyproject.toml.")
    parser.add_argument("tag", nargs="?", help="the release's tag, which must be that version's")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    options = parser.parse_args(arguments)
    version = tomllib.loads((options.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if options.tag not in (None, f"v{version}"):
        print(f"tag {options.tag} is not v{version}, the version in pyproject.toml", file=sys.stderr)
        return 1
    notes = section((options.root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if not notes:
        print(f"CHANGELOG.md has no section for {version}", file=sys.stderr)
        return 1
    print(notes)
    return 0


def section(changelog: str, version: str) -> str:
    """Return the text below the heading of a version, "" if there is none.

    A heading is ``## VERSION`` or ``## VERSION (date)``.
    """
    for part in changelog.split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        if heading.split()[:1] == [version]:
            return body.strip()
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
