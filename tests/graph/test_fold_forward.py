"""Arithmetic by constants before convolutions becomes part of them, where that is exact."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

from graphcut.graph.passes.catalogue import PASSES
from tests.support.graph_nets import assert_same, model, node, normal, ops, report_of, weights

CHANNELS = 12  # with few of them, a chain of such operators becomes a depthwise convolution
SHAPES = {
    "w": (6, CHANNELS, 1, 1),
    "v": (6, CHANNELS, 3, 3),
    "b": (6,),
    "s": (1, CHANNELS, 1, 1),
    "t": (CHANNELS, 1, 1),
    "one": (),
    "g": (8, CHANNELS // 2, 3, 3),
}
X = {"x": (1, CHANNELS, 8, 8)}
PAD = {"pads": (1, 1, 1, 1)}


def made(*nodes: NodeProto, outputs: tuple[str, ...] = ("y",)) -> ModelProto:
    return model(nodes, X, outputs, weights(3, **SHAPES))


RELU = node("Relu", "x", "r")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (node("Mul", "r s", "m"), node("Conv", "m v b", "y", **PAD)),
        (node("Mul", "t r", "m"), node("Conv", "m w", "y")),
        (node("Div", "r s", "m"), node("Conv", "m w b", "y")),
        (node("Mul", "r one", "m"), node("Conv", "m v", "y", **PAD)),
        (node("Add", "r s", "m"), node("Conv", "m w", "y")),
        (node("Sub", "s r", "m"), node("Conv", "m w b", "y")),
        (node("Add", "r one", "m"), node("Conv", "m w b", "y")),
    ],
)
def test_one_operator_becomes_part_of_the_convolution(first: NodeProto, second: NodeProto) -> None:
    proto = made(RELU, first, second)
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "Conv"]
    assert_same(proto, normalised)


def test_a_grouped_convolution_gets_the_factors_of_its_own_channels() -> None:
    proto = made(RELU, node("Mul", "r s", "m"), node("Conv", "m g", "k", group=2, **PAD), outputs=("k",))
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "Conv"]
    assert_same(proto, normalised)


def test_all_readers_get_it_and_a_chain_of_them_goes_at_once() -> None:
    chain = [RELU, node("Mul", "r s", "m"), node("Add", "m t", "a")]
    proto = made(*chain, node("Conv", "a w", "y"), node("Conv", "a w b", "z"), outputs=("y", "z"))
    normalised = normal(proto)
    assert sorted(ops(normalised)) == ["Conv", "Conv", "Relu"]
    assert report_of(normalised, "fold-forward").matches == 2
    assert_same(proto, normalised)


def test_before_padding_an_add_stays_and_one_number_moves_past_it() -> None:
    proto = made(RELU, node("Mul", "r one", "m"), node("Add", "m s", "a"), node("Conv", "a v b", "y", **PAD))
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "Add", "Conv"]
    assert_same(proto, normalised)


@pytest.mark.parametrize(
    "nodes",
    [
        (node("Add", "r s", "m"), node("Conv", "m v", "y", **PAD)),
        (node("Add", "r s", "m"), node("Conv", "m v", "y", auto_pad="SAME_UPPER")),
        (node("Mul", "r s", "m"), node("Add", "m t", "a"), node("Conv", "a v", "y", **PAD)),
    ],
)
def test_what_is_not_exact_stays(nodes: tuple[NodeProto, ...]) -> None:
    proto = made(RELU, *nodes)
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", *(each.op_type for each in nodes)]
    assert_same(proto, normalised)


def test_what_others_read_or_what_is_an_output_stays() -> None:
    factor, conv = node("Mul", "r s", "m"), node("Conv", "m w", "y")
    for proto in (made(RELU, factor, conv, node("Sigmoid", "m", "z"), outputs=("y", "z")),
                  made(RELU, factor, conv, outputs=("y", "m"))):  # fmt: skip
        normalised = normal(proto)
        assert "Mul" in ops(normalised)
        assert_same(proto, normalised)


def test_a_norm_after_the_bias_of_a_transposed_convolution_is_folded() -> None:
    constants = weights(5, w=(CHANNELS, 6, 2, 2), b=(1, 6, 1, 1), s=(6,), o=(6,), mean=(6,))
    constants["var"] = np.abs(weights(6, var=(6,))["var"]) + 0.5
    proto = model(
        [
            RELU,
            node("ConvTranspose", "r w", "c", strides=(2, 2)),
            node("Add", "c b", "a"),
            node("BatchNormalization", "a s o mean var", "n"),
            node("Relu", "n", "y"),
        ],
        X,
        ["y"],
        constants,
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "ConvTranspose", "Relu"]
    assert_same(proto, normalised)


def test_it_runs_last() -> None:
    assert PASSES[-1].name == "fold-forward"
