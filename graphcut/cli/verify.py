"""``graphcut verify``: prove a split once more."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.cli.split import require_passed
from graphcut.records import Samples


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "verify",
        help="prove a split once more; the exit code is the verdict",
        description="Compare chain, unsplit model and every prefix with its tail byte for byte, and all of it with "
        "float. Exit code 0: it holds; 7: it does not.",
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="a folder that `graphcut split` wrote")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options.add_samples(parser, "other samples to verify with than those kept in the folder")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Verify."""
    from graphcut import pipeline
    from graphcut.report import encode, manifest, tables

    samples: Samples | None = None
    if arguments.calibration is not None:
        opened = manifest.read(arguments.folder)
        prepared = options.preprocessing(arguments, opened.preprocessing)
        samples = options.load_samples(arguments, opened.inputs, prepared, console)
    proof = pipeline.verify(arguments.folder, samples, console.report)
    made_up = proof.synthetic_calibration if samples is None else samples.synthetic
    document = {"folder": str(arguments.folder), **encode.verification(proof), "synthetic_samples": made_up}
    text = tables.verification_text(proof)
    if made_up and not proof.synthetic_calibration:
        text += "\n  SYNTHETIC samples: real data may come out otherwise"
    console.result(text, document)
    require_passed(proof, str(arguments.folder))
    return 0
