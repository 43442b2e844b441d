"""The numeric check of rewrites fits float32, and finds the rewrite that is wrong in a few runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphcut.graph import model_check
from graphcut.graph.net import Net
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.catalogue import PASSES
from tests.support.graph_nets import model, node, normal, ops, report_of, weights


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[model_check.Difference]:
    """Every comparison that is made while the test runs."""
    made: list[model_check.Difference] = []
    compare = model_check.Baseline.difference_of

    def counted(self: model_check.Baseline, net: Net) -> model_check.Difference:
        made.append(compare(self, net))
        return made[-1]

    monkeypatch.setattr(model_check.Baseline, "difference_of", counted)
    return made


def test_a_sigmoid_deep_in_its_tail_is_compared_before_it(runs: list[model_check.Difference]) -> None:
    """At -15 a sigmoid has steps of 1e-3 of its value, which no rewrite can meet or is to blame for."""
    constants = weights(w=(6, 4, 3, 3), s=(6, 1, 1)) | {"b": np.full((6, 1, 1), -15, np.float32)}
    nodes = [node("Conv", "x w", "c"), node("Mul", "c s", "m"), node("Add", "m b", "a"), node("Sigmoid", "a", "y")]
    normalised = normal(model(nodes, {"x": (1, 4, 8, 8)}, ["y"], constants))
    assert ops(normalised) == ["Conv", "Sigmoid"]
    assert len(runs) == 1
    assert runs[0].error < 1e-5


def test_what_the_model_itself_does_not_decide_is_no_ones_fault(runs: list[model_check.Difference]) -> None:
    """Behind + 65536 - 65536 float32 has steps of 8e-3; folding both away is more exact than the model is."""
    constants = weights(w=(6, 4, 3, 3)) | {"k": np.full((6, 1, 1), 65536, np.float32)}
    nodes = [node("Conv", "x w", "c"), node("Add", "c k", "a"), node("Sub", "a k", "y")]
    normalised = normal(model(nodes, {"x": (1, 4, 8, 8)}, ["y"], constants))
    assert report_of(normalised, "fold-channel-arithmetic").matches == 2
    assert not normalised.notes
    assert runs[0].accepted
    assert model_check.TOLERANCE < runs[0].error < runs[0].limit < 1e-2


def test_a_small_mistake_is_one_where_the_model_is_exact(runs: list[model_check.Difference]) -> None:
    def shrink(net: Net) -> int:
        for item in net.walk("Conv"):
            weight = net.add_weight(item.inputs[1], net.weights[item.inputs[1]] * np.float32(1.001))
            net.replace([item], [replace(item, inputs=(item.inputs[0], weight))])
        return 1

    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    wrong = Pass(name="shrink", reason="to be caught", apply=shrink)
    normalised = normal(model(nodes, {"x": (1, 4, 8, 8)}, ["y"], weights(w=(6, 4, 3, 3))), passes=(*PASSES, wrong))
    assert report_of(normalised, "shrink").matches == 0
    assert "limit 1.0e-04" in normalised.notes[0]
    assert not runs[0].accepted


def spoiling(name: str) -> Callable[[Net], int]:
    def spoil(net: Net) -> int:
        item = net.node(name)
        net.replace([item], [replace(item, op_type="Sigmoid")])
        return 1

    return spoil


def renaming(name: str) -> Callable[[Net], int]:
    def rename(net: Net) -> int:
        item = net.node(name)
        net.replace([item], [replace(item, attributes={**item.attributes})])
        return 1

    return rename


def test_wrong_rewrites_among_many_are_found_by_bisection(runs: list[model_check.Difference]) -> None:
    names = [f"n{number}" for number in range(64)]
    nodes = [node("Tanh", f"t{number - 1}" if number else "x", f"t{number}", name) for number, name in enumerate(names)]
    wrong = {"n17", "n40"}
    passes = [
        Pass(name=name, reason="to be told apart", apply=(spoiling if name in wrong else renaming)(name))
        for name in names
    ]
    normalised = normal(model(nodes, {"x": (1, 4, 8, 8)}, ["t63"]), passes=passes)
    left_out = [note.split()[1] for note in normalised.notes]
    assert left_out == ["n17", "n40"]
    assert ops(normalised) == ["Tanh"] * 64
    assert len(runs) <= 3 + 1 + 2 * 6, "three of the whole, one of the entry, log2(64) for each that is wrong"


@pytest.mark.parametrize(("op_type", "is_right"), [("Log", True), ("Sqrt", False)])
def test_where_noise_gives_no_number_positive_values_decide(
    op_type: str, is_right: bool, runs: list[model_check.Difference]
) -> None:
    """The logarithm of the smallest of many normal values is NaN, and so is a square root written in its place."""

    def other(net: Net) -> int:
        item = net.node("log")
        net.replace([item], [replace(item, op_type=op_type)])
        return 1

    nodes = [node("ReduceMin", "x", "m", axes=(1, 2, 3)), node("Log", "m", "y", "log")]
    rewrite = Pass(name="other", reason="to be compared", apply=other)
    normal(model(nodes, {"x": (1, 4, 8, 8)}, ["y"]), passes=[rewrite])
    assert runs[0].accepted == is_right
