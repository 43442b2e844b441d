"""Operators that the converter does not know: written with others, equal to onnxruntime's own, and of use in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto

from graphcut.tflite import edit, schema
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
        (node("LpNormalization", "r", "n", "norm", axis=2, p=1), 17, 20),
        (node("MeanVarianceNormalization", "r", "n", "norm"), 17, 25),
    ],
)
def test_it_is_split(middle: NodeProto, opset: int, least_db: float, tmp_path: Path) -> None:
    constants = weights(w1=(8, 3, 3, 3), w2=(16, 8, 3, 3), w3=(8, 16, 3, 3))
    proto = model(sandwich(middle), {"x": (1, 3, 16, 16)}, ["y"], constants, opset=opset)
    result = split_in_two(proto, tmp_path, segments=1)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > least_db


def divided_by_its_norm(source: str, opset: int, axis: int, bound: str) -> list[NodeProto]:
    """What PyTorch writes for F.normalize, and a spelling with Max."""
    if opset < 18:
        norm = node("ReduceL2", source, "n1", axes=[axis], keepdims=1)
    else:
        norm = node("ReduceL2", f"{source} axis", "n1", keepdims=1)
    bounded = node("Clip", "n1 tiny", "n2") if bound == "Clip" else node("Max", "tiny n1", "n2")
    return [
        norm,
        bounded,
        node("Shape", source, "size"),
        node("Expand", "n2 size", "n3"),
        node("Div", f"{source} n3", "n"),
    ]


@pytest.mark.parametrize(
    ("opset", "axis", "bound"), [(13, 1, "Clip"), (18, 1, "Clip"), (13, 2, "Clip"), (13, 1, "Max")]
)
def test_a_map_divided_by_its_norm(opset: int, axis: int, bound: str, tmp_path: Path) -> None:
    """Over channels it is L2_NORMALIZATION in int8; over rows it stays in float. Vectors of zeros are kept in both."""
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        *divided_by_its_norm("r", opset, axis, bound),
    ]
    constants = {**weights(w=(8, 3, 3, 3)), "tiny": np.array(1e-12, np.float32)}
    constants["w"][3:] *= np.float32(0.0) if axis == 2 else np.float32(1.0)
    if opset >= 18:
        constants["axis"] = np.array([axis], np.int64)
    proto = model([*nodes, node("Identity", "n", "y")], {"x": (1, 3, 16, 16)}, ["y"], constants, opset=opset)
    result = split_in_two(proto, tmp_path, segments=1)
    (part,) = result.segments
    read = schema.read(part.tflite_path.read_bytes())
    kinds = {schema.op_name(read, operator) for operator in edit.graph_of(read).operators}
    assert kinds == ({"CONV_2D", "L2_NORMALIZATION", "QUANTIZE"} if axis == 1 else kinds)
    assert ("DEQUANTIZE" in kinds) == (axis == 2)
    assert result.verification.sqnr_db["logits"] > (30 if axis == 1 else 20)


def test_a_tensor_of_rank_5_divided_by_its_norm(tmp_path: Path) -> None:
    """The converter wraps its operators in RESHAPEs, those of constants too: float from the squares on all the same."""
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Reshape", "r groups", "g")]
    nodes += [node("LpNormalization", "g", "n", axis=2), node("Reshape", "n map", "y")]
    constants = {
        **weights(w=(8, 3, 3, 3)),
        "groups": np.array([1, 2, 4, 14, 14], np.int64),
        "map": np.array([1, 8, 14, 14], np.int64),
    }
    result = split_in_two(model(nodes, {"x": (1, 3, 16, 16)}, ["y"], constants), tmp_path, segments=1)
    assert result.verification.sqnr_db["logits"] > 20


def test_a_bound_that_matters_stays() -> None:
    """One that is not tiny, and a tiny one of what is not only divided by."""
    constants = {"tiny": np.array(1e-12, np.float32), "bound": np.array(0.5, np.float32)}
    nodes = [
        node("Clip", "x bound", "a"),
        node("Div", "x a", "b"),
        node("Clip", "b tiny", "c"),
        node("Mul", "c x", "y"),
    ]
    loaded = normal(model(nodes, IMAGE, ["y"], constants))
    assert report_of(loaded, "spell-out").matches == 0
