"""The optional packages that some sources need: which are there, and how to install those that are not."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import metadata

from graphcut.errors import DependencyError

SIZES = {"keras": "2 GB", "torch": "0.2 to 3 GB"}
"""What an extra brings from PyPI; for torch it depends on the platform (docs/reference/sources.md)."""


def versions(extra: str, packages: Sequence[str], what: str) -> dict[str, str]:
    """Return the versions of packages, without importing them.

    Args:
        extra: that brings them ("keras").
        packages: their names.
        what: needs them, for the error ("recipes from Keras").

    Raises:
        DependencyError: one is not installed; says how to install them.
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
    """Return the extra's requirements as the package's metadata lists them, ready for a shell.

    graphcut is on no package index: without metadata, the extra of a checkout is all that can be named.
    """
    try:
        lines = metadata.requires("graphcut") or []
    except metadata.PackageNotFoundError:
        lines = []
    pinned = [line.split(";")[0].strip() for line in lines if re.search(f"extra == ['\"]{extra}['\"]", line)]
    return " ".join(f"'{line}'" for line in pinned) or f"'.[{extra}]'"
