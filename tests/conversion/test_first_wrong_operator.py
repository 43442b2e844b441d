"""A check that fails names the operator: files are broken on purpose here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphcut.conversion.first_wrong_operator import float_culprit
from graphcut.graph.conversion import conversion_copy
from graphcut.graph.load import load
from graphcut.tflite import edit, from_onnx, schema
from graphcut.tflite.float_segment import FloatSegment, finish
from graphcut.workers.pool import Call, Pool
from tests.support import nets
from tests.support.places import ROOT


def float_segment(argument: tuple[Path, Path]) -> FloatSegment:
    """Runs in a worker: what the converter makes of a small residual net."""
    path, folder = argument
    model = load(path)
    copy = conversion_copy(model.proto, model.graph.layers)
    target = folder / "copy.onnx"
    onnx.save(copy.proto, target)
    data = from_onnx.convert(target, folder / "scratch", "the net")
    return finish(data, "the net", inputs=["image"], outputs=["logits"], endings=copy.endings, readers=copy.readers)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("diagnose")
    path = nets.saved(nets.residual(blocks=2), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with Pool(1, folder) as pool:
            call = Call(
                function="tests.conversion.test_first_wrong_operator:float_segment",
                argument=(path, folder),
                subject="the net",
            )
            (segment,) = pool.map([call])
    image = np.random.default_rng(3).standard_normal((1, 3, 32, 32)).astype(np.float32)
    return folder / "copy.onnx", segment, image


def broken(data: bytes, layer: str, change: Callable[[Any], np.ndarray]) -> bytes:
    """The file with the constants of the operator that makes ``layer`` changed."""
    model = schema.read(data)
    graph = edit.graph_of(model)
    operator = edit.producers(model)[edit.find(model, layer)]
    tensor = graph.tensors[int(operator.inputs[1])]
    schema.set_constant(model, tensor, change(schema.constant(model, tensor)))
    return schema.write(model)


def test_a_right_file_has_no_culprit(made):
    path, segment, image = made
    assert float_culprit(path, {"image": image}, segment.data, 1e-3) == ""


def test_the_first_wrong_operator_is_named(made):
    path, segment, image = made
    wrong = broken(segment.data, "block1_relu1", lambda weights: weights * np.float32(1.5))
    assert float_culprit(path, {"image": image}, wrong, 1e-3) == " at CONV_2D (block1_relu1)"


def test_strided_convolutions_pad_by_themselves(made):
    _, segment, _ = made
    assert "PAD" not in segment.operators or "CONV_2D" in segment.operators
    assert "TRANSPOSE" not in segment.operators
