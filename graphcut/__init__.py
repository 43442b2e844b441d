"""Split a CNN that is too large for an edge accelerator into segments that fit.

The public API: ``load`` a model, ``analyse`` where it can be cut, ``plan`` the cuts, ``split`` it into a folder,
``open`` that folder to ``run`` it, measure it or ship it. Everything public is in this module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphcut.api import analyse, check, compile, cost, export, extract, load, open, plan, split, verify
    from graphcut.deploy.benchmark import Bench
    from graphcut.deploy.bundling import Bundle
    from graphcut.deploy.compilation import CompiledSplit
    from graphcut.deploy.simulation import Simulated
    from graphcut.edgetpu.compiler import CompileResult
    from graphcut.edgetpu.file_cost import FileCost
    from graphcut.edgetpu.operator_check import Check
    from graphcut.errors import (
        CalibrationError,
        CompilationError,
        ConversionError,
        DependencyError,
        GraphcutError,
        InfeasibleError,
        ModelError,
        OutputError,
        RunError,
        UsageError,
        VerificationError,
    )
    from graphcut.flow import Extracted
    from graphcut.graph.model import Model
    from graphcut.progress import Event
    from graphcut.records import (
        Analysis,
        Candidate,
        ConvertedSegment,
        Evaluation,
        Plan,
        Preprocessing,
        Samples,
        Segment,
        Tail,
        Verification,
    )
    from graphcut.runtime.chain import Chain
    from graphcut.runtime.pipeline import Pipeline
    from graphcut.split_folder import Split

    __version__: str

_HOMES = {
    "api": "analyse check compile cost export extract load open plan split verify",
    "deploy.benchmark": "Bench",
    "deploy.bundling": "Bundle",
    "deploy.compilation": "CompiledSplit",
    "deploy.simulation": "Simulated",
    "edgetpu.compiler": "CompileResult",
    "edgetpu.file_cost": "FileCost",
    "edgetpu.operator_check": "Check",
    "errors": "CalibrationError CompilationError ConversionError DependencyError GraphcutError InfeasibleError "
    "ModelError OutputError RunError UsageError VerificationError",
    "flow": "Extracted",
    "graph.model": "Model",
    "progress": "Event",
    "records": "Analysis Candidate ConvertedSegment Evaluation Plan Preprocessing Samples Segment Tail Verification",
    "runtime.chain": "Chain",
    "runtime.pipeline": "Pipeline",
    "split_folder": "Split",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
# Imported on first use, so that `import graphcut` takes milliseconds.

__all__ = [
    "Analysis",
    "Bench",
    "Bundle",
    "CalibrationError",
    "Candidate",
    "Chain",
    "Check",
    "CompilationError",
    "CompileResult",
    "CompiledSplit",
    "ConversionError",
    "ConvertedSegment",
    "DependencyError",
    "Evaluation",
    "Event",
    "Extracted",
    "FileCost",
    "GraphcutError",
    "InfeasibleError",
    "Model",
    "ModelError",
    "OutputError",
    "Pipeline",
    "Plan",
    "Preprocessing",
    "RunError",
    "Samples",
    "Segment",
    "Simulated",
    "Split",
    "Tail",
    "UsageError",
    "Verification",
    "VerificationError",
    "__version__",
    "analyse",
    "check",
    "compile",
    "cost",
    "export",
    "extract",
    "load",
    "open",
    "plan",
    "split",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("graphcut.versions").graphcut_version()
    if name not in _HOME_OF:
        raise AttributeError(f"module 'graphcut' has no attribute {name!r}")
    return getattr(import_module(f"graphcut.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
