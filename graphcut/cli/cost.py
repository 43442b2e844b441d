"""``graphcut cost``: predict the cost of an int8 file on the Edge TPU."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli.console import Console
from graphcut.codec import to_json
from graphcut.settings import positive

EXAMPLES = (
    "graphcut cost model_int8.tflite",
    "graphcut cost OUT --json",
    "graphcut cost model_int8.tflite --device coral-pcie",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "cost",
        help="predict the cost of an int8 file on the Edge TPU, layer by layer",
        description="Predict the cost of an int8 TFLite file, or of every segment of a split, on the Edge TPU: "
        "parameter bytes by the packing formula, the size of the compiled file with its interval, multiplications, "
        "activations, and whether it fits.",
    )
    parser.add_argument(
        "path", metavar="FILE.tflite|OUT", type=Path, help="an uncompiled int8 file, or a folder of `graphcut split`"
    )
    parser.add_argument(
        "--min-runtime",
        metavar="N",
        type=positive,
        help="as the compiler's -m: runtime 10 also stores biases that are zero (newer ones do not)",
    )
    parser.add_argument(
        "--device",
        metavar="NAME|FILE.toml",
        help="device: coral-usb (the default), coral-usb-x86, coral-pcie, or a profile",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Show the cost of a file, or of every segment of a split."""
    from graphcut.deploy.compilation import segment_files
    from graphcut.edgetpu import file_cost
    from graphcut.edgetpu.compare_compiled import ZERO_BIASES_UP_TO_RUNTIME
    from graphcut.prediction.device_profiles import DEFAULT, find
    from graphcut.prediction.segment_costs import file_time
    from graphcut.report import edgetpu
    from graphcut.report.tables import TextTable

    given: Path = arguments.path
    device = DEFAULT if arguments.device is None else find(arguments.device)
    oldest = (arguments.min_runtime or ZERO_BIASES_UP_TO_RUNTIME + 1) <= ZERO_BIASES_UP_TO_RUNTIME
    shown: list[str | TextTable] = []
    documents = []
    for file in segment_files(given) if given.is_dir() else [given]:
        time = file_time(file_cost.of_file(file, zero_biases=oldest), device)
        name = edgetpu.relative(file, given) if given.is_dir() else str(file)
        shown += ["", *edgetpu.cost_text(time, name)]
        documents.append({"file": name, **to_json(time)})
    console.result(shown[1:], {"files": documents} if given.is_dir() else documents[0])
    return 0
