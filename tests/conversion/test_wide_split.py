"""Splits whose seams are several tensors, from model to proved folder and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphcut import flow
from graphcut.graph.model import Model
from graphcut.planning import plan_options
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import arrange
from graphcut.prediction.sizes import predict
from graphcut.records import Samples
from graphcut.result import reopen
from graphcut.samples import load_samples
from graphcut.tflite import edit, schema
from tests.cli.test_cli import Graphcut
from tests.support import nets, wide_nets
from tests.support.warm import workers


@pytest.fixture
def graphcut(capsys: pytest.CaptureFixture[str]) -> Graphcut:
    return Graphcut(capsys)


def split(proto: onnx.ModelProto, folder: Path, **options: Any) -> tuple[Model, Samples, flow.SplitResult]:
    model = flow.prepare(str(nets.saved(proto, folder)))
    samples = load_samples("random", model.inputs, None)
    asked = plan_options.SplitOptions(plan=PlanOptions(**options))
    return model, samples, flow.split(model, samples, asked, folder / "out", pool=workers())


@pytest.fixture(scope="module")
def u(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Samples, flow.SplitResult]:
    return split(wide_nets.unet(), tmp_path_factory.mktemp("u"), budget_bytes=36 * 1024)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Samples, flow.SplitResult]:
    return split(wide_nets.pyramid(), tmp_path_factory.mktemp("heads"), budget_bytes=11 * 1024)


@pytest.mark.parametrize("name", ["u", "heads"])
def test_chain_unsplit_and_tails_are_proved_equal(name: str, request: pytest.FixtureRequest) -> None:
    model, samples, result = request.getfixturevalue(name)
    proved = result.verification
    assert proved.passed
    assert proved.exact
    assert proved.float_exact
    assert result.plan.seam_tensors >= 2
    assert result.plan.k >= 3
    assert result.plan.budget_bytes is not None
    assert max(segment.tflite_bytes for segment in result.plan.segments) <= result.plan.budget_bytes
    outputs = [model.graph.layers[output] for output in model.graph.outputs]
    assert min(proved.sqnr_db["logits" if len(outputs) == 1 else layer] for layer in outputs) >= 24
    assert reopen.verify(result.folder) == proved
    chain = reopen.run(result.folder, samples)
    for tail in range(1, result.plan.k + 1):
        for ours, theirs in zip(chain, reopen.run(result.folder, samples, tail=tail), strict=True):
            for layer in outputs:
                assert np.array_equal(ours[layer], theirs[layer])


@pytest.mark.parametrize("name", ["u", "heads"])
def test_both_sides_of_every_seam_agree_and_nothing_is_handed_through(
    name: str, request: pytest.FixtureRequest
) -> None:
    model, _, result = request.getfixturevalue(name)
    made: dict[str, Any] = {}
    for part in result.segments:
        file = schema.read(part.tflite_path.read_bytes())
        graph = edit.graph_of(file)
        names = [[schema.tensor_name(graph.tensors[int(i)]) for i in edge] for edge in (graph.inputs, graph.outputs)]
        assert names == [list(part.segment.input_layers), list(part.segment.output_layers)]
        assert not set(names[0]) & set(names[1])
        (signature,) = file.signatureDefs
        assert [[entry.name.decode() for entry in edge] for edge in (signature.inputs, signature.outputs)] == names
        operators = [int(index) for operator in graph.operators for index in operator.inputs]
        assert {int(index) for index in graph.inputs} <= set(operators), "every input is read"
        for tensor in part.inputs:
            assert made.get(tensor.layer, tensor) == tensor
        made |= {tensor.layer: tensor for tensor in part.outputs}
        proto = onnx.load(part.onnx_path)
        assert [value.name for value in proto.graph.input] == list(part.segment.inputs)
        assert [value.name for value in proto.graph.output] == list(part.segment.outputs)
    assert made.keys() >= {model.graph.layers[name] for name in model.graph.outputs}


def test_an_output_leaves_the_segment_that_makes_it(
    heads: tuple[Model, Samples, flow.SplitResult],
) -> None:
    _, _, result = heads
    makers = {layer: part.segment.index for part in result.segments for layer in part.segment.output_layers}
    assert [makers[f"head{number}"] for number in range(3)] == sorted(
        (makers[f"head{number}"] for number in range(3)), reverse=True
    ), "the top of the pyramid comes first"
    assert makers["head2"] < result.plan.k


def test_the_manifest_knows_seams_of_several_tensors(u: tuple[Model, Samples, flow.SplitResult]) -> None:
    _, _, result = u
    opened = flow.manifest.read(result.folder)
    assert opened.plan.candidates == result.plan.candidates
    assert opened.document["cuts"] == list(result.plan.cuts)
    assert opened.document["plan"]["cut_layers"] == [list(each.layers) for each in result.plan.candidates]
    assert any("+" in cut for cut in result.plan.cuts)
    handed = {layer for each in result.plan.candidates for layer in each.layers}
    assert {each["layer"] for each in opened.document["seams"]} == handed
    assert set(result.verification.sqnr_db) == {*handed, "logits"}
    assert "seams of up to" in (result.folder / "note.txt").read_text()


def test_a_model_written_in_a_worse_order_needs_no_wider_seams(tmp_path: Path) -> None:
    proto = wide_nets.pyramid()
    nodes = sorted(proto.graph.node, key=lambda node: (node.name.startswith(("side", "head")), node.name))
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(proto)
    del shuffled.graph.node[:]
    known = {"image", "", *(weight.name for weight in proto.graph.initializer)}
    while nodes:  # heads as late as can be
        node = next(node for node in nodes if known.issuperset(node.input))
        nodes.remove(node)
        known.update(node.output)
        shuffled.graph.node.append(node)
    model = flow.prepare(str(nets.saved(shuffled, tmp_path)))
    made = flow.make_plan(model, PlanOptions(budget_bytes=11 * 1024))
    plain = flow.prepare(str(nets.saved(proto, tmp_path, "plain.onnx")))
    assert made.max_seam_tensors <= flow.make_plan(plain, PlanOptions(budget_bytes=11 * 1024)).max_seam_tensors


# --- the command line -------------------------------------------------------------------------------------------------


def test_plan_prints_seams_that_cuts_takes(graphcut: Graphcut, tmp_path: Path) -> None:
    path = nets.saved(wide_nets.unet(), tmp_path)
    ended = graphcut("plan", path, "--budget", "36KiB")
    assert ended.code == 0
    assert "seams of up to" in ended.out
    first = graphcut("plan", path, "--budget", "36KiB", "--json").document
    assert first["seam_tensors"] == first["max_seam_tensors"] >= 2
    assert [set(cut.split("+")) for cut in first["cuts"]] == [set(layers) for layers in first["cut_layers"]]
    again = graphcut("plan", path, "--cuts", ",".join(first["cuts"]), "--json").document
    assert again["cut_layers"] == first["cut_layers"]
    assert [each["outputs"] for each in again["segments"]] == [each["outputs"] for each in first["segments"]]


def test_too_few_tensors_and_whole_layers_are_refused_in_one_line(graphcut: Graphcut, tmp_path: Path) -> None:
    u = nets.saved(wide_nets.unet(), tmp_path)
    ended = graphcut("plan", u, "--budget", "36KiB", "--max-seam-tensors", "1", "-q")
    assert ended.code == 5
    assert "--max-seam-tensors" in ended.err
    assert ended.err.count("\n") == 1
    vgg = nets.saved(wide_nets.vgg(wide_nets.SMALL_VGG, 32, (200, 100), 10), tmp_path, "vgg.onnx")
    ended = graphcut("plan", vgg, "--budget", "60KiB", "--no-layer-split")
    assert ended.code == 5
    assert "without --no-layer-split" in ended.err
    made = graphcut("plan", vgg, "--budget", "60KiB", "--json").document
    assert any(note.startswith("layer fc1 (") for note in made["notes"])
    assert graphcut("plan", vgg, "--budget", "60KiB", "--max-seam-tensors", "0").code == 2


def test_inspect_lists_places_with_several_tensors(graphcut: Graphcut, tmp_path: Path) -> None:
    path = nets.saved(wide_nets.unet(), tmp_path)
    one, three = (
        graphcut("inspect", path, "--json", "--max-seam-tensors", most).document["candidates"] for most in (1, 3)
    )
    assert len(three) > len(one)
    assert max(len(each["layers"]) for each in three) == 3
    ended = graphcut("inspect", path, "--max-seam-tensors", 2)
    assert "+" in ended.out
    assert "1x8x32x32+1x" in ended.out


def test_split_with_named_seams(graphcut: Graphcut, tmp_path: Path) -> None:
    path = nets.saved(wide_nets.unet(depth=1), tmp_path)
    out = tmp_path / "out"
    ended = graphcut("split", path, "-o", out, "--cuts", "down0+pool0,join0", "--calibration", "random", "--json", "-q")
    assert ended.code == 0
    assert ended.document["cuts"] == ["down0+pool0", "join0"]
    assert json.loads((out / "meta.json").read_text())["options"]["cuts"] == ["down0+pool0", "join0"]


def test_given_cuts_make_plans_of_the_named_seams(tmp_path: Path) -> None:
    model = flow.prepare(str(nets.saved(wide_nets.unet(), tmp_path)))
    options = PlanOptions(strategy="given", cuts=("down0+pool0",))
    arranged = arrange(model.graph, options, predict)
    made = plan(arranged.analysis, arranged.sizes, options)
    assert made.segments[1].inputs[0] != made.segments[0].outputs[0] or len(made.segments[0].outputs) == 2
    assert set(made.segments[0].output_layers) == {"down0", "pool0"}
