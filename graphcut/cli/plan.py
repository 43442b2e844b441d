"""``graphcut plan``: choose the cuts before anything is converted."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut import files
from graphcut.cli import options
from graphcut.cli.console import Console
from graphcut.codec import to_json
from graphcut.errors import UsageError
from graphcut.settings import SplitSettings, positive

if TYPE_CHECKING:
    from graphcut.graph.model import Model
    from graphcut.planning.plan_options import PlanOptions
    from graphcut.prediction.segment_costs import Costs
    from graphcut.records import Plan

LARGEST_COUNT = 1000
"""A bare number below it is a number of segments, above it a budget."""

EXAMPLES = (
    "graphcut plan model.onnx --budget 7MiB",
    "graphcut plan model.onnx --segments 4 --save plan.json",
    "graphcut plan model.onnx --compare",
    "graphcut plan model.onnx --sweep 2..8",
)


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "plan",
        help="choose the cuts; nothing is converted",
        description="Choose the cuts from predicted sizes, and show how close they are to the fewest segments.",
    )
    options.add_model(parser)
    options.add_settings(parser, SplitSettings, "reuse")
    options.add_plan(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--compare", action="store_true", help="show all objectives and the rules of other tools side by side"
    )
    group.add_argument(
        "--sweep",
        metavar="K..K|SIZE,SIZE",
        nargs="?",
        const="",
        help="show the trade-off over numbers of segments (default: 1..16), or over budgets",
    )
    group.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="also write the plan as an HTML file, with predicted sizes and times",
    )
    parser.add_argument("--force", action="store_true", help="replace the report if it exists")
    parser.add_argument(
        "--save", metavar="FILE", type=Path, help="write the plan to a file for `graphcut split --plan FILE`"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Plan."""
    if arguments.sweep is not None and arguments.strategy == "throughput" and arguments.segments is None:
        arguments.segments = 1  # the sweep gives the numbers
    chosen = options.plan_options(arguments)
    swept = None if arguments.sweep is None else _swept(arguments.sweep)
    if arguments.report is not None:
        files.check_file(arguments.report, arguments.force)
    model = options.load_model(arguments, console)
    if arguments.compare or swept is not None:
        return _compare(arguments, console, chosen, model, swept)
    from graphcut.planning import plan_model
    from graphcut.planning.fleet_choice import devices_of
    from graphcut.planning.plan_options import PlanRequest
    from graphcut.report import planning
    from graphcut.report.fleet_tables import fleet_json, fleet_text

    per_channel = arguments.per_channel
    plan, costs = plan_model.make_costed_plan(model, chosen, per_channel=per_channel, min_rank=arguments.min_rank)
    if arguments.save is not None:
        plan.save(arguments.save)
    cost = costs.plan(plan, devices_of(plan, chosen))
    document = {
        "model": model.source.name,
        **planning.plan(plan, cost),
        "candidates": plan.places,
        "per_channel": per_channel,
        "options": to_json(
            PlanRequest(
                plan=chosen,
                min_rank=arguments.min_rank,
                per_channel=per_channel,
                inputs=model.range_inputs or None,
                outputs=model.range_outputs or None,
                target=model.target,
            )
        ),
        "certificate": plan.certificate,
    }
    if arguments.report is not None:
        _report(arguments, chosen, model, plan, costs, document["options"])
    text = planning.plan_text(plan, cost)
    if plan.deployment is not None:
        command = options.split_command(arguments)
        document |= fleet_json(plan, command)
        text = [*text, "", *fleet_text(plan, command)]
    console.result(text, document)
    return 0


def _report(
    arguments: Namespace, chosen: PlanOptions, model: Model, plan: Plan, costs: Costs, options: dict[str, Any]
) -> None:
    """Write the plan as one HTML file."""
    from graphcut.planning.compare import trade_off
    from graphcut.planning.fleet_choice import devices_of
    from graphcut.prediction.sizes import predict
    from graphcut.report.html.forecast import facts_of_plan
    from graphcut.report.html.write_report import write_plan_report

    measure = partial(predict, per_channel=arguments.per_channel)
    others = trade_off(model.graph, chosen, measure, len(plan.chip_segments), arguments.min_rank)
    devices = devices_of(plan, chosen)
    write_plan_report(facts_of_plan(model.source, plan, costs, devices, to_json(others), options), arguments.report)


def _compare(
    arguments: Namespace, console: Console, chosen: PlanOptions, model: Model, swept: tuple[list[int], list[int]] | None
) -> int:
    """Show several plans side by side."""
    from graphcut.planning import compare
    from graphcut.prediction.sizes import predict
    from graphcut.report import planning

    measure = partial(predict, per_channel=arguments.per_channel)
    if swept is None:
        rows = compare.compare(model.graph, chosen, measure, arguments.min_rank)
    elif swept[1]:
        rows = compare.sweep_budgets(model.graph, chosen, measure, arguments.min_rank, swept[1])
    else:
        rows = compare.sweep_counts(model.graph, chosen, measure, arguments.min_rank, swept[0] or None)
    document = {
        "model": model.source.name,
        "estimated": planning.ESTIMATED,
        "compared" if swept is None else "swept": [to_json(row) for row in rows],
    }
    console.result(planning.compared_text(rows, "rule" if swept is None else "objective"), document)
    return 0


def _swept(text: str) -> tuple[list[int], list[int]]:
    """Read what to sweep over: numbers of segments, or budgets."""
    from graphcut.units import parse_bytes

    if not text:
        return [], []
    low, dots, high = text.partition("..")
    if dots:
        first, last = positive(low.strip()), positive(high.strip())
        if last < first:
            raise UsageError(f"--sweep {text} is empty", "write LOW..HIGH, such as 2..12")
        if last >= LARGEST_COUNT:
            raise UsageError(f"--sweep {text} is too large", f"use numbers of segments below {LARGEST_COUNT}")
        return list(range(first, last + 1)), []
    parts = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() and int(part) < LARGEST_COUNT for part in parts):
        return [positive(part) for part in parts], []
    return [], [parse_bytes(part) for part in parts]
