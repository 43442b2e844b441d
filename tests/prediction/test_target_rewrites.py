"""Rewrites for one target: chosen by cost, exact, and made nowhere else."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

import graphcut
from graphcut import api, flow
from graphcut.analysis.candidates import analyse
from graphcut.cli import main
from graphcut.edgetpu.file_cost import PredictedCosts
from graphcut.errors import InfeasibleError, UsageError
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.segment_limits import Limits
from graphcut.prediction.sizes import predict
from graphcut.prediction.target_rewrites import depthwise_pays, passes_for
from graphcut.units import MIB
from tests.support import nets
from tests.support.graph_nets import assert_same, model, node, ops, weights


def dense_block(channels: int = 16, side: int = 8) -> ModelProto:
    """Scale and shift of every channel behind a Concat, activation, convolution: what DenseNet is made of."""
    vector = (2 * channels, 1, 1)
    return model(
        [
            node("Concat", "x x", "c", axis=1),
            node("Mul", "c k", "m"),
            node("Add", "m b", "a"),
            node("Relu", "a", "r"),
            node("Conv", "r w", "y"),
        ],
        {"x": (1, channels, side, side)},
        ["y"],
        weights(k=vector, b=vector, w=(8, 2 * channels, 1, 1)),
    )


def test_a_pair_becomes_depthwise_for_the_edge_tpu_and_only_there(tmp_path: Path) -> None:
    proto = dense_block()
    path = str(nets.saved(proto, tmp_path))
    plain, rewritten = flow.prepare(path), flow.prepare(path, target="edgetpu")
    assert ops(plain) == ["Concat", "Mul", "Add", "Relu", "Conv"]
    assert ops(rewritten) == ["Concat", "Conv", "Relu", "Conv"]
    assert {each.name: each.matches for each in rewritten.passes}["pairs-to-depthwise"] == 1
    assert_same(dense_block(), rewritten)


def test_it_no_longer_streams(tmp_path: Path) -> None:
    path = str(nets.saved(dense_block(), tmp_path))
    plain, rewritten = (PredictedCosts(flow.prepare(path, target=target).graph) for target in ("any", "edgetpu"))
    assert plain.segment(0, 5).off_chip_bytes == 32 * 32
    assert plain.segment(0, 5).fit.fits is False
    assert rewritten.segment(0, 4).off_chip_bytes == 0
    assert rewritten.segment(0, 4).fit.fits is True


def test_a_plan_that_must_not_stream_names_the_target(tmp_path: Path) -> None:
    path = str(nets.saved(dense_block(), tmp_path))
    options = PlanOptions(strategy="fewest", limits=Limits(off_chip_bytes=0, tflite_bytes=MIB))
    with pytest.raises(InfeasibleError, match="load the model with target='edgetpu'"):
        plan(analyse(flow.prepare(path).graph), predict(flow.prepare(path).graph), options)
    graph = flow.prepare(path, target="edgetpu").graph
    assert plan(analyse(graph), predict(graph), options).k == 1


def test_large_maps_of_few_channels_keep_the_pair(tmp_path: Path) -> None:
    assert depthwise_pays(512, 14, 14)
    assert not depthwise_pays(16, 512, 512)
    kept = flow.prepare(str(nets.saved(dense_block(8, 512), tmp_path)), target="edgetpu")
    assert ops(kept) == ["Concat", "Mul", "Add", "Relu", "Conv"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (32, 8, 8), (1, 1, 8)])
def test_constants_that_differ_within_a_channel_stay(shape: tuple[int, ...], tmp_path: Path) -> None:
    proto = dense_block()
    for tensor in proto.graph.initializer:
        if tensor.name == "k":
            tensor.ClearField("raw_data")
            del tensor.dims[:], tensor.float_data[:]
            tensor.dims.extend(shape)
            tensor.float_data.extend(np.linspace(0.5, 2, int(np.prod(shape))))
    kept = flow.prepare(str(nets.saved(proto, tmp_path)), target="edgetpu")
    assert "Mul" in ops(kept)


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no target 'gpu'"):
        passes_for("gpu")


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({}, "any"),
        ({"segments": 2}, "any"),
        ({"segments": 2, "device": "coral-pcie"}, "edgetpu"),
        ({"devices": 2}, "edgetpu"),
        ({"devices": ("1xcoral-usb", "1xcpu")}, "edgetpu"),
        ({"devices": "2xcpu"}, "any"),
        ({"segments": 2, "until": "chip"}, "edgetpu"),
    ],
)
def test_devices_imply_the_target(settings: dict[str, object], target: str) -> None:
    assert api.target_of(**settings) == target  # type: ignore[arg-type]


def test_a_plan_for_devices_is_of_the_rewritten_model_and_is_applied_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = nets.saved(dense_block(), tmp_path)
    operators = len(flow.prepare(str(path), target="edgetpu").graph.nodes)
    assert graphcut.plan(path, devices=2).segments[-1].stop == operators
    words = ["plan", str(path), "--device", "coral-usb", "--segments", "2", "--save", str(tmp_path / "plan.json")]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr().out
    (tmp_path / "said.json").write_text(said)
    assert json.loads(said)["options"]["target"] == "edgetpu"
    assert json.loads(said)["segments"][-1]["stop"] == operators
    assert main(["verify", str(tmp_path / "said.json"), "--model", str(path)]) == 0
    out = ["-o", str(tmp_path / "out"), "--calibration", "random", "--effort", "fast", "--min-sqnr", "0"]
    assert main(["split", str(path), "--plan", str(tmp_path / "plan.json"), *out, "--no-report"]) == 0
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["options"]["target"] == "edgetpu"
    capsys.readouterr()
    assert main([*words, "--target", "any", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["target"] == "any"
