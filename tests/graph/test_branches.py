"""``If`` with a known condition: the branch that is taken stands in its place; onnxruntime runs the ``If`` itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphcut.errors import ModelError
from tests.support.graph_nets import Values, assert_same, ints, model, node, normal, ops, weights

CONV = node("Conv", "x w", "c", "conv")


def branch(
    nodes: Sequence[NodeProto], outputs: Sequence[str], constants: Mapping[str, Values] | None = None
) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes),
        "branch",
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )


RELU = branch([node("Relu", "c", "r")], ["r"])
TANH = branch([node("Tanh", "c", "r")], ["r"])


def net(nodes: Sequence[NodeProto], opset: int = 17, **constants: Values) -> onnx.ModelProto:
    return model([CONV, *nodes], {"x": (1, 3, 8, 8)}, ["y"], {**weights(w=(4, 3, 3, 3)), **constants}, opset=opset)


def choose(
    condition: str,
    output: str,
    then: onnx.GraphProto = RELU,
    otherwise: onnx.GraphProto = TANH,
    name: str = "choose",
) -> NodeProto:
    return node("If", condition, output, name, then_branch=then, else_branch=otherwise)


@pytest.mark.parametrize(("flag", "taken"), [(True, "Relu"), (False, "Tanh")])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_an_initialiser_decides(flag: bool, taken: str, shape: tuple[int, ...]) -> None:
    proto = net([choose("flag", "y")], flag=np.full(shape, flag))
    loaded = normal(proto)
    assert ops(loaded) == ["Conv", taken]
    assert_same(proto, loaded)


def test_a_constant_node_and_arithmetic_on_it_decide() -> None:
    constant = node("Constant", "", "flag", value=numpy_helper.from_array(np.array(True)))
    proto = net([constant, node("Not", "flag", "no"), choose("no", "y")])
    loaded = normal(proto)
    assert ops(loaded) == ["Conv", "Tanh"]
    assert_same(proto, loaded)


@pytest.mark.parametrize(("channels", "taken"), [(4, "Squeeze"), (5, "Relu")])
def test_a_static_shape_decides_as_pytorch_writes_it_for_squeeze(channels: int, taken: str) -> None:
    squeeze = branch([node("Squeeze", "c axes", "r")], ["r"], {"axes": ints(0)})
    nodes = [
        node("Shape", "c", "shape"),
        node("Gather", "shape one", "size", axis=0),
        node("Equal", "size wanted", "same"),
        choose("same", "z", then=squeeze, otherwise=RELU),
        node("Softmax", "z", "y", axis=-1),
    ]
    proto = net(nodes, one=np.array(1), wanted=np.array(channels))
    loaded = normal(proto)
    assert ops(loaded) == ["Conv", taken, "Softmax"]
    assert_same(proto, loaded)


def test_nested_branches_with_weights_of_their_own_and_names_that_repeat() -> None:
    inner = choose("flag", "n", then=branch([node("Mul", "a scale", "r")], ["r"]), name="inner")
    outer = branch([node("Add", "c scale", "a"), inner], ["n"], {"scale": np.full((1, 4, 1, 1), 2, np.float32)})
    other = branch([node("Mul", "z scale", "a")], ["a"], {"scale": np.full((1, 4, 1, 1), 3, np.float32)})
    nodes = [choose("flag", "z", then=outer, name="outer"), choose("flag", "y", then=other, name="other")]
    proto = net(nodes, flag=np.array(True))
    assert_same(proto, normal(proto, passes=()))


def test_one_condition_is_the_output_of_another_if() -> None:
    kept = helper.make_graph(
        [node("Constant", "", "k", value=numpy_helper.from_array(np.array(False)))],
        "flag",
        [],
        [helper.make_tensor_value_info("k", TensorProto.BOOL, [])],
    )
    first = node("If", "flag", "flag2", "first", then_branch=kept, else_branch=kept)
    loaded = normal(net([first, choose("flag2", "y")], flag=np.array(True)))
    assert ops(loaded) == ["Conv", "Tanh"]


def test_several_outputs_and_one_that_is_a_weight() -> None:
    both = branch([node("Relu", "c", "r")], ["r", "scale"], {"scale": np.full((1, 4, 1, 1), 2, np.float32)})
    other = branch([node("Relu", "c", "r"), node("Tanh", "c", "t")], ["r", "t"])
    proto = net(
        [choose("flag", "p q", then=both, otherwise=other), node("Mul", "p q", "y")],
        flag=np.array(True),
    )
    loaded = normal(proto, passes=())
    assert ops(loaded) == ["Conv", "Relu", "Mul"]
    assert_same(proto, loaded)


def test_an_old_opset_is_raised_after_the_branch_is_taken() -> None:
    moved = branch([node("Unsqueeze", "c", "u", axes=[0]), node("Squeeze", "u", "s", axes=[0])], ["s"])
    proto = net([choose("flag", "z", then=moved), node("Relu", "z", "y")], opset=11, flag=np.array(True))
    assert_same(proto, normal(proto))


def test_what_the_branch_not_taken_holds_does_not_matter() -> None:
    foreign = branch([helper.make_node("Magic", ["c"], ["r"], domain="com.acme")], ["r"])
    loaded = normal(net([choose("flag", "y", otherwise=foreign)], flag=np.array(True)))
    assert ops(loaded) == ["Conv", "Relu"]
    with pytest.raises(ModelError, match=r"'r' \(Magic\) comes from the custom domain 'com.acme'"):
        normal(net([choose("flag", "y", otherwise=foreign)], flag=np.array(False)))


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ([node("ReduceMax", "c", "m", keepdims=0), node("Greater", "m zero", "f"), choose("f", "y")], "depends on 'f'"),
        (
            [
                node("Range", "zero64 many step", "r"),
                node("ReduceMax", "r", "m", keepdims=0),
                node("Greater", "m zero64", "f"),
                choose("f", "y"),
            ],
            "depends on 'f'",
        ),
        ([choose("flags", "y")], "has 2 values instead of one"),
        (
            [choose("flag", "y", then=branch([node("Relu", "ghost", "r")], ["r"]))],
            "reads 'ghost', which no node produces",
        ),
        ([choose("flag", "y", then=branch([node("Relu", "c", "r")], ["r", "r"]))], "differ in their inputs or outputs"),
        ([node("If", "flag", "y", "choose", else_branch=TANH)], "has no then_branch"),
    ],
)
def test_the_rest_is_refused_by_name(condition: list[NodeProto], said: str) -> None:
    constants: dict[str, Values] = {
        "zero": np.array(0, np.float32),
        "zero64": np.array(0),
        "many": np.array(2**40),
        "step": np.array(1),
        "flag": np.array(True),
        "flags": np.array([True, False]),
    }
    with pytest.raises(ModelError, match=said) as caught:
        normal(net(condition, **constants))
    assert "'choose'" in str(caught.value)
