"""Activations spelled out for int8: equal to the operator they replace, and only where they are meant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.graph.model import Model
from tests.support.graph_nets import Values, assert_same, model, node, normal, ops, report_of, weights

MAP = {"x": (1, 6, 5, 4)}
FLOAT_OPS = {"LeakyRelu", "PRelu", "HardSigmoid", "Abs", "Neg", "Mish", "Softplus"}
"""What the quantiser would leave in float."""


def number(value: float) -> Values:
    return np.array(value, np.float32)


@pytest.mark.parametrize("op_type", sorted(FLOAT_OPS - {"PRelu", "Mish"}))
def test_activations_are_spelled_out(op_type: str) -> None:
    proto = model([node(op_type, "x", "y")], MAP, ["y"])
    normalised = normal(proto)
    assert not FLOAT_OPS.intersection(ops(normalised))
    assert_same(proto, normalised)


def test_mish_is_spelled_out() -> None:
    proto = model([node("Mish", "x", "y")], MAP, ["y"], opset=18)
    normalised = normal(proto)
    assert not FLOAT_OPS.intersection(ops(normalised))
    assert_same(proto, normalised)


def test_softplus_of_large_numbers_stays_finite() -> None:
    proto = model([node("Mul", "x k", "m"), node("Softplus", "m", "y")], MAP, ["y"], {"k": number(300.0)})
    assert_same(proto, normal(proto))


@settings(max_examples=30, deadline=None)
@given(slope=st.floats(0, 1, width=32))
def test_leaky_relu_is_a_maximum(slope: float) -> None:
    proto = model([node("LeakyRelu", "x", "y", alpha=slope)], {"x": (1, 20)}, ["y"])
    normalised = normal(proto)
    assert ops(normalised) == ["Mul", "Max"]
    assert_same(proto, normalised, tolerance=0)


@pytest.mark.parametrize("slope", [-0.5, 1.5])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 6, 5, 4), ["Relu", "Conv", "Relu", "Conv", "Add"]), ((1, 20), ["Relu", "Sub", "Relu", "Mul", "Add"])],
)
def test_a_leaky_relu_that_is_no_maximum(slope: float, shape: tuple[int, ...], expected: list[str]) -> None:
    proto = model([node("LeakyRelu", "x", "y", alpha=slope)], {"x": shape}, ["y"])
    normalised = normal(proto)
    assert ops(normalised) == expected
    assert_same(proto, normalised)


@pytest.mark.parametrize(("low", "expected"), [(0.0, ["Conv", "Max"]), (-1.0, ["Relu", "Conv", "Relu", "Conv", "Add"])])
@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (1,)])
def test_prelu_by_its_slopes(low: float, expected: list[str], shape: tuple[int, ...]) -> None:
    slopes = np.linspace(low, 0.9, int(np.prod(shape))).astype(np.float32).reshape(shape)
    proto = model([node("PRelu", "x s", "y")], MAP, ["y"], {"s": slopes})
    normalised = normal(proto)
    assert sorted(ops(normalised)) == sorted(expected)
    assert_same(proto, normalised)


@pytest.mark.parametrize("shape", [(6, 5, 4), (5, 4), (4,), (5, 1)])
@pytest.mark.parametrize(("low", "expected"), [(0.0, ["Mul", "Max"]), (-1.0, ["Relu", "Conv", "Relu", "Mul", "Add"])])
def test_prelu_with_other_slopes_than_one_per_channel(low: float, expected: list[str], shape: tuple[int, ...]) -> None:
    slopes = np.random.default_rng(3).uniform(low, 1, shape).astype(np.float32)
    proto = model([node("PRelu", "x s", "y")], MAP, ["y"], {"s": slopes})
    normalised = normal(proto)
    assert ops(normalised) == expected
    assert_same(proto, normalised)


@pytest.mark.parametrize(
    ("top", "expected"), [(1.0, ["Conv", "Clip", "Conv"]), (20.0, ["Conv", "Clip", "Conv"]), (6.0, ["Clip"])]
)
def test_clips_from_zero_become_relu6(top: float, expected: list[str]) -> None:
    proto = model([node("Clip", "x low high", "y")], MAP, ["y"], {"low": number(0), "high": number(top)})
    normalised = normal(proto)
    assert ops(normalised) == expected
    assert_same(proto, normalised)


@pytest.mark.parametrize(
    ("inputs", "on_map", "on_vector"),
    [
        ("x low", ["Clip"], ["Clip"]),
        ("x - high", ["Conv", "Relu", "Conv"], ["Sub", "Relu", "Sub"]),
        ("x low high", ["Conv", "Clip", "Conv"], ["Mul", "Add", "Clip", "Mul", "Add"]),
    ],
)
def test_other_clips_are_scaled_to_relu6(inputs: str, on_map: list[str], on_vector: list[str]) -> None:
    constants = {"low": number(-1.0), "high": number(0.5)}
    given_ones = {key: value for key, value in constants.items() if key in inputs}
    for shape, expected in ({"x": (1, 6, 5, 4)}, on_map), ({"x": (1, 20)}, on_vector):
        proto = model([node("Clip", inputs, "y")], shape, ["y"], given_ones)
        normalised = normal(proto)
        assert ops(normalised) == expected
        assert_same(proto, normalised)


def test_a_clip_without_an_upper_bound_of_any_use_stays() -> None:
    constants = {"low": number(-1.0), "high": np.array(np.finfo(np.float32).max)}
    assert ops(normal(model([node("Clip", "x low high", "y")], MAP, ["y"], constants))) == ["Clip"]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (node("PRelu", "d s", "e"), ["Gemm", "Mul", "Max", "Gemm"]),
        (node("PRelu", "d n", "e"), ["Gemm", "Relu", "Sub", "Relu", "Mul", "Add", "Gemm"]),
        (node("Abs", "d", "e"), ["Gemm", "Relu", "Sub", "Relu", "Add", "Gemm"]),
        (node("Neg", "d", "e"), ["Gemm", "Sub", "Gemm"]),
        (node("HardSigmoid", "d", "e"), ["Gemm", "Mul", "Add", "Clip", "Mul", "Gemm"]),
        (node("HardSwish", "d", "e"), ["Gemm", "Add", "Clip", "Mul", "Mul", "Gemm"]),
    ],
    ids=lambda value: value.op_type if not isinstance(value, list) else "",
)
def test_behind_a_dense_layer(activation: object, expected: list[str]) -> None:
    constants = weights(g=(20, 8), h=(8, 3)) | {"s": np.linspace(0, 0.9, 8, dtype=np.float32)}
    constants["n"] = np.linspace(-0.5, 1.5, 8, dtype=np.float32)
    proto = model([node("Gemm", "x g", "d"), activation, node("Gemm", "e h", "y")], {"x": (1, 20)}, ["y"], constants)
    normalised = normal(proto)
    assert ops(normalised) == expected
    assert_same(proto, normalised)


def test_the_factor_of_a_hard_sigmoid_goes_into_the_convolution_before_it() -> None:
    nodes = [node("Conv", "x w b", "c"), node("HardSigmoid", "c", "h", alpha=1 / 6, beta=0.5), node("Mul", "x h", "y")]
    proto = model(nodes, MAP, ["y"], weights(w=(6, 6, 1, 1), b=(6,)))
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Clip", "Conv", "Mul"]
    assert report_of(normalised, "fold-depthwise").matches == 1
    assert_same(proto, normalised)


def swish(*nodes: object, constants: dict[str, Values] | None = None) -> Model:
    values = {"three": number(3), "low": number(0), "six": number(6), "sixth": number(1 / 6)} | (constants or {})
    used = {name for item in nodes for name in item.input}  # type: ignore[attr-defined]
    proto = model(list(nodes), MAP, ["y"], {key: value for key, value in values.items() if key in used})  # type: ignore[arg-type]
    normalised = normal(proto)
    assert_same(proto, normalised, tolerance=1e-5)
    return normalised


SHIFTED = [node("Add", "x three", "a"), node("Clip", "a low six", "r")]


@pytest.mark.parametrize(
    "nodes",
    [
        [*SHIFTED, node("Mul", "r sixth", "h"), node("Mul", "x h", "y")],
        [*SHIFTED, node("Div", "r six", "h"), node("Mul", "h x", "y")],
        [*SHIFTED, node("Mul", "x r", "p"), node("Div", "p six", "y")],
        [*SHIFTED, node("Mul", "r x", "p"), node("Mul", "sixth p", "y")],
        [node("HardSigmoid", "x", "h", alpha=1 / 6, beta=0.5), node("Mul", "x h", "y")],
    ],
)
def test_hard_swish_in_all_its_spellings_is_what_the_device_has(nodes: list[object]) -> None:
    assert ops(swish(*nodes)) == ["Add", "Clip", "Mul", "Mul"]
    assert report_of(swish(*nodes), "hard-swish").matches == 1


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([*SHIFTED, node("Mul", "r sixth", "h"), node("Mul", "a h", "y")], {}),
        ([*SHIFTED, node("Mul", "r sixth", "h"), node("Mul", "x h", "y")], {"three": number(2)}),
        ([*SHIFTED, node("Mul", "r sixth", "h"), node("Mul", "x h", "y")], {"sixth": number(0.2)}),
        ([node("HardSigmoid", "x", "h", alpha=0.2), node("Mul", "x h", "y")], {}),
    ],
)
def test_what_only_looks_like_hard_swish(nodes: list[object], constants: dict[str, Values]) -> None:
    assert report_of(swish(*nodes, constants=constants), "hard-swish").matches == 0
