"""Softmax with the channels turned to the end and back."""

from __future__ import annotations

import pytest

from tests.support.graph_nets import assert_same, model, node, normal, ops, weights


@pytest.mark.parametrize(
    ("there", "back", "plain"),
    [
        ([0, 3, 2, 1], [0, 3, 2, 1], True),
        ([0, 2, 3, 1], [0, 3, 1, 2], True),
        ([0, 2, 3, 1], [0, 2, 3, 1], False),
    ],
)
def test_a_softmax_over_channels_that_is_turned_and_turned_back(there: list[int], back: list[int], plain: bool) -> None:
    proto = model(
        [
            node("Conv", "x w", "scores", kernel_shape=[1, 1]),
            node("Transpose", "scores", "turned", perm=there),
            node("Softmax", "turned", "chances", axis=3),
            node("Transpose", "chances", "y", perm=back),
        ],
        {"x": (1, 4, 6, 8)},
        ["y"],
        weights(w=(3, 4, 1, 1)),
    )
    normalised = normal(proto)
    softmax = [each for each in normalised.graph.nodes if each.op_type == "Softmax"]
    assert ("Transpose" not in ops(normalised)[-2:]) == plain
    assert (softmax[0].attributes["axis"] == 1) == plain
    assert_same(proto, normalised)
