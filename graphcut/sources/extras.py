"""The optional packages that some sources need: which are installed, and how to install the others."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import metadata

from graphcut.errors import DependencyError

SIZES = {"keras": "2 GB", "torch": "0.2 to 3 GB"}
"""The download size of an extra; for torch it depends on the platform (docs/reference/sources.md)."""


def versions(extra: str, packages: Sequence[str], what: str) -> dict[str, str]:
    """Return the versions of packages, without importing them.

    Args:
        extra: the extra that includes them ("keras").
        packages: their names.
        what: what needs them, for the error ("recipes from Keras").

    Raises:
        DependencyError: a package is not installed; the error says how to install it.
    """
    found: dict[str, str] = {}
    missing: list[str] = []
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise DependencyError(
            f"{what} need packages that are not installed: {', '.join(missing)} ({SIZES[extra]})",
            f"{sys.executable} -m pip install {requirements(extra)}",
        )
    return found


def requirements(extra: str) -> str:
    """Return the requirements of the extra from the package metadata, quoted for a shell.

    graphcut is not on a package index: without metadata, only the extra of a checkout can be named.
    """
    try:
        lines = metadata.requires("graphcut") or []
    except metadata.PackageNotFoundError:
        lines = []
    pinned = [line.split(";")[0].strip() for line in lines if re.search(f"extra == ['\"]{extra}['\"]", line)]
    return " ".join(f"'{line}'" for line in pinned) or f"'.[{extra}]'"
