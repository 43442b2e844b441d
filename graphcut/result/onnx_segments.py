"""A folder with the float segments of a model alone: ``seg1.onnx`` .., and a ``meta.json`` that says what they are.

It is no split: nothing in it is int8. ``kind`` in ``meta.json`` says so, and ``files`` protects what is there.
"""

from __future__ import annotations

from pathlib import Path

from graphcut import files, staging
from graphcut.codec import to_json
from graphcut.graph.model import Model
from graphcut.planning.plan_options import PlanRequest
from graphcut.record_schema import Json
from graphcut.records import Plan
from graphcut.result.manifest import FLOAT_SEGMENTS, SCHEMA_VERSION
from graphcut.result.manifest_schema import LoadEntry
from graphcut.versions import graphcut_version, tool_versions


def write(folder: Path, model: Model, plan: Plan, samples: int, request: PlanRequest) -> Json:
    """Write ``meta.json`` beside the segments of a plan; returns the document.

    Args:
        folder: that holds ``seg1.onnx`` to ``segK.onnx``.
        model: that they were cut from.
        plan: how.
        samples: on how many random samples their chain gave the bits of the whole.
        request: how the plan was asked for.
    """
    named = {each.index: f"seg{each.index}.onnx" for each in plan.segments}
    segments = []
    for each in plan.segments:
        said = to_json(each)
        said["predicted_tflite_bytes"] = said.pop("tflite_bytes")
        segments.append({**said, "onnx": named[each.index]})
    document = {
        "schema_version": SCHEMA_VERSION,
        "graphcut_version": graphcut_version(),
        "kind": FLOAT_SEGMENTS,
        "tools": tool_versions(),
        "source": to_json(model.source),
        "load": to_json(LoadEntry(notes=model.notes, passes=model.passes)),
        "options": to_json(request),
        "inputs": [to_json(each) for each in model.inputs],
        "outputs": [model.graph.layers[name] for name in model.graph.outputs],
        "plan": to_json(plan, without=("segments", "candidates")),
        "segments": segments,
        "float_proof": {"exact": True, "random_samples": samples},
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": files.sha256_of(folder / name)}
            for name in named.values()
        },
    }
    (folder / staging.MANIFEST).write_text(files.json_text(document), encoding="utf-8")
    return document
