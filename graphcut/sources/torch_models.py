"""Code shared by the two PyTorch adapters: the extra, the versions, the steps of an export."""

from __future__ import annotations

from typing import Final

from graphcut.sources.exporting import Step

EXTRA: Final = "torch"
PACKAGES: Final = ("torch", "onnxscript")
# The oldest operator set that the exporter writes by itself.
OPSET: Final = 18
# Part of the key: raise it whenever the worker would write other bytes for the same file and versions.
REVISION: Final = 1

_WORKER: Final = "graphcut.sources.torch_worker"


def steps(load: str) -> tuple[Step, ...]:
    """The steps of an export that begins with a function of the worker."""
    return (
        Step(function=f"{_WORKER}:{load}", says="reading it in PyTorch"),
        Step(function=f"{_WORKER}:convert", says="converting it to ONNX"),
        Step(function=f"{_WORKER}:check", says="comparing the two"),
        Step(function=f"{_WORKER}:write", says="writing the file"),
    )
