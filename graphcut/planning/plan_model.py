"""A plan for a model, with predicted sizes and costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphcut.graph.model import Model
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import planned
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import Sizes, predict
from graphcut.records import Graph, Plan


def make_plan(model: Model, options: PlanOptions, *, per_channel: bool = True, min_rank: int | None = None) -> Plan:
    """Arrange, analyse and plan with predicted sizes."""
    return make_costed_plan(model, options, per_channel=per_channel, min_rank=min_rank)[0]


def make_costed_plan(
    model: Model, options: PlanOptions, *, per_channel: bool = True, min_rank: int | None = None
) -> tuple[Plan, Costs]:
    """The same with the costs of the graph that the plan is of."""
    arranged, made = planned(model.graph, options, measure_with(per_channel), min_rank)
    return replace(made, target=model.target), arranged.costed()


def measure_with(per_channel: bool) -> Callable[[Graph], Sizes]:
    """What predicts the sizes of a graph."""
    return lambda graph: predict(graph, per_channel=per_channel)
