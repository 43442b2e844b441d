"""``note.txt``: a description of a split, from its manifest alone."""

from __future__ import annotations

from pathlib import Path

from graphcut.files import rewrite
from graphcut.report import edgetpu, tables
from graphcut.result import layout, manifest
from graphcut.result.manifest import Manifest
from graphcut.units import format_bytes


def write(folder: Path) -> None:
    """Write ``note.txt`` beside the ``meta.json`` of a folder.

    Raises:
        OutputError: it cannot be written; an old one stays.
    """
    rewrite(folder / layout.NOTE, f"{tables.plain(note(manifest.read(folder)))}\n")


def note(split: Manifest) -> tables.Shown:
    """Say what was split, the cuts, every file's role and size, the seams, what was proved and how to run it."""
    plan, calibration = split.plan, split.document["calibration"]
    paragraphs: list[tables.Shown] = [
        [
            f"{split.source.name} in {plan.k} int8 segment{'s' if plan.k > 1 else ''}, "
            f"split by graphcut {split.graphcut_version}"
        ],
        [_headline(split)],
        tables.split_text(split.segments, split.tails),
        [f"cut at: {', '.join(plan.cuts)}" if plan.cuts else "not cut: the whole model fits", *plan.notes],
        [tables.seams_table(split.document)],
        [f"calibrated with {calibration['samples']} samples: {calibration['origin']}, sha256 {calibration['sha256']}"],
        tables.verification_text(split.verification),
        [tables.verdict_line(split.verification)],
        tables.on_cpu_lines(split.segments),
        [] if split.compilation is None else edgetpu.compiled_split_text(split.compilation),
        _files(split),
    ]
    return [line for each in paragraphs if each for line in ("", *each)][1:]


def _headline(split: Manifest) -> str:
    plan = split.plan
    largest = max(part.segment.tflite_bytes for part in split.segments)
    lines = [f"largest segment: {format_bytes(largest)} ({largest} bytes)"]
    if plan.budget_bytes is not None:
        lines.append(f"budget: {format_bytes(plan.budget_bytes)} per segment ({plan.budget_bytes} bytes)")
    if plan.minimal_k is not None:
        lines.append(f"fewest segments with these cuts: {plan.minimal_k}; lower bound of any plan: {plan.lower_bound}")
    lines.append(f"weights: {'per channel' if split.options.get('per_channel') else 'per tensor'} int8")
    if split.verification.synthetic_calibration:
        lines.append(tables.SYNTHETIC)
    return "\n".join(lines)


def _files(split: Manifest) -> tables.Shown:
    last, whole = split.plan.k, split.tails[0]
    types = {"input": {each.dtype for each in whole.inputs}, "output": {each.dtype for each in whole.outputs}}
    kinds = [f"{'/'.join(sorted(found))} {name}s" for name, found in types.items()]
    pairs = "pairs_k2/" if last == 2 else f"pairs_k2/ .. pairs_k{last}/"
    rows = [
        (
            "full_split/tflite/seg1_int8.tflite ..",
            "the chain: each segment's output is the next one's input, unchanged",
        ),
        *([(pairs, "the first k-1 segments and one tail with the rest")] if last > 1 else []),
        ("unsplit/unsplit_int8.tflite", "the whole model, what the chain is compared with"),
        ("segments/seg1.onnx ..", "the segments in float, for Netron (`graphcut view FOLDER`)"),
        ("samples.npz", "the calibration samples (`graphcut verify FOLDER` uses them)"),
        ("certificate.json", "proves the plan's claims (`graphcut verify FOLDER` checks it)"),
        *(
            [("job.toml", "the options (`graphcut split --config FOLDER/job.toml` repeats it)")]
            if (split.folder / layout.JOB).is_file()
            else []
        ),
        ("report.html", "figures, for the browser"),
        ("meta.json", "the same information, for programs"),
    ]
    return [
        tables.table(("file", "content"), rows),
        "",
        f"The model has {' and '.join(kinds)}, NHWC, batch 1: value = scale * (number - zero point).",
        "`graphcut run FOLDER PICTURE` runs one input through the chain, with --tail K through a prefix and its tail.",
    ]
