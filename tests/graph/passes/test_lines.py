"""Convolutions over a line."""

from __future__ import annotations

import pytest

from graphcut.prediction.sizes import predict
from tests.support.graph_nets import assert_same, ints, model, node, normal, ops, report_of, weights


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3], "pads": [1, 1]},
        {"kernel_shape": [3], "pads": [2, 0], "dilations": [2], "strides": [2]},
        {"kernel_shape": [3], "auto_pad": "SAME_UPPER", "strides": [2]},
        {},
    ],
)
def test_a_convolution_over_a_line_is_one_over_a_map(attributes: dict[str, object]) -> None:
    proto = model(
        [node("Reshape", "x to", "line"), node("Conv", "line w b", "y", **attributes)],
        {"x": (1, 4, 4, 4)},
        ["y"],
        {"to": ints(1, 4, 16), **weights(w=(2, 4, 3), b=(2,))},
    )
    normalised = normal(proto)
    assert report_of(normalised, "lines-to-maps").matches == 1
    (conv,) = [each for each in normalised.graph.nodes if each.op_type == "Conv"]
    assert normalised.graph.tensors[conv.inputs[0]].shape == (1, 4, 1, 16)
    assert_same(proto, normalised)


def test_channel_attention_with_a_convolution_over_channels_is_measured() -> None:
    proto = model(
        [
            node("Conv", "x k", "map", kernel_shape=[1, 1]),
            node("GlobalAveragePool", "map", "pooled"),
            node("Squeeze", "pooled last", "row"),
            node("Transpose", "row", "turned", perm=[0, 2, 1]),
            node("Conv", "turned w", "mixed", kernel_shape=[3], pads=[1, 1]),
            node("Transpose", "mixed", "back", perm=[0, 2, 1]),
            node("Unsqueeze", "back last", "gate"),
            node("Sigmoid", "gate", "opened"),
            node("Mul", "map opened", "y"),
        ],
        {"x": (1, 4, 8, 8)},
        ["y"],
        {"last": ints(-1), **weights(k=(8, 4, 1, 1), w=(1, 1, 3))},
    )
    normalised = normal(proto)
    assert "Conv" in ops(normalised)
    assert_same(proto, normalised)
    assert predict(normalised.graph, per_channel=True)
