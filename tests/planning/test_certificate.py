"""Certificates of plans: sound ones hold, changed ones are refused, and the checker shares nothing with the planner."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut import cli
from graphcut.analysis.candidates import analyse
from graphcut.analysis.digest import seal
from graphcut.errors import GraphcutError
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segment_limits import Limits
from graphcut.planning.segments import segments
from graphcut.prediction import device_profiles as devices
from graphcut.prediction.segment_costs import Costs
from graphcut.prediction.sizes import Sizes, predict
from graphcut.records import Graph
from graphcut.units import KIB, MIB
from graphcut.verification.check_certificate import attest, attest_model
from tests.planning.test_objectives import SLOW, problems, requests
from tests.support import graphs, nets
from tests.support.places import ROOT

RESNET = graphs.resnet101()
SIZES = predict(RESNET)
PLANS: dict[str, dict[str, Any]] = {
    "greedy": {"budget_bytes": 7 * MIB},
    "balanced": {"strategy": "balanced", "segments": 5},
    "fewest": {"strategy": "fewest", "budget_bytes": 7 * MIB},
    "throughput": {"strategy": "throughput", "segments": 6},
    "throughput of up to 8": {"strategy": "throughput", "max_segments": 8},
    "latency": {"strategy": "latency"},
    "traffic": {"strategy": "traffic", "budget_bytes": 7 * MIB},
    "nothing streams": {"limits": Limits(off_chip_bytes=0, compiled_bytes=7 * MIB)},
    "in time": {"strategy": "fewest", "limits": Limits(tflite_bytes=8 * MIB, latency_us=6000)},
    "pinned": {"budget_bytes": 7 * MIB, "pins": ("conv3_block4_out",)},
    "a chain": {
        "strategy": "throughput",
        "devices": (devices.find("coral-usb:3MiB"), *[devices.find("coral-pcie")] * 7),
    },
    "range": {"strategy": "range", "range_bytes": (2 * MIB, 7 * MIB)},
    "given": {"strategy": "given", "cuts": ("conv3_block4_out",), "budget_bytes": 43 * MIB},
}


def certificate(graph: Graph, sizes: Sizes, **options: Any) -> dict[str, Any]:
    return json.loads(plan(analyse(graph), sizes, PlanOptions(**options)).certificate)


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A document as a forger leaves it."""
    return {**document, "seal": seal(document)}


def findings(document: object, graph: Graph = RESNET, sizes: Sizes = SIZES) -> tuple[str, ...]:
    """What is wrong with a certificate, by itself or for the model."""
    found = attest(document)
    if found:
        return found
    assert isinstance(document, dict)
    return attest_model(document, graph, sizes, Costs(graph, sizes))


@pytest.mark.parametrize("name", PLANS)
def test_certificates_hold(name: str):
    assert findings(certificate(RESNET, SIZES, **PLANS[name])) == ()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_plan_s_certificate_holds(data: st.DataObject):
    analysis, sizes, at, _ = data.draw(problems())
    request = data.draw(requests(at))
    options = {
        "strategy": data.draw(st.sampled_from([request.objective, "greedy"])),
        "budget_bytes": request.limits.tflite_bytes or None,
        "segments": request.count,
        "max_segments": request.most,
        "devices": request.devices,
        "device": SLOW,
        "limits": request.limits,
        "allow_pre_activation": True,
    }
    try:
        made = plan(analysis, sizes, PlanOptions(**options))
    except GraphcutError:
        return
    assert findings(json.loads(made.certificate), analysis.graph, sizes) == ()


def numbers(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all whole numbers in a document."""
    if isinstance(document, dict):
        return [found for key, value in document.items() for found in numbers(value, (*path, key))]
    if isinstance(document, list):
        return [found for key, value in enumerate(document) for found in numbers(value, (*path, key))]
    return [path] if type(document) is int else []


def changed(document: dict[str, Any], path: tuple[Any, ...], by: int) -> dict[str, Any]:
    made = copy.deepcopy(document)
    inner: Any = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] += by
    return sealed(made)


# A smaller entry is another sound one, what is asked for may be asked for otherwise, and beside an activation that adds
# nothing is another place.
HARMLESS = ("table", "furthest", "asked", "scale", "format", "positions")


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_a_changed_number_is_found(data: st.DataObject):
    document = certificate(RESNET, SIZES, **PLANS[data.draw(st.sampled_from(sorted(PLANS)))])
    paths = [path for path in numbers(document) if not set(HARMLESS) & set(path)]
    path = data.draw(st.sampled_from(paths))
    assert findings(changed(document, path, data.draw(st.sampled_from([-4096, -1, 1, 16])))) != ()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_slip_shows(data: st.DataObject):
    document = certificate(RESNET, SIZES, **PLANS[data.draw(st.sampled_from(sorted(PLANS)))])
    made = changed(document, data.draw(st.sampled_from(numbers(document))), 1)
    assert attest({**made, "seal": document["seal"]}) != ()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_table_that_promises_too_much_is_found(data: st.DataObject):
    document = certificate(RESNET, SIZES, **PLANS[data.draw(st.sampled_from(["throughput", "fewest", "latency"]))])
    paths = [path for path in numbers(document) if "table" in path]
    assert attest(changed(document, data.draw(st.sampled_from(paths)), 1)) != ()


def latency_ms(places: Sequence[int]) -> float:
    """Of a plan with cuts at these positions in the graph, its two ends among them."""
    costs = Costs(RESNET, SIZES)
    return sum(costs.segment(each).latency_ms for each in segments(RESNET, places[1:-1], SIZES))


@pytest.mark.parametrize("name", ["greedy", "fewest", "throughput", "latency", "traffic", "nothing streams"])
def test_a_worse_plan_in_its_place_is_found(name: str):
    document = certificate(RESNET, SIZES, **PLANS[name])
    content, base = document["places"]["content"], document["base_bytes"]
    given = [document["places"]["positions"][place] for place in (0, *document["cuts"], len(content) - 1)]
    for index in range(len(document["cuts"])):
        for by in (-1, 1):
            cuts = [*document["cuts"]]
            cuts[index] += by
            bounds = [0, *cuts, len(content) - 1]
            planned = [base + content[b] - content[a] for a, b in pairwise(bounds)]
            budget = document["budget_bytes"]
            if name == "greedy" and max(planned) <= (budget or 0):
                continue  # as few segments: as good a plan
            places = [document["places"]["positions"][place] for place in bounds]
            files = [SIZES.file_bytes(a, b) for a, b in pairwise(places)]
            if name == "latency" and latency_ms(places) == pytest.approx(latency_ms(given), abs=1e-6):
                continue  # where nothing streams and seams are alike, a cut may move without changing the sum
            worse = sealed({**document, "cuts": cuts, "planned_bytes": planned, "tflite_bytes": files})
            assert findings(worse) != () or name == "nothing streams"


def test_one_segment_more_is_not_the_fewest():
    document = certificate(RESNET, SIZES, budget_bytes=7 * MIB)
    looser = certificate(RESNET, SIZES, budget_bytes=6 * MIB)
    mixed = sealed({**looser, "budget_bytes": 7 * MIB, "lower_bound": document["lower_bound"]})
    assert any("fewer than" in each for each in attest(mixed))
    assert any(
        "sufficient" in each for each in attest(sealed({**mixed, "minimal_k": 7, "exchanges": document["exchanges"]}))
    )


def test_proofs_cannot_be_left_out():
    document = certificate(RESNET, SIZES, **PLANS["throughput"])
    assert attest(sealed({**document, "phases": []})) != ()
    assert attest(sealed({**document, "phases": document["phases"][1:]})) != ()
    greedy = certificate(RESNET, SIZES, **PLANS["greedy"])
    assert attest(sealed({**greedy, "exchanges": []})) != ()
    balanced = certificate(RESNET, SIZES, **PLANS["balanced"])
    assert attest(sealed({**balanced, "exchanges": []})) != ()


@pytest.mark.parametrize("document", [None, [], {}, {"format": 2}, {"format": 1}, {"format": 1, "places": 3}, "x"])
def test_what_is_no_certificate_is_said(document: object):
    assert len(attest(document)) == 1


def test_a_certificate_is_of_one_model():
    small = graphs.residual_chain(4)
    other = predict(small)
    document = certificate(RESNET, SIZES, **PLANS["greedy"])
    assert attest_model(document, small, other, Costs(small, other)) == (
        "it belongs to another model, or to another order of its operators",
    )


def test_measured_sizes_are_held_against_themselves_only():
    graph = graphs.residual_chain(6)
    known = predict(graph)
    steps = [after - before for before, after in pairwise(known.prefix_bytes)]
    corrected = graphs.from_nodes([step + 3 for step in steps], [0] * len(steps), known.base_bytes)
    document = certificate(graph, corrected, strategy="balanced", segments=3)
    assert document["sizes"] == "given"
    assert findings(document, graph, known) == ()


def test_tables_that_would_be_too_large_are_left_out():
    graph = graphs.residual_chain(900)
    document = certificate(graph, predict(graph), strategy="balanced", segments=60, max_segments=60)
    assert document["phases"] == []
    assert "numbers" in document["left_out"]
    assert attest(document) == ()


def test_the_checker_imports_nothing_of_the_planner():
    tree = ast.parse((ROOT / "graphcut/verification/check_certificate.py").read_text(encoding="utf-8"))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [name for name in names if "planning" in name or name.endswith((".plan", ".arrange"))] == []


def test_the_command_line_checks_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = str(nets.saved(nets.residual(), tmp_path))
    other = str(nets.saved(nets.residual(width=24), tmp_path, "other.onnx"))
    assert cli.main(["plan", model, "-q", "--budget", "12KiB", "--objective", "fewest", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(said))
    assert cli.main(["verify", str(path), "-q", "--model", model]) == 0
    assert "the certificate is valid" in capsys.readouterr().out
    assert cli.main(["verify", str(path), "-q", "--model", other]) == 7
    assert "another model" in capsys.readouterr().err
    document = json.loads(said["certificate"])
    document["planned_bytes"][0] -= KIB
    path.write_text(json.dumps({**said, "certificate": document}))
    assert cli.main(["verify", str(path), "-q"]) == 7
    assert "is not valid: it has been changed" in capsys.readouterr().err
    path.write_text(json.dumps({**said, "certificate": sealed(document)}))
    assert cli.main(["verify", str(path), "-q"]) == 7
    assert "is not valid: segment 1" in capsys.readouterr().err
    path.write_text("{}")
    assert cli.main(["verify", str(path)]) == 2
