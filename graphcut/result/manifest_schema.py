"""The form of ``meta.json``: what a document must hold before anything in it is used.

1. Types are strict: a number in quotes is not a number. Keys that are not listed are let through (manifest,
   statement 1).
2. Paths are relative and stay inside the folder; shapes are positive and below 2**31.
3. :func:`json_schema` is the same as a JSON Schema, for other programs.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise ValueError("a path must be relative and stay inside the folder")
    return name


RelativePath = Annotated[str, AfterValidator(_inside)]
Bytes = Annotated[int, Field(ge=0, lt=2**53)]
Dimensions = Annotated[list[Annotated[int, Field(ge=1, lt=2**31)]], Field(max_length=8)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LayerNames = list[str]


@with_config(ConfigDict(extra="allow", strict=True))
class EdgeEntry(TypedDict):
    """A tensor at an edge of a segment, NHWC."""

    layer: str
    tensor: str
    shape: Dimensions
    dtype: str
    scale: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    zero_point: Annotated[int, Field(ge=-128, le=255)]


@with_config(ConfigDict(extra="allow", strict=True))
class InputEntry(TypedDict):
    """An input of the model."""

    name: str
    shape: Dimensions
    source_layout: Literal["NCHW", "NHWC", "other"]
    source_shape: Dimensions
    int8: EdgeEntry


class OutputEntry(EdgeEntry):
    """An output of the model."""

    nhwc: bool


@with_config(ConfigDict(extra="allow", strict=True))
class SegmentEntry(TypedDict):
    """A segment and its files."""

    index: Annotated[int, Field(ge=1, lt=2**31)]
    start: Count
    stop: Count
    inputs: LayerNames
    outputs: LayerNames
    input_tensors: list[str]
    output_tensors: list[str]
    weight_bytes: Bytes
    tflite_bytes: Bytes
    tflite: RelativePath
    onnx: RelativePath
    float_error: float
    sqnr_db: dict[str, float]
    backend: str
    notes: list[str]
    on_chip: NotRequired[Annotated[list[int], Field(min_length=2, max_length=2)] | None]
    on_cpu: NotRequired[list[str]]


@with_config(ConfigDict(extra="allow", strict=True))
class TailEntry(TypedDict):
    """The last segments joined."""

    first: Annotated[int, Field(ge=1)]
    last: Annotated[int, Field(ge=1)]
    tflite_bytes: Bytes
    inputs: LayerNames
    outputs: LayerNames
    tflite: RelativePath


@with_config(ConfigDict(extra="allow", strict=True))
class DataEntry(TypedDict):
    """Samples that were used."""

    origin: str
    samples: Count
    synthetic: bool
    sha256: Hash
    names: list[str]
    file: RelativePath


@with_config(ConfigDict(extra="allow", strict=True))
class FileEntry(TypedDict):
    """What protects a file."""

    bytes: Bytes
    sha256: Hash


@with_config(ConfigDict(extra="allow", strict=True))
class SourceEntry(TypedDict):
    """Where the model came from."""

    kind: str
    name: str
    sha256: str


@with_config(ConfigDict(extra="allow", strict=True))
class PlanEntry(TypedDict):
    """The plan without its segments."""

    strategy: str
    budget_bytes: Bytes | None
    k: Annotated[int, Field(ge=1)]
    minimal_k: int | None
    lower_bound: int | None
    cuts: LayerNames
    candidates: list[dict[str, Any]]


@with_config(ConfigDict(extra="allow", strict=True))
class VerificationEntry(TypedDict):
    """What was proved."""

    passed: bool
    exact: bool
    float_exact: bool
    samples: Count
    synthetic_calibration: bool
    sqnr_db: dict[str, float]
    top1_agreement: float | None
    worst_sample: dict[str, str]
    independent: dict[str, Any] | None
    runtime: str
    findings: list[str]
    verdict: NotRequired[Literal["PASSED", "WEAK", "FAILED"]]


@with_config(ConfigDict(extra="allow", strict=True))
class ManifestDocument(TypedDict):
    """``meta.json`` of a split."""

    schema_version: int
    graphcut_version: str
    tools: dict[str, str]
    source: SourceEntry
    options: dict[str, Any]
    calibration: DataEntry
    validation: NotRequired[DataEntry | None]
    inputs: Annotated[list[InputEntry], Field(min_length=1)]
    outputs: Annotated[list[OutputEntry], Field(min_length=1)]
    cuts: LayerNames
    plan: PlanEntry
    segments: Annotated[list[SegmentEntry], Field(min_length=1)]
    seams: list[EdgeEntry]
    tails: list[TailEntry]
    verification: VerificationEntry
    files: dict[RelativePath, FileEntry]


@cache
def _adapter() -> TypeAdapter[ManifestDocument]:
    return TypeAdapter(ManifestDocument)


def require_valid(document: Any) -> None:
    """Refuse a document that is not of this form.

    Raises:
        ValueError: one line that says where it differs.
    """
    try:
        _adapter().validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(each) for each in first["loc"])[:100]
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    numbers = [each["index"] for each in document["segments"]]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError("segments: they are not numbered 1, 2, ..")


def json_schema() -> dict[str, Any]:
    """The form as a JSON Schema."""
    return _adapter().json_schema()
