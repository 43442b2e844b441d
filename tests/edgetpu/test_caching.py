"""Which layers stream: by the rule, and against published networks that nothing was fitted to."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.edgetpu.caching import LARGEST_CACHED, cache
from graphcut.edgetpu.layers import CONV, DENSE, Layer
from graphcut.edgetpu.packing import Packed, pack
from graphcut.units import MIB
from tests.support.places import SHARED
from tools.edgetpu_ladders import Row, agrees, best, contradicted, dense_layers, predict, rows


@pytest.fixture(scope="module")
def judged() -> list[Row]:
    if not (SHARED / "reference" / "edgetpu_ladders.json").is_file():
        pytest.skip("the published networks are not beside the repository")
    return [row for row in rows(SHARED) if row.test]


def given_layer(op: str, size: int) -> Packed:
    layer = Layer(name="x", op=op, inputs=((1, 4),), outputs=((1, 4),), weights=(1, size), taps=1)
    return Packed(layer=layer, parameter_bytes=size, on_chip_bytes=size)


def test_dense_layers_come_first_then_the_largest() -> None:
    layers = [given_layer(CONV, 40), given_layer(CONV, 60), given_layer(DENSE, 30), given_layer(CONV, 10)]
    found = cache(layers, room_bytes=100)
    assert (found.on_chip_bytes, found.off_chip_bytes, found.streamed) == (100, 40, (0,))
    assert cache(layers, room_bytes=140).streamed == ()
    # 30, then not 60, then 40, and the 10 behind it still have their turn.
    assert cache(layers, room_bytes=80).streamed == (1,)


def test_a_layer_of_more_than_7_mib_is_not_cached_even_alone() -> None:
    assert cache([given_layer(DENSE, LARGEST_CACHED)], room_bytes=8 * MIB).streamed == ()
    assert cache([given_layer(DENSE, LARGEST_CACHED + 1)], room_bytes=8 * MIB).streamed == (0,)


def test_a_streamed_layer_sends_what_the_file_holds() -> None:
    """2000 x 2000 twice fill the room; the last layer has 16 rows when it streams, 64 when it is cached."""
    packed = pack(dense_layers(64, 2000, 3)).layers
    found = cache(packed, input_bytes=64)
    assert found.streamed == (0, 3, 4)
    assert round(found.on_chip_bytes / MIB, 2) == 7.81
    assert found.off_chip_bytes == 2048 * 64 + 2048 * 2000 + 16 * 2000


def test_a_segments_own_input_takes_room() -> None:
    layers = [given_layer(CONV, 4 * MIB), given_layer(CONV, 3 * MIB)]
    assert cache(layers).streamed == ()
    assert cache(layers, input_bytes=2 * MIB).streamed == (1,)


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 3 * MIB), min_size=1, max_size=12),
    dense=st.integers(0, 12),
    room=st.integers(0, 8 * MIB),
)
def test_nothing_that_would_fit_streams(sizes: list[int], dense: int, room: int) -> None:
    layers = [given_layer(DENSE if index == dense else CONV, size) for index, size in enumerate(sizes)]
    found = cache(layers, room_bytes=room)
    assert found.on_chip_bytes <= room
    assert found.on_chip_bytes + found.off_chip_bytes == sum(sizes)
    left = room - found.on_chip_bytes
    assert all(sizes[index] > left for index in found.streamed)


def different(found: list[Row]) -> Iterator[Row]:
    seen = set()
    for row in found:
        key = (row.family, row.network, row.segments, row.on_chip_mib, row.off_chip_mib)
        if key not in seen:
            seen.add(key)
            yield row


def test_sizes_of_the_convolution_ladder_are_those_printed(judged: list[Row]) -> None:
    own = [row for row in different(judged) if row.family == "conv"]
    assert len(own) > 30
    wrong = [row.network for row in own if not agrees(row, predict(row.layers))]
    assert wrong == []


def test_sizes_of_the_dense_ladder_are_those_printed_but_for_other_networks(judged: list[Row]) -> None:
    """Those with no hidden layer hold 22,272 bytes more in some rows and not in others: two kinds of network."""
    own = [row for row in different(judged) if row.family == "dense"]
    known = {row: best(row) for row in own}
    unknown = {row.network for row, found in known.items() if found is None}
    assert {network for network in unknown if network[2] != 0} == {(64, 2260, 3)}
    told = [(row, found) for row, found in known.items() if found is not None]
    assert sum(agrees(row, found) for row, found in told) >= 0.99 * len(told)


def test_times_of_the_convolution_ladder(judged: list[Row]) -> None:
    own = [row for row in judged if row.family == "conv"]
    errors = sorted(abs(predict(row.layers).ms / row.ms - 1) for row in own)
    assert errors[len(errors) // 2] < 0.05
    assert errors[int(0.9 * (len(errors) - 1))] < 0.15


def test_times_of_dense_networks_that_stream(judged: list[Row]) -> None:
    own = [row for row in judged if row.family == "dense" and row.segments == row.batch == 1 and any(row.off_chip_mib)]
    doubtful = contradicted(judged)
    errors = sorted(
        abs(predict(row.layers).ms / row.ms - 1) for row in own if (row.family, row.network) not in doubtful
    )
    assert errors[len(errors) // 2] < 0.05
    assert errors[int(0.9 * (len(errors) - 1))] < 0.15
