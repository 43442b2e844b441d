"""Models of one or two operators whose attributes and constants are at the edge of what is allowed, and beyond.

Mutation changes what a valid file holds. These begin with the operator: every attribute and every constant input is
drawn from ordinary values and from hostile ones (0, negative, huge, of another length, of another type).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

HUGE = (2**31 - 1, 2**31, 2**33, 2**40, 2**62, 2**63 - 1, -(2**63))
SMALL = (0, -1, -2, -7, 1, 2, 3, 5, 16)
NUMBERS = (0.0, -1.0, 0.5, 2.0, 1e-30, 1e9, 1e30, float("inf"), float("nan"))
WORDS = ("", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "reflect", "edge", "wrap", "constant", "linear", "cubic")
MORE_WORDS = ("nearest", "align_corners", "tf_crop_and_resize", "DCR", "CRD", "bilinear", "\x1b[31m", "a" * 3000)


def _int(rng: random.Random) -> int:
    return rng.choice(HUGE) if rng.random() < 0.35 else rng.choice(SMALL)


def _ints(rng: random.Random, length: int) -> list[int]:
    if rng.random() < 0.2:
        length = rng.choice((0, 1, length + 1, 2 * length, 9))
    values = [rng.choice((1, 1, 2, 3)) for _ in range(length)]
    for place in range(length):
        if rng.random() < 0.35:
            values[place] = _int(rng)
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """An operator, and what its attributes and inputs may be.

    Attributes:
        kind: operator.
        ints: attributes that are lists, by length.
        single: attributes that are one number.
        floats: attributes that are one float.
        words: attributes that are text.
        constants: makers of the inputs behind the first one; None for one that is left out.
        outputs: how many.
        domain: of the operator.
    """

    kind: str
    ints: dict[str, int] = field(default_factory=dict)
    single: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    constants: tuple[Callable[[random.Random], np.ndarray] | None, ...] = ()
    outputs: int = 1
    domain: str = ""


def _weight(*shape: int) -> Callable[[random.Random], np.ndarray]:
    def made(rng: random.Random) -> np.ndarray:
        sizes = list(shape)
        if rng.random() < 0.4:
            sizes[rng.randrange(len(sizes))] = rng.choice((0, 1, 2, 5, 7))
        if rng.random() < 0.1:
            sizes = sizes[1:]
        kind = rng.choice((np.float32,) * 8 + (np.float64, np.int8, np.int64, np.float16, np.uint8))
        return np.full(sizes, rng.choice((1, 0, -1)) * (rng.random() < 0.3) + 0.25, np.float64).astype(kind)

    return made


def _list(length: int) -> Callable[[random.Random], np.ndarray]:
    def made(rng: random.Random) -> np.ndarray:
        kind = rng.choice((np.int64,) * 8 + (np.int32, np.float32, np.bool_))
        with np.errstate(all="ignore"):
            return np.array(_ints(rng, length), np.int64).astype(kind)

    return made


def _scalar(rng: random.Random) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.array(_int(rng), np.int64).astype(rng.choice((np.int64,) * 6 + (np.int32, np.float32)))


def _one(rng: random.Random) -> np.ndarray:
    return np.array([_int(rng)], np.int64)


def _floats(length: int) -> Callable[[random.Random], np.ndarray]:
    return lambda rng: np.array([rng.choice(NUMBERS) for _ in range(rng.choice((length,) * 5 + (0, 1, 9)))], np.float32)


def _number(rng: random.Random) -> np.ndarray:
    return np.array(rng.choice(NUMBERS), np.float32)


_POOL = {"kernel_shape": 2, "strides": 2, "pads": 4, "dilations": 2}
FORMS = (
    Form(kind="Conv", ints=_POOL, single=("group",), words=("auto_pad",), constants=(_weight(4, 3, 3, 3), _weight(4))),
    Form(kind="Conv", ints={"strides": 2}, constants=(_weight(4, 3, 3, 3),)),
    Form(
        kind="ConvTranspose",
        ints={**_POOL, "output_padding": 2, "output_shape": 2},
        single=("group",),
        words=("auto_pad",),
        constants=(_weight(3, 4, 3, 3), _weight(4)),
    ),
    Form(kind="ConvTranspose", ints={"output_shape": 2, "strides": 2}, constants=(_weight(3, 4, 3, 3),)),
    Form(kind="MaxPool", ints=_POOL, single=("ceil_mode", "storage_order"), words=("auto_pad",)),
    Form(kind="AveragePool", ints=_POOL, single=("ceil_mode", "count_include_pad"), words=("auto_pad",)),
    Form(kind="LpPool", ints={"kernel_shape": 2, "strides": 2, "pads": 4}, single=("p",)),
    Form(kind="GlobalLpPool", single=("p",)),
    Form(kind="MaxUnpool", ints=_POOL, constants=(_list(4),)),
    Form(kind="MaxRoiPool", ints={"pooled_shape": 2}, floats=("spatial_scale",), constants=(_floats(5),)),
    Form(kind="RoiAlign", single=("output_height", "output_width", "sampling_ratio"), constants=(_floats(4), _list(1))),
    Form(kind="Resize", words=("mode", "coordinate_transformation_mode"), constants=(None, _floats(4))),
    Form(kind="Resize", words=("mode",), single=("antialias",), constants=(None, None, _list(4))),
    Form(kind="Upsample", words=("mode",), constants=(_floats(4),)),
    Form(kind="Gather", single=("axis",), constants=(_list(2),)),
    Form(kind="GatherElements", single=("axis",), constants=(_list(4),)),
    Form(kind="GatherND", single=("batch_dims",), constants=(_list(4),)),
    Form(kind="ScatterElements", single=("axis",), constants=(_list(4), _floats(4))),
    Form(kind="ScatterND", constants=(_list(4), _floats(4))),
    Form(kind="Slice", constants=(_list(2), _list(2), _list(2), _list(2))),
    Form(kind="Pad", words=("mode",), constants=(_list(8), _number)),
    Form(kind="Pad", constants=(_list(8), _number, _list(2))),
    Form(kind="Reshape", single=("allowzero",), constants=(_list(4),)),
    Form(kind="Reshape", constants=(_list(1),)),
    Form(kind="Expand", constants=(_list(4),)),
    Form(kind="Tile", constants=(_list(4),)),
    Form(kind="Split", single=("axis", "num_outputs"), constants=(_list(2),), outputs=2),
    Form(kind="Split", single=("axis",), outputs=3),
    Form(kind="SplitToSequence", single=("axis", "keepdims"), constants=(_list(2),)),
    Form(kind="Squeeze", constants=(_list(2),)),
    Form(kind="Unsqueeze", constants=(_list(2),)),
    Form(kind="Transpose", ints={"perm": 4}),
    Form(kind="Flatten", single=("axis",)),
    Form(kind="Concat", single=("axis",), constants=(_weight(1, 3, 8, 8),)),
    Form(kind="Softmax", single=("axis",)),
    Form(kind="Hardmax", single=("axis",)),
    Form(kind="ArgMax", single=("axis", "keepdims", "select_last_index")),
    Form(kind="TopK", single=("axis", "largest", "sorted"), constants=(_one,), outputs=2),
    Form(kind="ReduceMean", ints={"axes": 2}, single=("keepdims",)),
    Form(kind="ReduceSum", single=("keepdims", "noop_with_empty_axes"), constants=(_list(2),)),
    Form(kind="ReduceMax", ints={"axes": 2}, single=("keepdims",)),
    Form(kind="CumSum", single=("exclusive", "reverse"), constants=(_scalar,)),
    Form(kind="OneHot", single=("axis",), constants=(_scalar, _floats(2))),
    Form(kind="DepthToSpace", single=("blocksize",), words=("mode",)),
    Form(kind="SpaceToDepth", single=("blocksize",)),
    Form(kind="InstanceNormalization", floats=("epsilon",), constants=(_weight(3), _weight(3))),
    Form(
        kind="BatchNormalization",
        floats=("epsilon", "momentum"),
        single=("training_mode",),
        constants=(_weight(3), _weight(3), _weight(3), _weight(3)),
    ),
    Form(kind="LayerNormalization", single=("axis",), floats=("epsilon",), constants=(_weight(8), _weight(8))),
    Form(kind="GroupNormalization", single=("num_groups",), constants=(_weight(3), _weight(3))),
    Form(kind="LRN", single=("size",), floats=("alpha", "beta", "bias")),
    Form(kind="LpNormalization", single=("axis", "p")),
    Form(kind="MeanVarianceNormalization", ints={"axes": 3}),
    Form(kind="Clip", constants=(_number, _number)),
    Form(kind="PRelu", constants=(_weight(3, 1, 1),)),
    Form(kind="LeakyRelu", floats=("alpha",)),
    Form(kind="Elu", floats=("alpha",)),
    Form(kind="HardSigmoid", floats=("alpha", "beta")),
    Form(kind="Gemm", single=("transA", "transB"), floats=("alpha", "beta"), constants=(_weight(8, 8), _weight(8))),
    Form(kind="MatMul", constants=(_weight(8, 4),)),
    Form(kind="Einsum", words=("equation",), constants=(_weight(8, 4),)),
    Form(kind="Mul", constants=(_weight(1, 3, 1, 1),)),
    Form(kind="Div", constants=(_weight(1, 3, 1, 1),)),
    Form(kind="Pow", constants=(_number,)),
    Form(kind="Mod", single=("fmod",), constants=(_scalar,)),
    Form(kind="Cast", single=("to",)),
    Form(kind="EyeLike", single=("dtype", "k")),
    Form(kind="Shape", single=("start", "end")),
    Form(kind="NonMaxSuppression", single=("center_point_box",), constants=(_floats(4), _one, _floats(1), _floats(1))),
    Form(
        kind="GridSample", words=("mode", "padding_mode"), single=("align_corners",), constants=(_weight(1, 4, 4, 2),)
    ),
    Form(kind="AffineGrid", single=("align_corners",), constants=(_list(4),)),
    Form(kind="Compress", single=("axis",), constants=(_list(3),)),
    Form(kind="ReverseSequence", single=("batch_axis", "time_axis"), constants=(_list(3),)),
    Form(kind="Trilu", single=("upper",), constants=(_scalar,)),
    Form(kind="Dropout", single=("seed",), constants=(_number,)),
    Form(kind="LSTM", single=("hidden_size",), words=("direction",), constants=(_weight(1, 16, 8), _weight(1, 16, 4))),
    Form(kind="GRU", single=("hidden_size",), words=("direction",), constants=(_weight(1, 12, 8), _weight(1, 12, 4))),
    Form(kind="RNN", single=("hidden_size",), words=("direction",), constants=(_weight(1, 4, 8), _weight(1, 4, 4))),
    Form(kind="QuantizeLinear", single=("axis", "saturate"), constants=(_weight(3), _weight(3))),
    Form(kind="DynamicQuantizeLinear", outputs=3),
    Form(
        kind="QLinearConv",
        ints=_POOL,
        single=("group",),
        constants=(_number, _scalar, _weight(4, 3, 3, 3), _weight(4), _weight(4), _number, _scalar),
    ),
    Form(kind="ConvInteger", ints=_POOL, constants=(_weight(4, 3, 3, 3), _scalar)),
    Form(
        kind="DeformConv",
        ints=_POOL,
        single=("group", "offset_group"),
        constants=(_weight(4, 3, 3, 3), _weight(1, 18, 8, 8)),
    ),
    Form(kind="Col2Im", ints={"strides": 2, "pads": 4, "dilations": 2}, constants=(_list(2), _list(2))),
    Form(kind="CenterCropPad", ints={"axes": 2}, constants=(_list(2),)),
    Form(kind="DFT", single=("axis", "inverse", "onesided"), constants=(_scalar,)),
    Form(kind="STFT", single=("onesided",), constants=(_scalar,)),
    Form(kind="Unique", single=("axis", "sorted"), outputs=2),
    Form(kind="NonZero"),
    Form(kind="SequenceConstruct"),
    Form(kind="Optional"),
    Form(kind="StringNormalizer", words=("case_change_action",)),
    Form(kind="FusedConv", ints=_POOL, domain="com.microsoft", words=("activation",), constants=(_weight(4, 3, 3, 3),)),
    Form(kind="NhwcMaxPool", ints=_POOL, domain="com.microsoft"),
    Form(kind="Gelu", words=("approximate",)),
    Form(kind="Bernoulli", single=("dtype", "seed")),
)


def model(rng: random.Random, _content: bytes = b"") -> bytes:
    """One hostile model."""
    making = rng.choice(
        (_one_operator,) * 14 + (_maker, _maker, _nested, _functions, _external, _odd, _odd, _types, _sparse)
    )
    made = making(rng)
    return made if isinstance(made, bytes) else made.SerializeToString()


def _wrapped(
    nodes: list[NodeProto],
    weights: dict[str, np.ndarray],
    outputs: list[str],
    *,
    shape: tuple[Any, ...] = (1, 3, 8, 8),
    opset: int = 18,
    **more: Any,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "neighbour",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, **more)


def _one_operator(rng: random.Random) -> ModelProto:
    form = rng.choice(FORMS)
    attributes: dict[str, Any] = {}
    for name, length in form.ints.items():
        if rng.random() < 0.7:
            attributes[name] = _ints(rng, length)
    attributes |= {name: _int(rng) for name in form.single if rng.random() < 0.7}
    attributes |= {name: rng.choice(NUMBERS) for name in form.floats if rng.random() < 0.7}
    attributes |= {name: rng.choice((*WORDS, *MORE_WORDS)) for name in form.words if rng.random() < 0.5}
    if form.kind == "Einsum":
        attributes["equation"] = rng.choice(
            ("bchw,wd->bchd", "i", "", "->", "...,...->...", "bchw,bchw,bchw", "b" * 5000)
        )
    weights: dict[str, np.ndarray] = {}
    names = []
    for number, maker in enumerate(form.constants):
        if maker is None or (number > 0 and rng.random() < 0.1):
            names.append("")
            continue
        weights[f"k{number}"] = maker(rng)
        names.append(f"k{number}")
    before = rng.random() < 0.5
    nodes = []
    if before:
        weights["w0"] = np.full((3, 3, 1, 1), 0.5, np.float32)
        nodes.append(helper.make_node("Conv", ["image", "w0"], ["c0"], name="first"))
    outputs = [f"o{number}" for number in range(form.outputs)]
    middle = helper.make_node(
        form.kind, ["c0" if before else "image", *names], outputs, name="hostile", domain=form.domain
    )
    for name, value in attributes.items():
        made = AttributeProto(name=name)
        if isinstance(value, list):
            made.type = AttributeProto.INTS
            made.ints.extend(value)
        elif isinstance(value, float):
            made.type, made.f = AttributeProto.FLOAT, value
        elif isinstance(value, int):
            made.type, made.i = AttributeProto.INT, value
        else:
            made.type, made.s = AttributeProto.STRING, value.encode()
        middle.attribute.append(made)
    nodes.append(middle)
    ends = outputs
    if rng.random() < 0.5:
        nodes.append(helper.make_node("Relu", [outputs[0]], ["y"]))
        ends = ["y"]
    shape = rng.choice(
        ((1, 3, 8, 8),) * 8 + ((1, 3, 8), (3, 8), (1, 3, 4, 4, 4), (0, 3, 8, 8), ("n", 3, "h", "w"), (2**31, 3, 8, 8))
    )
    return _wrapped(nodes, weights, ends, shape=shape, opset=rng.choice((9, 11, 13, 16, 18, 18, 18, 20, 21)))


def _maker(rng: random.Random) -> ModelProto:
    """Operators that make something large out of nothing, and arithmetic on shapes."""
    node = helper.make_node
    weights: dict[str, np.ndarray] = {"k": np.array(_ints(rng, 4), np.int64), "zero": np.array(0, np.int64)}
    weights |= {"big": np.array(_int(rng), np.int64), "step": np.array(rng.choice((1, 0, -1, 2**62)), np.int64)}
    kind = rng.randrange(6)
    if kind == 0:
        nodes = [node("ConstantOfShape", ["k"], ["m"]), node("Add", ["image", "m"], ["y"])]
    elif kind == 1:
        nodes = [
            node("Range", ["zero", "big", "step"], ["r"]),
            node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
            node("ReduceSum", ["f"], ["s"]),
            node("Add", ["image", "s"], ["y"]),
        ]
    elif kind == 2:
        shapes = rng.choice(([2**16] * 4, [2**40, 2**40], [46341] * 2, [2**31, 2**31, 2, 2]))
        weights["k"] = np.array(shapes, np.int64)
        nodes = [node("Expand", ["zero", "k"], ["e"]), node("Cast", ["e"], ["y"], to=1)]
    elif kind == 3:
        # Twice as large, again and again.
        nodes = [node("Concat", ["image", "image"], ["t0"], axis=1)]
        for number in range(rng.choice((10, 25, 60))):
            nodes.append(node("Concat", [f"t{number}", f"t{number}"], [f"t{number + 1}"], axis=1))
        nodes.append(node("Relu", [nodes[-1].output[0]], ["y"]))
    elif kind == 4:
        nodes = [
            node("Shape", ["image"], ["s"]),
            node("Mul", ["s", "k"], ["p"]),
            node("ConstantOfShape", ["p"], ["m"]),
            node("ReduceMax", ["m"], ["x"], keepdims=0),
            node("Add", ["image", "x"], ["y"]),
        ]
    else:
        weights["multiples"] = np.array([1, 1, rng.choice((2**10, 2**14, 2**20)), rng.choice((2**10, 2**14))], np.int64)
        nodes = [node("Tile", ["image", "multiples"], ["m"]), node("ReduceMean", ["m"], ["y"], axes=[2, 3])]
    return _wrapped(nodes, weights, ["y"])


def _nested(rng: random.Random) -> ModelProto:
    """Loop, If and Scan in each other, and loops without an end."""
    depth = rng.choice((1, 2, 5, 30))  # protobuf itself takes no more than about a hundred messages in each other
    body = _body("Relu", "image", 0)
    for level in range(1, depth):
        inner = helper.make_node(
            "If",
            ["yes"],
            [f"v{level}"],
            then_branch=body,
            else_branch=body if depth < 9 else _body("Tanh", "image", level),
        )
        body = helper.make_graph([inner], f"g{level}", [], [helper.make_tensor_value_info(f"v{level}", 1, None)])
    weights = {"yes": np.array(True), "trips": np.array(_int(rng), np.int64)}
    if rng.random() < 0.5:
        nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)]
        return _wrapped(nodes, weights, ["y"])
    loop = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on2"]),
            helper.make_node(rng.choice(("Relu", "Identity")), ["carried"], ["carried2"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried2", TensorProto.FLOAT, None),
        ],
    )
    trips = rng.choice(("trips", ""))
    return _wrapped([helper.make_node("Loop", [trips, "yes", "image"], ["y"], body=loop)], weights, ["y"])


def _body(kind: str, reads: str, level: int) -> GraphProto:
    name = f"b{level}{kind}"
    return helper.make_graph(
        [helper.make_node(kind, [reads], [name])], f"g{level}", [], [helper.make_tensor_value_info(name, 1, None)]
    )


def _functions(rng: random.Random) -> ModelProto:
    """Local functions that call themselves, each other, or each other twice."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    count = rng.choice((1, 2, 12, 40, 120))
    functions = []
    for number in range(count):
        following = f"F{number + 1}" if number + 1 < count else rng.choice(("F0", "Missing", "Relu"))
        domain = "" if following == "Relu" else "local"
        nodes = [
            helper.make_node(following, ["a"], ["t"], domain=domain),
            helper.make_node(following if rng.random() < 0.7 else "Relu", ["t"], ["b"], domain=domain),
        ]
        functions.append(helper.make_function("local", f"F{number}", ["a"], ["b"], nodes, imports))
    if rng.random() < 0.2:
        functions.append(functions[0])
    return _wrapped([helper.make_node("F0", ["image"], ["y"], domain="local")], {}, ["y"], functions=functions)


def _external(rng: random.Random) -> ModelProto:
    """Weights that lie in another file."""
    made = _wrapped([helper.make_node("Conv", ["image", "w"], ["y"])], {"w": np.ones((4, 3, 3, 3), np.float32)}, ["y"])
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = (
        "/etc/passwd",
        "../file.onnx",
        "file.onnx",
        "",
        ".",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "x\0y",
        "a" * 5000,
    )
    entries = {"location": rng.choice(places)}
    if rng.random() < 0.6:
        entries["offset"] = rng.choice(("0", "-1", "10", str(2**40), str(2**70), "x", ""))
    if rng.random() < 0.6:
        entries["length"] = rng.choice(("0", "-1", "432", str(2**40), str(2**70), "1e3"))
    if rng.random() < 0.2:
        entries["checksum"] = "0" * 40
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    if rng.random() < 0.3:
        constant = helper.make_node("Constant", [], ["w"])
        attribute = AttributeProto(name="value", type=AttributeProto.TENSOR)
        attribute.t.CopyFrom(tensor)
        constant.attribute.append(attribute)
        made.graph.node.insert(0, constant)
        del made.graph.initializer[:]
    return made


def _odd(rng: random.Random) -> ModelProto | bytes:
    """What surrounds a graph: operator sets, versions, metadata, names, order."""
    made = _wrapped(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["y"], name="relu"),
        ],
        {"w": np.ones((4, 3, 3, 3), np.float32)},
        ["y"],
    )
    kind = rng.randrange(16)
    if kind == 0:
        made.opset_import.add(domain="", version=rng.choice((1, 18, 2**40, -5)))
    elif kind == 1:
        made.opset_import[0].version = rng.choice((0, -1, 1, 5, 6, 99, 2**40, 2**63 - 1))
    elif kind == 2:
        del made.opset_import[:]
    elif kind == 3:
        made.ir_version = rng.choice((0, 1, 2, 99, 2**40, -1))
    elif kind == 4:
        for number in range(1000):
            made.metadata_props.add(key=f"k{number}\x1b[2J", value="v" * 3000)
    elif kind == 5:
        made.graph.node.add(op_type="Relu", input=["y"], output=["c"])
    elif kind == 6:
        made.graph.node[1].input[0] = rng.choice(("y", "none", "", "image"))
    elif kind == 7:
        made.graph.output[0].name = rng.choice(("image", "w", "none", ""))
    elif kind == 8:
        made.graph.output.extend([made.graph.output[0]] * rng.choice((1, 1000)))
    elif kind == 9:
        made.graph.input.extend([made.graph.input[0]])
    elif kind == 10:
        made.graph.input.add(name="w")
    elif kind == 11:
        for number in range(rng.choice((3000, 30000))):
            made.graph.node.add(op_type="Relu", input=["y" if not number else f"z{number - 1}"], output=[f"z{number}"])
        made.graph.output[0].name = made.graph.node[-1].output[0]
    elif kind == 12:
        made.graph.node[0].name = made.graph.node[1].name = rng.choice(("same", "a/b/c:0", "\u202e", "n" * 10000))
        made.graph.node[0].domain = rng.choice(("", "ai.onnx", "ai.onnx.ml", "org.unknown"))
    elif kind == 13:
        made.graph.initializer[0].dims[:] = rng.choice(
            ([0], [4, 3, 3], [-1, 3, 3, 3], [2**40, 3, 3, 3], [2**32, 2**32], [])
        )
    elif kind == 14:
        made.graph.initializer[0].data_type = rng.choice((0, 2, 8, 9, 14, 16, 17, 20, 22, 23, 99))
    else:
        return made.SerializeToString() * rng.choice((2, 3))
    return made


def _types(rng: random.Random) -> ModelProto:
    """Inputs that are no tensors of floats."""
    made = _wrapped([helper.make_node("Identity", ["image"], ["y"])], {}, ["y"])
    value = made.graph.input[0].type
    kind = rng.randrange(5)
    value.Clear()
    if kind == 0:
        value.tensor_type.elem_type = rng.choice((0, 8, 9, 14, 16, 17, 21, 77))
        value.tensor_type.shape.dim.add(dim_value=_int(rng))
    elif kind == 1:
        value.sequence_type.elem_type.tensor_type.elem_type = 1
    elif kind == 2:
        value.optional_type.elem_type.tensor_type.elem_type = 1
    elif kind == 3:
        value.map_type.key_type = 8
        value.map_type.value_type.tensor_type.elem_type = 1
    else:
        value.sparse_tensor_type.elem_type = 1
    if rng.random() < 0.5:
        made.graph.output[0].type.CopyFrom(value)
    return made


def _sparse(rng: random.Random) -> ModelProto:
    """Sparse weights whose indices lie anywhere."""
    made = _wrapped([helper.make_node("Conv", ["image", "w"], ["y"])], {}, ["y"])
    sparse = made.graph.sparse_initializer.add()
    sparse.dims.extend(rng.choice(([4, 3, 3, 3], [2**20, 2**20], [0], [-4, 3, 3, 3], [2**62, 4])))
    count = rng.choice((0, 1, 3, 200))
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(count, np.float32), "w"))
    indices = np.array([_int(rng) for _ in range(rng.choice((count, count + 1, 2 * count)))], np.int64)
    if rng.random() < 0.3:
        indices = np.arange(count, dtype=np.int64)
    sparse.indices.CopyFrom(numpy_helper.from_array(indices, "i"))
    if rng.random() < 0.3:
        made.graph.node.insert(0, helper.make_node("Constant", [], ["k"], sparse_value=sparse))
    return made


def seeds() -> tuple[bytes, ...]:
    """Nothing: these files begin with the operator."""
    return (b"",)
