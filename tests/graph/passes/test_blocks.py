"""Pixels moved between blocks and channels, or repeated, however exporters write that."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graph_nets import Values, assert_same, ints, model, node, normal, ops

MAP = {"x": (1, 12, 5, 4)}


@pytest.mark.parametrize(
    ("shape", "perm", "out"),
    [
        ((1, 3, 2, 2, 5, 4), (0, 1, 4, 2, 5, 3), (1, 3, 10, 8)),  # PyTorch's pixel_shuffle
        ((1, 2, 2, 3, 5, 4), (0, 3, 4, 1, 5, 2), (1, 3, 10, 8)),  # DepthToSpace, mode DCR
        ((3, 2, 2, 5, 4), (0, 3, 1, 4, 2), (1, 3, 10, 8)),  # without the batch axis
        ((1, 3, 2, 2, 5, 4), (0, 1, 4, 3, 5, 2), (1, 3, 10, 8)),  # rows and columns of a block exchanged
    ],
)
def test_a_pixel_shuffle_written_out_is_a_transposed_convolution(
    shape: tuple[int, ...], perm: tuple[int, ...], out: tuple[int, ...]
) -> None:
    nodes = [node("Reshape", "x s", "a"), node("Transpose", "a", "b", perm=perm), node("Reshape", "b o", "y")]
    proto = model(nodes, MAP, ["y"], {"s": ints(*shape), "o": ints(*out)})
    normalised = normal(proto)
    assert ops(normalised) == ["ConvTranspose"]
    assert_same(proto, normalised, tolerance=0)


def test_what_only_looks_like_a_pixel_shuffle_stays() -> None:
    """The columns of a block come from other pixels."""
    nodes = [
        node("Reshape", "x s", "a"),
        node("Transpose", "a", "b", perm=(0, 1, 4, 2, 3, 5)),
        node("Reshape", "b o", "y"),
    ]
    proto = model(nodes, MAP, ["y"], {"s": ints(1, 3, 2, 2, 5, 4), "o": ints(1, 3, 10, 8)})
    normalised = normal(proto)
    assert "ConvTranspose" not in ops(normalised)
    assert_same(proto, normalised, tolerance=0)


TWICE = ints(*np.repeat(np.arange(5), 2)), ints(*np.repeat(np.arange(4), 3))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (
            [node("Unsqueeze", "x n", "a"), node("Tile", "a r", "b"), node("Reshape", "b o", "y")],
            {"n": ints(3, 5), "r": ints(1, 1, 1, 2, 1, 3), "o": ints(1, 12, 10, 12)},
        ),
        (
            [node("Reshape", "x n", "a"), node("Expand", "a r", "b"), node("Reshape", "b o", "y")],
            {"n": ints(1, 12, 5, 1, 4, 1), "r": ints(1, 12, 5, 2, 4, 3), "o": ints(1, 12, 10, 12)},
        ),
        (
            [node("Gather", "x i", "a", axis=2), node("Gather", "a j", "y", axis=3)],
            {"i": TWICE[0], "j": TWICE[1]},
        ),
        (
            [node("Unsqueeze", "x n", "a"), node("Concat", "a a", "b", axis=3), node("Reshape", "b o", "y")],
            {"n": ints(3), "o": ints(1, 12, 10, 4)},
        ),
    ],
    ids=["tile", "expand", "gather", "concat"],
)
def test_repeated_pixels_are_a_nearest_resize(nodes: list[object], constants: dict[str, Values]) -> None:
    proto = model(nodes, MAP, ["y"], constants)
    normalised = normal(proto)
    assert ops(normalised) == ["Resize"]
    assert_same(proto, normalised, tolerance=0)


def test_a_map_beside_itself_is_a_concatenation() -> None:
    """Repeated as a whole, not pixel by pixel."""
    proto = model([node("Tile", "x r", "y")], MAP, ["y"], {"r": ints(1, 1, 2, 3)})
    normalised = normal(proto)
    assert ops(normalised) == ["Concat", "Concat"]
    assert_same(proto, normalised, tolerance=0)
