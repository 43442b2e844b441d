"""A range of a model: heads left off, inputs in the middle, and what is no range."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from graphcut import flow
from graphcut.errors import ModelError, UsageError
from graphcut.graph.load import load
from graphcut.graph.model_range import ModelRange
from graphcut.result import manifest
from tests.cli.test_cli import Graphcut, graphcut  # noqa: F401  # a fixture
from tests.support.graph_nets import ints, model, node, random_inputs, run, weights
from tests.support.nets import saved, two_heads


def picked(tmp_path: Path) -> Path:
    """A chain of convolutions that ends in a choice by value, which no int8 segment can make."""
    nodes = [
        node("Conv", "x a", "first"),
        helper.make_node("Relu", ["first"], ["first, act"]),
        helper.make_node("Conv", ["first, act", "b"], ["scores"]),
    ]
    nodes += [node("TopK", "scores k", "best places", axis=1)]
    constants = {**weights(a=(8, 3, 3, 3), b=(4, 8, 3, 3)), "k": ints(2)}
    return saved(model(nodes, {"x": (1, 3, 12, 12)}, ["best", "places"], constants), tmp_path)  # type: ignore[arg-type]


def test_a_head_that_cannot_be_split_is_left_off(tmp_path: Path) -> None:
    path = picked(tmp_path)
    with pytest.raises(ModelError):
        load(path)
    found = load(path, chosen=ModelRange(outputs=("scores",)))
    assert found.graph.outputs == ("scores",)
    assert {item.op_type for item in found.graph.nodes} == {"Conv", "Relu"}
    assert not {"k"} & set(found.graph.weights)


def test_a_range_computes_what_the_model_computes_there(tmp_path: Path) -> None:
    proto = two_heads()
    path = saved(proto, tmp_path)
    whole = load(path)
    middle = whole.graph.nodes[len(whole.graph.nodes) // 3].outputs[0]
    layer = whole.graph.layers[middle]
    tapped = load(path, chosen=ModelRange(outputs=(layer, *whole.graph.outputs[:1])))
    inputs = random_inputs(whole)
    values, first = run(tapped.proto, inputs)
    np.testing.assert_allclose(first, run(whole.proto, inputs)[0], atol=1e-5)
    rest = load(path, chosen=ModelRange(inputs=(layer,), outputs=whole.graph.outputs[:1]))
    assert [each.name for each in rest.inputs] == [middle]
    assert rest.inputs[0].source_layout == "NCHW"
    (again,) = run(rest.proto, {middle: values})
    np.testing.assert_allclose(again, first, atol=1e-5)
    assert (rest.range_inputs, rest.range_outputs) == ((layer,), whole.graph.outputs[:1])


def test_an_output_that_only_a_rewrite_made_is_found(tmp_path: Path) -> None:
    """The layer name of a tensor is not the tensor's; both say the same place."""
    nodes = [node("Conv", "x a", "/stem/conv/Conv_output_0"), node("Relu", "/stem/conv/Conv_output_0", "y")]
    path = saved(model(nodes, {"x": (1, 3, 8, 8)}, ["y"], weights(a=(4, 3, 3, 3))), tmp_path)  # type: ignore[arg-type]
    for name in ("stem.conv", "/stem/conv/Conv_output_0"):
        assert load(path, chosen=ModelRange(outputs=(name,))).graph.outputs == ("/stem/conv/Conv_output_0",)


@pytest.mark.parametrize(
    ("inputs", "outputs", "told"),
    [
        ((), ("stemm",), "did you mean stem"),
        (("stemm",), (), "did you mean stem"),
        (("left",), (), "'r' is not computed from"),
        (("left",), ("stem",), "no output is computed from the input 'left'"),
        (("stem", "left"), ("right",), "no output is computed from the input 'left'"),
        (("left",), ("left",), "no output is computed from the input 'left'"),
    ],
)
def test_what_is_no_range_is_refused(
    tmp_path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], told: str
) -> None:
    nodes = [node("Conv", "x a", "stem"), node("Conv", "stem b", "left"), node("Conv", "stem c", "right")]
    nodes += [node("Relu", "left", "l"), node("Relu", "right", "r")]
    constants = weights(a=(4, 3, 1, 1), b=(4, 4, 1, 1), c=(4, 4, 1, 1))
    path = saved(model(nodes, {"x": (1, 3, 8, 8)}, ["l", "r"], constants), tmp_path)  # type: ignore[arg-type]
    with pytest.raises((UsageError, ModelError)) as caught:
        load(path, chosen=ModelRange(inputs=inputs, outputs=outputs))
    assert told in caught.value.text


def test_an_input_that_only_the_head_read_goes_with_it(tmp_path: Path) -> None:
    nodes = [node("Conv", "x a", "map"), node("Add", "map z", "y")]
    constants = weights(a=(4, 3, 1, 1))
    inputs = {"x": (1, 3, 8, 8), "z": (1, 4, 8, 8)}
    path = saved(model(nodes, inputs, ["y"], constants), tmp_path)  # type: ignore[arg-type]
    assert [each.name for each in load(path, chosen=ModelRange(outputs=("map",))).inputs] == ["x"]


def test_the_command_line_splits_a_range_and_keeps_it(graphcut: Graphcut, tmp_path: Path) -> None:  # noqa: F811
    path, out = picked(tmp_path), tmp_path / "out"
    assert "output  first, act" in graphcut("inspect", path, "--outputs", r"first\, act").out
    words = ["--segments", 2, "--outputs", "scores", "--calibration", "random", "--samples", 2, "--no-report"]
    assert graphcut("split", path, "-o", out, *words).code == 0
    opened = manifest.read(out)
    assert (opened.options["inputs"], opened.options["outputs"]) == (None, ["scores"])
    assert [each.layer for each in opened.tails[0].outputs] == ["scores"]
    assert graphcut("verify", out, "--model", path).code == 0
    said = graphcut("plan", path, "--segments", 2, "--outputs", "scores", "--json")
    (tmp_path / "plan.json").write_text(said.out)
    assert json.loads(said.out)["options"]["outputs"] == ["scores"]
    assert graphcut("verify", tmp_path / "plan.json", "--model", path).code == 0


def test_export_writes_a_range(graphcut: Graphcut, tmp_path: Path) -> None:  # noqa: F811
    path, made = picked(tmp_path), tmp_path / "range.onnx"
    graphcut.fails(2, "is an ONNX file already", "export", path, "-o", made)
    assert graphcut("export", path, "-o", made, "--inputs", r"first\, act", "--outputs", "scores").code == 0
    again = flow.prepare(str(made))
    assert [each.name for each in again.inputs] == ["first, act"]
    assert again.graph.outputs == ("scores",)
    graphcut.fails(2, "exists", "export", path, "-o", made, "--outputs", "scores")
