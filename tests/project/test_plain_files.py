"""What the accuracy table feeds plain files with: an array of another shape crashes the quantiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.graph_nets import model, node
from tools.accuracy_table import shaped_as, with_shapes


@pytest.mark.parametrize(
    ("shape", "order"), [((1, 5, 7, 3), (0, 2, 3, 1)), ((1, 7, 3, 5), (0, 3, 1, 2)), ((1, 3, 5, 7), (0, 1, 2, 3))]
)
def test_pictures_get_the_shape_of_the_input(shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    """NHWC; what onnx2tf makes of an input that is NHWC in the ONNX file; NCHW."""
    values = np.arange(105, dtype=np.float32).reshape(1, 3, 5, 7)
    np.testing.assert_array_equal(shaped_as(values, {"shape": np.array(shape)}), values.transpose(order))


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wants \(1, 1, 1, 3\), and pictures are \(1, 3, 5, 7\)"):
        shaped_as(np.zeros((1, 3, 5, 7), np.float32), {"shape": np.array([1, 1, 1, 3])})


def test_open_dimensions_get_sizes(tmp_path: Path) -> None:
    proto = model([node("Relu", "x", "y")], {"x": (1, 3, 4, 4)}, ["y"])
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(proto, tmp_path / "open.onnx")
    made = onnx.load(with_shapes(tmp_path / "open.onnx", tmp_path / "made.onnx", {"x": [1, 3, 8, 6]}))
    assert [each.dim_value for each in made.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 8, 6]
