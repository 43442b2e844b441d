"""Float segments alone: what is written, what it computes, and what is never replaced."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import graphcut as package
from graphcut.errors import UsageError
from tests.cli.test_cli import Graphcut, graphcut  # noqa: F401  # a fixture
from tests.support.nets import residual, saved, two_heads


def test_segments_one_after_the_other_are_the_whole(graphcut: Graphcut, tmp_path: Path) -> None:  # noqa: F811
    proto, out = residual(softmax=True), tmp_path / "out"
    path = saved(proto, tmp_path)
    said = graphcut("extract", path, "-o", out, "--segments", 3, "--json").document
    assert (said["k"], said["files"]) == (3, ["seg1.onnx", "seg2.onnx", "seg3.onnx"])
    assert sorted(each.name for each in out.iterdir()) == ["meta.json", "seg1.onnx", "seg2.onnx", "seg3.onnx"]
    generator = np.random.default_rng(1)
    values = {
        each.name: generator.standard_normal([d.dim_value for d in each.type.tensor_type.shape.dim], dtype=np.float32)
        for each in proto.graph.input
    }
    wanted = _run(proto, values)
    for name in said["files"]:
        onnx.checker.check_model(out / name, full_check=True)
        values |= _run(onnx.load(out / name), values)
    for name, value in wanted.items():
        np.testing.assert_allclose(values[name], value, atol=1e-5)


def _run(proto: onnx.ModelProto, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(
        zip(names, session.run(names, {each.name: values[each.name] for each in session.get_inputs()}), strict=True)
    )


def test_a_range_stays_in_one_piece(tmp_path: Path) -> None:
    whole = package.load(saved(two_heads(), tmp_path))
    layer = whole.graph.layers[whole.graph.nodes[1].outputs[0]]
    made = package.extract(package.load(tmp_path / "model.onnx", inputs=[layer]), tmp_path / "out")
    assert [each.name for each in made.files] == ["seg1.onnx"]
    assert made.plan.segments[0].input_layers == (layer,)
    document = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert document["options"]["inputs"] == [layer]
    assert document["float_proof"] == {"exact": True, "random_samples": 2}


def test_the_folder_is_whole_or_not_there(graphcut: Graphcut, tmp_path: Path) -> None:  # noqa: F811
    path, out = saved(residual(), tmp_path), tmp_path / "out"
    graphcut.fails(5, "the budget is 1.0 KiB", "extract", path, "-o", out, "--budget", "1KiB", "--no-layer-split")
    assert not out.exists()
    assert graphcut("extract", path, "-o", out, "--segments", 2).code == 0
    first = (out / "meta.json").read_bytes()
    graphcut.fails(2, "exists", "extract", path, "-o", out, "--segments", 2)
    assert graphcut("extract", path, "-o", out, "--segments", 2, "--force").code == 0
    assert (out / "meta.json").read_bytes() == first
    (out / "mine.txt").write_text("keep me")
    graphcut.fails(2, "mine.txt", "extract", path, "-o", out, "--segments", 2, "--force")
    graphcut.fails(2, "holds float segments only", "verify", out)
    with pytest.raises(UsageError, match="there is no setting"):
        package.extract(path, tmp_path / "other", segment=2)  # type: ignore[call-arg]
