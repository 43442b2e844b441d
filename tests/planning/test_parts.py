"""Layers split by output channels: the same in float and, byte for byte, in int8."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphcut import flow
from graphcut.analysis.liveness import lifetimes
from graphcut.errors import InfeasibleError, ModelError
from graphcut.graph.model import Model
from graphcut.graph.passes.parts import output_channels, split_layers, split_model
from graphcut.graph.reference import Reference
from graphcut.measurement.int8_chain import quantised_input
from graphcut.planning import plan_options
from graphcut.planning.layer_split import meeting_points, oversized, slices
from graphcut.planning.make_plan import plan
from graphcut.planning.plan_options import PlanOptions
from graphcut.planning.search import arrange
from graphcut.prediction.sizes import predict
from graphcut.records import Graph, Node, Samples, Tensor
from graphcut.result import reopen
from graphcut.runtime import litert
from graphcut.samples import load_samples
from graphcut.units import MIB
from tests.support import nets, wide_nets
from tests.support.warm import workers
from tools.architectures import vgg

ACTIVATIONS = ["", "Relu", "Clip", "Sigmoid"]
KINDS = ["conv", "strided", "transposed", "gemm", "plain_gemm", "matmul"]


def layer(kind: str, activation: str, *, inner: bool = False, seed: int = 1) -> onnx.ModelProto:
    """A model of one layer of 24 output channels, with an activation; ``inner``: with a small layer around it."""
    b = nets.Builder(seed)
    image = kind in ("conv", "strided", "transposed")
    x = "x"
    if inner:
        x = b.conv("x", "before", (6, 6)) if image else b.dense("x", "before", (200, 200))
    if kind in ("conv", "strided"):
        y = b.conv(x, "y", (6, 24), stride=1 if kind == "conv" else 2)
    elif kind == "transposed":
        weights, bias = (
            b.weight("y/w", b.rng.standard_normal((6, 24, 2, 2))),
            b.weight("y/b", b.rng.standard_normal(24)),
        )
        y = b.node("ConvTranspose", [x, weights, bias], "y", kernel_shape=[2, 2], strides=[2, 2])
    elif kind == "gemm":
        y = b.dense(x, "y", (200, 24))
    elif kind == "plain_gemm":
        weights, bias = (
            b.weight("y/w", b.rng.standard_normal((200, 24))),
            b.weight("y/b", b.rng.standard_normal((1, 24))),
        )
        y = b.node("Gemm", [x, weights, bias], "y", alpha=0.5, beta=2.0)
    else:
        y = b.node("MatMul", [x, b.weight("y/w", b.rng.standard_normal((200, 24)))], "y")
    if activation == "Clip":
        y = b.node("Clip", [y, b.weight("low", np.array(0.0)), b.weight("high", np.array(6.0))], "z")
    elif activation:
        y = b.node(activation, [y], "z")
    size = {"conv": 8, "strided": 4, "transposed": 16}.get(kind, 0)
    out: tuple[int, ...] = (1, 24, size, size) if image else (1, 24)
    if inner:
        y = b.conv(y, "behind", (24, 5), kernel=1) if image else b.dense(y, "behind", (24, 5))
        out = (1, 5, *out[2:])
    return b.model({"x": (1, 6, 8, 8) if image else (1, 200)}, {y: out})


def loaded(proto: onnx.ModelProto, folder: Path) -> tuple[Model, Samples]:
    model = flow.prepare(str(nets.saved(proto, folder)))
    return model, load_samples("random", model.inputs, None)


def the_layer(graph: Graph) -> Node:
    return next(node for node in graph.nodes if output_channels(graph, node) == 24)


# --- in float ---------------------------------------------------------------------------------------------------------


@given(st.sampled_from(KINDS), st.sampled_from(ACTIVATIONS), st.booleans(), st.sets(st.integers(1, 23), min_size=1))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_compute_what_the_layer_computes(
    tmp_path: Path, kind: str, activation: str, inner: bool, cuts: set[int]
) -> None:
    model, samples = loaded(layer(kind, activation, inner=inner), tmp_path)
    output = the_layer(model.graph).outputs[0]
    split = split_model(model, {output: sorted(cuts)})
    onnx.checker.check_model(split.proto, full_check=True)
    report = split.passes[-1]
    assert (report.name, report.matches) == ("split-layers", 1)
    assert report.relative_error is not None
    assert report.relative_error < 1e-5
    inputs = {name: array[:1] for name, array in samples.arrays.items()}
    wanted, found = Reference(model.proto).run(inputs), Reference(split.proto).run(inputs)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5 * np.abs(values).max())
    life = lifetimes(split.graph)  # raises where the order is wrong
    grown = 1 if any(output_channels(model.graph, node) == 24 for node in model.graph.nodes) else 0
    assert max(life.counts) <= max(lifetimes(model.graph).counts) + 2 * grown
    kinds = [node.op_type for node in split.graph.nodes]
    assert kinds.count("Concat") == len(cuts)
    if activation in ("Relu", "Clip"):
        assert kinds.count(activation) == len(cuts) + 1, "an activation that fuses goes into the parts"
    assert split.graph.layers.keys() == split.graph.tensors.keys()
    assert len(set(split.graph.layers.values())) == len(split.graph.layers)
    assert set(split.graph.outputs) == set(model.graph.outputs)


def test_between_two_parts_only_the_input_and_what_is_joined_are_alive() -> None:
    node = Node(name="fc", op_type="Gemm", inputs=("x", "w", "b"), outputs=("y",), attributes={"transB": 1})
    split = split_layers(fake(node, reads="LeakyRelu"), {"y": (4, 8, 20)})
    seams = dict(lifetimes(split.graph).seams(split.graph, 2))
    assert [names for names in seams.values() if "x" in names] == [("x", "y/part1"), ("x", "y/to2"), ("x", "y/to3")]
    assert [split.graph.tensors[f"y/part{number}"].shape for number in (1, 2, 3, 4)] == [
        (1, 4), (1, 4), (1, 12), (1, 4),
    ]  # fmt: skip
    assert split.range_sources["y/to2"] == split.range_sources["y/part3"] == ("y",)
    assert split.channels["y/part3"] == (8, 20)
    assert split.graph.weights["w/fc/part3"].shape == (12, 6)
    assert split.graph.weights["b/fc/part3"].shape == (12,)
    assert split.graph.weights["one"].shape == ()
    assert "w" not in split.graph.weights


def fake(node: Node, *, reads: str = "Relu") -> Graph:
    """A graph of records: the node with weights w (24, 6) and b (24,), and a reader of its output."""
    tensors = {name: Tensor(name=name, shape=(1, width), dtype="float32") for name, width in (("x", 6), ("z", 24))}
    tensors["y"] = Tensor(name="y", shape=(1, 24), dtype="float32")
    shapes = {"w": (24, 6), "b": (24,), "one": (), "k": (24, 6, 3, 3), "odd": (24, 1)}
    weights = {name: Tensor(name=name, shape=shape, dtype="float32") for name, shape in shapes.items()}
    reader = Node(name="reader", op_type=reads, inputs=("y", "one"), outputs=("z",), attributes={})
    return Graph(
        nodes=(node, reader),
        inputs=("x",),
        outputs=("z",),
        tensors=tensors,
        weights=weights,
        layers={name: name for name in tensors},
    )


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "channels"),
    [
        ("Gemm", ("x", "w", "b"), {"transB": 1}, 24),
        ("Gemm", ("x", "w", ""), {"transB": 1}, 24),
        ("Gemm", ("x", "w"), {}, 6),
        ("Gemm", ("x", "w", "one"), {"transB": 1}, 24),
        ("Gemm", ("x", "w", "odd"), {"transB": 1}, 0),
        ("Gemm", ("x", "w", "b"), {"transB": 1, "transA": 1}, 0),
        ("Gemm", ("x", "x"), {}, 0),
        ("MatMul", ("x", "w"), {}, 6),
        ("MatMul", ("w", "x"), {}, 0),
        ("Conv", ("x", "k"), {}, 24),
        ("Conv", ("x", "k"), {"group": 2}, 0),
        ("ConvTranspose", ("x", "k"), {}, 6),
        ("Relu", ("x",), {}, 0),
        ("Add", ("x", "b"), {}, 0),
    ],
)
def test_what_can_be_split(op_type: str, inputs: tuple[str, ...], attributes: dict[str, object], channels: int) -> None:
    node = Node(name="n", op_type=op_type, inputs=inputs, outputs=("y",), attributes=attributes)
    assert output_channels(fake(node), node) == channels


def test_bounds_that_are_not_inside_are_a_bug() -> None:
    node = Node(name="fc", op_type="Gemm", inputs=("x", "w", "b"), outputs=("y",), attributes={"transB": 1})
    for bounds in ((0,), (24,), (5, 5), (7, 3)):
        with pytest.raises(ValueError, match="fc with 24 output channels cannot be split at"):
            split_layers(fake(node), {"y": bounds})
    with pytest.raises(ValueError, match="cannot be split"):
        split_layers(fake(Node(name="r", op_type="Relu", inputs=("x",), outputs=("y",), attributes={})), {"y": (3,)})


def test_an_activation_that_others_read_too_stays_whole() -> None:
    gemm = Node(name="fc", op_type="Gemm", inputs=("x", "w", "b"), outputs=("y",), attributes={"transB": 1})
    graph = fake(gemm)
    both = Graph(
        nodes=graph.nodes, inputs=graph.inputs, outputs=("y", "z"),
        tensors=graph.tensors, weights=graph.weights, layers=graph.layers,
    )  # fmt: skip
    for given_graph, count in ((graph, 2), (both, 1), (fake(gemm, reads="LeakyRelu"), 0)):
        kinds = [node.op_type for node in split_layers(given_graph, {"y": (8,)}).graph.nodes]
        assert kinds.count("Relu") == count


def test_a_split_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = loaded(layer("gemm", "Relu"), tmp_path)
    monkeypatch.setattr("graphcut.graph.passes.parts.TOLERANCE", -1.0)
    with pytest.raises(ModelError, match=r"split into parts, y computes a different result .* layer_split=False"):
        split_model(model, {the_layer(model.graph).outputs[0]: (12,)})


# --- how layers are divided -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("vgg")
    return flow.prepare(str(nets.saved(wide_nets.vgg(wide_nets.SMALL_VGG, 32, (200, 100), 10), folder)))


def test_layers_are_only_split_where_that_is_wanted(small: Model) -> None:
    budget = 60 * 1024
    with pytest.raises(InfeasibleError, match=re.escape("or allow layers to be split (without layer_split=False)")):
        arrange(small.graph, PlanOptions(budget_bytes=budget, layer_split=False), predict)
    with pytest.raises(InfeasibleError, match="allow seams of 2 tensors with max_seam_tensors=2"):
        arrange(small.graph, PlanOptions(budget_bytes=budget, max_seam_tensors=1), predict)
    with pytest.raises(
        InfeasibleError, match=r"block flatten \.\. fc1_relu needs .* in parts do not fit either: raise"
    ):
        arrange(small.graph, PlanOptions(budget_bytes=1500), predict)
    with pytest.raises(InfeasibleError, match=r"3 segments do not fit within 60.0 KiB; at least 4 are needed"):
        arrange(small.graph, PlanOptions(strategy="balanced", budget_bytes=budget, segments=3), predict)
    for options in (
        PlanOptions(budget_bytes=300 * 1024),
        PlanOptions(strategy="balanced", segments=3),
        PlanOptions(strategy="given", cuts=("block1_pool",), budget_bytes=budget),
    ):
        assert arrange(small.graph, options, predict).splits == {}


@pytest.mark.parametrize(
    "options",
    [
        PlanOptions(strategy="range", range_bytes=(30 * 1024, 60 * 1024)),
        PlanOptions(strategy="balanced", budget_bytes=60 * 1024, segments=8),
        PlanOptions(strategy="fewest", budget_bytes=60 * 1024),
        PlanOptions(strategy="traffic", budget_bytes=60 * 1024),
    ],
    ids=lambda options: options.strategy,
)
def test_every_strategy_plans_with_parts(small: Model, options: PlanOptions) -> None:
    arranged = arrange(small.graph, options, predict)
    made = plan(arranged.analysis, arranged.sizes, options)
    assert len(arranged.splits) == 1
    assert max(segment.tflite_bytes for segment in made.segments) <= 60 * 1024
    assert made.k == (options.segments or made.k)


def test_parts_meet_where_the_plan_cuts() -> None:
    node = Node(name="fc", op_type="Gemm", inputs=("x", "w", "b"), outputs=("y",), attributes={"transB": 1})
    split = split_layers(fake(node), {"y": (4, 8, 12, 16, 20)})
    named = {layer.outputs[0]: position for position, layer in enumerate(split.graph.nodes, start=1)}
    cuts = [named["z/to2"], named["z/to5"]]
    assert meeting_points(split, split.graph, cuts) == {"y": (8, 20)}
    assert meeting_points(split, split.graph, []) == {}
    assert meeting_points(split, split.graph, [named["z/part3"]]) == {"y": (12,)}


# --- in int8 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "activation", "per_channel"),
    [("gemm", "Relu", True), ("gemm", "Clip", True), ("strided", "Relu", True), ("conv", "Sigmoid", False)],
)
def test_parts_give_the_bytes_of_the_unsplit_layer(
    tmp_path: Path, kind: str, activation: str, per_channel: bool
) -> None:
    model, samples = loaded(layer(kind, activation), tmp_path)

    def split(options: PlanOptions, folder: str) -> flow.SplitResult:
        return flow.split(
            model,
            samples,
            plan_options.SplitOptions(plan=options, per_channel=per_channel),
            tmp_path / folder,
            pool=workers(),
        )

    one = split(PlanOptions(strategy="given", cuts=()), "one")
    many = split(PlanOptions(budget_bytes=one.plan.segments[0].tflite_bytes - 600), "many")
    assert one.plan.k == 1
    assert many.plan.k >= 2
    assert many.verification.passed
    assert many.verification.exact
    assert any("is split by output channels into" in note for note in many.plan.notes)
    unsplit, joined = (
        litert.Runner((result.folder / "unsplit" / "unsplit_int8.tflite").read_bytes()) for result in (one, many)
    )
    for number in range(len(samples)):
        given_input = quantised_input(one.segments[0].inputs[0], samples, number)
        assert unsplit([given_input])[0].tobytes() == joined([given_input])[0].tobytes()
    assert {tensor.scale for part in many.segments for tensor in part.outputs if tensor.layer.startswith("z")} == (
        {one.segments[0].outputs[0].scale} if activation != "Sigmoid" else {many.segments[-1].outputs[0].scale}
    )


def test_a_small_vgg_splits_below_its_first_dense_layer(tmp_path: Path) -> None:
    model, samples = loaded(wide_nets.vgg(wide_nets.SMALL_VGG, 32, (200, 100), 10), tmp_path)
    options = PlanOptions(budget_bytes=60 * 1024)
    result = flow.split(model, samples, plan_options.SplitOptions(plan=options), tmp_path / "out", pool=workers())
    assert result.verification.passed
    assert result.verification.exact
    assert result.verification.float_exact
    assert result.verification.sqnr_db["logits"] >= 24
    assert result.plan.seam_tensors == 2
    assert result.plan.lower_bound is not None
    assert result.plan.k <= result.plan.lower_bound + 1
    assert max(segment.tflite_bytes for segment in result.plan.segments) <= 60 * 1024
    assert reopen.verify(result.folder).passed
    opened = flow.manifest.read(result.folder)
    assert opened.plan.candidates == result.plan.candidates
    assert opened.plan.notes == result.plan.notes
    assert opened.document["load"]["passes"][-1]["name"] == "split-layers"
    chain = reopen.run(result.folder, samples)
    for tail in range(1, result.plan.k + 1):
        for ours, theirs in zip(chain, reopen.run(result.folder, samples, tail=tail), strict=True):
            assert np.array_equal(ours["fc3"], theirs["fc3"])


@pytest.mark.full
@pytest.mark.parametrize("blocks", [wide_nets.VGG16, wide_nets.VGG19], ids=["VGG16", "VGG19"])
def test_vgg_at_224_splits_at_7_mib(tmp_path: Path, blocks: tuple[tuple[int, int], ...]) -> None:
    model = flow.prepare(str(nets.saved(wide_nets.vgg(blocks, 224, (4096, 4096), 1000), tmp_path)))
    samples = load_samples("random", model.inputs, None, limit=2)
    options = PlanOptions(budget_bytes=7 * 2**20)
    result = flow.split(model, samples, plan_options.SplitOptions(plan=options), tmp_path / "out")
    weights = sum(weight.elements for weight in model.graph.weights.values())
    bound = -(-weights // (7 * 2**20))
    print(f"K = {result.plan.k}, ceil(total / S) = {bound}, lower bound {result.plan.lower_bound}")
    assert result.verification.passed
    assert result.verification.exact
    assert result.verification.sqnr_db["logits"] >= 24
    assert max(segment.tflite_bytes for segment in result.plan.segments) <= 7 * 2**20
    assert result.plan.k <= bound + 1
    assert result.plan.seam_tensors == 2


def test_parts_that_must_not_stream_have_whole_groups_of_channels() -> None:
    """On the chip a part takes groups of 64 channels: 15 parts of 98 MiB fit the budget, and would stream there."""
    graph = vgg("vgg16")
    sizes = predict(graph)
    layers = oversized(graph, sizes, 7 * MIB)
    free = slices(graph, sizes, 7 * MIB, layers)
    cached = slices(graph, sizes, 7 * MIB, layers, cached=True)
    assert layers
    assert any(bound % 64 for bounds in free.values() for bound in bounds)
    assert all(bound % 64 == 0 for bounds in cached.values() for bound in bounds)
