"""``graphcut split``: the main job."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut import staging
from graphcut.cli import options
from graphcut.cli.compile import add_compiler
from graphcut.cli.console import Console
from graphcut.codec import to_json
from graphcut.errors import CompilationError, DependencyError, UsageError, VerificationError, setting
from graphcut.progress import Event
from graphcut.records import Plan, Verification
from graphcut.settings import PlanSettings, SplitSettings, flag_of, positive, table

if TYPE_CHECKING:
    from graphcut.edgetpu.compiler import Compiler
    from graphcut.report.tables import Shown

EXAMPLES = (
    "graphcut split model.onnx --calibration pictures --mean 127.5 --std 127.5 -o OUT",
    "graphcut split resnet101 --calibration random --segments 4 -o OUT",
    "graphcut split model.onnx --calibration data.npz --plan plan.json -o OUT",
    "graphcut split --config OUT/job.toml --effort high -o OUT2",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "split",
        help="split a model into int8 segments and verify them",
        description="Split a model into int8 TFLite segments within a budget, prove that they compute what the whole "
        "computes, and write the result to a folder, atomically.",
    )
    options.add_model(parser, optional=True)
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--config",
        metavar="FILE.toml",
        type=Path,
        help="take options from a job file, such as the job.toml in every OUT; what the line says goes before it",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier result")
    parser.add_argument("--jobs", metavar="N", type=positive, default=2, help="worker processes (default: 2)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile for the Edge TPU if edgetpu_compiler is installed, and plan again until nothing streams",
    )
    parser.add_argument("--no-report", action="store_true", help="do not write OUT/report.html")
    parser.add_argument(
        "--independent",
        action="store_true",
        help="also convert the whole model in one piece, and compare the chain with it",
    )
    add_compiler(parser)
    parser.add_argument("--plan", metavar="FILE", type=Path, help="apply a plan that `graphcut plan --save` wrote")
    options.add_settings(parser, SplitSettings, "min_sqnr", "requantise", "input_type", "output_type")
    parser.add_argument(
        "--validation",
        metavar="PATH",
        help="data for the verdict, as for --calibration (default: every fifth of 20 or more calibration samples)",
    )
    options.add_plan(parser)
    options.add_samples(parser, "calibration data")
    options.add_settings(parser, SplitSettings, "effort", "without", "reuse")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Split; cheap checks come before anything is read."""
    from graphcut import api
    from graphcut import samples as calibrate
    from graphcut.cache_folder import EarlierResults
    from graphcut.conversion.workers import converters
    from graphcut.graph import native
    from graphcut.planning.plan_options import SplitOptions
    from graphcut.workers import malloc

    if arguments.model is None:
        raise UsageError("no MODEL is given", "add it, or --config FILE.toml with a model")
    options.require_model(arguments.model)
    options.require_calibration(arguments)
    given = _given_plan(arguments)
    if given is not None and arguments.target is None:
        arguments.target = given.target
    chosen = options.plan_options(arguments)
    staging.check_target(arguments.output, arguments.force)
    prepared = options.preprocessing(arguments, api.recipe_preprocessing(arguments.model))
    calibrate.check_spec(arguments.calibration, prepared)
    if arguments.validation is not None:
        calibrate.check_spec(arguments.validation, prepared)
    compiler, not_compiled = _compiler(arguments)
    if not_compiled:
        console.report(Event(stage="compile", note=True, detail=f"NOT COMPILED: {not_compiled}"))
    malloc.keep()
    with native.worker(), converters(arguments.jobs) as workers:
        model = options.load_model(arguments, console)
        samples = options.load_samples(arguments, model.inputs, prepared, console)
        validation = None
        if arguments.validation is not None:
            validation = options.load_samples(arguments, model.inputs, prepared, console, arguments.validation)
        from graphcut import flow
        from graphcut.report import tables

        result = flow.split(
            model,
            samples,
            SplitOptions(
                plan=chosen,
                given=given,
                validation=validation,
                min_sqnr_db=arguments.min_sqnr,
                per_channel=arguments.per_channel,
                min_rank=arguments.min_rank,
                jobs=arguments.jobs,
                force=arguments.force,
                independent=arguments.independent,
                requantise=arguments.requantise,
                compiler=compiler,
                compile_seconds=arguments.compile_timeout,
                with_report=not arguments.no_report,
                effort=arguments.effort,
                results=EarlierResults(arguments.cache) if arguments.reuse else None,
                input_type=arguments.input_type,
                output_type=arguments.output_type,
                without=tuple(method for given in arguments.without for method in given),
                job=arguments.job,
                preprocessing=prepared,
                seed=arguments.seed,
            ),
            arguments.output,
            console.report,
            workers,
        )
    seconds = sum(result.seconds.values())
    compiled, compiled_shown = _compiled(arguments.output, compiler is not None, not_compiled)
    shown = [
        *tables.split_text(result.segments, result.tails),
        "",
        tables.plan_lines(result.plan),
        "",
        *tables.verification_text(result.verification),
        "",
        *compiled_shown,
        f"written to {arguments.output} in {seconds:.1f} s",
        tables.verdict_line(result.verification),
    ]
    document = {
        "folder": str(arguments.output),
        **to_json(result.plan, without=("candidates",)),
        "tails": [to_json(each, without=("tflite",)) for each in result.tails],
        "verification": to_json(result.verification),
        "seconds": {stage: round(value, 3) for stage, value in result.seconds.items()},
        **compiled,
    }
    console.result(shown, document)
    require_passed(result.verification, str(arguments.output))
    if result.closed is not None and not result.closed.clean:
        raise CompilationError(
            result.closed.reason,
            "the split is written, with its rounds in meta.json; a smaller --budget or wider seams "
            "(--max-seam-tensors 2) give it other cuts to try",
        )
    trouble = compiled.get("edgetpu", {}).get("trouble")  # no such key where the compiler was not run
    if trouble:
        raise CompilationError(trouble, "the split is written and verified")
    return 0


def _given_plan(arguments: Namespace) -> Plan | None:
    """The plan that ``--plan`` names.

    Raises:
        UsageError: the file holds none, or other options say where to cut.
    """
    if arguments.plan is None:
        return None
    for name, each in table(PlanSettings).items():
        untouched = [] if each.repeat else each.default
        if name != "per_channel" and getattr(arguments, name) != untouched:
            raise UsageError(f"both --plan and {flag_of(name)} are given", "use one of the two")
    return Plan.load(arguments.plan)


def _compiler(arguments: Namespace) -> tuple[Compiler | None, str]:
    """The compiler where one is asked for and there; why there is none where it is asked for and missing, else "".

    Raises:
        DependencyError: the one that --compiler names is missing or is something else.
    """
    from graphcut.edgetpu import compiler

    if arguments.compiler is None and not arguments.compile:
        return None, ""
    try:
        return compiler.find(arguments.compiler), ""
    except DependencyError as error:
        if arguments.compiler is not None:
            raise
        return None, str(error)


def _compiled(folder: Path, ran: bool, not_compiled: str) -> tuple[dict[str, Any], Shown]:
    """What the compile stage came to, for programs and for people; nothing where nobody asked for it."""
    from graphcut.report import edgetpu
    from graphcut.result import manifest

    if not_compiled:
        return {"edgetpu": {"status": "not run", "reason": not_compiled}}, [f"NOT COMPILED: {not_compiled}", ""]
    if not ran:
        return {}, []
    made = manifest.read(folder).compilation
    assert made is not None, "the flow has entered it"
    return {"edgetpu": {"status": "run", **to_json(made)}}, [*edgetpu.compiled_split_text(made), ""]


def require_passed(proof: Verification, folder: str) -> None:
    """Let the exit code show the verdict.

    Raises:
        VerificationError: the verdict is FAILED; names the first finding.
    """
    if not proof.passed:
        from graphcut.verification.verdict import part_faults

        lost = part_faults(proof.parts)
        way_out = f"{setting('split_outputs')} gives each part of an output its own int8 scale" if lost else ""
        raise VerificationError(f"{folder} does not pass verification: {proof.reason or 'see the table'}", way_out)
