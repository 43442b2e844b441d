"""Outputs made by a softmax along any axis, or by its logarithm: split, and judged by what goes into the softmax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto

from graphcut.graph.reference import activations, arranged_logits, logits
from graphcut.samples import load_samples
from tests.support.graph_nets import Values, ints, model, node, normal, split_in_two, weights

STEM = [
    node("Conv", "x w1", "c1", "conv1", pads=[1, 1, 1, 1], strides=[2, 2]),
    node("Relu", "c1", "r1", "relu1"),
    node("Conv", "r1 w2", "t", "conv2", pads=[1, 1, 1, 1], strides=[2, 2]),
]


def net(
    tail: list[NodeProto], channels: int = 8, opset: int = 17, outputs: tuple[str, ...] = ("y",), **more: Values
) -> onnx.ModelProto:
    constants = {**weights(w1=(16, 3, 3, 3), w2=(channels, 16, 3, 3)), **more}
    return model([*STEM, *tail], {"x": (1, 3, 32, 32)}, outputs, constants, opset=opset)


def dense(tail: list[NodeProto], opset: int = 17, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    head = [node("GlobalAveragePool", "t", "g"), node("Flatten", "g", "f"), node("MatMul", "f wf", "l", "fc")]
    return net([*head, *tail], opset=opset, outputs=outputs, **weights(1, wf=(8, 10)))


@pytest.mark.parametrize(
    ("op_type", "channels", "axis"),
    [
        ("Softmax", 12, 2),
        # Channels, height and width are the same: no shape can tell a wrong layout.
        ("Softmax", 8, 2),
        ("Softmax", 8, -1),
        ("LogSoftmax", 8, 1),
        ("LogSoftmax", 12, -1),
    ],
)
def test_a_softmax_over_any_axis_of_a_map_is_an_output(op_type: str, channels: int, axis: int, tmp_path: Path) -> None:
    result = split_in_two(net([node(op_type, "t", "y", "end", axis=axis)], channels), tmp_path)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 30


@pytest.mark.parametrize("opset", [9, 13])
def test_log_softmax_of_classes_is_an_output(opset: int, tmp_path: Path) -> None:
    result = split_in_two(dense([node("LogSoftmax", "l", "y", "end", axis=1)], opset), tmp_path)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 30
    assert result.verification.top1_agreement == 1


def test_log_softmax_is_one_of_two_outputs(tmp_path: Path) -> None:
    tail = [node("LogSoftmax", "l", "y", "end", axis=1), node("Sigmoid", "f", "z", "gate")]
    result = split_in_two(dense(tail, outputs=("y", "z")), tmp_path)
    assert result.verification.passed
    assert min(result.verification.sqnr_db[name] for name in ("y", "z")) > 30


def test_logits_and_their_log_softmax_are_both_outputs(tmp_path: Path) -> None:
    result = split_in_two(dense([node("LogSoftmax", "l", "y", "end", axis=1)], outputs=("l", "y")), tmp_path)
    assert result.verification.passed
    assert min(result.verification.sqnr_db[name] for name in ("l", "y")) > 30


def test_logits_behind_a_softmax_over_groups_lie_as_the_output_does() -> None:
    proto = net(
        [
            node("Reshape", "t groups", "q"),
            node("Transpose", "q", "p", perm=[0, 2, 1, 3, 4]),
            node("Softmax", "p", "s", axis=2),
            node("Transpose", "s", "b", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "b map", "y"),
        ],
        groups=ints(1, 2, 4, 8, 8),
        map=ints(1, 8, 8, 8),
    )
    loaded = normal(proto, passes=())
    samples = load_samples("random", loaded.inputs, None, limit=3)
    assert logits(loaded.graph) == {"y": "p"}
    values = activations(loaded, samples, ["t", "p"])
    arranged = arranged_logits(loaded.graph, values, 3)["y"]
    np.testing.assert_array_equal(arranged, values["t"])


def test_results_whose_first_dimension_is_not_one_follow_each_other() -> None:
    proto = net([node("Squeeze", "t first", "y")], first=ints(0))
    loaded = normal(proto)
    samples = load_samples("random", loaded.inputs, None, limit=3)
    values = activations(loaded, samples, ["y", "t"])
    assert values["y"].shape == (24, 8, 8)
    np.testing.assert_array_equal(values["y"].reshape(3, 8, 8, 8), values["t"])


@pytest.mark.parametrize("shape", [(), (8,), (8, 8, 8)])
def test_an_output_without_a_batch_axis_is_split(shape: tuple[int, ...], tmp_path: Path) -> None:
    tail = {
        (): [node("ReduceMean", "t", "m", axes=[1, 2, 3], keepdims=0), node("Squeeze", "m", "y")],
        (8,): [node("ReduceMean", "t", "m", axes=[2, 3], keepdims=0), node("Squeeze", "m first", "y")],
        (8, 8, 8): [node("Squeeze", "t first", "y")],
    }[shape]
    result = split_in_two(net(tail, first=ints(0)), tmp_path)
    assert result.verification.passed
    assert result.segments[-1].outputs[0].shape == (shape or (1,))


def test_a_seam_rearranged_from_windows_is_split(tmp_path: Path) -> None:
    windows = [
        node("Reshape", "r1 parts", "a"),
        node("Transpose", "a", "b", perm=[1, 3, 0, 2, 4]),
        node("Reshape", "b windows", "c"),
        node("Conv", "c w3", "c2", "conv3", pads=[1, 1, 1, 1]),
        node("Relu", "c2", "r2"),
        node("Reshape", "r2 back", "d"),
        node("Transpose", "d", "e", perm=[2, 0, 3, 1, 4]),
        node("Reshape", "e whole", "m"),
        node("Conv", "m w2", "y", "conv2", pads=[1, 1, 1, 1]),
    ]
    constants = {
        **weights(w1=(16, 3, 3, 3), w2=(8, 16, 3, 3), w3=(16, 16, 3, 3)),
        "parts": ints(16, 2, 8, 2, 8),
        "windows": ints(4, 16, 8, 8),
        "back": ints(2, 2, 16, 8, 8),
        "whole": ints(1, 16, 16, 16),
    }
    proto = model([*STEM[:2], *windows], {"x": (1, 3, 32, 32)}, ["y"], constants)
    result = split_in_two(proto, tmp_path)
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 30
