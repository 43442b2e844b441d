"""Predicted file sizes, held against the flatbuffer writer and against files that were really converted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as fb
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut import flow
from graphcut.analysis.candidates import analyse
from graphcut.conversion import convert
from graphcut.graph.extraction import Extraction
from graphcut.graph.model import Model
from graphcut.measurement.float_reference import float_values
from graphcut.planning.make_plan import plan
from graphcut.planning.places import places
from graphcut.planning.plan_options import PlanOptions
from graphcut.prediction.lowering import Itemised
from graphcut.prediction.sizes import Sizes, predict
from graphcut.records import Plan
from graphcut.samples import load_samples
from graphcut.tflite import edit, schema
from graphcut.tflite.file_size import EdgeTensor, Ledger, loose_bytes
from graphcut.tflite.table_bytes import Activation, Constant, Fields, Operator
from graphcut.workers.pool import Pool
from tests.support import graphs, nets
from tests.support.graphs import Builder
from tests.support.places import SHARED

DATA = Path(__file__).resolve().parents[1] / "data"
MODELS = SHARED / "models"

# What an operator is -> its options as the schema's object, and as the ledger's fields.
OPTIONS: dict[str, tuple[str, int, dict[str, Any], Fields | None]] = {
    "CONV_2D": ("Conv2DOptions", 3, {"padding": 1, "strideW": 2, "strideH": 2}, ((0, 1), (1, 4), (2, 4))),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        3,
        {"strideW": 1, "strideH": 1, "depthMultiplier": 1, "fusedActivationFunction": 1},
        ((1, 4), (2, 4), (3, 4), (4, 1)),
    ),
    "ADD": ("AddOptions", 2, {"fusedActivationFunction": 1}, ((0, 1),)),
    "MUL": ("MulOptions", 2, {}, ()),
    "SOFTMAX": ("SoftmaxOptions", 2, {"beta": 1.0}, ((0, 4),)),
    "CONCATENATION": ("ConcatenationOptions", 2, {"axis": 3}, ((0, 4),)),
    "MEAN": ("ReducerOptions", 2, {"keepDims": True}, ((0, 1),)),
    "RESHAPE": ("ReshapeOptions", 1, {"newShape": np.array([1, 4], np.int32)}, ((0, 4),)),
    "LOGISTIC": ("", 2, {}, None),
    "QUANTIZE": ("", 1, {}, None),
}


@st.composite
def operators(draw: st.DrawFn) -> Operator:
    """One operator of a known kind with constants and outputs of any names, ranks and scales."""
    code = draw(st.sampled_from(sorted(OPTIONS)))
    _, version, _, fields = OPTIONS[code]
    names, ranks = st.integers(1, 30), st.integers(0, 4)
    constants = draw(st.lists(st.builds(Constant, names, ranks, st.integers(1, 70), st.integers(0, 3)), max_size=2))
    axes = [each._replace(axis=3 if each.scales > 1 and draw(st.booleans()) else 0) for each in constants]
    made = draw(st.lists(st.builds(Activation, names, ranks, st.integers(0, 1)), min_size=1, max_size=2))
    reads = len(axes) + draw(st.integers(1, 2))
    vectors = 12 if code == "RESHAPE" else 0
    return Operator((code, version), reads, len(made), (*axes, *made), fields, vectors)


def written(run: list[Operator], inputs: list[EdgeTensor], renamed: dict[int, int], outputs: list[int]) -> int:
    """Bytes of the file that the writer makes of these operators; tensors are numbered as the ledger does."""
    graph: Any = fb.SubGraphT()
    model: Any = fb.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers, model.description = [fb.BufferT()], b"graphcut seg1_int8"
    graph.name, graph.operators = b"convert1", []
    graph.tensors = [tensor(model, Activation(edge.name, edge.rank)) for edge in inputs]
    first: list[int] = []
    codes: dict[tuple[str, int], int] = {}
    for operator in run:
        made = []
        for each in operator.tensors:
            name = renamed.get(len(first), each.name)
            first.append(len(graph.tensors))
            made.append(len(graph.tensors))
            graph.tensors.append(tensor(model, each._replace(name=name)))
        one: Any = fb.OperatorT()
        results = operator.makes
        fed = made[:-results] + [0] * (operator.reads - (len(made) - results))
        one.inputs, one.outputs = np.array(fed, np.int32), np.array(made[-results:], np.int32)
        options, _, values, _ = OPTIONS[operator.code[0]]
        if options:
            one.builtinOptionsType = getattr(fb.BuiltinOptions, options)
            one.builtinOptions = getattr(fb, f"{options}T")()
            for key, value in values.items():
                setattr(one.builtinOptions, key, value)
        if operator.code not in codes:
            code: Any = fb.OperatorCodeT()
            code.builtinCode = getattr(fb.BuiltinOperator, operator.code[0])
            code.deprecatedBuiltinCode, code.version = code.builtinCode, operator.code[1]
            codes[operator.code] = len(model.operatorCodes)
            model.operatorCodes.append(code)
        one.opcodeIndex = codes[operator.code]
        graph.operators.append(one)
    edit.set_interface(model, list(range(len(inputs))), [first[index] for index in outputs])
    return len(schema.write(model))


def tensor(model: Any, what: Constant | Activation) -> Any:
    """A tensor with a name, shape, scales and data of the right length."""
    made: Any = fb.TensorT()
    made.name, made.shape = b"n" * what.name, np.ones(what.rank, np.int32)
    made.type = fb.TensorType.INT8 if what.scales or isinstance(what, Constant) else fb.TensorType.FLOAT32
    if what.scales:
        made.quantization = fb.QuantizationParametersT()
        made.quantization.scale = np.ones(what.scales, np.float32)
        made.quantization.zeroPoint = np.zeros(what.scales, np.int64)
    if isinstance(what, Constant):
        if what.scales:
            made.quantization.quantizedDimension = what.axis
        buffer: Any = fb.BufferT()
        buffer.data = np.ones(what.data, np.uint8)
        model.buffers.append(buffer)
        made.buffer = len(model.buffers) - 1
    return made


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_ledger_knows_every_byte_of_any_run(data: st.DataObject):
    nodes = data.draw(st.lists(st.lists(operators(), max_size=3), min_size=1, max_size=6))
    ledger = Ledger(nodes)
    start = data.draw(st.integers(0, len(nodes) - 1))
    stop = data.draw(st.integers(start + 1, len(nodes)))
    run = [operator for node in nodes[start:stop] for operator in node]
    before = sum(len(operator.tensors) for node in nodes[:start] for operator in node)
    made = [index for index, each in enumerate(t for o in run for t in o.tensors) if isinstance(each, Activation)]
    if not made:
        return
    inputs = [EdgeTensor(name, 4) for name in data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=2))]
    scaled = [index for index in made if [t for o in run for t in o.tensors][index].scales]
    chosen = scaled[-1:] or made[-1:]
    name = data.draw(st.integers(1, 40)) if scaled else [t for o in run for t in o.tensors][chosen[0]].name
    outputs = [EdgeTensor(name, 4, before + index) for index in chosen]
    wanted = written(run, inputs, dict.fromkeys(chosen, name), chosen)
    assert ledger.file_bytes(start, stop, inputs, outputs) == wanted
    planned = ledger.content[stop] - ledger.content[start] + ledger.overhead(inputs, outputs)
    assert wanted <= planned


def two_in_one(seed: int = 0) -> onnx.ModelProto:
    """Depthwise and padded convolutions, a gate, a pool with padding, a concatenation; input (1, 3, 32, 32)."""
    b = nets.Builder(seed)
    x = b.node("Relu", [b.conv("image", "stem", (3, 16), stride=2)], "stem_out")
    x = b.node("Relu", [b.conv(x, "dw", (16, 16), group=16)], "dw_out")
    pooled = b.node("GlobalAveragePool", [x], "squeeze")
    low = b.node("Relu", [b.conv(pooled, "reduce", (16, 4), kernel=1)], "reduced")
    gate = b.node("Sigmoid", [b.conv(low, "excite", (4, 16), kernel=1)], "gate")
    x = b.node("Mul", [x, gate], "gated")
    x = b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    left = b.node("Relu", [b.conv(x, "left", (16, 16), kernel=1)], "left_out")
    right = b.node("Relu", [b.conv(x, "right", (16, 24))], "right_out")
    x = b.node("Concat", [left, right], "both", axis=1)
    x = b.node(
        "Clip",
        [b.conv(x, "head", (40, 32), kernel=1), b.weight("low", np.array(0)), b.weight("six", np.array(6))],
        "head_out",
    )
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "average")], "flat")
    b.dense(x, "logits", (32, 10))
    return b.model({"image": (1, 3, 32, 32)}, {"logits": (1, 10)})


def scores() -> onnx.ModelProto:
    """Boxes beside sigmoids, whose scale is prescribed: a QUANTIZE stands before the concatenation."""
    return onnx.load(DATA / "sig_concat_small.onnx")


def converted(model: Model, made: Plan, folder: Path, pool: Pool, *, per_channel: bool = True) -> list[int]:
    """Bytes of the int8 files of a plan's segments, really written."""
    samples = load_samples("random", model.inputs, None, limit=2)
    extraction = Extraction(model)
    protos = [extraction.segment(each.inputs, each.outputs) for each in made.segments]
    values, before_softmax = float_values(model, made, samples)
    parts = convert.convert(
        model, made, protos, values, before_softmax, pool, folder, samples=len(samples), per_channel=per_channel
    ).segments
    return [part.tflite_path.stat().st_size for part in parts]


def predicted(sizes: Sizes, made: Plan) -> list[int]:
    return [sizes.file_bytes(each.start, each.stop) for each in made.segments]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory):
    with Pool(1, tmp_path_factory.mktemp("pool")) as running:
        yield running


@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize(("net", "count"), [(two_in_one, 3), (nets.two_heads, 2), (nets.residual, 4), (scores, 2)])
def test_small_nets_are_predicted_to_the_byte(net, count: int, per_channel: bool, pool: Pool, tmp_path: Path):
    model = flow.prepare(str(nets.saved(net(), tmp_path)))
    sizes = predict(model.graph, per_channel=per_channel)
    made = plan(analyse(model.graph), sizes, PlanOptions(strategy="balanced", segments=count))
    assert predicted(sizes, made) == converted(model, made, tmp_path, pool, per_channel=per_channel)


@pytest.mark.parametrize("name", ["mobilenet_v2_imagenet", "resnet8_cifar10", "ultraface_rfb_320"])
@pytest.mark.skipif(not MODELS.is_dir(), reason=f"there are no models in {MODELS}")
def test_real_models_are_predicted_within_a_thousandth(name: str, pool: Pool, tmp_path: Path):
    model = flow.prepare(str(MODELS / f"{name}.onnx"))
    sizes = predict(model.graph)
    for options in (PlanOptions(strategy="given", cuts=()), PlanOptions(strategy="balanced", segments=3)):
        made = plan(analyse(model.graph), sizes, options)
        assert predicted(sizes, made) == pytest.approx(converted(model, made, tmp_path, pool), rel=0.001)


@pytest.mark.skipif(not MODELS.is_dir(), reason=f"there are no models in {MODELS}")
def test_planned_sizes_add_up_and_are_never_too_small():
    graph = flow.prepare(str(MODELS / "mobilenet_v2_imagenet.onnx")).graph
    sizes = predict(graph)
    at = places(analyse(graph), sizes, lambda each: not each.pre_activation)
    slack = [
        at.size(start, stop) - sizes.file_bytes(at.positions[start], at.positions[stop])
        for start in range(at.end)
        for stop in range(start + 1, at.end + 1)
    ]
    assert min(slack) >= 0
    assert max(slack) < 1500
    assert all(before <= behind for before, behind in pairwise(sizes.prefix_bytes))


@settings(max_examples=150, deadline=None)
@given(graphs.dags())
def test_any_graph_has_sizes(graph):
    sizes = predict(graph)
    end = len(graph.nodes)
    assert sizes.file_bytes(0, end) % 16 == 0 or sizes.file_bytes(0, end) > 0
    for position in range(1, end):
        assert sizes.file_bytes(0, position) > 0
        assert sizes.file_bytes(position, end) > 0
    assert all(before <= behind for before, behind in pairwise(sizes.prefix_bytes))


def test_plans_count_operators_that_only_samples_can_tell_of():
    """A concatenation of a concatenation is taken to have its range; if it has not, it takes a QUANTIZE more."""
    build = Builder()
    last = build.node("Relu", [build.conv(build.input("x"), "stem")], "stem_relu")
    for index in range(4):
        new = build.conv(last, f"conv{index}")
        last = build.node("Concat", [last, new], f"joined{index}", shape=(1, 16 + 8 * index, 6, 6))
    graph = build.graph(build.node("Relu", [last], "end", shape=(1, 40, 6, 6)))
    items, sizes = Itemised(graph), predict(graph)
    predicted = [operator.code[0] for node in items.nodes for operator in node].count("QUANTIZE")
    doubtful = sum(map(len, items.doubtful.values()))
    assert (predicted, doubtful) == (1, 3)
    most = sizes.file_bytes(0, len(graph.nodes)) + sum(
        loose_bytes(operator) for each in items.doubtful.values() for operator in each
    )
    assert most <= sizes.segment_bytes(0, len(graph.nodes)) < most + 1500
    pools = Builder()
    fed = pools.node("Relu", [pools.conv(pools.input("x"), "stem")], "stem_relu")
    joined = pools.node("Concat", [pools.node("MaxPool", [fed], name) for name in ("p", "q")], "joined")
    assert not any(Itemised(pools.graph(joined)).doubtful.values())  # one tensor's scale, whatever the samples
