"""``graphcut export``: a model from any source as an ONNX file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut import files
from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.settings import PlanSettings

EXAMPLES = (
    "graphcut export resnet101 -o resnet101.onnx",
    "graphcut export model.keras -o model.onnx --json",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "export",
        help="write a model as an ONNX file",
        description="Convert a recipe, a Keras file, a SavedModel, a TFLite file or "
        "a PyTorch model. The export is cached: the second time it costs nothing. With --inputs or --outputs, write "
        "that range of any model, as graphcut normalises it; with --until chip, what the Edge TPU runs, and the rest "
        "as FILE_cpu.onnx.",
    )
    options.add_model(parser)
    options.add_settings(parser, PlanSettings, "until")
    parser.add_argument("-o", "--output", metavar="FILE.onnx", type=Path, required=True, help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Export."""
    from graphcut import api
    from graphcut.units import format_bytes

    target = api.export(
        arguments.model,
        arguments.output,
        input_shapes=dict(arguments.input),
        cache=arguments.cache,
        signature=arguments.signature,
        inputs=arguments.inputs,
        outputs=arguments.outputs,
        until=arguments.until,
        force=arguments.force,
        report=console.report,
    )
    size, sha256 = target.stat().st_size, files.sha256_of(target)
    document: dict[str, Any] = {"file": str(target), "bytes": size, "sha256": sha256}
    text = [f"{target}: {format_bytes(size)}, sha256 {sha256}"]
    if arguments.until is not None:
        rest = target.with_name(f"{target.stem}_cpu{target.suffix}")
        document["rest"] = str(rest) if rest.is_file() else None
        text += [f"{rest}: the rest, for the CPU"] if rest.is_file() else []
    console.result(text, document)
    return 0
