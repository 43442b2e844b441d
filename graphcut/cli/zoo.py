"""``graphcut zoo``: split every model of a folder, here or on a Ray cluster."""

from __future__ import annotations

import time
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.errors import GraphcutError, UsageError, VerificationError
from graphcut.settings import positive

EXAMPLES = (
    "graphcut zoo models --calibration random -o OUT",
    "graphcut zoo models --calibration pictures --mean 0 --std 255 --budget 4MiB -o OUT",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "zoo",
        help="split every model of a folder",
        description="Split every .onnx file of a folder with the same options; on a Ray cluster with --cluster, whose "
        "machines need access to both folders. The exit code is 0 if every split was made and verified.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a folder of .onnx files")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder for the splits")
    parser.add_argument("--budget", metavar="SIZE", help="limit of every int8 file (default: 7MiB)")
    parser.add_argument(
        "--calibration", metavar="PATH|random", required=True, help="calibration data, as for split, for every model"
    )
    parser.add_argument("--samples", metavar="N", type=positive, help="most samples to use")
    parser.add_argument("--force", action="store_true", help="replace earlier results")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        nargs="?",
        const="",
        help="run on a Ray cluster; without an address, start one here",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_pixels(parser)
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Split all."""
    from graphcut.progress import Event
    from graphcut.report import tables

    if not arguments.folder.is_dir():
        raise UsageError(f"there is no folder {arguments.folder}", "pass a folder of .onnx files")
    models = sorted(arguments.folder.glob("*.onnx"))
    if not models:
        raise UsageError(f"{arguments.folder} contains no .onnx file", "pass a folder of .onnx files")
    prepared = options.preprocessing(arguments, None)
    jobs = [
        {
            "model": str(path.absolute()),
            "out": str((arguments.output / path.stem).resolve()),
            "budget": arguments.budget,
            "calibration": _resolved(arguments.calibration),
            "samples": arguments.samples,
            "preprocessing": prepared,
            "force": arguments.force,
        }
        for path in models
    ]
    rows: dict[int, dict[str, Any]] = {}
    for position, row in _results(jobs, arguments.cluster):
        rows[position] = row
        console.report(Event(stage="zoo", done=len(rows), total=len(jobs), detail=models[position].name))
    ordered = [rows[position] for position in range(len(jobs))]
    shown = tables.table(
        ("model", "K", "proved", "exact", "worst dB", "seconds", "error"),
        [_shown(row) for row in ordered],
        right=("K", "worst dB", "seconds"),
    )
    console.result([shown], {"models": ordered})
    failed = [row["model"] for row in ordered if not row["passed"]]
    if failed:
        raise VerificationError(f"{len(failed)} of {len(ordered)} models failed: {', '.join(failed)}", "see the table")
    return 0


def split_one(job: Mapping[str, Any]) -> dict[str, Any]:
    """Split one model; what came of it, a user's error among it. Runs here or on another machine."""
    from graphcut import api
    from graphcut.record_types import decibels

    began = time.perf_counter()
    row: dict[str, Any] = {"model": Path(job["model"]).name, "passed": False, "error": None}
    try:
        made = api.split(
            api.load(job["model"]),
            calibration=job["calibration"],
            out=job["out"],
            budget=job["budget"],
            preprocessing=job["preprocessing"],
            samples=job["samples"],
            force=job["force"],
        )
        proof = made.verification
        row |= {
            "k": made.plan.k,
            "passed": proof.passed,
            "exact": proof.exact,
            "sqnr_db": {name: decibels(value) for name, value in proof.sqnr_db.items()},
            "findings": list(proof.findings),
        }
    except GraphcutError as error:
        row["error"] = str(error)
    except Exception as error:  # one bug must not take the other models' rows along
        traceback.print_exc()
        row["error"] = f"a bug of graphcut ({type(error).__name__}: {error})"
    return {**row, "seconds": round(time.perf_counter() - began, 2)}


def _results(jobs: Sequence[Mapping[str, Any]], address: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    if address is None:
        yield from ((position, split_one(job)) for position, job in enumerate(jobs))
        return
    from graphcut.cluster.cluster_pipeline import ClusterSettings
    from graphcut.cluster.many import map_over

    settings = ClusterSettings(address=address or None, retries=1)
    for position, result in map_over(split_one, jobs, settings):
        if isinstance(result, BaseException):
            name = Path(jobs[position]["model"]).name
            yield (
                position,
                {"model": name, "passed": False, "error": f"{type(result).__name__}: {result}", "seconds": 0.0},
            )
        else:
            yield position, result


def _resolved(calibration: str) -> str:
    return calibration if calibration == "random" else str(Path(calibration).resolve())


def _shown(row: Mapping[str, Any]) -> tuple[str, ...]:
    wrong = row["error"] or "; ".join(row.get("findings", ()))
    worst = min(row["sqnr_db"].values(), default=None) if "sqnr_db" in row else None
    return (
        row["model"],
        str(row.get("k", "-")),
        "yes" if row["passed"] else "NO",
        {True: "yes", False: "NO", None: "-"}[row.get("exact")],
        "-" if worst is None else f"{worst:.1f}",
        f"{row['seconds']:.1f}",
        wrong.splitlines()[0] if wrong else "",
    )
