"""Other scales for the activations of an int8 file."""

from __future__ import annotations

import numpy as np
import pytest

from graphcut.runtime.litert import Runner, dequantise
from graphcut.tflite import edit, schema
from graphcut.tflite.scales import Rescalable, groups
from tests.support.made_tflite import Made


def pooled_conv(bias: int = 40) -> bytes:
    """A convolution by 1/2 with a bias, a pool that hands its scale on, and a LOGISTIC."""
    made = Made()
    image = made.tensor((1, 4, 4, 1), scale=0.1, name="image")
    weights = made.tensor((1, 1, 1, 1), scale=[0.01], data=50)
    steps = made.tensor((1,), dtype=np.int32, scale=[0.001], data=bias)
    conv = made.tensor((1, 4, 4, 1), scale=0.1, zero_point=3, name="conv")
    pool = made.tensor((1, 2, 2, 1), scale=0.1, zero_point=3, name="pool")
    gate = made.tensor((1, 2, 2, 1), scale=1 / 256, zero_point=-128, name="gate")
    made.op("CONV_2D", [image, weights, steps], [conv], padding=1, strideH=1, strideW=1)
    made.op("MAX_POOL_2D", [conv], [pool], padding=1, strideH=2, strideW=2, filterHeight=2, filterWidth=2)
    made.op("LOGISTIC", [pool], [gate])
    return made.done([image], [pool, gate])


def test_groups_have_one_scale_and_prescribed_scales_are_not_free():
    found = groups(pooled_conv())
    assert [(group.names, group.free) for group in found] == [
        (("image",), True),
        (("conv", "pool"), True),
        (("gate",), False),
    ]
    assert found[1].scale == (pytest.approx(0.1), 3)


def test_divisors_keep_their_zero_point_and_unknown_operators_their_scales():
    made = Made()
    one, two = (made.tensor((1, 4), scale=0.1, name=name) for name in ("one", "two"))
    ratio, made_of = made.tensor((1, 4), scale=0.1, name="ratio"), made.tensor((1, 4), scale=0.1, name="cumulated")
    made.op("DIV", [one, two], [ratio], fusedActivationFunction=0)
    made.op("CUMSUM", [ratio], [made_of])
    free = {name: group.free for group in groups(made.done([one, two], [made_of])) for name in group.names}
    assert free == {"one": True, "two": False, "ratio": False, "cumulated": False}


def test_a_file_computes_the_same_numbers_with_finer_scales():
    before = pooled_conv()
    after = Rescalable(before).rescaled(
        {"conv": (0.05, -8), "pool": (0.05, -8), "image": (0.08, 2), "elsewhere": (1, 0)}
    )
    assert len(after) == len(before)
    values = np.random.default_rng(0).uniform(-5, 5, (1, 4, 4, 1)).astype(np.float32)
    wanted = (values * 0.5 + 0.04).reshape(2, 2, 2, 2).max(axis=(1, 3)).reshape(1, 2, 2, 1)
    stored = np.rint(values / 0.08 + 2).clip(-128, 127).astype(np.int8)
    pool, gate = Runner(after)([stored])
    assert dequantise(pool, 0.05, -8) == pytest.approx(wanted, abs=0.05)
    assert dequantise(gate, 1 / 256, -128) == pytest.approx(1 / (1 + np.exp(-wanted)), abs=0.02)
    model = schema.read(after)
    bias = edit.graph_of(model).tensors[2]
    assert bias.quantization.scale[0] == pytest.approx(0.08 * 0.01)
    assert schema.constant(model, bias) == pytest.approx([50])


def test_the_same_scales_give_the_same_bytes_and_the_file_itself_stays():
    before = pooled_conv()
    file, kept = Rescalable(before), bytes(before)
    assert file.rescaled({"conv": (0.05, -8)}) == file.rescaled({"conv": (0.05, -8)})
    assert file.rescaled({}) == kept == before


def test_a_scale_with_which_a_bias_does_not_fit_is_refused():
    file = Rescalable(pooled_conv(bias=2**28))
    assert file.fits("image", (0.05, 0))
    assert not file.fits("image", (0.02, 0))
    with pytest.raises(ValueError, match="a bias of a reader of image does not fit"):
        file.rescaled({"image": (0.02, 0)})
