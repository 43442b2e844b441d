"""What was proved of a split, and where it loses accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from graphcut.records.field_types import Count, Decibels


@dataclass(frozen=True, slots=True, kw_only=True)
class Independent:
    """The difference between the int8 chain and an int8 model converted in one piece (graphcut.conversion.whole_model).

    Attributes:
        exact: the same bytes at the outputs (and before a final softmax) on all samples, with the same scales.
        differing_share: share of these bytes that differ.
        largest_step: the largest difference, in int8 steps.
        sqnr_db: dB of the chain against the independent model at the worst output.
    """

    exact: bool
    differing_share: float
    largest_step: int
    sqnr_db: Decibels


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResult:
    """The result on one sample.

    Attributes:
        name: of the sample.
        sqnr_db: the keys of ``Verification.sqnr_db`` -> dB of the int8 chain against the float whole on this sample.
        float_best, int8_best: class and score of the best classes, best first: probabilities where the model ends with
            a softmax. Empty unless there is one output of shape (1, classes).
    """

    name: str
    sqnr_db: Mapping[str, Decibels]
    float_best: tuple[tuple[int, float], ...] = ()
    int8_best: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorError:
    """How far one operator of the int8 chain is from float (graphcut.measurement.operator_errors).

    Attributes:
        segment: its number.
        layer: name of its output in the TFLite file.
        op: its kind ("CONV_2D").
        part: the part of an output that the figures in dB are of; "" where they are of all of it.
        low, high: range of its output in float.
        scale, zero_point: of its output in int8; None where it stays in float.
        alone_db: dB against float where it reads float's values, rounded to int8.
        sqnr_db: dB against float in the chain: with the noise of all operators before it.
        output_db: dB of the worst part of the model's outputs where float has the noise of this operator only; None
            where it was not measured, for operators that lose little by themselves.
    """

    segment: int
    layer: str
    op: str
    part: str
    low: float
    high: float
    scale: float | None
    zero_point: int | None
    alone_db: Decibels
    sqnr_db: Decibels
    output_db: Decibels | None = None


Verdict = Literal["PASSED", "WEAK", "FAILED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPart:
    """A part of an output with its own range (graphcut.measurement.output_parts): int8 compared with float.

    Attributes:
        name: for people ("scores (channels 4..83 of output0)").
        output: layer name of the output, or "logits".
        axis: of the channels in the NHWC array (N, ...); None where the part is the whole output.
        channels: half-open runs of channels.
        sqnr_db: dB of int8 against float over the part.
        constant: the value that int8 gives everywhere although float varies; None where it varies.
        low, high: float's range.
    """

    name: str
    output: str
    axis: int | None
    channels: tuple[tuple[int, int], ...]
    sqnr_db: Decibels
    constant: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Verification:
    """The result of verifying a split, and the samples it is based on.

    Attributes:
        passed: the verdict is not "FAILED".
        exact: chain of int8 segments == unsplit int8 model == every prefix + tail, byte for byte, on all samples.
        float_exact: float chain of the ONNX segments == float whole, bit for bit, on all samples.
        samples: number of samples.
        synthetic_calibration: calibration data was synthetic.
        sqnr_db: seam layer names and, for the model's outputs, "logits" (or each output's name where there are
            several) -> dB of the int8 chain against the float whole; outputs are taken before a final softmax.
        top1_agreement: share of samples whose top-1 class is the float model's; None where the output is not a class.
        worst_sample: the same keys -> name of the sample with the lowest SQNR.
        independent: the chain against the whole model converted in one piece; None if not requested.
        runtime: interpreter, version and kernel set that all of it ran in.
        findings: one line per error or meaningless output (a saturated or constant output, ...).
        by_sample: what was found on each sample, in order; empty where the proof was read from an older manifest.
        verdict: "PASSED", "WEAK" or "FAILED" (graphcut.verification.verdict).
        reason: why, in one clause.
        parts: of the outputs, each measured by itself.
        held_out: the samples were not used for calibration.
        calibration_sqnr_db: as ``sqnr_db``, on the calibration samples, where ``held_out``.
        input_ranges: input name -> the smallest and largest value that reached the model.
        min_sqnr_db: the limit below which an output fails.
        worst_operator: the one that loses most by itself of those that the worst output is computed from, where the
            verdict is "WEAK" or "FAILED" for accuracy; None elsewhere.
    """

    passed: bool
    exact: bool
    float_exact: bool
    samples: Count
    synthetic_calibration: bool
    sqnr_db: Mapping[str, Decibels]
    top1_agreement: float | None
    worst_sample: Mapping[str, str]
    independent: Independent | None
    runtime: str
    findings: tuple[str, ...]
    by_sample: tuple[SampleResult, ...] = ()
    verdict: Verdict = "PASSED"
    reason: str = ""
    parts: tuple[OutputPart, ...] = ()
    held_out: bool = False
    calibration_sqnr_db: Mapping[str, Decibels] = field(default_factory=dict)
    input_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    min_sqnr_db: float = 10.0
    worst_operator: OperatorError | None = None

    def __repr__(self) -> str:
        """Show the verdict and the worst place."""
        worst = min(self.sqnr_db.items(), key=lambda entry: entry[1], default=("", 0.0))
        exact = "exact" if self.exact and self.float_exact else "not exact"
        return (
            f"Verification({self.verdict} on {self.samples} samples, {exact}, "
            f"worst {worst[1]:.1f} dB at {worst[0]}{', synthetic data' if self.synthetic_calibration else ''})"
        )

    def _repr_html_(self) -> str:
        """Show a table of the signal-to-noise ratios, in a notebook."""
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{value:.2f}</td></tr>" for name, value in self.sqnr_db.items())
        return f"<p>{escape(repr(self))}</p><table><tr><th>against float at</th><th>dB</th></tr>{rows}</table>"
