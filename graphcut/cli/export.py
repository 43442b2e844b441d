"""``graphcut export``: a recipe's model as an ONNX file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli.console import Console


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "export",
        help="write a recipe's model as an ONNX file",
        description="Write a recipe's model as an ONNX file. The export is cached: the second time it costs nothing.",
    )
    parser.add_argument("name", metavar="NAME", help="a recipe's name or .toml file")
    parser.add_argument("-o", "--output", metavar="FILE.onnx", type=Path, required=True, help="the file to write")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.add_argument("--cache", metavar="DIR", type=Path, help="folder for exports (~/.cache/graphcut)")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Export."""
    from graphcut import recipes
    from graphcut.sources import keras
    from graphcut.stages import deliver, package
    from graphcut.units import format_bytes

    target: Path = arguments.output
    recipe = recipes.find(arguments.name)
    deliver.check_file(target, arguments.force)
    made = keras.cached_export(recipe, arguments.cache, console.report)
    deliver.copy_file(made, target)
    console.line(f"{target}: {format_bytes(target.stat().st_size)}, sha256 {package.sha256_of(target)}")
    return 0
