"""Operators that go into others, and endings that go: what a file computes stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as fb

from graphcut.quant import whole
from graphcut.runtime.litert import Runner
from graphcut.tflite import edit, schema
from graphcut.tflite.simplify import fuse_activations, fuse_l2_normalization, settle_scalars
from tests.support import nets
from tests.support.graph_nets import split_in_two
from tests.support.made_tflite import Made

FLOAT = {"dtype": np.float32, "scale": None}


def dense(made: Made, fed: int, units: int, *, name: str = "", data: object = None, **options: object) -> int:
    """A float FULLY_CONNECTED with a bias; the number of its output."""
    width = int(made.graph.tensors[fed].shape[-1])
    values = np.random.default_rng(1).standard_normal((units, width)) if data is None else data
    weights = made.tensor((units, width), **FLOAT, data=values)
    bias = made.tensor((units,), **FLOAT, data=np.linspace(-1, 1, units))
    out = made.tensor((1, units), **FLOAT, name=name)
    made.op("FULLY_CONNECTED", [fed, weights, bias], [out], fusedActivationFunction=0, **options)
    return out


def kinds(model: object) -> list[str]:
    return [schema.op_name(model, operator) for operator in edit.graph_of(model).operators]


@pytest.mark.parametrize(
    ("activation", "function"),
    [("RELU", fb.ActivationFunctionType.RELU), ("RELU6", fb.ActivationFunctionType.RELU6)],
)
def test_an_activation_goes_into_what_it_alone_reads(activation: str, function: int) -> None:
    made = Made()
    x = made.tensor((1, 5), **FLOAT)
    y = dense(made, x, 6)
    z = made.tensor((1, 6), **FLOAT, name="z")
    made.op(activation, [y], [z])
    last = dense(made, z, 3)
    before = made.done([x], [last])
    model = schema.read(before)
    assert fuse_activations(model) == 1
    assert kinds(model) == ["FULLY_CONNECTED"] * 2
    assert edit.graph_of(model).operators[0].builtinOptions.fusedActivationFunction == function
    after = schema.write(model)
    values = np.random.default_rng(2).standard_normal((1, 5)).astype(np.float32) * 5
    np.testing.assert_array_equal(Runner(before)([values])[0], Runner(after)([values])[0])
    assert fuse_activations(schema.read(after)) == 0


@pytest.mark.parametrize("reason", ["output", "two readers", "fused already", "other operator"])
def test_an_activation_stays_where_others_need_what_it_reads(reason: str) -> None:
    made = Made()
    x = made.tensor((1, 6), **FLOAT)
    y = dense(made, x, 6)
    if reason == "fused already":
        made.graph.operators[0].builtinOptions.fusedActivationFunction = fb.ActivationFunctionType.RELU6
    if reason == "other operator":
        soft = made.tensor((1, 6), **FLOAT)
        made.op("SOFTMAX", [y], [soft], beta=1.0)
        y = soft
    z = made.tensor((1, 6), **FLOAT)
    made.op("RELU", [y], [z])
    end = made.tensor((1, 6), **FLOAT)
    made.op("ADD", [z, y if reason == "two readers" else x], [end])
    model = schema.read(made.done([x], [end, y] if reason == "output" else [end]))
    assert fuse_activations(model) == 0
    assert kinds(model).count("RELU") == 1


@pytest.mark.parametrize("turned", ["", "RESHAPE", "TRANSPOSE"])
def test_an_ending_goes_with_what_turns_it(turned: str) -> None:
    made = Made()
    x = made.tensor((1, 4, 4, 3), **FLOAT)
    seam = made.tensor((1, 4, 4, 3), **FLOAT, name="seam")
    made.op("RELU", [x], [seam])
    ones = made.tensor((1, 1, 1, 3), **FLOAT, data=1.0)
    bias = made.tensor((1,), **FLOAT, data=0.0)
    end = made.tensor((1, 4, 4, 1), **FLOAT, name="inner" if turned else "end")
    made.op("CONV_2D", [seam, ones, bias], [end])
    if turned:
        inner, end = end, made.tensor((1, 1, 4, 4), **FLOAT, name="end")
        order = made.tensor(
            (4,), dtype=np.int32, scale=None, data=[0, 3, 1, 2] if turned == "TRANSPOSE" else [1, 1, 4, 4]
        )
        made.op(turned, [inner, order], [end])
    model = schema.read(made.done([x], [end]))
    assert edit.drop_ending(model, "end") == seam
    assert kinds(model) == ["RELU"]
    assert list(edit.graph_of(model).outputs) == [seam]


def test_an_ending_that_is_no_lone_convolution_of_ones_is_refused() -> None:
    made = Made()
    x = made.tensor((1, 4, 4, 3), **FLOAT)
    weights = made.tensor((1, 1, 1, 3), **FLOAT, data=2.0)
    end = made.tensor((1, 4, 4, 1), **FLOAT, name="end")
    made.op("CONV_2D", [x, weights, made.tensor((1,), **FLOAT, data=0.0)], [end])
    last = made.tensor((1, 4, 4, 1), **FLOAT, name="last")
    made.op("RELU", [end], [last])
    model = schema.read(made.done([x], [end, last]))
    with pytest.raises(ValueError, match="merged with another"):
        edit.drop_ending(model, "end")
    with pytest.raises(ValueError, match="not kept as a separate convolution"):
        edit.drop_ending(model, "last")


# --- the scale of a whole layer ---------------------------------------------------------------------------------------


def test_a_part_is_quantised_with_the_scale_of_the_whole() -> None:
    values = np.array([[0.31, -0.2], [0.5, 0.1]], np.float32)
    made = Made()
    x = made.tensor((1, 2), **FLOAT)
    end = dense(made, x, 2, name="fc/part1", data=values)
    model = schema.read(made.done([x], [end]))
    assert whole.plant(model, {"fc/part1": 0.4}, per_channel=True) == {}, "it holds the largest itself"
    assert whole.plant(model, {"other": 2.0}, per_channel=True) == {}
    planted = whole.plant(model, {"fc/part1": 2.0}, per_channel=True)
    assert planted == {"fc/part1": pytest.approx(0.31)}
    graph = edit.graph_of(model)
    weights = schema.constant(model, graph.tensors[int(graph.operators[0].inputs[1])])
    assert weights is not None
    assert weights.tolist() == [[2.0, pytest.approx(-0.2)], [0.5, pytest.approx(0.1)]]

    quantised = Made()
    scale = np.float32(2.0 / 127)
    x = quantised.tensor((1, 2))
    steps = quantised.tensor((2, 2), scale=scale, data=np.rint(weights / scale))
    out = quantised.tensor((1, 2), name="fc/part1")
    quantised.op("FULLY_CONNECTED", [x, steps, quantised.tensor((2,), dtype=np.int32, data=0)], [out])
    int8 = schema.read(quantised.done([x], [out]))
    whole.restore(int8, planted)
    graph = edit.graph_of(int8)
    found = schema.constant(int8, graph.tensors[int(graph.operators[0].inputs[1])])
    assert found is not None
    assert found.tolist() == np.rint(values / scale).tolist()
    with pytest.raises(ValueError, match="no operator makes gone"):
        whole.restore(int8, {"gone": 1.0})


def test_one_scale_a_channel_is_left_alone() -> None:
    made = Made()
    x = made.tensor((1, 4, 4, 3), **FLOAT)
    weights = made.tensor((2, 1, 1, 3), **FLOAT, data=0.5)
    end = made.tensor((1, 4, 4, 2), **FLOAT, name="conv/part1_output_nhwc")
    made.op("CONV_2D", [x, weights, made.tensor((2,), **FLOAT, data=0.0)], [end])
    data = made.done([x], [end])
    assert whole.plant(schema.read(data), {"conv/part1": 2.0}, per_channel=True) == {}
    planted = whole.plant(schema.read(data), {"conv/part1": 2.0}, per_channel=False)
    assert planted == {"conv/part1_output_nhwc": 0.5}


def test_a_number_beside_an_activation_is_a_scalar() -> None:
    made = Made()
    x, number = made.tensor((1, 4), **FLOAT), made.tensor((1,), **FLOAT, data=-1)
    several, out, last = made.tensor((4,), **FLOAT, data=2), made.tensor((1, 4), **FLOAT), made.tensor((1, 4), **FLOAT)
    made.op("MAXIMUM", [x, number], [out])
    made.op("MINIMUM", [out, several], [last])
    data = made.done([x], [last])
    model = schema.read(data)
    assert settle_scalars(model) == 1
    assert settle_scalars(model) == 0
    value = np.array([[-3, 0, 1, 5]], np.float32)
    (before,), (after,) = Runner(data)([value]), Runner(schema.write(model))([value])
    assert before.tolist() == after.tolist() == [[-1, 0, 1, 2]]


@pytest.mark.parametrize("form", ["clip", "pad", "max", "shrink"])
def test_operators_with_a_number_beside_an_activation_are_split(form: str, tmp_path: Path) -> None:
    """The quantiser refused them: "Ranks of scales (5) and zps (5) must be the same as the tensor rank (1)"."""
    b = nets.Builder()
    x = b.node("Relu", [b.conv("image", "stem", (3, 8))], "stem_out")
    y = b.conv(x, "middle", (8, 8))
    low, high = b.weight("low", np.array(-0.8)), b.weight("high", np.array(0.9))
    pads = b.weights.append(onnx.numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")) or "pads"
    made = {
        "clip": lambda: b.node("Clip", [y, low, high], "formed"),
        "pad": lambda: b.node("Pad", [y, pads, high], "formed"),
        "max": lambda: b.node("Max", [y, low], "formed"),
        "shrink": lambda: b.node("Shrink", [y], "formed", lambd=0.2, bias=0.1),
    }[form]()
    b.conv(made, "map", (8, 4), kernel=1)
    size = 18 if form == "pad" else 16
    result = split_in_two(b.model({"image": (1, 3, 16, 16)}, {"map": (1, 4, size, size)}), tmp_path)
    assert result.verification.exact
    assert result.verification.sqnr_db["logits"] > 30


@pytest.mark.parametrize("reason", ["", "other axis", "large bound", "another vector"])
def test_a_division_by_the_length_is_one_operator(reason: str) -> None:
    made = Made()
    x = made.tensor((1, 4, 5), **FLOAT, name="x")
    other = made.tensor((1, 4, 5), **FLOAT, name="other")
    squares, total, root, bounded, out = (
        made.tensor(shape, **FLOAT) for shape in ((1, 4, 5), (1, 4, 1), (1, 4, 1), (1, 4, 1), (1, 4, 5))
    )
    axis = 1 if reason == "other axis" else 2
    if axis == 1:
        for index in (total, root, bounded):
            made.graph.tensors[index].shape = np.array((1, 1, 5), np.int32)
    axes = made.tensor((1,), dtype=np.int32, scale=None, data=axis)
    least = made.tensor((), **FLOAT, data=0.5 if reason == "large bound" else 1e-6)
    made.op("MUL", [x, x], [squares], fusedActivationFunction=0)
    made.op("SUM", [squares, axes], [total], keepDims=True)
    made.op("SQRT", [total], [root])
    made.op("MAXIMUM", [root, least], [bounded])
    made.op("DIV", [other if reason == "another vector" else x, bounded], [out], fusedActivationFunction=0)
    before = made.done([x, other], [out])
    model = schema.read(before)
    assert fuse_l2_normalization(model) == (0 if reason else 1)
    assert kinds(model) == (["MUL", "SUM", "SQRT", "MAXIMUM", "DIV"] if reason else ["L2_NORMALIZATION"])
    values = np.random.default_rng(2).standard_normal((1, 4, 5)).astype(np.float32)
    values[0, 2] = 0
    wanted, got = (Runner(data)([values, values])[0] for data in (before, schema.write(model)))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
