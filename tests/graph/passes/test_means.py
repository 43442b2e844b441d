"""Means, sums and lengths over long lines: spelled out alike, right in float, and right in int8."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphcut.graph.passes.means import LONGEST
from tests.support.graph_nets import assert_same, ints, model, node, normal, ops, report_of, split_in_two, weights

CHANNELS, SIZE = 4, (96, 90)  # 8640 pixels
MAP = (1, CHANNELS, *SIZE)
LAID = {"lines": ints(1, CHANNELS, -1), "line": ints(1, -1), "two": ints(2), "three": ints(3), "rest": ints(1, 2, 3)}
LINES = node("Reshape", "x lines", "l")


@pytest.mark.parametrize(
    ("nodes", "spelled"),
    [
        ([LINES, node("ReduceMean", "l", "y", axes=[2], keepdims=0)], ["GlobalAveragePool"]),
        ([LINES, node("ReduceMean", "l", "y", axes=[-1], keepdims=1)], ["GlobalAveragePool"]),
        ([LINES, node("ReduceSum", "l two", "y", keepdims=0)], ["GlobalAveragePool", "Mul"]),
        (
            [LINES, node("ReduceL2", "l", "y", axes=[2], keepdims=1)],
            ["Mul", "GlobalAveragePool", "Mul", "Sqrt"],
        ),
        ([LINES, node("ReduceMean", "l", "y", axes=[1, 2], keepdims=0)], ["GlobalAveragePool", "Conv"]),
        ([node("ReduceMean", "x", "y", axes=[1, 2, 3], keepdims=1)], ["GlobalAveragePool", "Conv"]),
        ([node("ReduceSum", "x rest", "y", keepdims=0)], ["GlobalAveragePool", "Conv"]),
        (
            [node("Reshape", "x line", "l"), node("ReduceMean", "l", "y", axes=[1], keepdims=1)],
            ["GlobalAveragePool", "Gemm"],
        ),
    ],
)
def test_over_a_map(nodes: list[onnx.NodeProto], spelled: list[str]) -> None:
    proto = model(nodes, {"x": MAP}, ["y"], LAID)
    normalised = normal(proto)
    assert report_of(normalised, "long-means").matches == 1
    assert sorted(set(ops(normalised)) - {"Reshape", "Flatten"}) == sorted(set(spelled))
    assert_same(proto, normalised)


def test_over_lines_that_are_no_map() -> None:
    """The rows of a map, and lines that come from outside."""
    for shape, axes in (((1, 3, 2, LONGEST + 128), [3]), ((1, 5, LONGEST + 128), [2]), ((1, LONGEST + 1), [1])):
        proto = model([node("ReduceMean", "x", "y", axes=axes, keepdims=0)], {"x": shape}, ["y"], {})
        normalised = normal(proto)
        assert report_of(normalised, "long-means").matches == 1
        assert "GlobalAveragePool" in ops(normalised)
        assert_same(proto, normalised)


@pytest.mark.parametrize(
    ("shape", "reduction"),
    [
        ((1, 4, LONGEST), node("ReduceMean", "x", "y", axes=[2])),  # right as it is
        ((1, 2, LONGEST + 128), node("ReduceMean", "x", "y", axes=[1])),  # short, and not at the end
        ((1, LONGEST + 128, 2), node("ReduceMean", "x", "y", axes=[1])),  # not at the end
        ((1, 4, LONGEST + 128), node("ReduceMax", "x", "y", axes=[2])),
    ],
)
def test_what_stays(shape: tuple[int, ...], reduction: onnx.NodeProto) -> None:
    normalised = normal(model([reduction], {"x": shape}, ["y"], {}))
    assert "long-means" not in {item.name for item in normalised.passes if item.matches}


@pytest.mark.parametrize(
    "reduction",
    [
        [node("Reshape", "m lines", "l"), node("ReduceMean", "l", "g", axes=[2], keepdims=0)],
        [node("Reshape", "m lines", "l"), node("ReduceL2", "l", "g", axes=[2], keepdims=0)],
        [node("ReduceSum", "m three", "h", keepdims=0), node("ReduceMean", "h", "g", axes=[2], keepdims=0)],
    ],
)
def test_int8_is_right(reduction: list[onnx.NodeProto], tmp_path: Path) -> None:
    """5 to 12 dB where XNNPACK reduces lines."""
    size = (1, LONGEST + 808) if reduction[0].op_type == "ReduceSum" else SIZE
    nodes = [
        node("Conv", "x w0 c0", "a", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", "a", "m"),
        *reduction,
        node("Gemm", "g w1 c1", "z"),
    ]
    more = weights(w0=(CHANNELS, 3, 3, 3), c0=(CHANNELS,), w1=(CHANNELS, 4), c1=(4,))
    proto = model(nodes, {"x": (1, 3, *size)}, ["z"], {**LAID, **more})
    proved = split_in_two(proto, tmp_path).verification
    assert proved.passed
    assert proved.sqnr_db["logits"] > 30
