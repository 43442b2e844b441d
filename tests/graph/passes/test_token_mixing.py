"""Products over the pixels of a channel (MLP-Mixer): BATCH_MATMUL by a constant, in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from graphcut import flow
from graphcut.planning import plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.samples import load_samples
from graphcut.tflite import edit, schema
from tests.support.graph_nets import ints, model, node, weights
from tests.support.warm import workers


def test_a_product_over_pixels_means_something_in_int8(tmp_path: Path) -> None:
    channels, size = 12, 8
    nodes = [
        node("Conv", "x w0 c0", "m", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Reshape", "m lines", "l"),
        node("MatMul", "l mix", "t"),
        node("Relu", "t", "r"),
        node("MatMul", "r back", "b"),
        node("Reshape", "b map", "n"),
        node("Conv", "n w1 c1", "z", kernel_shape=[1, 1]),
    ]
    rng = np.random.default_rng(5)
    constants = {
        **weights(w0=(channels, 3, 3, 3), c0=(channels,), w1=(4, channels, 1, 1), c1=(4,)),
        "lines": ints(1, channels, size * size),
        "map": ints(1, channels, size, size),
        # Columns of different sizes: with one scale a column the kernels, which know one, are wrong.
        "mix": (rng.normal(size=(size * size, 32)) * np.geomspace(0.05, 1, 32) / size).astype(np.float32),
        "back": (rng.normal(size=(32, size * size)) * np.geomspace(0.05, 1, size * size) / 6).astype(np.float32),
    }
    path = tmp_path / "net.onnx"
    onnx.save(model(nodes, {"x": (1, 3, size, size)}, ["z"], constants), path)
    prepared = flow.prepare(str(path))
    options = plan_options.SplitOptions(plan=PlanOptions(budget_bytes=2**20), jobs=1)
    samples = load_samples("random", prepared.inputs, None, limit=4)
    result = flow.split(prepared, samples, options, tmp_path / "out", pool=workers())
    read = schema.read(result.segments[0].tflite_path.read_bytes())
    products = [op for op in edit.graph_of(read).operators if schema.op_name(read, op) == "BATCH_MATMUL"]
    for product in products:
        assert all(len(edit.graph_of(read).tensors[int(index)].quantization.scale) == 1 for index in product.inputs)
    assert products
    assert result.verification.passed
    assert result.verification.sqnr_db["logits"] > 24
