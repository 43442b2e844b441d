"""What people read: tables and sentences.

1. What is shown is a sequence of lines and :class:`TextTable` (``Shown``). The command line sets it for the terminal
   that is there; :func:`plain` is the same for files and pipes.
2. Plain tables have no width: nothing in them is shortened or wrapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphcut.errors import setting
from graphcut.records import (
    Analysis,
    Candidate,
    ConvertedSegment,
    Independent,
    ModelInput,
    OperatorError,
    PassReport,
    Plan,
    Segment,
    Shape,
    Source,
    Tail,
    Verification,
)
from graphcut.units import format_bytes

SYNTHETIC = "SYNTHETIC calibration data: sizes and exactness are valid, accuracy on real data is unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """Rows under headers; as ``str`` it is plain text.

    Attributes:
        headers: one for each column.
        rows: cells, as many as headers.
        right: headers of the columns that are flush right (numbers).
        indent: columns of space on the left.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    indent: int = 0

    def __str__(self) -> str:
        widths = [max(len(cell) for cell in column) for column in zip(self.headers, *self.rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            parts = [
                cell.rjust(width) if header in self.right else cell.ljust(width)
                for cell, width, header in zip(cells, widths, self.headers, strict=True)
            ]
            return " " * self.indent + "  ".join(parts).rstrip()

        return "\n".join([line(self.headers), line(["-" * width for width in widths]), *map(line, self.rows)])


Shown = Sequence[str | TextTable]
"""What a verb shows: lines, which may hold line breaks, and tables, one below the other."""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> TextTable:
    """Set rows under headers; columns named in ``right`` are flush right."""
    return TextTable(headers=tuple(headers), rows=tuple(map(tuple, rows)), right=frozenset(right))


def plain(shown: Shown) -> str:
    """The text of lines and tables, for files and pipes."""
    return "\n".join(map(str, shown))


def source_text(source: Source, inputs: Sequence[ModelInput]) -> str:
    """Say what a model came from, and how its inputs lie in memory there."""
    shapes = ", ".join(f"{each.name} {shown_shape(each.source_shape)} {each.source_layout}" for each in inputs)
    return f"{source.name} ({source.kind}), which takes {shapes}".replace(" other", "")


def analysis_text(analysis: Analysis) -> Shown:
    """Show what a model is and every place where it can be cut."""
    graph = analysis.graph
    weight_bytes = sum(weight.elements for weight in graph.weights.values())
    lines: list[str | TextTable] = [
        f"{len(graph.nodes)} operators, {format_bytes(weight_bytes)} of weights at int8",
        *(f"input   {graph.layers[name]}  {shown_shape(graph.tensors[name].shape)}" for name in graph.inputs),
        *(f"output  {graph.layers[name]}  {shown_shape(graph.tensors[name].shape)}" for name in graph.outputs),
        "",
    ]
    if not analysis.candidates:
        ways = f"{setting('min_rank', 2)} allows vectors, {setting('max_seam_tensors', 2)} seams of two tensors"
        return [*lines, f"no cut: {setting('why', 'TENSOR')} explains why a tensor is not a candidate, {ways}"]
    headers = ("cut at layer", "shape", "seam", "weights since", "weights before", "flags")
    rows = [
        (
            each.layer,
            "+".join(shown_shape(graph.tensors[name].shape) for name in each.tensors),
            format_bytes(each.int8_bytes),
            format_bytes(each.weight_bytes_between),
            format_bytes(each.weight_bytes_before),
            _flags(each),
        )
        for each in analysis.candidates
    ]
    cuts = table(headers, rows, right=("seam", "weights since", "weights before"))
    return [*lines, cuts, "", f"{len(rows)} cuts (shapes NCHW, seams and weights at one byte per element)"]


def _flags(candidate: Candidate) -> str:
    named = {
        "merged": candidate.merged,
        "downsampled": candidate.downsampled,
        "pre-activation": candidate.pre_activation,
    }
    return " ".join(name for name, is_set in named.items() if is_set)


def passes_text(passes: Sequence[PassReport]) -> Shown:
    """Show what the rewrites of the load did."""
    rows = [
        (
            each.name,
            str(each.matches),
            "-" if each.relative_error is None else f"{each.relative_error:.1e}",
            each.reason,
        )
        for each in passes
    ]
    return [table(("pass", "matches", "error", "reason"), rows, right=("matches", "error")) if rows else "no passes"]


def plan_lines(plan: Plan) -> str:
    """Say how many segments, why, and where the cuts are."""
    lines = [f"K = {plan.k} ({plan.strategy}){_proof(plan)}"]
    if plan.cuts:
        lines.append(f"cuts: {', '.join(plan.cuts)}")
    lines += plan.notes
    return "\n".join(lines)


def _proof(plan: Plan) -> str:
    if plan.budget_bytes is None or plan.minimal_k is None:
        return ""
    least = "the fewest possible with these cuts" if plan.k == plan.minimal_k else f"{plan.minimal_k} would be possible"
    return f", budget {format_bytes(plan.budget_bytes)}: {least}; no plan at all has fewer than {plan.lower_bound}"


def segments_table(segments: Sequence[Segment], measured: bool = False, on_chip: Sequence[str] = ()) -> TextTable:
    """Show segments with their sizes, and what of each the Edge TPU would run."""
    size = "int8 file" if measured else "int8 file (predicted)"
    chip = "on chip" if on_chip else ""
    rows = [
        (
            str(each.index),
            ", ".join(each.input_layers),
            ", ".join(each.output_layers),
            format_bytes(each.weight_bytes),
            format_bytes(each.tflite_bytes),
            *((on_chip[number],) if on_chip else ()),
        )
        for number, each in enumerate(segments)
    ]
    headers = ("segment", "from", "to", "weights", size, *((chip,) if on_chip else ()))
    return table(headers, rows, right=("segment", "weights", size, chip))


def _segments_named(indices: Sequence[int]) -> str:
    """Segments in words: "segment 3", "segments 1, 2, 5"."""
    return f"segment{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"


def split_text(segments: Sequence[ConvertedSegment], tails: Sequence[Tail]) -> Shown:
    """Show the files of a split with measured sizes, and notes on segments."""
    on_chip = ["/".join(map(str, part.on_chip)) for part in segments if part.on_chip is not None]
    shown_on_chip = on_chip if len(on_chip) == len(segments) else ()
    lines: list[str | TextTable] = [
        segments_table([part.segment for part in segments], measured=True, on_chip=shown_on_chip)
    ]
    shown = [tail for tail in tails if tail.first > 1]
    if shown:
        rows = [(f"k={tail.first}", _run_of(tail), format_bytes(tail.tflite_bytes)) for tail in shown]
        lines += ["", table(("prefix + tail", "tail contains", "tail file"), rows, right=("tail file",))]
    said: dict[str, list[int]] = {}
    for part in segments:
        for note in dict.fromkeys(part.notes):
            said.setdefault(note, []).append(part.segment.index)
    notes = [f"{_segments_named(indices)}: {note}" for note, indices in said.items()]
    return [*lines, *([""] if notes else []), *notes]


def _run_of(tail: Tail) -> str:
    return f"seg{tail.first}" if tail.first == tail.last else f"seg{tail.first} .. seg{tail.last}"


def verification_text(proof: Verification) -> Shown:
    """Show the verdict, what it rests on, and what is wrong or meaningless."""
    kind = "held-out " if proof.held_out else "" if proof.synthetic_calibration else "calibration "
    lines: list[str | TextTable] = [
        f"{proof.verdict} on {proof.samples} {kind}sample{'' if proof.samples == 1 else 's'}",
        f"  chain = unsplit = every prefix + tail, byte for byte: {'yes' if proof.exact else 'NO'}",
        f"  float chain = float whole, bit for bit: {'yes' if proof.float_exact else 'NO'}",
    ]
    if proof.independent is not None:
        lines.append(f"  whole converted in one piece: {_apart(proof.independent)}")
    if proof.top1_agreement is not None:
        agree = round(proof.top1_agreement * proof.samples)
        lines.append(f"  top-1 as in float: {agree} of {proof.samples}")
    for name, (low, high) in proof.input_ranges.items():
        lines.append(f"  input {name}: {low:.2f} .. {high:.2f}")
    rows = [(name, f"{value:.2f}", proof.worst_sample.get(name, "")) for name, value in proof.sqnr_db.items()]
    rows += [(part.name, f"{part.sqnr_db:.2f}", "") for part in proof.parts if part.axis is not None]
    if rows:
        lines.append(replace(table(("against float at", "dB", "worst on"), rows, ("dB",)), indent=2))
    lines += [f"  ! {finding}" for finding in proof.findings]
    lines.append(f"  runtime: {proof.runtime}")
    if proof.synthetic_calibration:
        lines.append(f"  {SYNTHETIC}")
    return lines


def verdict_line(proof: Verification) -> str:
    """The verdict, and why, in one line: the last of what a split or a verification prints."""
    return f"{proof.verdict}: {proof.reason}" if proof.reason else proof.verdict


def operators_text(errors: Sequence[OperatorError], samples: int, *, synthetic: bool) -> Shown:
    """Show the error of operators, in the order given: of each by itself, and in the chain."""
    rows = [
        (
            str(each.segment),
            each.op,
            each.part or each.layer,
            f"{each.low:.4g} .. {each.high:.4g}",
            "float" if each.scale is None else f"{each.scale:.3g}",
            f"{each.alone_db:.1f}",
            f"{each.sqnr_db:.1f}",
            "" if each.output_db is None else f"{each.output_db:.1f}",
        )
        for each in errors
    ]
    headers = ("segment", "operator", "output", "float range", "int8 scale", "alone dB", "chain dB", "output dB")
    count = f"{samples} sample{'' if samples == 1 else 's'}"
    return [
        table(headers, rows, ("segment", "int8 scale", "alone dB", "chain dB", "output dB")),
        "",
        f"against float on {count}; alone: fed with float's values in int8; chain: with the noise of all before it; "
        "output: the model's output with the noise of this operator only",
        *([SYNTHETIC] if synthetic else []),
    ]


def on_cpu_lines(segments: Sequence[ConvertedSegment]) -> list[str]:
    """What stays on the CPU, a line for each operator; nothing where everything runs on the chip."""
    lines = [f"segment {part.segment.index}: {each}" for part in segments for each in part.on_cpu]
    return ["operators that stay on the CPU:", *lines] if lines else []


def _apart(found: Independent) -> str:
    if found.exact:
        return "the same bytes"
    return (
        f"{found.differing_share:.2%} of the bytes differ, by {found.largest_step} of 256 steps at most "
        f"({found.sqnr_db:.1f} dB)"
    )


def shown_shape(shape: Shape) -> str:
    """Write a shape as 1x3x224x224."""
    return "x".join(map(str, shape)) or "scalar"


def seams_table(document: Mapping[str, Any]) -> TextTable:
    """Show inputs, seams and outputs of a manifest with their quantisation."""
    edges = [
        *(("input", each["int8"]) for each in document["inputs"]),
        *(("seam", each) for each in document["seams"]),
        *(("output", each) for each in document["outputs"]),
    ]
    rows = [
        (
            role,
            each["layer"],
            shown_shape(tuple(each["shape"])),
            each["dtype"],
            f"{each['scale']:.6g}",
            str(each["zero_point"]),
        )
        for role, each in edges
    ]
    headers = ("tensor", "layer", "shape (NHWC)", "type", "scale", "zero point")
    return table(headers, rows, right=("scale", "zero point"))
