"""The input of a worker that converts one segment, and its result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graphcut.errors import ConversionError, setting
from graphcut.graph.conversion import operators
from graphcut.quant.kept import Kept
from graphcut.records import Array, SeamTensor

_MISSING = re.compile(r"unresolved custom op: ONNX_(?P<name>\w+)")
"""The interpreter's error for an operator that onnx2tf did not convert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeActivation:
    """A tensor at the segment's edge with what it holds on every sample.

    Attributes:
        tensor, layer: its ONNX name and its layer name.
        values: float32, NCHW where the rank is 4, the N samples concatenated along the first axis.
    """

    tensor: str
    layer: str
    values: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionJob:
    """What a worker needs to convert one segment.

    Attributes:
        subject: the segment, for errors.
        onnx_path: the conversion copy.
        target: where the int8 file goes.
        scratch: a folder in which the worker may make one of its own.
        inputs, outputs: the segment's edge in its order.
        logits: output layer -> the float values before its final softmax, arranged as the output is.
        samples: N.
        endings, readers: of the conversion copy.
        ranges: layer name -> (minimum, maximum) of seam tensors, shared by both sides.
        per_channel: one weight scale per output channel.
        largest_weights: layer name of what a part of a split layer makes -> largest absolute weight of the whole.
        said: layer name -> range that the author's file gives an activation inside.
        kept: what the segments of a whole were quantised with, in the place of what is observed in the whole.
    """

    subject: str
    onnx_path: Path
    target: Path
    scratch: Path
    inputs: tuple[EdgeActivation, ...]
    outputs: tuple[EdgeActivation, ...]
    logits: Mapping[str, Array]
    samples: int
    endings: Mapping[str, str]
    readers: Mapping[str, str]
    ranges: Mapping[str, tuple[float, float]]
    per_channel: bool
    largest_weights: Mapping[str, float] = field(default_factory=dict)
    kept: tuple[Kept, ...] = ()
    said: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a worker sends back.

    Attributes:
        target: the int8 file.
        kept: what it was quantised with.

    The others are as in :class:`graphcut.records.ConvertedSegment`.
    """

    target: Path
    inputs: tuple[SeamTensor, ...]
    outputs: tuple[SeamTensor, ...]
    tflite_bytes: int
    float_error: float
    sqnr_db: Mapping[str, float]
    backend: str
    notes: tuple[str, ...]
    seconds: float
    kept: Kept


def refused(job: ConversionJob, kind: str, error: Exception) -> ConversionError:
    """The error for a TFLite file that the interpreter or the quantiser refuses.

    Where that is an operator without a TFLite form, the error names it and the layer that it makes.
    """
    lines = str(error).strip().splitlines()
    reason = lines[0][:300] if lines else type(error).__name__
    missing = _MISSING.search(reason)
    if missing is not None:
        op_type, layer = _written_as(job.onnx_path, missing["name"])
        return ConversionError(
            f"{job.subject}: the converter does not support {op_type}{f' (layer {layer})' if layer else ''}",
            "replace it with other operators, or end the model before it",
        )
    return ConversionError(
        f"{job.subject}: the {kind} TFLite file does not run ({reason})",
        f"simplify this part of the model, or choose other cuts ({setting('cuts')})",
    )


def _written_as(onnx_path: Path, name: str) -> tuple[str, str]:
    """The ONNX operator that the converter calls ``name``, in its own spelling, and the first layer that it makes."""
    for op_type, output in operators(onnx_path):
        if op_type.upper() == name:
            return op_type, output
    return name, ""
