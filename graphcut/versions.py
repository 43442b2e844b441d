"""Versions of the packages that made a result."""

from __future__ import annotations

import platform
from importlib import metadata

_TOOLS = ("onnx", "onnxruntime", "onnx2tf", "ai-edge-quantizer", "ai-edge-litert", "numpy", "pillow")


def graphcut_version() -> str:
    """Return the version of this package; "unknown" if it is not installed."""
    return _version("graphcut") or "unknown"


def tool_versions() -> dict[str, str]:
    """Return the versions of Python and of every installed package that affects the bytes."""
    found = {name: _version(name) for name in _TOOLS}
    return {"python": platform.python_version()} | {name: version for name, version in found.items() if version}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
