"""Plans side by side: the rules of other tools, the comparison and the sweeps."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut import cli
from graphcut.errors import InfeasibleError
from graphcut.planning import other_tools
from graphcut.planning.compare import OURS, compare, sweep_budgets, sweep_counts
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segments import segments
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import predict
from graphcut.units import MIB
from tests.support import graphs, nets

RESNET = graphs.resnet101()
MEASURE = partial(predict, per_channel=True)


@settings(max_examples=150, deadline=None)
@given(graphs.dags(), st.integers(1, 6), st.integers(1, 60))
def test_rules_cut_between_operators_and_hold_what_they_say(graph, count, budget):
    weights = other_tools.weight_sums(graph)
    allowed = set(other_tools.boundaries(graph))
    end = len(graph.nodes)
    shares = other_tools.by_equal_shares(graph, weights, count)
    filled, passed = other_tools.by_filling(graph, weights, budget), other_tools.by_passing(graph, weights, budget)
    for cuts in (shares, filled, passed):
        assert list(cuts) == sorted(set(cuts))
        assert set(cuts) <= allowed
    assert len(shares) < count
    operators = sorted(allowed | {0, end})
    for start, stop in pairwise((0, *filled, end)):
        own = [position for position in operators if start < position <= stop]
        assert weights[stop] - weights[start] <= budget or len(own) == 1
    for start, stop in pairwise((0, *passed)):
        assert weights[stop] - weights[start] >= budget
        before = max(position for position in operators if position < stop)
        assert weights[before] - weights[start] < budget


def test_the_vendor_s_rule_streams_what_is_published():
    sizes = predict(RESNET)
    costs = Costs(RESNET, sizes)
    weights = costs.predicted.sums.parameter_bytes
    predicted = []
    for count in range(1, 8):
        made = segments(RESNET, other_tools.by_equal_shares(RESNET, weights, count), sizes)
        predicted.append(sum(costs.segment(each).off_chip_bytes for each in made) / MIB)
    published = [35.91, 28.36, 20.79, 13.27, 5.47, 2.03, 2.03]
    assert predicted == pytest.approx(published, abs=1.8)
    assert predicted[-1] == pytest.approx(2.03, abs=0.2)


def test_all_ways_to_cut_resnet101_side_by_side():
    rows = {row.name: row for row in compare(RESNET, PlanOptions(budget_bytes=7 * MIB), MEASURE)}
    assert list(rows) == [*OURS, "edgetpu_compiler", "onnx2tf", "ssp4onnx"]
    assert all(row.cost is not None for row in rows.values())
    cost = {name: row.cost for name, row in rows.items()}
    assert {len(rows[name].segments) for name in (*OURS, "edgetpu_compiler")} == {7}
    assert cost["greedy"].off_chip_bytes == 0
    assert cost["edgetpu_compiler"].off_chip_bytes > 1.5 * MIB
    assert cost["throughput"].interval_ms == min(each.interval_ms for name, each in cost.items() if name in OURS)
    assert cost["latency"].latency_ms == min(each.latency_ms for name, each in cost.items() if name in OURS)
    assert cost["traffic"].seam_bytes == min(each.seam_bytes for name, each in cost.items() if name in OURS)
    with pytest.raises(InfeasibleError, match="block"):
        compare(RESNET, PlanOptions(budget_bytes=2 * MIB, max_seam_tensors=1, layer_split=False), MEASURE)


def test_more_segments_are_never_slower_at_the_best():
    options = PlanOptions(strategy="throughput", segments=1)
    rows = sweep_counts(RESNET, options, MEASURE, counts=range(1, 13))
    intervals = [row.cost.interval_ms for row in rows if row.cost is not None]
    assert [len(row.segments) for row in rows] == list(range(1, 13))
    assert intervals == sorted(intervals, reverse=True)


def test_a_sweep_over_budgets_says_what_cannot_be_had():
    options = PlanOptions(max_seam_tensors=1, layer_split=False, budget_bytes=1)
    rows = sweep_budgets(RESNET, options, MEASURE, None, [MIB, 7 * MIB, 9 * MIB])
    assert [len(row.segments) for row in rows] == [0, 7, 6]
    assert "needs" in rows[0].refused


def test_the_command_line_compares_and_sweeps(tmp_path, capsys: pytest.CaptureFixture[str]):
    model = str(nets.saved(nets.residual(), tmp_path))
    assert cli.main(["plan", model, "-q", "--segments", "3", "--compare", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in document["compared"]} == {*OURS, "edgetpu_compiler", "onnx2tf", "ssp4onnx"}
    assert {"k", "largest_tflite_bytes", "balance", "seam_bytes", "off_chip_bytes", "interval_ms"} <= set(
        document["compared"][0]
    )
    assert cli.main(["plan", model, "-q", "--objective", "throughput", "--sweep", "1..3", "--json"]) == 0
    assert [row["k"] for row in json.loads(capsys.readouterr().out)["swept"]] == [1, 2, 3]
    assert cli.main(["plan", model, "-q", "--sweep", "8KiB,1MiB"]) == 0
    assert "ESTIMATED" in capsys.readouterr().out
    assert cli.main(["plan", model, "-q", "--sweep", "3..2"]) == 2
    assert cli.main(["plan", model, "-q", "--sweep", "1..100000"]) == 2
    assert cli.main(["plan", model, "-q", "--sweep", "--compare"]) == 2
