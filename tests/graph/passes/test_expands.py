"""Expands in front of arithmetic that broadcasts by itself."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graph_nets import assert_same, model, node, normal, ops, report_of

MAP = {"x": (1, 6, 5, 4), "gate": (1, 6, 1, 1)}
SHAPE = {"s": np.array([1, 6, 5, 4], np.int64)}


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Max", "Min"])
@pytest.mark.parametrize("operands", ["x e", "e x"])
def test_arithmetic_broadcasts_by_itself(op_type: str, operands: str) -> None:
    proto = model([node("Expand", "gate s", "e"), node(op_type, operands, "y")], MAP, ["y"], SHAPE)
    normalised = normal(proto)
    assert "Expand" not in ops(normalised)
    assert report_of(normalised, "drop-expands").matches == 1
    assert_same(proto, normalised, tolerance=0)


def test_an_expand_that_makes_the_shape_stays() -> None:
    nodes = [node("Expand", "gate s", "e"), node("Mul", "gate e", "m"), node("Mul", "m x", "y")]
    normalised = normal(model(nodes, MAP, ["y"], SHAPE))
    assert "Expand" in ops(normalised), "gate * gate has no pixels without it"


def test_an_expand_that_is_an_output_or_is_stacked_stays() -> None:
    nodes = [node("Relu", "gate", "r"), node("Expand", "r s", "e"), node("Mul", "x e", "y")]
    assert "Expand" in ops(normal(model(nodes, MAP, ["y", "e"], SHAPE)))
    nodes = [node("Expand", "gate s", "e"), node("Concat", "x e", "y", axis=1)]
    assert "Expand" in ops(normal(model(nodes, MAP, ["y"], SHAPE)))
