"""InstanceNorm and GroupNorm however they are written: spelled out alike, right in float, and of use in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from graphcut.quant import fragile
from graphcut.tflite import edit, schema
from tests.support.graph_nets import assert_same, ints, model, node, normal, ops, report_of, split_in_two, weights

IMAGE = {"x": (1, 8, 6, 5)}
SPELLED = ["GlobalAveragePool", "Sub", "Mul", "GlobalAveragePool", "Add", "Sqrt", "Div", "Mul", "Mul", "Add"]


def _positive(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(0.5, 1.5, shape).astype(np.float32)


def _group_norm(source: str = "x") -> list:
    """GroupNorm as PyTorch exports it; constants: lines, back, ones, zeros, gamma, beta."""
    return [
        node("Reshape", f"{source} lines", f"{source}_l"),
        node("InstanceNormalization", f"{source}_l ones zeros", f"{source}_n", epsilon=1e-5),
        node("Reshape", f"{source}_n back", f"{source}_b"),
        node("Mul", f"{source}_b gamma", f"{source}_s"),
        node("Add", f"{source}_s beta", "y"),
    ]


def _constants(groups: int, channels: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    return {
        "lines": ints(1, groups, -1),
        "back": ints(1, channels, *size),
        "ones": np.ones(groups, np.float32),
        "zeros": np.zeros(groups, np.float32),
        "gamma": _positive(channels, 1, 1),
        "beta": _positive(channels, 1, 1),
    }


def test_instance_norm_of_a_map() -> None:
    proto = model(
        [node("InstanceNormalization", "x g b", "y", epsilon=1e-4)],
        IMAGE,
        ["y"],
        {"g": _positive(8), **weights(b=(8,))},
    )
    normalised = normal(proto)
    assert ops(normalised) == SPELLED
    assert report_of(normalised, "norms").matches == 1
    assert_same(proto, normalised)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_of_torch(groups: int) -> None:
    proto = model(_group_norm(), IMAGE, ["y"], _constants(groups, 8, (6, 5)))
    normalised = normal(proto)
    assert "Reshape" not in ops(normalised)
    assert "InstanceNormalization" not in ops(normalised)
    assert ops(normalised).count("Conv") == 4  # to groups and back, for the mean and for the deviation
    assert_same(proto, normalised)


def test_group_normalization() -> None:
    constants = {"g": _positive(8), **weights(b=(8,))}
    nodes = [node("GroupNormalization", "x g b", "y", num_groups=2, epsilon=1e-5)]
    proto = model(nodes, IMAGE, ["y"], constants, opset=21)
    normalised = normal(proto)
    assert report_of(normalised, "norms").matches == 1
    assert_same(proto, normalised)


def test_a_line_and_a_norm_that_is_read_twice_keep_what_they_are() -> None:
    line = model([node("InstanceNormalization", "x g b", "y")], {"x": (1, 8, 30)}, ["y"], weights(g=(8,), b=(8,)))
    assert "InstanceNormalization" in ops(normal(line))
    twice = [*_group_norm(), node("Relu", "x_n", "z")]
    proto = model(twice, IMAGE, ["y", "z"], _constants(2, 8, (6, 5)))
    normalised = normal(proto)
    assert report_of(normalised, "norms").matches == 0
    assert_same(proto, normalised)


def _convolutions_around(norm: list, constants: dict, channels: int, size: tuple[int, int]) -> onnx.ModelProto:
    nodes = [
        node("Conv", "x w0 c0", "m", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        *norm,
        node("Relu", "y", "r"),
        node("Conv", "r w1 c1", "z", kernel_shape=[1, 1]),
    ]
    more = weights(w0=(channels, 3, 3, 3), c0=(channels,), w1=(4, channels, 1, 1), c1=(4,))
    return model(nodes, {"x": (1, 3, *size)}, ["z"], {**constants, **more})


def test_group_norm_over_many_elements_means_something_in_int8(tmp_path: Path) -> None:
    """2 groups of 4 x 72 x 72 = 20736 elements: as a line their int8 mean is wrong in XNNPACK."""
    size = (72, 72)
    norm = _group_norm("m")
    result = split_in_two(_convolutions_around(norm, _constants(2, 8, size), 8, size), tmp_path)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 24


def test_layer_norm_of_flat_patches_is_computed_in_float(tmp_path: Path) -> None:
    """Over the channels of a pixel, whose variance is next to nothing where the picture is dark."""
    channels, size = 16, (24, 24)
    norm = [
        node("Transpose", "m", "t", perm=[0, 2, 3, 1]),
        node("LayerNormalization", "t gamma beta", "n", axis=-1, epsilon=1e-6),
        node("Transpose", "n", "y", perm=[0, 3, 1, 2]),
    ]
    constants = {"gamma": _positive(channels), "beta": _positive(channels)}
    proto = _convolutions_around(norm, constants, channels, size)
    for tensor in proto.graph.initializer:
        if tensor.name == "c0":  # what is left of a dark patch is its noise
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(channels, np.float32), "c0"))
    result = split_in_two(proto, tmp_path)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 24


def test_what_may_stay_in_float(tmp_path: Path) -> None:
    """Nothing; what divides; all that makes the deviation. What has nothing to divide has no choice."""
    size = (12, 12)
    norm = [node("InstanceNormalization", "m gamma beta", "y", epsilon=1e-5)]
    constants = {"gamma": _positive(8), "beta": _positive(8)}
    result = split_in_two(_convolutions_around(norm, constants, 8, size), tmp_path)
    kinds: list[list[set[str]]] = []
    for part in result.segments:
        read = schema.read(part.tflite_path.read_bytes())
        makers = edit.producers(read)
        kinds.append(
            [{schema.op_name(read, makers[edit.find(read, name)]) for name in names} for names in fragile.choices(read)]
        )
    assert [set()] in kinds
    assert any(each[1] == {"SQRT", "DIV"} for each in kinds if len(each) > 1)
