"""Parameter bytes by the formula against real compiled files, and its clauses one by one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.edgetpu import compiled, layers_of_file, packing
from graphcut.edgetpu.layers import Layer, live_taps, same_padding
from graphcut.errors import ModelError
from graphcut.tflite import checked
from tests.support import places
from tests.support.compiled_files import compiled_file
from tests.support.made_tflite import Made

SHARED = places.SHARED / "edgetpu"
needs_real_files = pytest.mark.skipif(not SHARED.is_dir(), reason="no real compiled files beside the repository")


def packed(path: Path) -> packing.Packing:
    return packing.pack(layers_of_file.layers(layers_of_file.uncompiled(path), path.name))


def made_layers(made: Made, inputs: list[int], outputs: list[int]) -> packing.Packing:
    return packing.pack(layers_of_file.layers(checked.read(made.done(inputs, outputs), "made"), "made"))


@needs_real_files
@pytest.mark.parametrize(
    "name",
    ["mobilenet_v1_0.25_128_quant", "mobilenet_v1_0.5_160_quant", "mobilenet_v1_1.0_224_quant_embedding_extractor"],
)
def test_exact_on_real_pairs(name: str) -> None:
    there = compiled.read(SHARED / "pairs" / f"{name}_edgetpu.tflite")
    found = packed(SHARED / "pairs" / f"{name}.tflite")
    assert found.uncovered == ()
    assert found.parameter_bytes == there.cached_parameter_bytes + there.streamed_parameter_bytes


@needs_real_files
def test_what_is_not_covered_is_named() -> None:
    assert packed(SHARED / "pairs" / "keras_lstm_mnist_ptq.tflite").uncovered == ("UNIDIRECTIONAL_SEQUENCE_LSTM",)


@needs_real_files
def test_the_part_of_a_real_pair_before_the_cpu() -> None:
    """DeepLab: the first 64 operators run on the chip, the rest on the CPU."""
    layers = packed(SHARED / "pairs" / "deeplabv3_mnv2_dm05_pascal_quant.tflite").layers[:64]
    there = compiled.read(SHARED / "pairs" / "deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite")
    assert sum(layer.parameter_bytes for layer in layers) == there.cached_parameter_bytes


def conv(kernel: int, fed: int, made: int, *, taps: int | None = None, size: int = 10) -> Layer:
    """A uint8 convolution as the SSD models have it: per tensor, bias not zero."""
    return Layer(
        name="conv",
        op="CONV_2D",
        inputs=((1, size, size, fed),),
        outputs=((1, size, size, made),),
        weights=(made, kernel, kernel, fed),
        taps=kernel * kernel if taps is None else taps,
        words=1,
    )


def depthwise(channels: int) -> Layer:
    shape = ((1, 10, 10, channels),)
    return Layer(
        name="dw",
        op="DEPTHWISE_CONV_2D",
        inputs=shape,
        outputs=shape,
        weights=(1, 3, 3, channels),
        taps=9,
        words=1,
    )


def ssd_mobilenet_v2() -> dict[str, list[Layer]]:
    """SSD MobileNetV2 (300 x 300, 90 classes), by the parts the vendor cut it into."""
    backbone, depth = [conv(3, 3, 32), depthwise(32), conv(1, 32, 16)], 16
    for width, repeats in ((24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1)):
        for _ in range(repeats):
            backbone += [conv(1, depth, 6 * depth), depthwise(6 * depth), conv(1, 6 * depth, width)]
            depth = width
    heads = [
        conv(1, fed, values * anchors)
        for fed, anchors in ((576, 3), (1280, 6), (512, 6), (256, 6), (256, 6), (128, 6))
        for values in (4, 91)
    ]
    # The last 3x3 convolution makes 1x1 of 2x2: five of its nine taps only meet padding.
    last = [conv(3, 128, 256), conv(1, 256, 128), conv(3, 128, 256), conv(1, 256, 64), conv(3, 64, 128, taps=4)]
    return {
        "backbone": backbone,
        "first extra": [conv(1, 320, 1280), conv(1, 1280, 256)],
        "second extra": [conv(3, 256, 512), conv(1, 512, 128)],
        "rest": [*last, *heads],
    }


@needs_real_files
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("0_of_2", ("backbone", "first extra")),
        ("1_of_2", ("second extra", "rest")),
        ("0_of_3", ("backbone",)),
        ("1_of_3", ("first extra", "second extra")),
        ("2_of_3", ("rest",)),
    ],
)
def test_exact_on_the_vendors_segments(name: str, parts: tuple[str, ...]) -> None:
    """Their uncompiled twins are not there, but their architecture is known."""
    network = ssd_mobilenet_v2()
    found = packing.pack([layer for part in parts for layer in network[part]])
    path = SHARED / "pipeline" / f"ssd_mobilenet_v2_coco_quant_postprocess_segment_{name}_edgetpu.tflite"
    assert found.parameter_bytes == compiled.read(path).cached_parameter_bytes


def test_words_of_a_file() -> None:
    def words(scales: object, bias: object, *, with_bias: bool = True) -> int:
        made = Made()
        fed, out = made.tensor((1, 4, 4, 4)), made.tensor((1, 4, 4, 8))
        weights = made.tensor((8, 1, 1, 4), scale=scales, data=1)  # type: ignore[arg-type]
        inputs = [fed, weights, made.tensor((8,), dtype=np.int32, data=bias)] if with_bias else [fed, weights]
        made.op("CONV_2D", inputs, [out], strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
        return made_layers(made, [fed], [out]).layers[0].layer.words

    each = [0.1 + 0.01 * n for n in range(8)]
    assert words(0.1, 0, with_bias=False) == 0
    assert words(0.1, 0) == 0
    assert words(0.1, 3) == 1
    assert words([0.1] * 8, 0) == 1
    assert words([0.1] * 8, 3) == 2
    assert words(each, 0) == 2
    assert words(each, [0, 0, 0, 0, 0, 0, 0, 1]) == 3


def test_a_dense_layer_fed_with_a_map_pads_its_channels() -> None:
    made = Made()
    fed, out = made.tensor((1, 3, 3, 5)), made.tensor((1, 10))
    weights = made.tensor((10, 45), data=1)
    made.op("FULLY_CONNECTED", [fed, weights], [out])
    assert made_layers(made, [fed], [out]).parameter_bytes == 16 * 9 * 8
    flat = Made()
    fed, out = flat.tensor((1, 45)), flat.tensor((1, 10))
    flat.op("FULLY_CONNECTED", [fed, flat.tensor((10, 45), data=1)], [out])
    assert made_layers(flat, [fed], [out]).parameter_bytes == 16 * 48


def test_depthwise_kinds() -> None:
    def size(fed: int, made_channels: int) -> packing.Packing:
        made = Made()
        source, out = made.tensor((1, 8, 8, fed)), made.tensor((1, 8, 8, made_channels))
        weights = made.tensor((1, 3, 3, made_channels), data=1)
        made.op(
            "DEPTHWISE_CONV_2D", [source, weights], [out], strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1
        )
        return made_layers(made, [source], [out])

    assert size(6, 6).parameter_bytes == 320  # up(8 * 4 * 9, 64)
    assert size(1, 24).parameter_bytes == 32 * 9 * 4
    assert size(2, 6).uncovered == ("DEPTHWISE_CONV_2D with a channel multiplier",)
    assert size(2, 6).parameter_bytes == 0


def test_a_constant_for_each_channel_streams_and_a_scalar_takes_nothing() -> None:
    made = Made()
    fed, middle, out = (made.tensor((1, 8, 8, 16)) for _ in range(3))
    made.op("MUL", [fed, made.tensor((1,), data=3)], [middle])
    made.op("ADD", [middle, made.tensor((16,), data=3)], [out])
    found = made_layers(made, [fed], [out])
    assert found.uncovered == ()
    assert [(each.parameter_bytes, each.on_chip_bytes, each.always_streams) for each in found.layers] == [
        (0, 0, False),
        (256, 0, True),
    ]


def test_other_constants_of_arithmetic_are_not_covered() -> None:
    made = Made()
    fed, out = made.tensor((1, 8, 8, 16)), made.tensor((1, 8, 8, 16))
    made.op("MUL", [fed, made.tensor((1, 8, 8, 16), data=3)], [out])
    assert made_layers(made, [fed], [out]).uncovered == ("MUL with a constant vector",)


@pytest.mark.parametrize(("channels", "in_file", "on_chip"), [(10, 16, 64), (32, 32, 64), (64, 64, 64), (65, 128, 128)])
def test_a_cached_layer_occupies_whole_groups_of_rows(channels: int, in_file: int, on_chip: int) -> None:
    found = packing.pack_layer(conv(3, 32, channels))
    assert (found.parameter_bytes, found.on_chip_bytes) == (in_file * (9 * 32 + 4), on_chip * (9 * 32 + 4))


@settings(deadline=None, max_examples=200)
@given(
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    size=st.integers(1, 12),
    same=st.booleans(),
)
def test_live_taps_are_those_that_meet_the_input(
    kernel: int, stride: int, dilation: int, size: int, same: bool
) -> None:
    reach = (kernel - 1) * dilation + 1
    result = -(-size // stride) if same else max((size - reach) // stride + 1, 0)
    before = same_padding(kernel, stride, dilation, size) if same else 0
    met = {
        tap for tap in range(kernel) for place in range(result) if 0 <= place * stride + tap * dilation - before < size
    }
    assert live_taps(kernel, stride, dilation, size, before, result) == len(met)


@settings(deadline=None, max_examples=200)
@given(kernel=st.integers(1, 5), fed=st.integers(1, 300), made=st.integers(1, 300))
def test_a_layer_takes_at_least_its_weights_in_whole_tiles(kernel: int, fed: int, made: int) -> None:
    layer = conv(kernel, fed, made)
    size = packing.pack_layer(layer).parameter_bytes
    assert size % 64 == 0
    assert layer.weight_bytes <= size <= (layer.weight_bytes + 4 * made + 3 * kernel * kernel * made) * 17


def test_a_compiled_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seg1_edgetpu.tflite"
    path.write_bytes(compiled_file())
    with pytest.raises(ModelError, match="already compiled for the Edge TPU"):
        layers_of_file.uncompiled(path)


def test_an_operator_that_contradicts_itself_is_damage() -> None:
    made = Made()
    fed, out = made.tensor((1, 8)), made.tensor((1, 8))
    made.op("CONV_2D", [fed, made.tensor((8, 1, 1, 8), data=1)], [out], strideH=1, strideW=1)
    with pytest.raises(ModelError, match=r"made is damaged: operator 0 \(CONV_2D\)"):
        made_layers(made, [fed], [out])
