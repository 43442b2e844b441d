"""Records as JSON values, one function a record: the same keys in ``--json`` and in ``meta.json``.

1. Names shown first are layer names; ONNX tensor names stand beside them where a program may need both.
2. JSON has no infinity: a dB value that is not finite is written as 1000 (no noise at all) or -1000 (no signal),
   which no measurement in float32 reaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from graphcut.planning.compare import Compared
from graphcut.prediction.segment_costs import PlanCost, SegmentCost
from graphcut.records import (
    Analysis,
    Candidate,
    Deployment,
    Independent,
    ModelInput,
    OperatorError,
    OutputPart,
    PassReport,
    Plan,
    Preprocessing,
    SampleResult,
    Samples,
    SeamTensor,
    Segment,
    Tail,
    Verification,
)

Json = dict[str, Any]

BEYOND_DB = 1000.0


def decibels(value: float) -> float:
    """Write a dB value within JSON's reach (statement 2), to a thousandth."""
    if math.isnan(value):
        raise ValueError("a ratio in dB is not a number: its signal was not measured")
    return round(max(-BEYOND_DB, min(BEYOND_DB, value)), 3)


def from_decibels(value: float) -> float:
    """Read what :func:`decibels` wrote."""
    return math.copysign(math.inf, value) if abs(value) >= BEYOND_DB else value


def candidate(record: Candidate) -> Json:
    """Write all fields of a candidate."""
    return {
        **asdict(record),
        "shape": list(record.shape),
        "tensors": list(record.tensors),
        "layers": list(record.layers),
    }


def analysis(record: Analysis) -> Json:
    """Write inputs, outputs and candidates of a model."""
    graph = record.graph
    return {
        "inputs": [_activation(record, name) for name in graph.inputs],
        "outputs": [_activation(record, name) for name in graph.outputs],
        "operators": len(graph.nodes),
        "weight_bytes": sum(weight.elements for weight in graph.weights.values()),
        "candidates": [candidate(each) for each in record.candidates],
    }


def _activation(record: Analysis, name: str) -> Json:
    tensor = record.graph.tensors[name]
    return {
        "layer": record.graph.layers[name],
        "tensor": name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "int8_bytes": tensor.elements,
    }


def segment(record: Segment) -> Json:
    """Write a segment; ``inputs`` and ``outputs`` are layer names."""
    return {
        "index": record.index,
        "start": record.start,
        "stop": record.stop,
        "inputs": list(record.input_layers),
        "outputs": list(record.output_layers),
        "input_tensors": list(record.inputs),
        "output_tensors": list(record.outputs),
        "weight_bytes": record.weight_bytes,
        "tflite_bytes": record.tflite_bytes,
    }


def plan(record: Plan) -> Json:
    """Write a plan with its segments."""
    return {**plan_head(record), "segments": [segment(each) for each in record.segments]}


def plan_head(record: Plan) -> Json:
    """Write a plan without its segments."""
    return {
        "strategy": record.strategy,
        "budget_bytes": record.budget_bytes,
        "k": record.k,
        "minimal_k": record.minimal_k,
        "lower_bound": record.lower_bound,
        "cuts": list(record.cuts),
        "cut_tensors": [each.tensor for each in record.candidates],
        "cut_layers": [list(each.layers) for each in record.candidates],
        "cut_int8_bytes": [each.int8_bytes for each in record.candidates],
        "seam_tensors": record.seam_tensors,
        "max_seam_tensors": record.max_seam_tensors,
        "min_rank": record.min_rank,
        "places": record.places,
        "largest_tflite_bytes": max(each.tflite_bytes for each in record.segments),
        "notes": list(record.notes),
        "deployment": None if record.deployment is None else deployment(record.deployment),
    }


def deployment(record: Deployment) -> Json:
    """Write how segments are placed on devices."""
    return plain(asdict(record))


def seam_tensor(record: SeamTensor) -> Json:
    """Write an edge tensor of an int8 segment, NHWC; scales are written with all their digits."""
    return {
        "layer": record.layer,
        "tensor": record.tensor,
        "shape": list(record.shape),
        "dtype": record.dtype,
        "scale": record.scale,
        "zero_point": record.zero_point,
    }


def tail(record: Tail) -> Json:
    """Write a tail without its path."""
    return {
        "first": record.first,
        "last": record.last,
        "tflite_bytes": record.tflite_bytes,
        "inputs": [each.layer for each in record.inputs],
        "outputs": [each.layer for each in record.outputs],
    }


def verification(record: Verification) -> Json:
    """Write what was proved."""
    return {
        "verdict": record.verdict,
        "reason": record.reason,
        "passed": record.passed,
        "exact": record.exact,
        "float_exact": record.float_exact,
        "samples": record.samples,
        "synthetic_calibration": record.synthetic_calibration,
        "sqnr_db": {name: decibels(value) for name, value in record.sqnr_db.items()},
        "top1_agreement": record.top1_agreement,
        "worst_sample": dict(record.worst_sample),
        "independent": None if record.independent is None else independent(record.independent),
        "runtime": record.runtime,
        "findings": list(record.findings),
        "by_sample": [sample_result(each) for each in record.by_sample],
        "parts": [output_part(each) for each in record.parts],
        "held_out": record.held_out,
        "calibration_sqnr_db": {name: decibels(value) for name, value in record.calibration_sqnr_db.items()},
        "input_ranges": {name: list(values) for name, values in record.input_ranges.items()},
        "min_sqnr_db": record.min_sqnr_db,
        "worst_operator": None if record.worst_operator is None else operator_error(record.worst_operator),
    }


def operator_error(record: OperatorError) -> Json:
    """Write how far an operator is from float."""
    return {**asdict(record), "alone_db": decibels(record.alone_db), "sqnr_db": decibels(record.sqnr_db)}


def output_part(record: OutputPart) -> Json:
    """Write a part of an output."""
    return {
        **asdict(record),
        "sqnr_db": decibels(record.sqnr_db),
        "channels": [list(run) for run in record.channels],
    }


def sample_result(record: SampleResult) -> Json:
    """Write what was found on one sample."""
    return {
        "name": record.name,
        "sqnr_db": {name: decibels(value) for name, value in record.sqnr_db.items()},
        "float_best": [list(each) for each in record.float_best],
        "int8_best": [list(each) for each in record.int8_best],
    }


def independent(record: Independent) -> Json:
    """Write how far the chain is from the whole converted in one piece."""
    return {**asdict(record), "sqnr_db": decibels(record.sqnr_db)}


def samples(record: Samples) -> Json:
    """Write what the samples were, without their values."""
    return {
        "origin": record.origin,
        "samples": len(record),
        "synthetic": record.synthetic,
        "sha256": record.sha256,
        "names": list(record.names),
    }


def model_input(record: ModelInput) -> Json:
    """Write a model input as its author declared it and as the normalised graph has it (NCHW)."""
    return {
        "name": record.name,
        "shape": list(record.shape),
        "source_layout": record.source_layout,
        "source_shape": list(record.source_shape),
    }


def pass_report(record: PassReport) -> Json:
    """Write what one rewrite did."""
    return asdict(record)


def preprocessing(record: Preprocessing | None) -> Json | None:
    """Write how pixels become inputs; None where nobody said."""
    if record is None:
        return None
    return {"mean": list(record.mean), "std": list(record.std), "colour": record.colour, "layout": record.layout}


def plain(values: Mapping[str, object]) -> Json:
    """Write options as JSON values: tuples and sets become lists."""
    return {name: list(value) if isinstance(value, tuple | frozenset) else value for name, value in values.items()}


def segment_cost(cost: SegmentCost) -> Json:
    """Write what a segment costs; ``tflite_bytes`` is the segment's own."""
    return {
        "parameter_bytes": cost.parameter_bytes,
        "compiled_bytes": cost.compiled.expected_bytes,
        "compiled_interval": [cost.compiled.low_bytes, cost.compiled.high_bytes],
        "fits_on_chip": {
            "probability": cost.fit.probability,
            "room_bytes": cost.fit.room_bytes,
            "margin_bytes": cost.fit.margin_bytes,
        },
        "off_chip_bytes": cost.off_chip_bytes,
        "macs": cost.macs,
        "activation_bytes": cost.activation_bytes,
        "seam_bytes": cost.seam_bytes,
        "latency_ms": round(cost.latency_ms, 3),
        "device": cost.device,
    }


def predicted(cost: PlanCost) -> Json:
    """Write what follows for the pipeline."""
    return {
        "interval_ms": round(cost.interval_ms, 3),
        "latency_ms": round(cost.latency_ms, 3),
        "off_chip_bytes": cost.off_chip_bytes,
        "seam_bytes": cost.seam_bytes,
        "balance": round(cost.balance, 4),
    }


def compared(row: Compared) -> Json:
    """Write one way to cut."""
    head = {"name": row.name, "asked": row.asked}
    if row.cost is None:
        return {**head, "refused": row.refused}
    return {
        **head,
        "k": len(row.segments),
        "largest_tflite_bytes": max(each.tflite_bytes for each in row.segments),
        **predicted(row.cost),
        "cuts": [list(each.output_layers) for each in row.segments[:-1]],
        "tflite_bytes": [each.tflite_bytes for each in row.segments],
        "segment_latency_ms": [round(each.latency_ms, 3) for each in row.cost.segments],
    }


def trade_off(swept: Sequence[Compared], others: Sequence[Compared]) -> Json:
    """Write the best plan for every number of segments, and other ways to cut, without their cuts."""
    kept = ("name", "asked", "refused", "k", "largest_tflite_bytes", "interval_ms", "latency_ms", "off_chip_bytes")
    return {
        name: [{key: value for key, value in compared(row).items() if key in kept} for row in rows]
        for name, rows in (("swept", swept), ("compared", others))
    }
