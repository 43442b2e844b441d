"""Compiled sizes and room: against published files, against files that are there, and by their own arithmetic."""

import json
import statistics
import time
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.edgetpu import caching, estimate, file_cost, layers_of_file, layers_of_graph, packing, tile_memory
from graphcut.edgetpu.layers import Layer
from graphcut.records import Graph, Node, Tensor
from graphcut.units import MIB
from tests.support.graphs import Builder
from tests.support.made_tflite import Made
from tests.support.places import SHARED
from tools.edgetpu_published import DOUBTFUL, Published, published

LISTED = SHARED / "reference" / "compiled_segments.json"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Published]:
    if not LISTED.is_file() or not (SHARED / "zoo").is_dir():
        pytest.skip("the published figures or the architectures are not beside the repository")
    return published(SHARED, tmp_path_factory.mktemp("published"))


def test_published_sizes_are_predicted(files: list[Published]) -> None:
    assert len(files) == sum(
        len(model["segments"]) + len(model["tails"]) + 1 for model in json.loads(LISTED.read_text())["models"]
    )
    assert statistics.median(abs(each.error) for each in files) < 0.002
    sound = [each for each in files if (each.model, each.part) != DOUBTFUL]
    assert max(abs(each.error) for each in sound) < 0.015
    assert [each for each in sound if not each.inside] == []


def test_the_doubtful_figure_is_below_its_own_parameters(files: list[Published]) -> None:
    doubtful = next(each for each in files if (each.model, each.part) == DOUBTFUL)
    assert doubtful.predicted.parameter_bytes > doubtful.compiled_bytes
    others = {each.compiled_bytes % 4096 for each in files if each is not doubtful}
    assert others == {608}
    assert doubtful.compiled_bytes % 4096 != 608


def test_published_streaming_is_predicted_but_for_the_two_known_exceptions(files: list[Published]) -> None:
    told = [each for each in files if each.off_chip_mib is not None]
    wrong = [(each.model, each.part) for each in told if each.predicted.fit.fits != (each.off_chip_mib == 0)]
    assert wrong == [("resnet101", "segment 7"), ("inceptionv3", "segment 7")]


def test_published_tails_stream_the_predicted_layers(files: list[Published]) -> None:
    """Exact to the print where nothing is kept of neighbouring segments; DenseNet's rooms are off by half a layer."""
    tails = [each for each in files if each.part.startswith("tail")]
    wrong = []
    for each in tails:
        told = each.off_chip_mib
        assert told is not None
        digits = 0.0005 if told < 1 else 0.005
        if abs(each.caching.off_chip_bytes / MIB - told) > digits + 1e-6:
            wrong.append((each.model, each.part, each.caching.off_chip_bytes / MIB - told))
    assert [(model, part) for model, part, _ in wrong] == [("densenet201", f"tail {k}") for k in (2, 3, 4)]
    assert max(abs(error) for *_, error in wrong) < 0.05


def test_vectors_of_a_normalisation_stream_from_every_segment_of_a_densenet(files: list[Published]) -> None:
    own = [each for each in files if each.model == "densenet201" and each.part.startswith("segment")]
    found = [round(each.caching.off_chip_bytes / MIB, 3) for each in own]
    assert found == [each.off_chip_mib for each in own]
    assert [each.predicted.fit.fits for each in own] == [False] * 7 + [True]


def test_the_exceptions_equal_the_tails_that_begin_with_them(files: list[Published]) -> None:
    """Why the two exceptions are doubted: the figure is the tail's, in which the same segment is only a part."""
    by_part = {(each.model, each.part): each.off_chip_mib for each in files}
    for model in ("resnet101", "inceptionv3"):
        assert by_part[model, "segment 7"] == by_part[model, "tail 7"]


def test_the_larger_exception_is_no_sum_of_layers_of_its_segment_but_of_its_tail() -> None:
    """ResNet101 conv5_block2 with 3 words per channel; the tail is per tensor (1 word) and ends with a dense layer."""

    def mib(taps: int, fed: int, made: int, words: int, op: str = "CONV_2D") -> float:
        shape = (made, fed) if op != "CONV_2D" else (made, 1, taps, fed)
        layer = Layer(name="x", op=op, inputs=((1, fed),), outputs=((1, made),), weights=shape, taps=taps, words=words)
        return packing.pack_layer(layer).parameter_bytes / MIB

    def sums(layers: list[float]) -> list[float]:
        return [sum(each) for count in range(1, len(layers) + 1) for each in combinations(layers, count)]

    segment = [mib(1, 2048, 512, 3), mib(9, 512, 512, 3), mib(1, 512, 2048, 3)]
    assert sum(segment) == pytest.approx(4.285, abs=0.001)
    assert min(abs(each - 3.01) for each in sums(segment)) > 0.2
    tail = [mib(1, 512, 2048, 1), mib(1, 2048, 1000, 1, "FULLY_CONNECTED")]
    assert sum(tail) == pytest.approx(3.01, abs=0.005)


def test_a_file_costs_what_its_graph_was_predicted_to() -> None:
    made = Made()
    fed = made.tensor((1, 16, 16, 3))
    first = made.conv(fed, 8, 3)
    second = made.conv(first, 70, 1)
    out = made.tensor((1, 16, 16, 70))
    made.op("RELU", [second], [out], version=2)
    data = made.done([fed], [out])
    found = file_cost.of_model(layers_of_file.checked.read(data, "made"), len(data), "made")
    graph = Graph(
        nodes=(
            Node(
                name="a",
                op_type="Conv",
                inputs=("x", "wa", "ba"),
                outputs=("a",),
                attributes={"pads": (1, 1, 1, 1), "kernel_shape": (3, 3), "strides": (1, 1)},
            ),
            Node(name="ar", op_type="Relu", inputs=("a",), outputs=("ar",), attributes={}),
            Node(name="b", op_type="Conv", inputs=("ar", "wb"), outputs=("b",), attributes={}),
            Node(name="c", op_type="Sigmoid", inputs=("b",), outputs=("c",), attributes={}),
        ),
        inputs=("x",),
        outputs=("c",),
        tensors={
            name: Tensor(name=name, shape=(1, depth, 16, 16), dtype="float32")
            for name, depth in {"x": 3, "a": 8, "ar": 8, "b": 70, "c": 70}.items()
        },
        weights={
            name: Tensor(name=name, shape=shape, dtype="float32")
            for name, shape in {"wa": (8, 3, 3, 3), "ba": (8,), "wb": (70, 8, 1, 1)}.items()
        },
        layers={name: name for name in ("x", "a", "ar", "b", "c")},
    )
    predicted = file_cost.PredictedCosts(graph).segment(0, 4)
    assert found.parameter_bytes == predicted.parameter_bytes == 16 * (9 * 4 + 12) + 128 * (8 + 12)
    assert found.macs == predicted.macs == 16 * 16 * (8 * 27 + 70 * 8)
    assert found.activation_bytes == predicted.activation_bytes == 2 * 16 * 16 * 70
    assert found.compiled == predicted.compiled
    assert found.tflite_bytes == len(data)
    assert [(packed.layer.op, on_chip) for packed, on_chip in found.layers] == [
        ("CONV_2D", True),
        ("CONV_2D", True),
        ("RELU", True),
    ]


def test_what_the_cpu_keeps_counts_in_the_file_but_not_on_the_chip() -> None:
    made = Made()
    fed = made.tensor((1, 16, 16, 3))
    first = made.conv(fed, 8, 3)
    odd = made.tensor((1, 16, 16, 8))
    made.op("EXP", [first], [odd])
    last = made.conv(odd, 64, 5)
    data = made.done([fed], [last])
    found = file_cost.of_model(layers_of_file.checked.read(data, "made"), len(data), "made")
    assert found.parameter_bytes == 16 * (9 * 4 + 12)
    assert found.compiled.expected_bytes > 64 * 25 * 8
    assert found.macs == 16 * 16 * (8 * 27 + 64 * 25 * 8)
    assert [on_chip for _, on_chip in found.layers] == [True, False, False]


def chain(blocks: int) -> Graph:
    """Residual blocks of growing width."""
    build = Builder()
    last, depth = build.input("x", (1, 8, 16, 16)), 8
    for number in range(blocks):
        wider = 8 + 4 * (number % 30)
        shape = (1, wider, 16, 16)
        first = build.node(
            "Conv", [last, build.weight(f"w{number}", (wider, depth, 3, 3))], f"conv{number}", shape=shape
        )
        relu = build.node("Relu", [first], f"relu{number}", shape=shape)
        second = build.node(
            "Conv", [relu, build.weight(f"v{number}", (wider, wider, 1, 1))], f"again{number}", shape=shape
        )
        last, depth = build.node("Add", [second, relu], f"add{number}", shape=shape), wider
    return build.graph(last)


def test_any_run_of_nodes_adds_up() -> None:
    graph = chain(12)
    predicted = file_cost.PredictedCosts(graph)
    layers = layers_of_graph.layers_of(graph)
    count = len(graph.nodes)
    for start, stop in ((0, count), (3, 7), (5, 6), (4, count)):
        flat = [layer for node in layers[start:stop] for layer in node]
        packed = packing.pack(flat)
        answer = predicted.segment(start, stop)
        assert answer.parameter_bytes == packed.parameter_bytes
        assert answer.macs == sum(layer.macs for layer in flat)
        assert answer.activation_bytes == max((layer.activation_bytes for layer in flat), default=0)


def test_questions_take_microseconds() -> None:
    predicted = file_cost.PredictedCosts(chain(500))
    start = time.process_time()
    for stop in range(1, 2001):
        predicted.segment(0, stop)
    assert (time.process_time() - start) / 2000 < 200e-6


@settings(deadline=None, max_examples=300)
@given(
    parameters=st.integers(0, 60 * MIB),
    more=st.integers(0, 4 * MIB),
    activations=st.integers(0, 40 * MIB),
    larger=st.integers(0, 8 * MIB),
)
def test_room_and_size_move_the_right_way(parameters: int, more: int, activations: int, larger: int) -> None:
    now, fuller = estimate.fit(parameters, 0, activations), estimate.fit(parameters + more, 0, activations)
    assert fuller.probability <= now.probability
    assert now.room_bytes >= estimate.fit(parameters, 0, activations + larger).room_bytes
    assert estimate.fit(parameters, 1 + more, activations).probability == estimate.LEAST_CERTAIN
    assert 0.02 <= now.probability <= estimate.MOST_CERTAIN
    assert now.margin_bytes == pytest.approx(now.room_bytes - parameters, abs=1)
    size = estimate.compiled_bytes(parameters, 10, 20_000)
    assert size.low_bytes <= size.expected_bytes <= size.high_bytes
    assert size.expected_bytes > parameters


def mapped(side: int, channels: int) -> Layer:
    """A depthwise-like operator that reads and writes one map."""
    shape = ((1, side, side, channels),)
    return Layer(name="x", op="MAX_POOL_2D", inputs=shape, outputs=shape)


def test_room_passes_through_the_published_points() -> None:
    """One network at 224, 512 and 768 pixels, whose largest operator reads and writes 1.15, 6.0 and 13.5 MiB."""
    sides = [round((largest * MIB / 2 / 32) ** 0.5) for largest in (1.15, 6.0, 13.5)]
    rooms = [caching.room_beside(tile_memory.reserved_bytes(mapped(side, 32))) / MIB for side in sides]
    assert rooms == pytest.approx([7.00, 4.62, 3.91], abs=0.01)


def test_room_shrinks_as_maps_grow() -> None:
    """But for maps that are spilled: a map of 0.9 MiB may take more than one of 1 MiB."""
    rooms = [caching.room_beside(tile_memory.reserved_bytes(mapped(4 * side, 16))) for side in range(2, 30)]
    assert all(first >= second for first, second in pairwise(rooms))
    assert rooms[0] > 7.9 * MIB


def test_per_tensor_files_are_smaller_by_their_words() -> None:
    layer = Layer(
        name="c", op="CONV_2D", inputs=((1, 4, 4, 8),), outputs=((1, 4, 4, 64),), weights=(64, 1, 1, 8), taps=1
    )
    sizes = [packing.pack_layer(Layer(**{**_fields(layer), "words": words})).parameter_bytes for words in range(4)]
    assert np.diff(sizes).tolist() == [256, 256, 256]


def _fields(layer: Layer) -> dict[str, object]:
    return {name: getattr(layer, name) for name in Layer.__slots__}
