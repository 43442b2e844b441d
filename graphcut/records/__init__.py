"""The records that pass between stages.

All are frozen, slotted and keyword-only; sequences are tuples. A record is always complete: if a stage did not run, its
record does not exist. Conventions that hold everywhere:

1. A *position* p is a place between nodes: ``nodes[:p]`` come before it. Ranges are half-open.
2. Tensor names are those of the normalised ONNX graph; *layer names* are those that the model's author knows.
3. Shapes of ONNX activations are NCHW (rank 4), batch 1. Shapes of TFLite tensors are NHWC.
4. Sizes are bytes unless the name says otherwise; 1 MiB is 2**20 bytes.
5. Segments are numbered from 1, as in file names (``seg1_int8.tflite``).
"""

from __future__ import annotations

from graphcut.records.evaluation_records import ClassChange, Evaluation, Figure, WorstPicture
from graphcut.records.field_types import Array, Bytes, Count, Decibels, Dimensions, Layout, Number, Sha256, Shape
from graphcut.records.graph_records import Graph, ModelInput, Node, PassReport, Source, Tensor
from graphcut.records.plan_records import (
    Analysis,
    Candidate,
    Deployment,
    Endpoint,
    Plan,
    Segment,
    SegmentTime,
    SegmentTimes,
    Stage,
)
from graphcut.records.split_records import ConvertedSegment, NamedTensor, Preprocessing, Samples, SeamTensor, Tail
from graphcut.records.verification_records import (
    Independent,
    OperatorError,
    OutputPart,
    SampleResult,
    Verdict,
    Verification,
)

__all__ = [
    "Analysis",
    "Array",
    "Bytes",
    "Candidate",
    "ClassChange",
    "ConvertedSegment",
    "Count",
    "Decibels",
    "Deployment",
    "Dimensions",
    "Endpoint",
    "Evaluation",
    "Figure",
    "Graph",
    "Independent",
    "Layout",
    "ModelInput",
    "NamedTensor",
    "Node",
    "Number",
    "OperatorError",
    "OutputPart",
    "PassReport",
    "Plan",
    "Preprocessing",
    "SampleResult",
    "Samples",
    "SeamTensor",
    "Segment",
    "SegmentTime",
    "SegmentTimes",
    "Sha256",
    "Shape",
    "Source",
    "Stage",
    "Tail",
    "Tensor",
    "Verdict",
    "Verification",
    "WorstPicture",
]
