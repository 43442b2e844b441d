"""The numbers of a report for other programs: CSV for every figure, LaTeX for a paper.

1. Names come from model files. In CSV a text that a spreadsheet would take for a formula gets an apostrophe in front;
   in LaTeX every special character is escaped.
2. CSV has a header line, "," between fields and full precision; units stand in the headers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from graphcut.report.html.error_figures import places
from graphcut.report.html.report_facts import Facts
from graphcut.report.html.svg import shown
from graphcut.units import MIB

Cell = str | int | float | bool | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LATEX = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"},
}


def write_csv(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Write rows under headers as CSV (statements 1 and 2)."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([[_cell(each) for each in row] for row in rows])
    return stream.getvalue()


def operators_csv(facts: Facts) -> str:
    """Write a line per operator."""
    db = "sqnr_db" if facts.by_operator else "sqnr_db_at_next_seam"
    headers = (
        *("number", "segment", "layer", "operator", "parameter_bytes", "activation_bytes", "macs", "on_chip"),
        *("reason", "streams", "estimated_ms", db),
    )
    return write_csv(
        headers,
        [
            (
                *(number, each.segment, each.layer, each.op, each.parameter_bytes, each.activation_bytes, each.macs),
                *(each.on_chip, each.reason, each.streams, each.time_ms, each.sqnr_db),
            )
            for number, each in enumerate(facts.operators)
        ],
    )


def segments_csv(facts: Facts) -> str:
    """Write a line per segment."""
    headers = (
        *("segment", "from", "to", "tflite_bytes", "tflite_measured", "compiled_bytes_predicted"),
        *("compiled_low", "compiled_high", "parameter_bytes", "room_bytes", "streams_bytes", "macs", "estimated_ms"),
        "sha256",
    )
    return write_csv(
        headers,
        [
            (
                *(each.index, ", ".join(each.inputs), ", ".join(each.outputs), each.tflite_bytes, each.measured),
                *(each.compiled_bytes, each.compiled_low, each.compiled_high, each.parameter_bytes, each.room_bytes),
                *(each.off_chip_bytes, each.macs, each.latency_ms, each.sha256),
            )
            for each in facts.segments
        ],
    )


def combinations_csv(facts: Facts) -> str:
    """Write a line a combination."""
    return write_csv(
        ("combination", "single_segments", "tail_from", "tail_to", "tail_bytes"),
        [(f"k{each.first}", each.first - 1, each.first, each.last, each.tflite_bytes) for each in facts.combinations],
    )


def options_csv(facts: Facts) -> str:
    """Write a line a way to cut."""
    return write_csv(
        ("objective", "k", "largest_tflite_bytes", "estimated_interval_ms", "estimated_latency_ms", "streams_bytes"),
        [
            (each.name, each.k, each.largest_bytes, each.interval_ms, each.latency_ms, each.off_chip_bytes)
            for each in facts.options
        ],
    )


def timeline_csv(facts: Facts) -> str:
    """Write a line a span of the pipeline."""
    timeline = facts.timeline
    return write_csv(
        ("stamp", "device", "input", "doing", "start_ms", "stop_ms"),
        []
        if timeline is None
        else [
            (timeline.stamp, timeline.rows[each.row], each.item + 1, each.kind, each.start_ms, each.stop_ms)
            for each in timeline.spans
        ],
    )


def errors_csv(facts: Facts) -> str:
    """Write a line a measured place, the worst first."""
    return write_csv(("place", "kind", "sqnr_db"), places(facts))


def samples_csv(facts: Facts) -> str:
    """Write a line per sample."""
    return write_csv(
        ("set", "sample", "sqnr_db", "float_best", "int8_best"),
        [
            (
                one.name,
                each.name,
                each.sqnr_db,
                each.float_answers[0].label if each.float_answers else "",
                each.int8_answers[0].label if each.int8_answers else "",
            )
            for one in facts.sample_sets
            for each in one.samples
        ],
    )


CSV: dict[str, Callable[[Facts], str]] = {
    "strip": operators_csv,
    "segments": segments_csv,
    "combinations": combinations_csv,
    "tradeoff": options_csv,
    "pipeline": timeline_csv,
    "worst": errors_csv,
    "samples": samples_csv,
}
"""Name of a figure or table -> what writes its numbers."""


def segments_latex(facts: Facts) -> str:
    """Write the segments as a LaTeX table (booktabs)."""
    rows = [
        (
            str(each.index),
            latex(each.inputs[-1] if each.inputs else ""),
            latex(each.outputs[-1] if each.outputs else ""),
            f"{each.tflite_bytes / MIB:.3f}",
            f"{each.compiled_bytes / MIB:.3f}",
            f"{each.off_chip_bytes / MIB:.3f}",
            f"{each.macs / 1e6:.0f}",
        )
        for each in facts.segments
    ]
    headers = ("", "from", "to", "int8 (MiB)", "compiled (MiB)", "streamed (MiB)", "M MACs")
    state = "predicted" if facts.planned_only else "measured"
    caption = f"{latex(facts.model)} in {facts.k} segments: int8 files {state}, compiled files and streaming predicted."
    return _latex_table("rllrrrr", headers, rows, caption)


def combinations_latex(facts: Facts) -> str:
    """Write the combinations as a LaTeX table (booktabs)."""
    rows = [
        (f"$k = {each.first}$", str(each.first - 1), f"{each.first}..{each.last}", f"{each.tflite_bytes / MIB:.3f}")
        for each in facts.combinations
    ]
    caption = f"Combinations of {latex(facts.model)}: single segments and a tail with the rest."
    return _latex_table("lrlr", ("", "segments", "tail holds", "tail (MiB)"), rows, caption)


def latex(words: str) -> str:
    """Escape a text for LaTeX (statement 1)."""
    return "".join(_LATEX.get(each, each) for each in shown(words))


def _latex_table(columns: str, headers: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{caption}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {' & '.join(headers)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(row)} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Cell) -> Cell:
    if not isinstance(value, str):
        return value
    visible = shown(value)
    return f"'{visible}" if visible.startswith(_FORMULA) else visible
