"""Records from the JSON values that :mod:`graphcut.result.encode` made of them.

Values of the wrong kind raise KeyError, TypeError or ValueError; the reader of the document says it in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segment_limits import Limits
from graphcut.prediction.device_profiles import DeviceProfile
from graphcut.records import (
    Candidate,
    ConvertedSegment,
    Deployment,
    Independent,
    ModelInput,
    OperatorError,
    OutputPart,
    Plan,
    Preprocessing,
    SampleResult,
    SeamTensor,
    Segment,
    SegmentTime,
    SegmentTimes,
    Stage,
    Tail,
    Verification,
)
from graphcut.result.encode import Json, from_decibels


def segment(each: Json) -> Segment:
    """Read a segment."""
    return Segment(
        index=each["index"],
        start=each["start"],
        stop=each["stop"],
        inputs=tuple(each["input_tensors"]),
        outputs=tuple(each["output_tensors"]),
        input_layers=tuple(each["inputs"]),
        output_layers=tuple(each["outputs"]),
        weight_bytes=each["weight_bytes"],
        tflite_bytes=each["tflite_bytes"],
    )


def converted(each: Json, tensors: Mapping[str, SeamTensor], folder: Path) -> ConvertedSegment:
    """Read a converted segment; its edge tensors come from ``tensors`` by layer name."""
    return ConvertedSegment(
        segment=segment(each),
        onnx_path=folder / each["onnx"],
        tflite_path=folder / each["tflite"],
        inputs=tuple(tensors[layer] for layer in each["inputs"]),
        outputs=tuple(tensors[layer] for layer in each["outputs"]),
        float_error=each["float_error"],
        sqnr_db={layer: from_decibels(value) for layer, value in each["sqnr_db"].items()},
        backend=each["backend"],
        notes=tuple(each["notes"]),
        seconds=0.0,
        on_chip=None if each.get("on_chip") is None else (each["on_chip"][0], each["on_chip"][1]),
        on_cpu=tuple(each.get("on_cpu", ())),
    )


def tail(each: Json, tensors: Mapping[str, SeamTensor], folder: Path) -> Tail:
    """Read a tail; its edge tensors come from ``tensors`` by layer name."""
    return Tail(
        first=each["first"],
        last=each["last"],
        tflite_path=folder / each["tflite"],
        tflite_bytes=each["tflite_bytes"],
        inputs=tuple(tensors[layer] for layer in each["inputs"]),
        outputs=tuple(tensors[layer] for layer in each["outputs"]),
    )


def seam_tensor(each: Json) -> SeamTensor:
    """Read an edge tensor."""
    return SeamTensor(
        tensor=each["tensor"],
        layer=each["layer"],
        shape=tuple(each["shape"]),
        dtype=each["dtype"],
        scale=each["scale"],
        zero_point=each["zero_point"],
    )


def model_input(each: Json) -> ModelInput:
    """Read a model input."""
    return ModelInput(
        name=each["name"],
        shape=tuple(each["shape"]),
        source_layout=each["source_layout"],
        source_shape=tuple(each["source_shape"]),
    )


def plan(each: Json, segments: tuple[Segment, ...]) -> Plan:
    """Read a plan whose segments were read before."""
    return Plan(
        strategy=each["strategy"],
        budget_bytes=each["budget_bytes"],
        candidates=tuple(candidate(one) for one in each["candidates"]),
        segments=segments,
        minimal_k=each["minimal_k"],
        lower_bound=each["lower_bound"],
        max_seam_tensors=each.get("max_seam_tensors", 1),
        min_rank=each.get("min_rank", 4),
        places=each.get("places", 0),
        notes=tuple(each.get("notes", ())),
        deployment=deployment(each.get("deployment")),
    )


def deployment(each: Json | None) -> Deployment | None:
    """Read how segments are placed on devices."""
    if each is None:
        return None
    stages = tuple(Stage(**one) for one in each["stages"])
    return Deployment(**{**each, "cuts": tuple(each["cuts"]), "stages": stages})


def segment_times(each: Json) -> SegmentTimes:
    """Read measured times."""
    times = tuple(
        SegmentTime(**{**one, "from_cut": tuple(one["from_cut"]), "to_cut": tuple(one["to_cut"])})
        for one in each["times"]
    )
    return SegmentTimes(**{**each, "times": times})


def candidate(each: Json) -> Candidate:
    """Read a cut; where nothing is said of several tensors it has one."""
    tensors, layers = each.get("tensors", [each["tensor"]]), each.get("layers", [each["layer"]])
    return Candidate(**{**each, "shape": tuple(each["shape"]), "tensors": tuple(tensors), "layers": tuple(layers)})


def plan_options(each: Mapping[str, Any]) -> PlanOptions:
    """Read how a plan was asked for, from the options of a manifest or of ``graphcut plan --json``."""
    known = {each.name for each in fields(PlanOptions)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in each.items() if name in known
    }
    values["limits"] = Limits(**each.get("limits", {}))
    for name in ("devices", "fleet"):
        values[name] = tuple(DeviceProfile(**device) for device in each.get(name, ()))
    values["times"] = None if each.get("times") is None else segment_times(each["times"])
    if "device" in each:
        values["device"] = DeviceProfile(**each["device"])
    return PlanOptions(**values)


def verification(each: Json) -> Verification:
    """Read what was proved."""
    sqnr_db = {name: from_decibels(value) for name, value in each["sqnr_db"].items()}
    apart = each.get("independent")
    independent = None if apart is None else Independent(**{**apart, "sqnr_db": from_decibels(apart["sqnr_db"])})
    changed: dict[str, Any] = {"sqnr_db": sqnr_db, "independent": independent, "findings": tuple(each["findings"])}
    known = each.get("calibration_sqnr_db", {})
    changed |= {
        "verdict": each.get("verdict", "PASSED" if each["passed"] else "FAILED"),
        "calibration_sqnr_db": {name: from_decibels(value) for name, value in known.items()},
        "input_ranges": {name: tuple(values) for name, values in each.get("input_ranges", {}).items()},
        "parts": tuple(output_part(one) for one in each.get("parts", ())),
    }
    worst = each.get("worst_operator")
    changed["worst_operator"] = None if worst is None else operator_error(worst)
    changed["by_sample"] = tuple(sample_result(one) for one in each.get("by_sample", ()))
    return Verification(**{**each, **changed})


def operator_error(each: Json) -> OperatorError:
    """Read how far an operator is from float."""
    figures = {name: from_decibels(float(each[name])) for name in ("alone_db", "sqnr_db")}
    return OperatorError(**{**each, **figures})


def output_part(each: Json) -> OutputPart:
    """Read a part of an output."""
    channels = tuple((int(start), int(stop)) for start, stop in each["channels"])
    return OutputPart(**{**each, "sqnr_db": from_decibels(each["sqnr_db"]), "channels": channels})


def sample_result(each: Json) -> SampleResult:
    """Read what was found on one sample."""
    best = {
        name: tuple((int(index), float(score)) for index, score in each[name]) for name in ("float_best", "int8_best")
    }
    return SampleResult(
        name=each["name"],
        sqnr_db={name: from_decibels(value) for name, value in each["sqnr_db"].items()},
        float_best=best["float_best"],
        int8_best=best["int8_best"],
    )


def preprocessing(each: Json | None) -> Preprocessing | None:
    """Read how pixels become inputs."""
    if each is None:
        return None
    return Preprocessing(mean=tuple(each["mean"]), std=tuple(each["std"]), colour=each["colour"], layout=each["layout"])
