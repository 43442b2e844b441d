"""The Edge TPU part of docs/explanation/numbers.md, made from real compiled files and published figures.

    python -m tools.edgetpu_numbers ../shared docs/explanation/numbers.md

Without the second argument, the section is printed. With it, the section replaces the text between its two markers in
the file, or is appended.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from graphcut.edgetpu import byte_proof, compare_compiled, file_cost, operator_check
from graphcut.units import MIB
from tools.edgetpu_published import DOUBTFUL, Published, published

BEGIN, END = "<!-- edgetpu_numbers.py begin -->", "<!-- edgetpu_numbers.py end -->"


def pairs(shared: Path) -> Iterator[tuple[Path, Path]]:
    """Yield every uncompiled file that has a compiled twin, and the twin."""
    for twin in sorted((shared / "edgetpu" / "pairs").glob("*_edgetpu.tflite")):
        yield twin.with_name(f"{twin.stem.removesuffix('_edgetpu')}.tflite"), twin


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [headers, ["---"] * len(headers), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def placement(shared: Path) -> str:
    """Compare where each operator was predicted to run with where the compiler placed it."""
    counts: Counter[tuple[bool, bool]] = Counter()
    rows = []
    for original, twin in pairs(shared):
        found = operator_check.check(original)
        real = [each.place == "cpu" for each in compare_compiled.read(twin, original).layers]
        said = [not op.on_tpu for op in found.ops]
        both = Counter(zip(real, said, strict=True))
        counts += both
        wrong = both[True, False] + both[False, True]
        rows.append((original.stem, len(real), sum(real), sum(said), wrong))
    return "\n\n".join(
        [
            table(("pair", "operators", "on the CPU in the twin", "predicted", "wrong"), rows),
            "All operators of all pairs:",
            table(
                ("", "predicted: chip", "predicted: CPU"),
                [
                    ("in the twin: chip", counts[False, False], counts[False, True]),
                    ("in the twin: CPU", counts[True, False], counts[True, True]),
                ],
            ),
        ]
    )


def parameters(shared: Path) -> str:
    """Compare parameter bytes by the formula, and sizes of compiled files, with the compiled twins."""
    rows = []
    for original, twin in pairs(shared):
        found = compare_compiled.read(twin, original)
        there = found.compiled.cached_parameter_bytes + found.compiled.streamed_parameter_bytes
        predicted = file_cost.of_file(original)
        size = found.compiled.file_bytes
        error = 100 * (predicted.compiled.expected_bytes - size) / size
        covered = (
            "exact" if not found.difference_bytes else f"{found.difference_bytes:+d}: {', '.join(found.uncovered)}"
        )
        rows.append(
            (
                original.stem,
                found.formula_bytes,
                there,
                covered,
                predicted.compiled.expected_bytes,
                size,
                f"{error:+.1f} %",
            )
        )
    headers = ("pair", "by the formula", "in the twin", "", "compiled file predicted", "compiled file", "error")
    return table(headers, rows)


def proofs(shared: Path) -> str:
    """Compare compiled files with their originals, byte for byte."""
    rows = []
    for original, twin in pairs(shared):
        found = byte_proof.prove(twin, original)
        equal = [each for each in found.layers if each.status == byte_proof.EQUAL]
        rows.append(
            (
                original.stem,
                f"{len(equal)} of {len(found.layers)}",
                sum(each.size_bytes for each in equal),
                found.unclaimed_bytes,
                ", ".join(found.uncovered) or "nothing",
                len(found.findings),
            )
        )
    headers = ("pair", "layers equal", "bytes equal", "bytes not compared", "not covered", "findings")
    return table(headers, rows)


def sizes(files: Sequence[Published]) -> str:
    """Compare predicted and published sizes."""
    rows = []
    for model in dict.fromkeys(each.model for each in files):
        for kind in ("segment", "tail", "whole"):
            these = [each for each in files if each.model == model and each.part.startswith(kind)]
            sound = [each for each in these if (each.model, each.part) != DOUBTFUL]
            errors = [abs(each.error) for each in sound]
            inside = sum(each.inside for each in sound)
            rows.append(
                (
                    model,
                    kind,
                    len(these),
                    f"{100 * statistics.median(errors):.3f} %",
                    f"{100 * max(errors):.2f} %",
                    inside,
                )
            )
    errors = [abs(each.error) for each in files]
    doubtful = next(each for each in files if (each.model, each.part) == DOUBTFUL)
    exact = sum(each.error == 0 for each in files)
    return "\n\n".join(
        [
            table(("model", "files", "number", "median error", "largest error", "inside the interval"), rows),
            f"Over all {len(files)} published files the median error is {100 * statistics.median(errors):.3f} %; "
            f"{exact} are predicted to the byte. Left out above: {doubtful.model}, {doubtful.part}, listed with "
            f"{doubtful.compiled_bytes} bytes, less than its {doubtful.predicted.parameter_bytes} parameter bytes.",
        ]
    )


def streaming(files: Sequence[Published]) -> str:
    """Compare which published files stream with the prediction."""
    told = [each for each in files if each.off_chip_mib is not None]
    counts = Counter((each.off_chip_mib == 0, each.predicted.fit.fits) for each in told)
    wrong = [each for each in told if (each.off_chip_mib == 0) != each.predicted.fit.fits]
    rows = [
        (
            each.model,
            each.part,
            f"{each.predicted.parameter_bytes / MIB:.2f}",
            f"{each.predicted.fit.room_bytes / MIB:.2f}",
            f"{each.predicted.fit.probability:.2f}",
            each.off_chip_mib,
        )
        for each in wrong
    ]
    return "\n\n".join(
        [
            table(
                ("", "predicted: nothing streams", "predicted: streams"),
                [
                    ("published: nothing streams", counts[True, True], counts[True, False]),
                    ("published: streams", counts[False, True], counts[False, False]),
                ],
            ),
            "Predicted wrongly (MiB):",
            table(("model", "part", "parameters", "room", "probability", "published off chip"), rows),
        ]
    )


def section(shared: Path) -> str:
    """Return the section."""
    with tempfile.TemporaryDirectory() as work:
        files = published(shared, Path(work))
    return "\n\n".join(
        [
            BEGIN,
            "## Edge TPU",
            "Made by `python -m tools.edgetpu_numbers ../shared docs/explanation/numbers.md`; see "
            "[edgetpu.md](edgetpu.md).",
            "### Which operators stay on the CPU (real pairs)",
            placement(shared),
            "### Parameter bytes and compiled size (real pairs, compilers for runtime 12)",
            parameters(shared),
            "Sizes are fitted to compiler 16; files of older compilers carry other instructions, which shows in small "
            "files.",
            "### Parameters held byte for byte (the same pairs)",
            proofs(shared),
            "### Compiled size (published segments of compiler 16, from the architecture alone)",
            sizes(files),
            "Parameters are computed. Instructions are fitted to the ResNets and InceptionV3 and, for MUL, ADD, MEAN "
            "and SOFTMAX, to the odd-numbered files of DenseNet201: on other networks expect the interval, not the "
            "median.",
            "### Does it stream (the same files)",
            streaming(files),
            END,
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Print the section, or write it into a file."""
    text = section(Path(arguments[0]))
    if len(arguments) == 1:
        sys.stdout.write(f"{text}\n")
        return 0
    target = Path(arguments[1])
    there = target.read_text(encoding="utf-8") if target.exists() else "# Numbers\n"
    before, _, rest = there.partition(BEGIN)
    after = rest.partition(END)[2]
    target.write_text(f"{before.rstrip()}\n\n{text}\n{after.lstrip() and chr(10) + after.lstrip()}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
