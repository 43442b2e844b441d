"""Every rewrite on graphs that match and on graphs that only look alike; each result is checked in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from graphcut.errors import ModelError
from graphcut.graph.model import Model
from tests.support.graph_nets import assert_same, ints, model, node, normal, ops, report_of, weights

IMAGE = {"x": (1, 4, 8, 8)}


# Constants


def test_shape_chains_of_torch_exports_become_constants() -> None:
    proto = model(
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape zero", "batch", axis=0),
            node("Unsqueeze", "batch axis", "first"),
            node("Concat", "first rest", "target", axis=0),
            node("Reshape", "x target", "flat"),
            node("Gemm", "flat w", "y"),
        ],
        IMAGE,
        ["y"],
        {"zero": np.array(0, np.int64), "axis": ints(0), "rest": ints(-1), **weights(w=(256, 3))},
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Transpose", "Flatten", "Gemm"]
    assert report_of(normalised, "fold-constants").matches == 4
    assert_same(proto, normalised)


def test_weights_made_by_nodes_become_weights() -> None:
    proto = model(
        [
            node("ConstantOfShape", "size", "ones", value=onnx_float(1.0)),
            node("Mul", "ones factor", "w"),
            node("Conv", "x w", "y", kernel_shape=[3, 3]),
        ],
        IMAGE,
        ["y"],
        {"size": ints(2, 4, 3, 3), **weights(factor=(2, 4, 1, 1))},
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv"]
    assert normalised.graph.weights["w"].shape == (2, 4, 3, 3)
    assert_same(proto, normalised)


def test_random_nodes_are_not_constants() -> None:
    proto = model(
        [node("RandomNormalLike", "w", "noise", seed=1.0), node("Conv", "x noise", "y")],
        IMAGE,
        ["y"],
        weights(w=(4, 4, 1, 1)),
    )
    normalised = normal(proto, passes=())
    assert ops(normalised) == ["RandomNormalLike", "Conv"]


def onnx_float(value: float) -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([value], np.float32))


# Nothing


def test_identities_dropouts_and_empty_pads_go_and_the_output_keeps_its_name() -> None:
    proto = model(
        [
            node("Identity", "x", "a"),
            node("Dropout", "a", "b"),
            node("Pad", "b pads", "c"),
            node("Relu", "c", "d"),
            node("Identity", "d", "y"),
        ],
        IMAGE,
        ["y"],
        {"pads": ints(*[0] * 8)},
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Relu"]
    assert normalised.graph.outputs == ("y",)
    assert_same(proto, normalised)


def test_an_output_that_is_the_input_is_refused() -> None:
    with pytest.raises(ModelError, match="output 'y' is the input 'x'"):
        normal(model([node("Identity", "x", "y"), node("Relu", "x", "z")], IMAGE, ["y", "z"]))


def test_a_reversing_slice_is_not_nothing() -> None:
    constants = {"starts": ints(-1), "ends": ints(-100), "axes": ints(3), "steps": ints(-1)}
    proto = model([node("Slice", "x starts ends axes steps", "y")], IMAGE, ["y"], constants)
    normalised = normal(proto)
    assert ops(normalised) == ["Slice"]
    assert_same(proto, normalised)


def test_dead_nodes_and_weights_nobody_reads_go() -> None:
    proto = model(
        [node("Relu", "x", "y"), node("Conv", "x w", "dead")], IMAGE, ["y"], weights(w=(4, 4, 1, 1), unused=(2000,))
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Relu"]
    assert not normalised.graph.weights
    assert not normalised.proto.graph.initializer


# Convolutions


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_batch_norm_is_folded(group: int, transposed: bool) -> None:
    shape = (4, 8 // group, 3, 3) if transposed else (8, 4 // group, 3, 3)
    constants = weights(w=shape, b=(8,), scale=(8,), shift=(8,), mean=(8,))
    constants["variance"] = np.abs(weights(9, v=(8,))["v"]) + 0.1
    proto = model(
        [
            node("ConvTranspose" if transposed else "Conv", "x w b", "c", group=group),
            node("BatchNormalization", "c scale shift mean variance", "y", epsilon=1e-3),
        ],
        IMAGE,
        ["y"],
        constants,
    )
    normalised = normal(proto)
    assert ops(normalised) == ["ConvTranspose" if transposed else "Conv"]
    assert report_of(normalised, "fold-batch-norm").matches == 1
    assert_same(proto, normalised)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_batch_norm_after_arithmetic_is_folded(kind: str) -> None:
    """Paddle writes the bias of a transposed convolution as an Add before the normalisation."""
    shape = (4, 8, 2, 2) if kind == "ConvTranspose" else (8, 4, 2, 2)
    constants = weights(w=shape, bias=(1, 8, 1, 1), scale=(8,), shift=(8,), mean=(8,), gain=(8, 1, 1))
    constants["variance"] = np.abs(weights(9, v=(8,))["v"]) + 0.1
    nodes = [
        node(kind, "x w", "c"),
        node("Add", "c bias", "d"),
        node("BatchNormalization", "d scale shift mean variance", "e"),
        node("Mul", "e gain", "y"),
    ]
    proto = model(nodes, IMAGE, ["y"], constants)
    normalised = normal(proto)
    assert ops(normalised) == [kind]
    assert_same(proto, normalised)


def test_batch_norm_of_a_tensor_read_twice_is_split_instead() -> None:
    constants = weights(w=(4, 4, 1, 1), scale=(4,), shift=(4,), mean=(4,)) | {"variance": np.ones(4, np.float32)}
    proto = model(
        [
            node("Conv", "x w", "c"),
            node("BatchNormalization", "c scale shift mean variance", "n"),
            node("Add", "c n", "y"),
        ],
        IMAGE,
        ["y"],
        constants,
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Mul", "Add", "Add"]
    assert_same(proto, normalised)


@pytest.mark.parametrize(
    ("op_type", "inputs", "folds"),
    [
        ("Mul", "c k", True),
        ("Mul", "k c", True),
        ("Add", "k c", True),
        ("Sub", "c k", True),
        ("Sub", "k c", True),
        ("Div", "c k", True),
        ("Div", "k c", False),
    ],
)
@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (6, 1, 1), (1,)])
def test_channel_arithmetic_is_folded(op_type: str, inputs: str, folds: bool, shape: tuple[int, ...]) -> None:
    proto = model(
        [node("Conv", "x w", "c"), node(op_type, inputs, "y")],
        IMAGE,
        ["y"],
        weights(w=(6, 4, 3, 3), k=shape),
    )
    normalised = normal(proto)
    assert ops(normalised) == (["Conv"] if folds else ["Conv", op_type])
    assert_same(proto, normalised, tolerance=1e-4)


@pytest.mark.parametrize("shape", [(6,), (1, 6, 6, 6), (1, 1, 6, 1)])
def test_arithmetic_along_other_axes_is_not_folded(shape: tuple[int, ...]) -> None:
    proto = model([node("Conv", "x w", "c"), node("Mul", "c k", "y")], IMAGE, ["y"], weights(w=(6, 4, 3, 3), k=shape))
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Mul"]
    assert_same(proto, normalised)


def test_arithmetic_that_broadcasts_the_map_is_not_folded() -> None:
    proto = model(
        [node("Conv", "x w", "c"), node("Add", "c k", "y")], IMAGE, ["y"], weights(w=(1, 4, 1, 1), k=(1, 5, 1, 1))
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Add"]
    assert_same(proto, normalised)


# Padding and pools


def test_zero_padding_goes_into_every_conv_that_reads_it() -> None:
    proto = model(
        [
            node("Pad", "x pads", "p"),
            node("Conv", "p w", "a", kernel_shape=[3, 3], strides=[2, 2]),
            node("Conv", "p w", "b", kernel_shape=[3, 3], pads=[1, 0, 0, 1], strides=[2, 2]),
        ],
        IMAGE,
        ["a", "b"],
        {"pads": ints(0, 0, 0, 1, 0, 0, 1, 2), **weights(w=(2, 4, 3, 3))},
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Conv"]
    assert [item.attributes["pads"] for item in normalised.graph.nodes] == [(0, 1, 1, 2), (1, 1, 1, 3)]
    assert_same(proto, normalised)


@pytest.mark.parametrize(
    ("pads", "value", "mode"),
    [
        ((0, 0, 1, 1, 0, 0, 1, 1), 1.0, "constant"),
        ((0, 0, 1, 1, 0, 0, 1, 1), None, "reflect"),
        ((0, 0, -1, 1, 0, 0, 1, 1), 0.0, "constant"),
        ((0, 1, 1, 1, 0, 1, 1, 1), 0.0, "constant"),
    ],
)
def test_other_padding_stays(pads: tuple[int, ...], value: float | None, mode: str) -> None:
    constants = {"pads": ints(*pads), **weights(w=(2, 4 + pads[1] + pads[5], 3, 3))}
    if value is not None:
        constants["value"] = np.array(value, np.float32)
    inputs = "x pads value" if value is not None else "x pads"
    proto = model([node("Pad", inputs, "p", mode=mode), node("Conv", "p w", "y")], IMAGE, ["y"], constants)
    normalised = normal(proto)
    assert ops(normalised) == ["Pad", "Conv"]
    assert_same(proto, normalised)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op_type", ["Conv", "MaxPool", "AveragePool"])
def test_auto_pad_becomes_numbers(op_type: str, auto_pad: str) -> None:
    inputs = "x w" if op_type == "Conv" else "x"
    proto = model(
        [node(op_type, inputs, "y", kernel_shape=[3, 3], strides=[2, 2], auto_pad=auto_pad)],
        IMAGE,
        ["y"],
        weights(w=(2, 4, 3, 3)) if op_type == "Conv" else {},
    )
    normalised = normal(proto)
    assert all("auto_pad" not in item.attributes for item in normalised.graph.nodes)
    assert_same(proto, normalised)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("opset", "axes"), [(17, (2, 3)), (17, (-1, -2)), (18, (2, 3))])
def test_means_over_the_map_become_global_pools(opset: int, axes: tuple[int, ...], keepdims: int) -> None:
    if opset < 18:
        mean = node("ReduceMean", "x", "m", axes=list(axes), keepdims=keepdims)
        constants = {}
    else:
        mean, constants = node("ReduceMean", "x axes", "m", keepdims=keepdims), {"axes": ints(*axes)}
    proto = model([mean, node("Relu", "m", "y")], IMAGE, ["y"], constants, opset=opset)
    normalised = normal(proto)
    assert ops(normalised) == ["GlobalAveragePool", *([] if keepdims else ["Flatten"]), "Relu"]
    assert_same(proto, normalised)


@pytest.mark.parametrize("axes", [(1,), (1, 2, 3), (2,), (0, 2, 3)])
def test_means_over_other_axes_stay(axes: tuple[int, ...]) -> None:
    proto = model([node("ReduceMean", "x", "y", axes=list(axes))], IMAGE, ["y"])
    normalised = normal(proto)
    assert ops(normalised) == ["ReduceMean"]


@pytest.mark.parametrize(
    ("attributes", "is_global"),
    [
        ({"kernel_shape": [8, 8]}, True),
        ({"kernel_shape": [20, 20], "pads": [6, 6, 6, 6], "strides": [16, 16]}, True),
        ({"kernel_shape": [9, 9], "pads": [0, 0, 1, 1], "count_include_pad": 1}, True),
        ({"kernel_shape": [7, 8]}, False),
        ({"kernel_shape": [7, 7], "strides": [2, 2]}, False),
    ],
)
def test_average_pools_that_cover_the_map(attributes: dict[str, object], is_global: bool) -> None:
    proto = model([node("AveragePool", "x", "y", **attributes)], IMAGE, ["y"])
    normalised = normal(proto)
    assert ("GlobalAveragePool" in ops(normalised)) == is_global
    assert_same(proto, normalised)


@pytest.mark.parametrize(("opset", "share"), [(17, 64 / 1280**2), (19, 1.0)])
def test_a_window_far_larger_than_its_map(opset: int, share: float) -> None:
    """Up to opset 18 onnxruntime divides by all of a window that ceil_mode lets be: Hugging Face's EfficientNet."""
    attributes = {"kernel_shape": [1280, 1280], "strides": [1280, 1280], "ceil_mode": 1, "count_include_pad": 1}
    nodes = [node("AveragePool", "x", "p", **attributes), node("Flatten", "p", "f"), node("Gemm", "f g", "y")]
    constants = weights(g=(IMAGE["x"][1], 5))
    proto = model(nodes, IMAGE, ["y"], constants, opset=opset)
    normalised = normal(proto)
    assert [kind for kind in ops(normalised) if kind != "AveragePool"][-2:] == ["Flatten", "Gemm"]
    assert "Mul" not in ops(normalised)
    assert report_of(normalised, "factor-into-dense").matches == (share != 1.0)
    assert_same(proto, normalised)


def test_padded_max_pool_behind_relu_gets_zeros() -> None:
    proto = model(
        [node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        IMAGE,
        ["y"],
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "Pad", "MaxPool"]
    assert_same(proto, normalised)


def test_padded_max_pool_in_front_of_relu_changes_places_with_it() -> None:
    proto = model(
        [
            node("Conv", "x w", "c"),
            node("MaxPool", "c", "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", "m", "y"),
        ],
        IMAGE,
        ["y"],
        weights(w=(4, 4, 1, 1)),
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Relu", "Pad", "MaxPool"]
    assert_same(proto, normalised)


def pad_modes(normalised: Model) -> list[object]:
    """The modes of all Pads."""
    return [item.attributes["mode"] for item in normalised.graph.nodes if item.op_type == "Pad"]


@pytest.mark.parametrize(("kernel", "pad"), [(3, 1), (5, 2), (5, 1)])
def test_padded_max_pool_of_what_may_be_negative_mirrors_its_edges(kernel: int, pad: int) -> None:
    pool = node("MaxPool", "x", "y", kernel_shape=[kernel] * 2, strides=[2, 2], pads=[pad] * 4)
    proto = model([pool], {"x": (1, 4, 9, 8)}, ["y"])
    normalised = normal(proto)
    assert pad_modes(normalised) == ["reflect"]
    assert_same(proto, normalised, tolerance=0)


def test_padded_max_pool_stays_where_mirroring_would_bring_in_other_elements() -> None:
    proto = model([node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1])], IMAGE, ["y"])
    normalised = normal(proto)
    assert ops(normalised) == ["MaxPool"]
    assert_same(proto, normalised)


@pytest.mark.parametrize("pads", [[0, 0, 1, 1], [0, 0, 0, 0]])
def test_max_pools_that_tflite_knows_stay(pads: list[int]) -> None:
    proto = model(
        [node("Relu", "x", "r"), node("MaxPool", "r", "y", kernel_shape=[3, 3], strides=[2, 2], pads=pads)],
        IMAGE,
        ["y"],
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "MaxPool"]


@settings(max_examples=60, deadline=None)
@example(
    op_type="MaxPool", size=(5, 5), kernel=2, stride=2, pads=(0, 1, 0, 1), ceil_mode=1, counts=0, opset=17
)  # onnx infers a window more than onnxruntime computes
@given(
    op_type=st.sampled_from(["MaxPool", "AveragePool"]),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    kernel=st.integers(2, 4),
    stride=st.integers(1, 3),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    ceil_mode=st.integers(0, 1),
    counts=st.integers(0, 1),
    opset=st.sampled_from([17, 19]),
)
def test_any_pool_stays_right(
    op_type: str,
    size: tuple[int, int],
    kernel: int,
    stride: int,
    pads: tuple[int, ...],
    ceil_mode: int,
    counts: int,
    opset: int,
) -> None:
    attributes: dict[str, object] = {"count_include_pad": counts} if op_type == "AveragePool" else {}
    pool = node(
        op_type,
        "r",
        "y",
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=list(pads),
        ceil_mode=ceil_mode,
        **attributes,
    )
    proto = model([node("Relu", "x", "r"), pool], {"x": (1, 2, *size)}, ["y"], opset=opset)
    normalised = normal(proto)
    assert not [note for note in normalised.notes if "not applied" in note]
    assert_same(proto, normalised)


@pytest.mark.parametrize(
    ("producer", "proved"),
    [
        ("Relu", True),
        ("Sigmoid", True),
        ("Clip", True),
        ("HardSwish", False),
        ("LeakyRelu", False),
        ("Tanh", False),
    ],
)
def test_what_is_known_not_to_be_negative(producer: str, proved: bool) -> None:
    inputs = "x low" if producer == "Clip" else "x"
    proto = model(
        [
            node(producer, inputs, "a"),
            node("Concat", "a a", "b", axis=1),
            node("MaxPool", "b", "y", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        ],
        IMAGE,
        ["y"],
        {"low": np.array(0.0, np.float32)} if producer == "Clip" else {},
    )
    normalised = normal(proto)
    assert pad_modes(normalised) == (["constant"] if proved else ["reflect"])
    assert_same(proto, normalised)


# Heads


def test_squeeze_behind_a_global_pool_becomes_flatten_and_matmul_gemm() -> None:
    proto = model(
        [
            node("GlobalAveragePool", "x", "g"),
            node("Squeeze", "g axes", "s"),
            node("MatMul", "s w", "m"),
            node("Add", "m b", "y"),
        ],
        IMAGE,
        ["y"],
        {"axes": ints(2, 3), **weights(w=(4, 5), b=(5,))},
    )
    normalised = normal(proto)
    assert ops(normalised) == ["GlobalAveragePool", "Flatten", "Gemm"]
    assert len(normalised.graph.nodes[-1].inputs) == 3
    assert_same(proto, normalised)


@pytest.mark.parametrize("shape", [(1, 5), (1,), (5,)])
def test_biases_of_every_shape_become_vectors(shape: tuple[int, ...]) -> None:
    proto = model(
        [node("Gemm", "x w", "m", transB=1), node("Add", "b m", "y")], {"x": (1, 7)}, ["y"], weights(w=(5, 7), b=shape)
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Gemm"]
    assert normalised.graph.weights[normalised.graph.nodes[0].inputs[2]].shape == (5,)
    assert_same(proto, normalised)


@pytest.mark.parametrize(
    ("nodes", "inputs", "constants"),
    [
        ([node("MatMul", "x w", "y")], {"x": (1, 3, 7)}, {"w": (7, 5)}),
        ([node("MatMul", "w x", "y")], {"x": (7, 5)}, {"w": (3, 7)}),
        ([node("MatMul", "x z", "y")], {"x": (1, 7), "z": (7, 5)}, {}),
    ],
)
def test_other_matmuls_stay(
    nodes: list[object], inputs: dict[str, tuple[int, ...]], constants: dict[str, tuple[int, ...]]
) -> None:
    proto = model(nodes, inputs, ["y"], weights(**constants))
    assert ops(normal(proto)) == ["MatMul"]


def test_squeeze_and_excite_keeps_the_plain_pool() -> None:
    proto = model(
        [
            node("GlobalAveragePool", "x", "g"),
            node("Squeeze", "g axes", "s"),
            node("Reshape", "s shape", "r"),
            node("Conv", "r w", "c"),
            node("Sigmoid", "c", "e"),
            node("Mul", "x e", "y"),
        ],
        IMAGE,
        ["y"],
        {"axes": ints(2, 3), "shape": ints(1, 4, 1, 1), **weights(w=(4, 4, 1, 1))},
    )
    normalised = normal(proto)
    assert ops(normalised) == ["GlobalAveragePool", "Conv", "Sigmoid", "Mul"]
    assert_same(proto, normalised)


# Layouts


def test_an_nhwc_input_becomes_nchw() -> None:
    proto = model(
        [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "y")],
        {"x": (1, 8, 6, 3)},
        ["y"],
        weights(w=(2, 3, 3, 3)),
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv"]
    assert normalised.inputs[0].source_layout == "NHWC"
    assert normalised.inputs[0].source_shape == (1, 8, 6, 3)
    assert normalised.inputs[0].shape == normalised.graph.tensors["x"].shape == (1, 3, 8, 6)
    assert_same(proto, normalised)


def test_nhwc_preprocessing_is_turned_with_the_input() -> None:
    proto = model(
        [
            node("Mul", "x scale", "a"),
            node("Sub", "a mean", "b"),
            node("Div", "b std", "c"),
            node("Transpose", "c", "t", perm=[0, 3, 1, 2]),
            node("Conv", "t w", "y"),
        ],
        {"x": (1, 8, 8, 3)},
        ["y"],
        {
            "scale": np.array(1 / 255, np.float32),
            "mean": np.array([1, 2, 3], np.float32),
            "std": np.array([[[[1, 2, 3]]]], np.float32),
            **weights(w=(2, 3, 3, 3)),
        },
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Conv"]
    assert report_of(normalised, "affine-to-depthwise").matches == 3
    assert_same(proto, normalised)


def test_arithmetic_that_no_convolution_precedes_stays() -> None:
    """One operator alone, and the batch normalisation of a pre-activation net, of many channels."""
    alone = model([node("Mul", "x k", "y")], IMAGE, ["y"], weights(k=(4, 1, 1)))
    assert ops(normal(alone)) == ["Mul"]
    nodes = [node("Concat", "x x x", "c", axis=1), node("Mul", "c k", "m"), node("Add", "m b", "y")]
    many = model(nodes, IMAGE, ["y"], weights(k=(12, 1, 1), b=(1, 12, 1, 1)))
    assert ops(normal(many)) == ["Concat", "Mul", "Add"]


def test_an_nhwc_block_between_transposes_is_turned() -> None:
    """A ConvNeXt block: depthwise Conv, LayerNorm, dense, GELU by Erf, dense, layer scale, residual."""
    constants = weights(d=(4, 1, 3, 3), g=(4,), s=(4,), w1=(4, 16), b1=(16,), w2=(16, 4), b2=(4,), gamma=(4,))
    constants |= {
        "root2": np.array(2**0.5, np.float32),
        "one": np.array(1, np.float32),
        "half": np.array(0.5, np.float32),
    }
    proto = model(
        [
            node("Conv", "x d", "c", group=4, pads=[1, 1, 1, 1]),
            node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
            node("LayerNormalization", "t g s", "n", axis=-1, epsilon=1e-6),
            node("MatMul", "n w1", "m"),
            node("Add", "b1 m", "a"),
            node("Div", "a root2", "d1"),
            node("Erf", "d1", "d2"),
            node("Add", "d2 one", "d3"),
            node("Mul", "a d3", "d4"),
            node("Mul", "d4 half", "gelu"),
            node("MatMul", "gelu w2", "m2"),
            node("Add", "b2 m2", "a2"),
            node("Mul", "gamma a2", "scaled"),
            node("Transpose", "scaled", "u", perm=[0, 3, 1, 2]),
            node("Add", "x u", "y"),
        ],
        IMAGE,
        ["y"],
        constants,
    )
    normalised = normal(proto)
    assert "Transpose" not in ops(normalised)
    assert "MatMul" not in ops(normalised)
    assert report_of(normalised, "channels-first").matches == 2
    assert_same(proto, normalised)


def test_an_nhwc_output_stays_nchw_and_is_said_so() -> None:
    proto = model(
        [
            node("Conv", "x w", "c"),
            node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
            node("Softmax", "t", "y", axis=-1),
        ],
        IMAGE,
        ["y"],
        weights(w=(5, 4, 1, 1)),
    )
    normalised = normal(proto)
    assert ops(normalised) == ["Conv", "Softmax"]
    assert normalised.nhwc_outputs == ("y",)
    assert normalised.graph.tensors["y"].shape == (1, 5, 8, 8)
    assert any("NHWC" in note for note in normalised.notes)
    assert_same(proto, normalised)


def test_an_input_read_as_it_is_stays_as_it_is() -> None:
    proto = model(
        [
            node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
            node("Conv", "t w", "c"),
            node("Reshape", "x shape", "f"),
            node("Gemm", "f v", "z"),
        ],
        {"x": (1, 4, 4, 3)},
        ["c", "z"],
        {"shape": ints(1, 48), **weights(w=(2, 3, 1, 1), v=(48, 2))},
    )
    normalised = normal(proto)
    assert "Transpose" in ops(normalised)
    assert normalised.inputs[0].source_layout == "NCHW"
    assert_same(proto, normalised)


def test_concatenation_and_reduction_axes_follow_the_layout() -> None:
    proto = model(
        [
            node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
            node("Transpose", "z", "u", perm=[0, 2, 3, 1]),
            node("Concat", "t u", "c", axis=3),
            node("ReduceMax", "c", "m", axes=[1], keepdims=1),
            node("Transpose", "m", "a", perm=[0, 3, 1, 2]),
            node("ReduceMean", "c", "b", axes=[1, 2], keepdims=0),
        ],
        {"x": (1, 2, 3, 5), "z": (1, 4, 3, 5)},
        ["a", "b"],
    )
    normalised = normal(proto)
    assert "Transpose" not in ops(normalised)
    assert_same(proto, normalised)


def test_pads_slices_splits_and_resizes_follow_the_layout() -> None:
    proto = model(
        [
            node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
            node("Pad", "t pads", "p"),
            node("Slice", "p from to along", "s"),
            node("Split", "s sizes", "a b", axis=-1),
            node("Resize", "a - scales", "r", mode="nearest"),
            node("Resize", "b - - target", "q", mode="linear"),
            node("Transpose", "r", "y", perm=[0, 3, 1, 2]),
            node("Transpose", "q", "z", perm=[0, 3, 1, 2]),
        ],
        {"x": (1, 6, 5, 7)},
        ["y", "z"],
        {
            "pads": ints(0, 1, 2, 0, 0, 3, 1, 0),
            "from": ints(1, 0),
            "to": ints(8, 5),
            "along": ints(1, 3),
            "sizes": ints(2, 3),
            "scales": np.array([1, 2, 3, 1], np.float32),
            "target": ints(1, 9, 11, 3),
        },
    )
    normalised = normal(proto)
    assert "Transpose" not in ops(normalised)
    assert_same(proto, normalised)


def test_two_transposes_are_one_or_none() -> None:
    proto = model(
        [
            node("Transpose", "x", "a", perm=[0, 2, 3, 1]),
            node("Transpose", "a", "b", perm=[0, 2, 1, 3]),
            node("Relu", "b", "y"),
            node("Transpose", "x", "c", perm=[0, 1, 3, 2]),
            node("Transpose", "c", "d", perm=[0, 1, 3, 2]),
            node("Relu", "d", "z"),
        ],
        {"x": (1, 2, 3, 5)},
        ["y", "z"],
    )
    normalised = normal(proto)
    assert sorted(ops(normalised)) == ["Relu", "Relu", "Transpose"]
    assert_same(proto, normalised)


@pytest.mark.parametrize("trans_b", [0, 1])
def test_flatten_of_a_map_is_read_channels_last(trans_b: int) -> None:
    shape = (7, 4 * 6 * 5) if trans_b else (4 * 6 * 5, 7)
    nodes = [node("Relu", "x", "r"), node("Flatten", "r", "f"), node("Gemm", "f w b", "y", transB=trans_b)]
    proto = model(nodes, {"x": (1, 4, 6, 5)}, ["y"], weights(w=shape, b=(7,)))
    normalised = normal(proto)
    assert ops(normalised) == ["Relu", "Transpose", "Flatten", "Gemm"]
    assert normalised.graph.nodes[1].attributes["perm"] == (0, 2, 3, 1)
    assert_same(proto, normalised)


def test_a_flattened_map_that_two_read_keeps_its_order() -> None:
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w", "y"), node("Tanh", "f", "z")]
    proto = model(nodes, {"x": (1, 4, 6, 5)}, ["y", "z"], weights(w=(120, 7)))
    assert "Transpose" not in ops(normal(proto))


def test_gates_with_dense_layers_become_convolutions() -> None:
    nodes = [
        node("GlobalAveragePool", "x", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f w1", "a"),
        node("Relu", "a", "b"),
        node("Gemm", "b w2 b2", "c", transB=1),
        node("Sigmoid", "c", "d"),
        node("Reshape", "d shape", "e"),
        node("Mul", "x e", "y"),
    ]
    constants = {"shape": ints(1, 4, 1, 1), **weights(w1=(4, 2), w2=(4, 2), b2=(4,))}
    proto = model(nodes, IMAGE, ["y"], constants)
    normalised = normal(proto)
    assert ops(normalised) == ["GlobalAveragePool", "Conv", "Relu", "Conv", "Sigmoid", "Mul"]
    assert_same(proto, normalised)


def test_dense_layers_that_are_read_elsewhere_are_no_gate() -> None:
    nodes = [
        node("GlobalAveragePool", "x", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w", "c"),
        node("Reshape", "c shape", "e"),
        node("Mul", "x e", "y"),
        node("Tanh", "c", "z"),
    ]
    proto = model(nodes, IMAGE, ["y", "z"], {"shape": ints(1, 4, 1, 1), **weights(w=(4, 4))})
    assert report_of(normal(proto), "dense-gates").matches == 0


@pytest.mark.parametrize(("op_type", "attributes"), [("GlobalMaxPool", {}), ("ReduceMax", {"axes": [2, 3]})])
def test_maxima_over_the_map_become_max_pools(op_type: str, attributes: dict[str, object]) -> None:
    proto = model([node(op_type, "x", "y", **attributes)], IMAGE, ["y"])
    normalised = normal(proto)
    assert ops(normalised) == ["MaxPool"]
    assert_same(proto, normalised, tolerance=0)


def test_pools_behind_products_become_average_pools() -> None:
    nodes = [
        node("Sigmoid", "x", "s"),
        node("Mul", "x s", "m"),
        node("GlobalAveragePool", "m", "g"),
        node("Flatten", "g", "y"),
    ]
    proto = model(nodes, IMAGE, ["y"])
    normalised = normal(proto)
    assert ops(normalised) == ["Sigmoid", "Mul", "AveragePool", "Flatten"]
    assert_same(proto, normalised)
    behind_relu = [node("Relu", "x", "m"), *nodes[2:]]
    assert "GlobalAveragePool" in ops(normal(model(behind_relu, IMAGE, ["y"])))
