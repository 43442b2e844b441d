"""Rows of what a weighted operator reads."""

from __future__ import annotations

import numpy as np
import pytest

from graphcut.runtime.litert import Runner
from graphcut.tflite import edit, schema, windows
from tests.support.made_tflite import Made


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_rows_times_weights_are_the_convolution(padding: int, stride: int, dilation: int):
    chance, made = np.random.default_rng(0), Made()
    weights = chance.standard_normal((4, 3, 2, 5)).astype(np.float32)
    image = made.tensor((1, 9, 8, 5), dtype=np.float32, scale=None, name="image")
    kernel = made.tensor(weights.shape, dtype=np.float32, scale=None, data=weights)
    bias = made.tensor((4,), dtype=np.float32, scale=None, data=np.zeros(4))
    size = [
        -(-side // stride) if padding == 0 else (side - (taps - 1) * dilation - 1) // stride + 1
        for side, taps in ((9, 3), (8, 2))
    ]
    out = made.tensor((1, *size, 4), dtype=np.float32, scale=None, name="out")
    options = {"padding": padding, "strideH": stride, "strideW": stride}
    made.op("CONV_2D", [image, kernel, bias], [out], dilationHFactor=dilation, dilationWFactor=dilation, **options)
    data, values = made.done([image], [out]), chance.standard_normal((1, 9, 8, 5)).astype(np.float32)
    model = schema.read(data)
    found = windows.rows(model, edit.graph_of(model).operators[0], values, (3, 2), 10_000)
    (wanted,) = Runner(data)([values])
    assert found.reshape(len(found), -1) @ weights.reshape(4, -1).T == pytest.approx(wanted.reshape(-1, 4), abs=1e-4)
    few = windows.rows(model, edit.graph_of(model).operators[0], values, (3, 2), 5)
    assert few.shape == (5, 3, 2, 5)
    assert np.array_equal(few[0], found[0])
