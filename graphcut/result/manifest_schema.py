"""The form of ``meta.json``, declared as records: what is written, what is checked before use, what is published.

1. Keys of a record that another one takes in flat (``FLAT``) stand among its own; graphcut.codec has the rules.
2. Types are strict: a number in quotes is not a number. Unknown keys are allowed (manifest, statement 1).
3. Paths are relative and stay inside the folder; shapes are positive and below 2**31.
4. :func:`json_schema` is the same as a JSON Schema, for other programs: docs/reference/meta.schema.json. The tables of
   docs/reference/manifest.md are made from it (``tools/manifest_tables.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from graphcut import record_schema
from graphcut.planning.compare import TradeOff
from graphcut.planning.plan_options import PlanRequest
from graphcut.prediction.segment_costs import SegmentCost
from graphcut.record_schema import Json
from graphcut.record_types import FLAT, INSIDE, OPTIONAL, AtMost, Without
from graphcut.records import (
    Bytes,
    ConvertedSegment,
    Count,
    Evaluation,
    ModelInput,
    OperatorError,
    PassReport,
    Plan,
    Preprocessing,
    Samples,
    SeamTensor,
    Sha256,
    Source,
    Tail,
    Verification,
)
from graphcut.result.compiled_entries import Compilation
from graphcut.settings import EdgeType, Effort, Method

RelativePath = Annotated[str, INSIDE]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadEntry:
    """What loading did.

    Attributes:
        notes: sentences for the user ("batch fixed to 1").
        passes: the rewrites, in the order in which they ran.
    """

    notes: tuple[str, ...]
    passes: tuple[PassReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionsEntry:
    """How a split was asked for.

    Attributes:
        effort: time given to accuracy.
        input_type, output_type: type of the model's inputs and outputs in the files.
        without: methods of accuracy that were left out.
        preprocessing: how pixels become inputs, used by `graphcut run`; None where none was given.
        seed: of synthetic samples.
    """

    request: Annotated[PlanRequest, FLAT]
    effort: Effort = "normal"
    input_type: EdgeType = "int8"
    output_type: EdgeType = "int8"
    without: tuple[Method, ...] = ()
    preprocessing: Preprocessing | None = None
    seed: Annotated[int | None, OPTIONAL] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEntry:
    """Samples that were used.

    Attributes:
        file: the file that holds them.
    """

    data: Annotated[Samples, FLAT]
    file: RelativePath


@dataclass(frozen=True, slots=True, kw_only=True)
class InputEntry:
    """An input of the model.

    Attributes:
        int8: the tensor of the TFLite file.
    """

    declared: Annotated[ModelInput, FLAT]
    int8: SeamTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputEntry:
    """An output of the model.

    Attributes:
        nhwc: the author's file delivers this one NHWC too.
    """

    edge: Annotated[SeamTensor, FLAT]
    nhwc: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamEntry:
    """A tensor that one segment hands to a later one.

    Attributes:
        int8_bytes: the bytes that are handed over.
    """

    edge: Annotated[SeamTensor, FLAT]
    int8_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEntry:
    """A segment, its files, and what was predicted for it on the Edge TPU; none of the latter is measured."""

    made: Annotated[ConvertedSegment, FLAT]
    cost: Annotated[SegmentCost | None, FLAT] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """What protects a file.

    Attributes:
        bytes: its size.
        sha256: of its bytes, in hex.
    """

    bytes: Bytes
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What `graphcut diagnose` measured.

    Attributes:
        samples: on how many samples.
        synthetic: the samples are generated.
        operators: in the order in which they run.
    """

    samples: Count
    synthetic: bool
    operators: tuple[OperatorError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestDocument:
    """The file ``meta.json`` of a split.

    Attributes:
        schema_version: 1.
        graphcut_version: the graphcut that wrote it.
        tools: versions of Python and of the packages that affect the bytes.
        source: the model.
        load: what loading did.
        options: how the split was asked for.
        calibration: the samples from which the ranges were learned.
        validation: the samples that were kept out of calibration, to judge on; null if there are none.
        inputs, outputs: of the model, in its order.
        cuts: layer names, in order; one fewer than segments.
        plan: how the cuts were chosen, and how many segments are the fewest possible.
        segments: the files of the chain.
        seams: the tensors that one segment hands to a later one.
        tails: the unsplit model, and for every k the segments k..K joined.
        trade_off: other ways to cut, for comparison.
        verification: what was proved, and on which samples.
        diagnosis: what `graphcut diagnose` measured; absent where nobody ran it.
        evaluation: what `graphcut evaluate --save` measured; absent where nobody ran it.
        edgetpu: what `graphcut compile` wrote; absent where nothing was compiled.
        files: path -> size and hash of every file but `meta.json`, `note.txt` and `report.html`.
    """

    schema_version: int
    graphcut_version: str
    tools: Mapping[str, str]
    source: Source
    load: LoadEntry = field(default_factory=lambda: LoadEntry(notes=(), passes=()))
    options: OptionsEntry
    calibration: DataEntry
    validation: DataEntry | None = None
    inputs: Annotated[tuple[InputEntry, ...], AtMost(least=1)]
    outputs: Annotated[tuple[OutputEntry, ...], AtMost(least=1)]
    cuts: tuple[str, ...]
    plan: Annotated[Plan, Without(("segments",))]
    segments: Annotated[tuple[SegmentEntry, ...], AtMost(least=1)]
    seams: tuple[SeamEntry, ...]
    tails: tuple[Tail, ...]
    trade_off: TradeOff = field(default_factory=TradeOff)
    verification: Verification
    diagnosis: Annotated[Diagnosis | None, OPTIONAL] = None
    evaluation: Annotated[Evaluation | None, OPTIONAL] = None
    edgetpu: Annotated[Compilation | None, OPTIONAL] = None
    files: Mapping[RelativePath, FileEntry]


def require_valid(document: Any) -> None:
    """Refuse a document that is not of this form.

    Raises:
        ValueError: one line that says where it differs.
    """
    record_schema.require(ManifestDocument, document)
    numbers = [each["index"] for each in document["segments"]]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError("segments: they are not numbered 1, 2, ..")


def json_schema() -> Json:
    """The form as a JSON Schema."""
    return record_schema.json_schema(ManifestDocument)
