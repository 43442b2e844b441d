"""``graphcut verify``: verify a split again."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.cli.split import require_passed
from graphcut.codec import from_json, to_json
from graphcut.errors import UsageError
from graphcut.records import Samples
from graphcut.regular_file import text_of

if TYPE_CHECKING:
    from graphcut.result.manifest import Manifest

EXAMPLES = (
    "graphcut verify OUT",
    "graphcut verify OUT --model model.onnx",
    "graphcut verify OUT --calibration other_pictures",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "verify",
        help="verify a split again; the exit code is the verdict",
        description="Compare chain, unsplit model and every prefix with its tail byte for byte, and all of it with "
        "float; check the plan's certificate. Exit code 0: passed; 7: failed.",
    )
    parser.add_argument(
        "folder",
        metavar="OUT",
        type=Path,
        help="a folder that `graphcut split` wrote, or a file with the output of `graphcut plan --json`",
    )
    parser.add_argument("--model", metavar="MODEL", help="also check the plan's certificate against this model")
    options.add_target(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_samples(parser, "samples to verify with, instead of those kept in the folder")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Verify."""
    _refuse_unused(arguments)
    if arguments.folder.is_file():
        return _verify_plan(arguments, console)
    from graphcut.report import tables
    from graphcut.result import manifest, reopen

    if arguments.model is not None:
        _check_model(arguments, console, *_kept(manifest.read(arguments.folder)))
    samples: Samples | None = None
    if arguments.calibration is not None:
        opened = manifest.read(arguments.folder)
        prepared = options.preprocessing(arguments, opened.preprocessing)
        samples = options.load_samples(arguments, opened.inputs, prepared, console)
    proof = reopen.verify(arguments.folder, samples, console.report)
    made_up = proof.synthetic_calibration if samples is None else samples.synthetic
    kept = manifest.read_certificate(manifest.read(arguments.folder)) is not None
    document = {
        "folder": str(arguments.folder),
        **to_json(proof),
        "synthetic_samples": made_up,
        "certificate": "holds" if kept else "absent",
    }
    shown = [*tables.verification_text(proof)]
    if made_up and not proof.synthetic_calibration:
        shown.append("  SYNTHETIC samples: results on real data may differ")
    if kept:
        shown.append("  the plan's certificate: valid")
    console.result([*shown, tables.verdict_line(proof)], document)
    require_passed(proof, str(arguments.folder))
    return 0


def _refuse_unused(arguments: Namespace) -> None:
    """Raise UsageError for options that would say nothing: those of samples, where there are none to read."""
    if arguments.calibration is not None:
        if arguments.folder.is_file():
            raise UsageError(f"{arguments.folder} is a plan, which needs no samples", "omit --calibration")
        return
    given = options.given_samples(arguments)
    if given:
        raise UsageError(
            f"{given[0]} applies to other samples, and none are given",
            "add --calibration PATH, or omit the option to verify on the samples kept in the folder",
        )


def _verify_plan(arguments: Namespace, console: Console) -> int:
    """Check the certificate in what ``graphcut plan --json`` has said."""
    from graphcut.verification import certificate_of_model

    path: Path = arguments.folder
    try:
        said = json.loads(text_of(path))
        certificate = json.loads(said["certificate"]) if isinstance(said["certificate"], str) else said["certificate"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} contains no plan with a certificate ({type(error).__name__})",
            "pass the output of `graphcut plan --json`",
        ) from error
    certificate_of_model.require(certificate_of_model.findings(certificate), str(path))
    if arguments.model is not None:
        _check_model(arguments, console, certificate, said.get("options", {}))
    with_model = f" and belongs to {arguments.model}" if arguments.model is not None else ""
    count, objective = len(certificate["cuts"]) + 1, certificate["objective"]
    document = {"certificate": "holds", "objective": objective, "k": count, "model": arguments.model}
    console.result(f"the certificate is valid{with_model}: {count} segments ({objective})", document)
    return 0


def _kept(opened: Manifest) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The certificate of a split, and the options with which it was planned."""
    from graphcut.result import manifest

    certificate = manifest.read_certificate(opened)
    if certificate is None:
        raise UsageError(f"{opened.folder} has no certificate to check against a model", "split the model again")
    return certificate, opened.options


def _check_model(
    arguments: Namespace, console: Console, certificate: Mapping[str, Any], said: Mapping[str, Any]
) -> None:
    """Check a certificate against a model."""
    from graphcut import api
    from graphcut.conversion.uint8_boundary import typed
    from graphcut.planning.plan_options import PlanOptions
    from graphcut.verification import certificate_of_model

    model = api.load(
        arguments.model,
        target=arguments.target or said.get("target") or "any",
        split_outputs=arguments.split_outputs,
        inputs=arguments.inputs or said.get("inputs") or (),
        outputs=arguments.outputs or said.get("outputs") or (),
        report=console.report,
    )
    certificate_of_model.require(certificate_of_model.findings(certificate), str(arguments.folder))
    graph = typed(model.graph, said.get("input_type", "int8"), said.get("output_type", "int8"))
    planned = partial(from_json, PlanOptions, said)
    found = certificate_of_model.model_findings(certificate, graph, planned, said.get("min_rank"))
    certificate_of_model.require(found, str(arguments.folder))
    console.note(f"the plan's certificate is valid for {arguments.model}")
