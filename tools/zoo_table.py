"""Print operator counts before and after graphcut's passes: docs/reference/operators.md.

    python tools/zoo_table.py ../shared/zoo ../shared/models > docs/reference/operators.md

Each model is converted whole (one segment) in a worker, once from the ONNX file as it is and once normalised and
cleaned, with one synthetic sample. Operators that no pass changes are not listed by name.
"""

from __future__ import annotations

import runpy
import sys
import tempfile
from collections import Counter
from pathlib import Path

import onnx

from graphcut import flow
from graphcut.conversion.workers import converters
from graphcut.errors import GraphcutError
from graphcut.planning import plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.samples import load_samples
from graphcut.tflite import edit, schema
from graphcut.workers.pool import Call

STRAY = ("TRANSPOSE", "RESHAPE", "PAD", "PADV2", "QUANTIZE", "DEQUANTIZE", "BATCH_MATMUL")


def counted(data: bytes) -> Counter[str]:
    """Count the operators of a TFLite file."""
    model = schema.read(data)
    return Counter(schema.op_name(model, operator) for operator in edit.graph_of(model).operators)


def as_converted(argument: tuple[Path, Path]) -> bytes:
    """Convert the original ONNX file with onnx2tf (runs in a worker)."""
    from graphcut.tflite import from_onnx

    path, folder = argument
    return from_onnx.convert(path, folder / "scratch", path.stem)


def before(path: Path, folder: Path) -> Counter[str] | str:
    """Return the operators of the converter's own file, or why there is none."""
    with converters(1) as pool:
        call = Call(function="tools.zoo_table:as_converted", argument=(path, folder), subject=path.stem)
        try:
            return counted(pool.map([call])[0])
        except (GraphcutError, RuntimeError, OSError) as error:
            return str(error).splitlines()[-1][:60]


def after(path: Path, folder: Path) -> tuple[Counter[str], float, str]:
    """Return the operators of the int8 file that graphcut makes, the lowest dB at an output, and the backend."""
    model = flow.prepare(str(path))
    samples = load_samples("random", model.inputs, None)
    options = plan_options.SplitOptions(plan=PlanOptions(strategy="given", cuts=()), force=True)
    result = flow.split(model, samples, options, folder / "out")
    data = result.tails[0].tflite_path.read_bytes()
    return counted(data), min(result.verification.sqnr_db.values()), result.segments[0].backend


def materialised(path: Path, folder: Path) -> Path:
    """Return the file with weights; structure-only models of the zoo get seeded ones."""
    filler = path.parent / "materialize.py"
    if not filler.is_file():
        return path
    target = folder / path.name
    tools = runpy.run_path(str(filler))
    onnx.save(tools["materialize"](onnx.load(path, load_external_data=False)), target)
    return target


def row(path: Path) -> str:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = materialised(path, folder)
        old = before(source, folder)
        new, quality, backend = after(source, folder)
    shown = []
    for kind in STRAY:
        was = "?" if isinstance(old, str) else str(old[kind])
        shown.append("" if was in ("0", "?") and not new[kind] else f"{was} -> {new[kind]}")
    total = f"fails -> {sum(new.values())}" if isinstance(old, str) else f"{sum(old.values())} -> {sum(new.values())}"
    return f"| {path.stem} | {total} | {' | '.join(shown)} | {quality:.1f} | {backend} |"


def main() -> None:
    """Print the table for every ONNX file in the folders given."""
    print("# Operators before and after\n")
    print("`tools/zoo_table.py` makes this table. It counts the TFLite operators of whole models: in the float file as")
    print("onnx2tf converts the model (before) and in the int8 file that graphcut writes (after). The QUANTIZE and PAD")
    print("that stay are needed: inputs of a Concat with another scale, and padding that is not SAME.\n")
    print(f"| model | operators | {' | '.join(STRAY)} | dB | backend |")
    print(f"|{'---|' * (len(STRAY) + 4)}")
    for folder in sys.argv[1:]:
        for path in sorted(Path(folder).glob("*.onnx")):
            print(row(path), flush=True)


if __name__ == "__main__":
    main()
