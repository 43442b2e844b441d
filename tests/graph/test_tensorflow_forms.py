"""Dense layers and normalisations as TensorFlow writes them: the same as everybody's, in float and in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.graph_nets import assert_same, ints, model, node, normal, ops, report_of, split_in_two, weights

CHANNELS, SIZE = 6, (5, 4)
MAP = (1, CHANNELS, *SIZE)
PIXELS = SIZE[0] * SIZE[1]


def _dense(source: str, target: str, rows: int = PIXELS) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [
        node("Reshape", f"{source} rows", "flat"),
        node("MatMul", "flat kernel", "product"),
        node("Reshape", "product back", target),
    ]
    return nodes, {"rows": ints(rows, -1), "back": ints(1, *SIZE, -1), **weights(kernel=(CHANNELS, 8))}


def test_dense_over_a_map_is_a_convolution() -> None:
    dense, constants = _dense("t", "d")
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
        *dense,
        node("Tanh", "d", "a"),
        node("Transpose", "a", "y", perm=[0, 3, 1, 2]),
    ]
    proto = model(nodes, {"x": MAP}, ["y"], constants)
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Tanh"]
    assert report_of(normalised, "rows-to-convs").matches == 1
    assert_same(proto, normalised)


def test_rows_that_are_no_pixels_stay() -> None:
    """Half as many channels a row; and a product that is read as rows."""
    dense, constants = _dense("t", "d", rows=2 * PIXELS)
    constants |= {**weights(kernel=(CHANNELS // 2, 8)), "back": ints(1, 2 * SIZE[0], SIZE[1], -1)}
    halves = model([node("Transpose", "x", "t", perm=[0, 2, 3, 1]), *dense], {"x": MAP}, ["d"], constants)
    dense, constants = _dense("t", "d")
    twice = model([node("Transpose", "x", "t", perm=[0, 2, 3, 1]), *dense], {"x": MAP}, ["d", "product"], constants)
    for proto in (halves, twice):
        normalised = normal(proto)
        assert "Gemm" in ops(normalised)
        assert_same(proto, normalised)


NEGATIVE = [node("Neg", "mean", "minus"), node("Mul", "minus gain", "shift")]
SHIFTS = {
    "negative": [*NEGATIVE, node("Add", "scaled shift", "y")],
    "negative, bias": [*NEGATIVE, node("Add", "shift beta", "rest"), node("Add", "scaled rest", "y")],
    "subtracted": [
        node("Mul", "mean gain", "shift"),
        node("Sub", "beta shift", "rest"),
        node("Add", "rest scaled", "y"),
    ],
}


def _layer_norm(shift: str, source: str = "x") -> list[onnx.NodeProto]:
    """LayerNormalization over channels; constants: epsilon, gamma, beta."""
    return [
        node("ReduceMean", source, "mean", axes=[1], keepdims=1),
        node("Sub", f"{source} mean", "centred"),
        node("Mul", "centred centred", "square"),
        node("ReduceMean", "square", "variance", axes=[1], keepdims=1),
        node("Add", "variance epsilon", "more"),
        node("Sqrt", "more", "deviation"),
        node("Reciprocal", "deviation", "small"),
        node("Mul", "small gamma", "gain"),
        node("Mul", f"{source} gain", "scaled"),
        *SHIFTS[shift],
    ]


def _norm_constants(channels: int) -> dict[str, np.ndarray]:
    found = weights(gamma=(1, channels, 1, 1), beta=(1, channels, 1, 1))
    return {**found, "epsilon": np.array(1e-3, np.float32)}


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_mean_is_taken_off_first(shift: str) -> None:
    proto = model(_layer_norm(shift), {"x": MAP}, ["y"], _norm_constants(CHANNELS))
    normalised = normal(proto)
    assert report_of(normalised, "centre-first").matches == 1
    assert ops(normalised).count("Sub") == 1
    assert "Neg" not in ops(normalised)
    assert_same(proto, normalised, tolerance=1e-4)


def test_what_only_looks_like_it_stays() -> None:
    """Another gain, a mean that is no mean, and a difference that is not there."""
    other = [*_layer_norm("negative")[:-3], node("Neg", "mean", "minus"), node("Mul", "minus gamma", "shift")]
    absent = [each for each in _layer_norm("negative") if each.op_type != "Sub"]
    absent[1] = node("Mul", "x x", "square")
    for nodes in ([*other, node("Add", "scaled shift", "y")], absent):
        normalised = normal(model(nodes, {"x": MAP}, ["y"], _norm_constants(CHANNELS)))
        assert "centre-first" not in {item.name for item in normalised.passes if item.matches}


def test_int8_of_a_norm_far_from_zero(tmp_path: Path) -> None:
    """A mean of 6 deviations: the difference of two rounded products is mostly rounding."""
    channels, size = 16, (24, 24)
    nodes = [
        node("Conv", "x w0 c0", "m", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        *_layer_norm("negative", "m"),
        node("Conv", "y w1 c1", "z", kernel_shape=[1, 1]),
    ]
    more = weights(w0=(channels, 3, 3, 3), w1=(4, channels, 1, 1), c1=(4,))
    constants = {**_norm_constants(channels), **more, "c0": np.full(channels, 30, np.float32)}
    result = split_in_two(model(nodes, {"x": (1, 3, *size)}, ["z"], constants), tmp_path)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 24
