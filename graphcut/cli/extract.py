"""``graphcut extract``: write only the float segments of a model, as ONNX files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut import staging
from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.codec import to_json
from graphcut.settings import PlanSettings, SplitSettings, table

EXAMPLES = (
    "graphcut extract model.onnx --budget 7MiB -o segments",
    "graphcut extract model.onnx --inputs conv2_out --outputs conv4_out -o block",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "extract",
        help="write the float segments of a model as ONNX files",
        description="Cut a model as `graphcut plan` does, or extract the range between --inputs and --outputs, and "
        "write the parts as ONNX files for Netron and other tools. Nothing is converted, and no samples are needed. "
        "Files are written only if the parts, run in sequence on random inputs, produce the same bits as the model.",
    )
    options.add_model(parser)
    options.add_settings(parser, SplitSettings, "reuse")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the folder to write")
    parser.add_argument("--force", action="store_true", help="replace an earlier result")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_plan(parser)
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Extract."""
    from graphcut import api
    from graphcut.report import tables

    chosen = _given(arguments)
    api.plan_options(**chosen)
    staging.check_target(arguments.output, arguments.force)
    made = api.extract(
        options.load_model(arguments, console),
        arguments.output,
        force=arguments.force,
        report=console.report,
        **chosen,
    )
    rows = [
        (each.index, ", ".join(each.input_layers), ", ".join(each.output_layers), path.name)
        for each, path in zip(made.plan.segments, made.files, strict=True)
    ]
    shown = tables.table(
        ("segment", "from", "to", "file"), [(str(index), *rest) for index, *rest in rows], ("segment",)
    )
    proof = f"the chain produces the same bits as the model on {made.samples} random inputs"
    document = {
        "folder": str(made.folder),
        **to_json(made.plan, without=("candidates",)),
        "files": [path.name for path in made.files],
        "float_proof": {"exact": True, "random_samples": made.samples},
    }
    console.result([shown, "", proof, f"written to {made.folder}"], document)
    return 0


def _given(arguments: Namespace) -> PlanSettings:
    """Return the plan settings that differ from their defaults."""
    known = table(PlanSettings)
    given: PlanSettings = {
        name: value
        for name, value in options.settings_of(arguments, PlanSettings).items()
        if (value if known[name].repeat else value != known[name].default)
    }  # type: ignore[assignment]
    return given
