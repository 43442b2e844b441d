"""The chain of segments against the whole model converted in one piece."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphcut import flow
from graphcut.measurement import int8_chain
from graphcut.planning import plan_options
from graphcut.planning.plan_options import PlanOptions
from graphcut.quant.refine import shifted, shifts
from graphcut.result import layout, reopen
from graphcut.samples import load_samples
from graphcut.tflite import edit, schema
from graphcut.verification import proof as proving
from graphcut.verification.proof import compare
from tests.cli.test_cli import Graphcut
from tests.support import nets, wide_nets
from tests.support.warm import workers


def split(proto: onnx.ModelProto, folder: Path, **options: Any) -> flow.SplitResult:
    model = flow.prepare(str(nets.saved(proto, folder)))
    samples = load_samples("random", model.inputs, None)
    asked = plan_options.SplitOptions(plan=PlanOptions(**options), independent=True)
    return flow.split(model, samples, asked, folder / "out", pool=workers())


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> flow.SplitResult:
    folder = tmp_path_factory.mktemp("residual")
    return split(nets.residual(softmax=True), folder, strategy="balanced", segments=3)


def test_the_whole_in_one_piece_gives_the_chain_s_bytes(residual: flow.SplitResult):
    found = residual.verification.independent
    assert found is not None
    assert found.exact
    assert (found.differing_share, found.largest_step) == (0.0, 0)
    assert reopen.verify(residual.folder) == residual.verification
    whole = layout.independent_tflite(residual.folder)
    unsplit = layout.tail_tflite(residual.folder, 1, 3)
    assert whole.read_bytes() != unsplit.read_bytes(), "another file by another way"
    assert "independent/whole_int8.tflite" in json.loads((residual.folder / "meta.json").read_text())["files"]


def test_seams_of_several_tensors_change_nothing_either(tmp_path: Path):
    result = split(wide_nets.unet(), tmp_path, budget_bytes=36 * 1024)
    assert result.plan.seam_tensors >= 2
    assert result.verification.independent is not None
    assert result.verification.independent.exact


def test_layers_in_parts_are_within_a_step(tmp_path: Path):
    """A part has no tensor in common with the whole's layer, so the last bits of some ranges differ."""
    proto = wide_nets.vgg(wide_nets.SMALL_VGG, 32, (200, 100), 10)
    result = split(proto, tmp_path, strategy="greedy", budget_bytes=24 * 1024)
    assert any("parts" in note for note in result.plan.notes)
    assert result.verification.passed
    assert result.verification.independent is not None
    assert result.verification.independent.largest_step <= 1
    assert result.verification.independent.sqnr_db > result.verification.sqnr_db["logits"]


def test_another_network_is_found_out(residual: flow.SplitResult, tmp_path: Path):
    opened = flow.manifest.read(residual.folder)
    samples = flow.manifest.read_samples(opened)
    model = schema.read(layout.independent_tflite(residual.folder).read_bytes())
    graph = edit.graph_of(model)
    for operator in graph.operators:
        if schema.op_name(model, operator) == "CONV_2D":
            weights = schema.constant(model, graph.tensors[int(operator.inputs[1])])
            assert weights is not None
            schema.set_constant(model, graph.tensors[int(operator.inputs[1])], np.ascontiguousarray(weights[::-1]))
    other = tmp_path / "other.tflite"
    other.write_bytes(schema.write(model))
    whole = reopen.float_whole(opened.segments, opened.tails[0].outputs, samples)
    chain = int8_chain.run_chain(opened.segments, samples)
    proved = proving.verify(chain, opened.tails, samples, replace(whole, chain_exact=True), other)
    assert proved.exact
    assert not proved.passed
    assert proved.independent is not None
    assert not proved.independent.exact
    assert proved.independent.differing_share > 0
    assert any("converted in one piece" in finding for finding in proved.findings)


def test_split_says_it_and_verify_says_it_again(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    graphcut = Graphcut(capsys)
    path = str(nets.saved(nets.two_heads(), tmp_path))
    made = graphcut(
        "split", path, "--segments", "2", "--calibration", "random", "--independent", "-o", str(tmp_path / "out")
    )
    assert made.code == 0, made.err
    assert "whole converted in one piece: the same bytes" in made.out
    again = graphcut("verify", str(tmp_path / "out"), "--json")
    assert again.code == 0, again.err
    assert again.document["independent"] == {
        "exact": True,
        "differing_share": 0.0,
        "largest_step": 0,
        "sqnr_db": 1000.0,
    }


def test_compare_counts_bytes_and_steps():
    ours = {"a": [np.array([[1, 2, 3, 4]], np.int8)], "b": [np.array([[0, 0]], np.int8)]}
    theirs = {"a": [np.array([[1, 2, 3, 7]], np.int8)], "b": [np.array([[0, 0]], np.int8)]}
    scales = {"a": (0.5, 0), "b": (1.0, 0)}
    found = compare(ours, theirs, scales, scales)
    assert not found.exact
    assert (found.differing_share, found.largest_step) == (1 / 6, 3)
    assert found.sqnr_db == pytest.approx(10 * np.log10((1 + 4 + 9 + 49) / 9))
    assert not compare(ours, ours, scales, {**scales, "a": (0.25, 0)}).exact, "the same bytes mean other numbers"


def test_shifts_of_biases_are_found_and_put_on_again(residual: flow.SplitResult):
    before = layout.independent_tflite(residual.folder).read_bytes()
    model = schema.read(before)
    graph = edit.graph_of(model)
    operator = next(each for each in graph.operators if schema.op_name(model, each) == "CONV_2D")
    bias = schema.constant(model, graph.tensors[int(operator.inputs[2])])
    assert bias is not None
    schema.set_constant(model, graph.tensors[int(operator.inputs[2])], bias + np.int32(17))
    edit.compact(model)
    after = schema.write(model)
    found = shifts(before, after)
    assert list(found) == [schema.tensor_name(graph.tensors[int(operator.outputs[0])])]
    assert np.array_equal(next(iter(found.values())), np.full(bias.shape, 17))
    assert shifted(before, found) == after
