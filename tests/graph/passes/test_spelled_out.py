"""Operators that the converter does not know: written with others, equal to onnxruntime's own, and of use in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto

from tests.support.graph_nets import Values, assert_same, model, node, normal, ops, report_of, split_in_two, weights

IMAGE = {"x": (1, 8, 6, 5)}


def positive(*shape: int) -> Values:
    return np.random.default_rng(7).uniform(0.5, 1.5, shape).astype(np.float32)


@pytest.mark.parametrize("alpha", [1.0, 1.7])
def test_swish(alpha: float) -> None:
    proto = model([node("Swish", "x", "y", alpha=alpha)], IMAGE, ["y"], opset=24)
    loaded = normal(proto)
    assert report_of(loaded, "spell-out").matches == 1
    assert "Swish" not in ops(loaded)
    assert_same(proto, loaded)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("opset", [9, 17, 22])
def test_lp_normalization(p: int, axis: int, opset: int) -> None:
    proto = model([node("LpNormalization", "x", "y", p=p, axis=axis)], IMAGE, ["y"], opset=opset)
    loaded = normal(proto)
    assert "LpNormalization" not in ops(loaded)
    assert_same(proto, loaded)


def test_lp_normalization_of_zeros_is_zero() -> None:
    proto = model([node("Mul", "x nothing", "z"), node("LpNormalization", "z", "y", axis=1)], IMAGE, ["y"])
    proto.graph.initializer.extend(model([], {}, [], {"nothing": np.zeros((1, 8, 1, 1), np.float32)}).graph.initializer)
    loaded = normal(proto)
    assert "LpNormalization" not in ops(loaded)
    assert_same(proto, loaded)


@pytest.mark.parametrize("axes", [None, [0, 2, 3], [2, 3], [1, 2, 3], [1], [-1]])
@pytest.mark.parametrize("opset", [9, 13, 17])
def test_mean_variance_normalization(axes: list[int] | None, opset: int) -> None:
    attributes = {} if axes is None else {"axes": axes}
    proto = model([node("MeanVarianceNormalization", "x", "y", **attributes)], IMAGE, ["y"], opset=opset)
    loaded = normal(proto)
    assert "MeanVarianceNormalization" not in ops(loaded)
    assert_same(proto, loaded)


def test_rms_normalization() -> None:
    nodes = [node("RMSNormalization", "x scale", "y", axis=-1, epsilon=1e-3)]
    proto = model(nodes, {"x": (1, 6, 8)}, ["y"], {"scale": positive(8)}, opset=23)
    loaded = normal(proto)
    assert "RMSNormalization" not in ops(loaded)
    assert_same(proto, loaded)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("opset", [18, 20])
def test_group_normalization_with_a_scale_for_each_group(groups: int, opset: int) -> None:
    """The runtime refuses this form; GroupNormalization of opset 21 with repeated scales is the same."""
    scale, bias = positive(groups), positive(groups) - 1
    nodes = [node("GroupNormalization", "x scale bias", "y", "norm", num_groups=groups, epsilon=1e-3)]
    loaded = normal(model(nodes, IMAGE, ["y"], {"scale": scale, "bias": bias}, opset=opset))
    repeated = {name: np.repeat(value, 8 // groups) for name, value in (("scale", scale), ("bias", bias))}
    assert_same(model(nodes, IMAGE, ["y"], repeated, opset=21), loaded)


def sandwich(middle: NodeProto) -> list[NodeProto]:
    return [
        node("Conv", "x w1", "c", "first", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        middle,
        node("Conv", "n w2", "d", "second", pads=[1, 1, 1, 1]),
        node("Relu", "d", "s"),
        node("Conv", "s w3", "y", "last", pads=[1, 1, 1, 1]),
    ]


@pytest.mark.parametrize(
    ("middle", "opset", "least_db"),
    [
        (node("Swish", "r", "n", "swish"), 24, 30),
        (node("LpNormalization", "c", "n", "norm", axis=1, p=2), 17, 25),
        (node("LpNormalization", "c", "n", "norm", axis=1, p=1), 17, 25),
        (node("MeanVarianceNormalization", "r", "n", "norm"), 17, 25),
    ],
)
def test_it_is_split(middle: NodeProto, opset: int, least_db: float, tmp_path: Path) -> None:
    constants = weights(w1=(8, 3, 3, 3), w2=(16, 8, 3, 3), w3=(8, 16, 3, 3))
    proto = model(sandwich(middle), {"x": (1, 3, 16, 16)}, ["y"], constants, opset=opset)
    result = split_in_two(proto, tmp_path, segments=1)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > least_db
