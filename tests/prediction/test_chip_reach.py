"""Where a graph leaves the Edge TPU, and plans that end there."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import graphcut
from graphcut import api
from graphcut.errors import InfeasibleError, UsageError
from graphcut.graph.model import Model
from graphcut.planning.plan_options import PlanOptions
from graphcut.prediction.chip_reach import chip_reach, front
from graphcut.records import Graph, Plan
from graphcut.verification.certificate_of_model import findings, model_findings
from tests.support.detector import detector
from tests.support.graphs import Builder
from tests.support.nets import saved, uneven

ROWS = {"scores_rows", "boxes_rows"}


def conv(b: Builder, reads: str, makes: str) -> str:
    return b.node("Conv", [reads, b.weight(f"{makes}/w", (8, b.tensors[reads].shape[1], 1, 1))], makes)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return graphcut.load(saved(detector(), tmp_path_factory.mktemp("detector")))


def layers(graph: Graph, start: int, stop: int) -> set[str]:
    return {graph.layers[name] for node in graph.nodes[start:stop] for name in node.outputs}


def test_what_depends_on_an_operator_off_the_chip_is_behind_the_border(model: Model):
    reach = chip_reach(model.graph)
    end = len(reach.graph.nodes)
    assert layers(reach.graph, reach.border, end) == {"scores", "sizes", "boxes"}
    assert {(each.op, each.layer) for each in reach.left} == {("SOFTMAX", "scores"), ("EXP", "sizes")}
    before = front(reach.graph, reach.border)
    assert {before.layers[name] for name in before.outputs} == ROWS
    assert sorted(node.name for node in reach.graph.nodes) == sorted(node.name for node in model.graph.nodes)


def test_a_graph_that_runs_on_the_chip_stays_as_it_is(tmp_path: Path):
    graph = graphcut.load(saved(uneven(), tmp_path)).graph
    reach = chip_reach(graph)
    assert reach.graph is graph
    assert (reach.border, reach.left) == (len(graph.nodes), ())


def test_a_doubtful_operator_leaves_the_chip_only_at_the_end():
    b = Builder()
    made = conv(b, b.input("in"), "first")
    turned = b.node("Transpose", [made], "turned")
    conv(b, turned, "second")
    b.node("Transpose", ["second"], "last")
    reach = chip_reach(b.graph("last"))
    assert [each.layer for each in reach.left] == ["last"]
    assert reach.border == 3


def test_what_cannot_be_handed_over_joins_the_rest():
    b = Builder()
    made = conv(b, b.input("in"), "first")
    wide = b.node("Reshape", [made], "wide", shape=(1, 2, 2, 2, 4))
    b.node("Exp", [wide], "last", shape=(1, 2, 2, 2, 4))
    reach = chip_reach(b.graph("last"))
    assert reach.border == 1
    assert [each.layer for each in reach.left] == ["wide", "last"]


def test_a_model_whose_first_layer_stays_on_the_cpu_is_refused():
    b = Builder()
    conv(b, b.node("Exp", [b.input("in")], "first"), "second")
    with pytest.raises(InfeasibleError, match="runs no layer of this model before EXP first"):
        chip_reach(b.graph("second"))


@pytest.mark.parametrize(
    "settings",
    [
        {"segments": 2},
        {"budget": 9000},
        {"strategy": "throughput", "segments": 3},
        {"strategy": "fewest", "budget": 9000, "limits": {"off-chip": 0}},
        {"devices": 2},
        {"cuts": ["relu_1"]},
        {"size_range": (3000, 12_000)},
    ],
)
def test_plans_end_where_the_chip_ends(model: Model, settings: dict[str, object]):
    made = graphcut.plan(model, until="chip", **settings)  # type: ignore[arg-type]
    rest = made.segments[-1]
    assert set(rest.input_layers) == ROWS
    assert set(rest.output_layers) == {"scores", "boxes"}
    assert made.chip_segments == made.segments[:-1]
    assert [each.split(":")[0] for each in made.on_cpu] == ["SOFTMAX scores", "EXP sizes"]
    assert made.minimal_k is None or made.minimal_k <= len(made.chip_segments)
    assert [before.stop for before, after in pairwise(made.segments)] == [each.start for each in made.segments[1:]]
    certificate = json.loads(made.certificate)
    options = api.plan_options(until="chip", **settings)  # type: ignore[arg-type]
    assert not findings(certificate, made.chip_segments)
    assert not model_findings(certificate, model.graph, lambda: options)
    if made.deployment is not None:
        assert [(stage.device, stage.stop) for stage in made.deployment.stages][-1] == ("cpu", len(made.segments))


def test_the_certificate_of_a_shorter_plan_is_not_that_of_the_model(model: Model):
    options = PlanOptions(strategy="balanced", segments=2)
    made = graphcut.plan(model, segments=2)
    found = model_findings(json.loads(made.certificate), model.graph, lambda: replace(options, until="chip"))
    assert found


def test_the_budget_is_that_of_the_segments_for_the_chip(model: Model):
    whole = graphcut.plan(model, segments=1, until="chip")
    budget = max(each.tflite_bytes for each in graphcut.plan(model, segments=4, until="chip").chip_segments) + 700
    made = graphcut.plan(model, budget=budget, until="chip")
    assert max(each.tflite_bytes for each in made.chip_segments) <= budget < whole.segments[0].tflite_bytes


def test_a_plan_is_applied_again(model: Model, tmp_path: Path):
    made = graphcut.plan(model, segments=2, until="chip")
    made.save(tmp_path / "plan.json")
    split = graphcut.split(
        model, calibration="random", out=tmp_path / "out", plan=Plan.load(tmp_path / "plan.json"), effort="fast"
    )
    assert split.plan.cuts == made.cuts


def test_where_nothing_stays_on_the_cpu_the_plan_says_so(tmp_path: Path):
    made = graphcut.plan(saved(uneven(), tmp_path), segments=2, until="chip")
    assert made.k == 2
    assert not made.on_cpu
    assert "no operator has to run on the CPU: nothing is cut off" in made.notes


def test_another_end_is_refused(model: Model):
    with pytest.raises(UsageError, match="until"):
        graphcut.plan(model, until="cpu")  # type: ignore[arg-type]
