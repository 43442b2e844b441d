"""``graphcut export``: a model from any source as an ONNX file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut import files
from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.errors import UsageError


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "export",
        help="write a model as an ONNX file",
        description="Write the ONNX file that graphcut makes of a recipe, a Keras file, a SavedModel, a TFLite file or "
        "a PyTorch model. The export is cached: the second time it costs nothing.",
    )
    options.add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE.onnx", type=Path, required=True, help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Export."""
    from graphcut.sources import registry
    from graphcut.sources.adapter import Request
    from graphcut.units import format_bytes

    target: Path = arguments.output
    if registry.find(arguments.model).kind == registry.ONNX:
        raise UsageError(f"{arguments.model} is no other than an ONNX file", "use it as it is")
    files.check_file(target, arguments.force)
    request = Request(source=arguments.model, input_shapes=dict(arguments.input), cache=arguments.cache)
    _, made = registry.to_onnx(request, console.report)
    files.copy_file(made.path, target)
    console.line(f"{target}: {format_bytes(target.stat().st_size)}, sha256 {files.sha256_of(target)}")
    return 0
