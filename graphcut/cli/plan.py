"""``graphcut plan``: where to cut, before anything is converted."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from graphcut.cli import options
from graphcut.cli.console import Console


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "plan",
        help="choose the cuts; nothing is converted",
        description="Choose the cuts from predicted sizes, and show how near to the least number of segments they are.",
    )
    options.add_model(parser)
    options.add_plan(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Plan."""
    chosen = options.plan_options(arguments)
    model = options.load_model(arguments, console)
    from graphcut import pipeline
    from graphcut.report import planning

    per_channel = not arguments.per_tensor
    plan, costs = pipeline.make_costed_plan(model, chosen, per_channel=per_channel, min_rank=arguments.min_rank)
    cost = costs.plan(plan, chosen.devices or (chosen.device,))
    document = {
        "model": model.source.name,
        **planning.plan(plan, cost),
        "candidates": plan.places,
        "per_channel": per_channel,
    }
    console.result(planning.plan_text(plan, cost), document)
    return 0
