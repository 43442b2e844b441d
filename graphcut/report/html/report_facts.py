"""What a report shows, gathered from a split or from a plan: plain records that the figures draw.

1. A figure of time is either estimated or measured, and a :class:`Timeline` says which; one timeline never holds both.
2. What was not measured is None or absent, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from graphcut.records import Evaluation

Stamp = Literal["ESTIMATED", "MEASURED"]
Kind = Literal["transfer", "waiting", "computing", "streaming"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFacts:
    """One operator in execution order, or several neighbours of a very large model taken together.

    Attributes:
        segment: from 1.
        layer, op: its layer, and its kind ("CONV_2D").
        parameter_bytes: of its weights and other constants on the chip.
        activation_bytes: of what it reads and makes.
        macs: multiplications.
        on_chip: whether the Edge TPU runs it.
        reason: why not, else "".
        sqnr_db: of its output against float, or of the next seam's (``Facts.by_operator`` says which); None where
            neither was measured.
        streams: whether its parameters are expected to be sent at every inference.
        time_ms: estimated, of computing and streaming.
    """

    segment: int
    layer: str
    op: str
    parameter_bytes: int
    activation_bytes: int
    macs: int
    on_chip: bool
    reason: str = ""
    sqnr_db: float | None = None
    streams: bool = False
    time_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFacts:
    """One segment.

    Attributes:
        index: from 1.
        inputs, outputs: layer names.
        tflite_bytes: of its int8 file; ``measured`` says whether the file is there or was predicted.
        compiled_bytes, compiled_low, compiled_high: predicted compiled file with its interval; all the same where it is
            there, which ``compiled_measured`` says.
        parameter_bytes, room_bytes, off_chip_bytes: on the chip, room there, and what is expected to stream.
        macs: multiplications.
        work: those that the chip really does, wasted ones included.
        latency_ms: estimated.
        sha256: of the file, "" where there is none.
    """

    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tflite_bytes: int
    measured: bool
    compiled_bytes: int
    compiled_low: int
    compiled_high: int
    compiled_measured: bool
    parameter_bytes: int
    room_bytes: int
    off_chip_bytes: int
    macs: int
    work: int
    latency_ms: float
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """The first segments and one tail with the rest.

    Attributes:
        first, last: segments in the tail.
        tflite_bytes: of the tail.
    """

    first: int
    last: int
    tflite_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to cut, for the trade-off.

    Attributes:
        name: of the objective or of the other tool.
        k: number of segments.
        largest_bytes: the largest int8 file, predicted.
        interval_ms, latency_ms: time per result and of one input, estimated.
        off_chip_bytes: streamed at every inference, predicted.
    """

    name: str
    k: int
    largest_bytes: int
    interval_ms: float
    latency_ms: float
    off_chip_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What one device does with one input for a while; rows and inputs count from 0."""

    row: int
    item: int
    kind: Kind
    start_ms: float
    stop_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The first inputs on their way through the pipeline.

    Attributes:
        stamp: whether it was estimated or measured (statement 1).
        what: devices and link, for people.
        rows: what each row is.
        spans: in any order.
        interval_ms, latency_ms: time per result when the pipeline is full, and of one input.
    """

    stamp: Stamp
    what: str
    rows: tuple[str, ...]
    spans: tuple[Span, ...]
    interval_ms: float
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamError:
    """How far int8 is from float at one place: a seam or an output, in dB, and the sample on which it is worst."""

    layer: str
    role: Literal["seam", "output"]
    sqnr_db: float
    worst_sample: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One of a sample's best classes; ``label`` is its name, or its number where no names are known."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleError:
    """How far int8 is from float on one sample.

    Attributes:
        name: of the sample.
        sqnr_db: at the output where it is worst.
        float_answers, int8_answers: the best classes, best first; empty where the output is not a class.
        picture: JPEG file; None where the sample is no picture.
    """

    name: str
    sqnr_db: float
    float_answers: tuple[Answer, ...] = ()
    int8_answers: tuple[Answer, ...] = ()
    picture: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """Samples that were judged together.

    Attributes:
        name: "calibration", "held-out", or "others" where held-out samples are kept and further ones were given.
        origin: where they come from.
        synthetic: they are noise.
        samples: each of them.
        agreement: share whose best class is float's; None where the output is not a class.
    """

    name: str
    origin: str
    synthetic: bool
    samples: tuple[SampleError, ...]
    agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFacts:
    """What was proved about a split; as :class:`graphcut.records.Verification` has it.

    Attributes:
        verdict, reason: "PASSED", "WEAK" or "FAILED", and why.
        held_out: ``samples`` counts others than the ``calibration_samples`` that the ranges come from.
        calibration_db: dB at seams and outputs on those, where ``held_out``.
    """

    verdict: str
    reason: str
    held_out: bool
    calibration_samples: int
    calibration_db: Mapping[str, float]
    exact: bool
    float_exact: bool
    samples: int
    synthetic: bool
    agreement: float | None
    runtime: str
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a report of one split or plan shows.

    Attributes:
        model: its name.
        planned_only: nothing is converted yet.
        budget_bytes: limit of a segment's file; None where only their number was given.
        minimal_k, lower_bound: the fewest segments with these cuts, and of any plan; None without a budget.
        strategy: the objective.
        cuts: layer names, in order.
        segments, combinations, operators, options, seams, sample_sets: see there.
        by_operator: ``OperatorFacts.sqnr_db`` is of the operator itself.
        timeline: None where there is none.
        proof: None for a plan.
        evaluation: how well the split does its task; None where nobody measured it.
        device: what the estimates are of.
        command: that makes it again.
        preprocessing: from pixels to input, in words.
        versions: name -> version of everything that has a part in the bytes.
        hashes: name -> sha256.
        notes: what a user should know.
    """

    model: str
    planned_only: bool
    budget_bytes: int | None
    minimal_k: int | None
    lower_bound: int | None
    strategy: str
    cuts: tuple[str, ...]
    segments: tuple[SegmentFacts, ...]
    combinations: tuple[Combination, ...]
    operators: tuple[OperatorFacts, ...]
    options: tuple[Option, ...]
    seams: tuple[SeamError, ...]
    by_operator: bool
    sample_sets: tuple[SampleSet, ...]
    timeline: Timeline | None
    proof: ProofFacts | None
    evaluation: Evaluation | None
    device: str
    command: str
    preprocessing: str
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def k(self) -> int:
        """Number of segments."""
        return len(self.segments)

    @property
    def largest_bytes(self) -> int:
        """The largest segment's file."""
        return max(each.tflite_bytes for each in self.segments)
