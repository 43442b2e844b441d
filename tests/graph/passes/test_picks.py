"""Channel picks: found in every way exporters write them, made by convolutions exactly, left alone otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.graph_nets import assert_same, ints, model, node, normal, ops, report_of, run, weights

MAP = {"x": (1, 6, 5, 4)}
SILU = [node("Conv", "x w b", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s", "a")]
REARRANGING = {"Slice", "Split", "Gather", "Reshape", "Transpose", "Squeeze", "Unsqueeze"}


def test_the_split_of_a_c2f_block_splits_the_convolution() -> None:
    """YOLO: Conv -> SiLU -> Split, both halves go on, one of them twice."""
    proto = model(
        [
            *SILU,
            node("Split", "a sizes", "p q", axis=1),
            node("Conv", "q v", "m", pads=[1, 1, 1, 1]),
            node("Add", "q m", "n"),
            node("Concat", "p q n", "y", axis=1),
        ],
        MAP,
        ["y"],
        {"sizes": ints(3, 5), **weights(w=(8, 6, 1, 1), b=(8,), v=(5, 5, 3, 3))},
    )
    normalised = normal(proto)
    assert not REARRANGING.intersection(ops(normalised))
    assert report_of(normalised, "split-convs").matches == 2
    first = [normalised.graph.weights[item.inputs[1]].shape for item in normalised.graph.nodes if item.inputs[0] == "x"]
    assert first == [(3, 6, 1, 1), (5, 6, 1, 1)]
    assert_same(proto, normalised)


def test_hard_swish_written_out_is_split_with_its_convolution() -> None:
    proto = model(
        [
            node("Conv", "x w", "c"),
            node("Mul", "c k", "scaled"),
            node("HardSigmoid", "scaled", "h", alpha=0.3),
            node("Mul", "scaled h", "a"),
            node("Slice", "a zero three one", "p"),
            node("Slice", "a three eight one", "q"),
            node("MaxPool", "p", "y", kernel_shape=[2, 2]),
            node("MaxPool", "q", "z", kernel_shape=[2, 2]),
        ],
        MAP,
        ["y", "z"],
        {"zero": ints(0), "three": ints(3), "eight": ints(100), "one": ints(1), **weights(w=(8, 6, 1, 1), k=(8, 1, 1))},
    )
    normalised = normal(proto)
    assert not REARRANGING.intersection(ops(normalised))
    assert report_of(normalised, "split-convs").matches == 2
    assert_same(proto, normalised)


@pytest.mark.parametrize("also", ["output", "reader", "overlap"])
def test_a_convolution_that_is_read_otherwise_is_not_split(also: str) -> None:
    nodes = [*SILU, node("Split", "a sizes", "p q", axis=1), node("MaxPool", "p", "y", kernel_shape=[2, 2])]
    outputs = ["y", "q"]
    if also == "output":
        outputs.append("a")
    elif also == "reader":
        nodes.append(node("Tanh", "c", "z"))
        outputs.append("z")
    else:
        nodes.append(node("Gather", "a some", "z", axis=1))
        outputs.append("z")
    constants = {"sizes": ints(3, 5), "some": ints(1, 2), **weights(w=(8, 6, 1, 1), b=(8,))}
    normalised = normal(model(nodes, MAP, outputs, constants))
    assert report_of(normalised, "split-convs").matches == 0
    assert report_of(normalised, "channel-picks").matches >= 2
    assert not REARRANGING.intersection(ops(normalised))
    assert_same(model(nodes, MAP, outputs, constants), normalised)


def test_a_shuffle_with_its_split_costs_one_convolution_a_half() -> None:
    """ShuffleNet V2: Concat, shuffle in two groups, two Slices; one half goes on through a 1x1 Conv."""
    proto = model(
        [
            node("Concat", "x x", "cat", axis=1),
            node("Reshape", "cat groups", "r", "r"),
            node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "t whole", "shuffled"),
            node("Slice", "shuffled zero half one", "p"),
            node("Slice", "shuffled half full one", "q"),
            node("Conv", "q w", "m"),
            node("Concat", "p m", "y", axis=1),
        ],
        MAP,
        ["y"],
        {
            "groups": ints(1, 2, 6, 5, 4),
            "whole": ints(1, 12, 5, 4),
            "zero": ints(0),
            "half": ints(6),
            "full": ints(12),
            "one": ints(1),
            **weights(w=(6, 6, 1, 1)),
        },
    )
    normalised = normal(proto)
    assert sorted(ops(normalised)) == ["Concat", "Concat", "Conv", "Conv"]
    assert report_of(normalised, "channel-picks").matches == 2
    assert_same(proto, normalised)


def test_a_shuffle_through_a_leading_axis() -> None:
    """The first ShuffleNet V2's own code: (b * c / 2, 2, h * w), permuted, both halves taken by Gather."""
    proto = model(
        [
            node("Relu", "x", "a"),
            node("Reshape", "a pairs", "r"),
            node("Transpose", "r", "t", perm=[1, 0, 2]),
            node("Reshape", "t halves", "h"),
            node("Gather", "h first", "p", axis=0),
            node("Gather", "h second", "q", axis=0),
            node("Add", "p q", "y"),
        ],
        MAP,
        ["y"],
        {
            "pairs": ints(3, 2, 20),
            "halves": ints(2, -1, 3, 5, 4),
            "first": np.array(0),
            "second": np.array(1),
        },
    )
    normalised = normal(proto)
    assert not REARRANGING.intersection(ops(normalised))
    assert_same(proto, normalised)


@st.composite
def slices_and_gathers(draw: st.DrawFn) -> tuple[int, tuple[int, int, int], tuple[int, ...]]:
    """A number of channels, a Slice (start, end, step) of them that keeps at least one, and a Gather's indices."""
    channels = draw(st.integers(1, 9))
    edge = st.integers(-channels - 3, channels + 3)
    cut = draw(st.tuples(edge, edge, st.sampled_from([1, 2, -1, -2])).filter(lambda item: kept_by(channels, *item)))
    return channels, cut, tuple(draw(st.lists(st.integers(-channels, channels - 1), min_size=1, max_size=6)))


def kept_by(channels: int, start: int, end: int, step: int) -> int:
    """How many channels onnxruntime's Slice keeps."""
    constants = {"start": ints(start), "end": ints(end), "axis": ints(0), "step": ints(step)}
    proto = model([node("Slice", "x start end axis step", "y")], {"x": (channels,)}, ["y"], constants)
    (kept,) = run(proto, {"x": np.zeros(channels, np.float32)})
    return kept.size


@settings(max_examples=40, deadline=None)
@given(case=slices_and_gathers())
@example(case=(2, (1, 0, -1), (0, 1)))  # a Gather of everything in order
@example(case=(2, (0, 2, 1), (0, 1)))  # both keep everything in order
@example(case=(3, (0, 3, 1), (-3, -2, -1)))  # counted from the end
@example(case=(1, (0, -3, -1), (0,)))  # a reversal of one channel
@example(case=(4, (-7, -9, -1), (3, 2, 1, 0)))  # backwards from before the first channel: that channel
def test_any_slice_and_gather_of_channels_is_exact(
    case: tuple[int, tuple[int, int, int], tuple[int, ...]],
) -> None:
    channels, (start, end, step), picked = case
    proto = model(
        [
            node("Relu", "x", "a"),
            node("Slice", "a start end axis step", "p"),
            node("MaxPool", "p", "y", kernel_shape=[2, 2]),
            node("Gather", "a picked", "q", axis=1),
            node("MaxPool", "q", "z", kernel_shape=[2, 2]),
        ],
        {"x": (1, channels, 4, 3)},
        ["y", "z"],
        {"start": ints(start), "end": ints(end), "axis": ints(-3), "step": ints(step), "picked": ints(*picked)},
    )
    normalised = normal(proto)
    assert not REARRANGING.intersection(ops(normalised))
    assert not normalised.notes
    assert_same(proto, normalised, tolerance=0)


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(6)), groups=st.sampled_from([1, 2, 3, 6]), halves=st.booleans())
@example(order=[0, 1, 2, 3, 4, 5], groups=1, halves=False)
@example(order=[5, 4, 3, 2, 1, 0], groups=2, halves=True)
def test_channels_that_come_back_to_their_places_cost_nothing(order: list[int], groups: int, halves: bool) -> None:
    """A permutation by Gather, a shuffle in groups, the shuffle and the permutation undone, in one piece or in two."""
    area, other = (5, 4), 6 // groups
    nodes = [
        node("Relu", "x", "a"),
        node("Gather", "a order", "p", axis=1),
        node("Reshape", "p grouped", "g"),
        node("Transpose", "g", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t turned", "u"),
        node("Transpose", "u", "v", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "v whole", "w"),
        node("Gather", "w back", "q", axis=1),
    ]
    if halves:
        nodes += [node("Split", "q sizes", "left right", axis=1), node("Concat", "left right", "r", axis=1)]
    nodes.append(node("MaxPool", "r" if halves else "q", "y", kernel_shape=[2, 2]))
    constants = {
        "order": ints(*order),
        "back": ints(*np.argsort(order)),
        "grouped": ints(1, groups, other, *area),
        "turned": ints(1, other, groups, *area),
        "whole": ints(1, 6, *area),
        "sizes": ints(2, 4),
    }
    proto = model(nodes, MAP, ["y"], constants)
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "MaxPool"]
    assert_same(proto, normalised, tolerance=0)


@pytest.mark.parametrize("op", ["Gather", "Split"])
def test_a_round_trip_that_is_an_output_keeps_its_name(op: str) -> None:
    """Beside an output it cannot take the place of, an Identity is left; where it can, nothing is."""
    last = [node("Gather", "p all", "y", axis=1)] if op == "Gather" else [node("Split", "p parts", "y z", axis=1)]
    nodes = [node("Relu", "x", "a"), node("Gather", "a more", "p", axis=1), *last]
    outputs = ["a", "y"] if op == "Gather" else ["a", "y", "z"]
    more = ints(0, 1, 2, 3, 4, 5) if op == "Gather" else ints(0, 1, 2, 3, 4, 5, 5)
    constants = {"more": more, "all": ints(0, 1, 2, 3, 4, 5), "parts": ints(6, 1)}
    proto = model(nodes, MAP, outputs, constants)
    normalised = normal(proto)
    assert ops(normalised) == (["Relu", "Identity"] if op == "Gather" else ["Relu", "Conv", "Identity"])
    assert normalised.graph.outputs == tuple(outputs)
    assert_same(proto, normalised, tolerance=0)
    alone = normal(model([nodes[0], node("Gather", "a all", "y", axis=1)], MAP, ["y"], constants))
    assert ops(alone) == ["Relu"]
    assert alone.graph.outputs == ("y",)


def test_numbers_of_other_rank_come_back_as_well() -> None:
    """Tokens (1, T, C) reversed twice, and a Tile by ones."""
    proto = model(
        [
            node("Tanh", "x", "a"),
            node("Slice", "a last before axis back", "p"),
            node("Slice", "p last before axis back", "q"),
            node("Tile", "q ones", "r"),
            node("Sigmoid", "r", "y"),
        ],
        {"x": (1, 5, 8)},
        ["y"],
        {"last": ints(-1), "before": ints(-99), "axis": ints(1), "back": ints(-1), "ones": ints(1, 1, 1)},
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Tanh", "Sigmoid"]
    assert_same(proto, normalised, tolerance=0)


def test_a_pick_goes_into_the_one_convolution_that_reads_it() -> None:
    nodes = [node("Relu", "x", "a"), node("Slice", "a two five one", "p"), node("Conv", "p w", "y", pads=[1, 1, 1, 1])]
    constants = {"two": ints(2), "five": ints(5), "one": ints(1)}
    small = model(nodes, MAP, ["y"], constants | weights(w=(4, 3, 1, 1)))
    normalised = normal(small)
    assert ops(normalised) == ["Relu", "Conv"]
    assert normalised.graph.weights[normalised.graph.nodes[1].inputs[1]].shape == (4, 6, 1, 1)
    assert_same(small, normalised)
    large = model(nodes, MAP, ["y"], constants | weights(w=(40, 3, 3, 3)))
    normalised = normal(large)
    assert ops(normalised) == ["Relu", "Conv", "Conv"]
    assert_same(large, normalised)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        # Every other row: not channels.
        (
            [node("Slice", "a zero big two two", "p"), node("MaxPool", "p", "y", kernel_shape=[2, 2])],
            {"zero": ints(0), "big": ints(99), "two": ints(2)},
        ),
        # Rows and columns change places.
        ([node("Transpose", "a", "p", perm=[0, 1, 3, 2]), node("Tanh", "p", "y")], {}),
        # Into sequences, as transformers do.
        (
            [node("Reshape", "a tokens", "r"), node("Transpose", "r", "t", perm=[0, 2, 1]), node("Softmax", "t", "y")],
            {"tokens": ints(1, 6, 16)},
        ),
    ],
)
def test_other_rearrangements_stay(nodes: list[object], constants: dict[str, np.ndarray]) -> None:
    proto = model([node("Relu", "x", "a"), *nodes], {"x": (1, 6, 4, 4)}, ["y"], constants)
    normalised = normal(proto)
    assert report_of(normalised, "channel-picks").matches == 0
    assert REARRANGING.intersection(ops(normalised))
    assert_same(proto, normalised)


def test_tensors_that_rewrites_make_are_named_after_their_layer() -> None:
    nodes = [
        node("Conv", "x w", "/stem/conv/Conv_output_0"),
        node("Relu", "/stem/conv/Conv_output_0", "/stem/act/Relu_output_0"),
        node("Split", "/stem/act/Relu_output_0 sizes", "p q", axis=1),
        node("MaxPool", "p", "y", kernel_shape=[2, 2]),
        node("MaxPool", "q", "z", kernel_shape=[2, 2]),
    ]
    proto = model(nodes, MAP, ["y", "z"], {"sizes": ints(3, 5), **weights(w=(8, 6, 1, 1))})
    layers = [normal(proto).graph.layers[item.outputs[0]] for item in normal(proto).graph.nodes]
    assert layers == ["stem.conv/Conv", "p", "stem.conv", "q", "y", "z"]


def focus(order: list[tuple[int, int]]) -> list[object]:
    """YOLO v5's Focus: every other pixel four times, put together as channels."""
    nodes = []
    for number, (row, column) in enumerate(order):
        nodes += [
            node("Slice", f"x at{row} big rows two", f"r{number}"),
            node("Slice", f"r{number} at{column} big columns two", f"p{number}"),
        ]
    return [*nodes, node("Concat", " ".join(f"p{number}" for number in range(len(order))), "z", axis=1)]


FOCUS = {"at0": ints(0), "at1": ints(1), "big": ints(2**31), "rows": ints(2), "columns": ints(3), "two": ints(2)}


def test_focus_becomes_a_strided_convolution() -> None:
    nodes = [*focus([(0, 0), (1, 0), (0, 1), (1, 1)]), node("Conv", "z w", "y")]
    proto = model(nodes, {"x": (1, 3, 8, 6)}, ["y"], FOCUS | weights(w=(5, 12, 1, 1)))
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Conv"]
    assert report_of(normalised, "space-to-depth").matches == 1
    assert_same(proto, normalised, tolerance=1e-6)


def test_space_to_depth_by_reshapes_becomes_a_strided_convolution() -> None:
    proto = model(
        [
            node("Reshape", "x blocks", "r"),
            node("Transpose", "r", "t", perm=[0, 1, 3, 5, 2, 4]),
            node("Reshape", "t folded", "p"),
            node("Tanh", "p", "y"),
        ],
        {"x": (1, 6, 4, 6)},
        ["y"],
        {"blocks": ints(1, 6, 2, 2, 3, 2), "folded": ints(1, 24, 2, 3)},
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Tanh"]
    assert_same(proto, normalised, tolerance=0)


def test_concatenations_of_other_things_stay() -> None:
    mixed = model(
        [
            *focus([(0, 0), (1, 0), (0, 1)])[:-1],
            node("Slice", "v at1 big rows two", "r3"),
            node("Slice", "r3 at1 big columns two", "p3"),
            node("Concat", "p0 p1 p2 p3", "y", axis=1),
        ],
        {"x": (1, 3, 8, 6), "v": (1, 3, 8, 6)},
        ["y"],
        FOCUS,
    )
    assert report_of(normal(mixed), "space-to-depth").matches == 0
    plain = model([node("Concat", "x x", "y", axis=1)], MAP, ["y"])
    assert ops(normal(plain)) == ["Concat"]


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
@pytest.mark.parametrize("block", [2, 3])
def test_depth_to_space_becomes_a_transposed_convolution(mode: str, block: int) -> None:
    nodes = [node("Relu", "x", "r"), node("DepthToSpace", "r", "y", blocksize=block, mode=mode)]
    proto = model(nodes, {"x": (1, 2 * block**2, 3, 4)}, ["y"])
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "ConvTranspose"]
    assert_same(proto, normalised, tolerance=0)
