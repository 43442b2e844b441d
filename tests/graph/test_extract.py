"""Segments of random nets and real models: valid, typed, and together exactly the whole."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto

from graphcut.errors import ModelError, OutputError
from graphcut.graph.conversion import conversion_copy
from graphcut.graph.extraction import Extraction, save
from graphcut.graph.load import load
from graphcut.graph.model import Model
from graphcut.graph.reference import Reference, activations, logits
from graphcut.graph.topology import topology
from graphcut.records import Array, Samples
from tests.support import places
from tests.support.graph_nets import model, node, normal, random_inputs, run, weights

SHARED = places.SHARED / "models"


def random_net(seed: int, blocks: int) -> tuple[onnx.ModelProto, list[str]]:
    """Residual, concatenating and plain blocks in random order, a head; and the tensors between the blocks."""
    generator = np.random.default_rng(seed)
    nodes: list[NodeProto] = []
    shapes: dict[str, tuple[int, ...]] = {}
    last, channels, between = "x", 3, []
    for number in range(blocks):
        width, out = int(generator.integers(2, 9)), f"block{number}"
        shapes |= {f"{out}_w": (width, channels, 3, 3), f"{out}_b": (width,)}
        nodes.append(node("Conv", f"{last} {out}_w {out}_b", f"{out}_c", pads=[1, 1, 1, 1]))
        kind = int(generator.integers(3))
        if kind == 0:
            shapes[f"{out}_p"] = (width, channels, 1, 1)
            nodes += [node("Conv", f"{last} {out}_p", f"{out}_s"), node("Add", f"{out}_c {out}_s", f"{out}_a")]
        elif kind == 1:
            nodes.append(node("Concat", f"{out}_c {last}", f"{out}_a", axis=1))
            width += channels
        else:
            nodes.append(node("MaxPool", f"{out}_c", f"{out}_a", kernel_shape=[2, 2]))
        nodes.append(node("Relu", f"{out}_a", out))
        between.append(out)
        last, channels = out, width
    shapes["head"] = (channels, 5)
    nodes += [
        node("GlobalAveragePool", last, "pooled"),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat head", "scores"),
        node("Softmax", "scores", "y"),
    ]
    return model(nodes, {"x": (1, 3, 16, 16)}, ["y"], weights(seed, **shapes)), between


def chain(normalised: Model, cuts: list[str], inputs: dict[str, Array]) -> dict[str, Array]:
    """All tensors at the segments' edges, each segment fed by the one before."""
    extraction = Extraction(normalised)
    edges = [normalised.graph.inputs, *((cut,) for cut in cuts), normalised.graph.outputs]
    values = dict(inputs)
    for start, stop in pairwise(edges):
        segment = extraction.segment(tuple(start), tuple(stop))
        onnx.checker.check_model(segment, full_check=True)
        values |= Reference(segment).run({name: values[name] for name in start})
    return values


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), blocks=st.integers(1, 5), data=st.data())
def test_the_float_chain_is_the_float_whole_bit_for_bit(seed: int, blocks: int, data: st.DataObject) -> None:
    proto, between = random_net(seed, blocks)
    normalised = normal(proto)
    cuts = [name for name in between if data.draw(st.booleans())]
    inputs = random_inputs(normalised, seed)
    values = chain(normalised, cuts, inputs)
    np.testing.assert_array_equal(values["y"], run(normalised.proto, inputs)[0])


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("mobilenet_v2_imagenet", ["expanded_conv_6/add", "expanded_conv_13/add", "Conv2d_18_1"]),
        ("resnet8_cifar10", ["activation_2", "activation_4"]),
        ("ultraface_rfb_320", ["Relu_265", "Relu_274"]),
    ],
)
def test_chains_of_real_models_are_exact(name: str, cuts: list[str]) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path.name} is not there: real models lie in ../shared/models")
    normalised = load(path)
    tensors = {layer: tensor for tensor, layer in normalised.graph.layers.items()}
    cuts = [tensors[cut] for cut in cuts if cut in tensors]
    inputs = random_inputs(normalised)
    values = chain(normalised, cuts, inputs)
    wanted = Reference(normalised.proto).run(inputs)
    assert cuts
    assert set(wanted) == set(normalised.graph.outputs)
    for output, value in wanted.items():
        np.testing.assert_array_equal(values[output], value)


def test_a_segment_is_typed_ordered_and_named_after_its_layers() -> None:
    normalised = normal(random_net(3, 3)[0])
    segment = Extraction(normalised).segment(("block0",), ("block2", "block1"))
    assert [value.name for value in segment.graph.output] == ["block2", "block1"]
    assert segment.graph.name == "block2_block1"
    graph = topology(segment)
    assert graph.inputs == ("block0",)
    assert graph.tensors["block2"] == normalised.graph.tensors["block2"]
    before = normalised.proto.SerializeToString(deterministic=True)
    Extraction(normalised).segment(("block0",), ("block1",))
    assert normalised.proto.SerializeToString(deterministic=True) == before


def test_a_segment_that_misses_an_input_is_an_error() -> None:
    normalised = normal(random_net(3, 3)[0])
    with pytest.raises((ModelError, ValueError)):
        Extraction(normalised).segment(("block1",), ("block0",))


def test_endings_replace_rank_4_outputs_by_their_sums_over_channels() -> None:
    normalised = normal(random_net(1, 2)[0])
    segment = Extraction(normalised).segment(("x",), ("block1", "scores"))
    copy = conversion_copy(segment, {"block1": "a/b"})
    ended = copy.proto
    assert copy.endings == {"a/b": "a/b/ending"}
    assert [value.name for value in ended.graph.output] == ["a/b/ending", "scores"]
    assert [value.name for value in segment.graph.output] == ["block1", "scores"]
    onnx.checker.check_model(ended, full_check=True)
    inputs = random_inputs(normalised)
    (block, scores), (ending, same) = run(segment, inputs), run(ended, inputs)
    np.testing.assert_allclose(ending, block.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(scores, same)


def test_saving_is_whole_or_not_at_all(tmp_path: Path) -> None:
    proto = random_net(0, 1)[0]
    path = tmp_path / "segment.onnx"
    save(proto, path)
    assert onnx.load(path) == proto
    assert [item.name for item in tmp_path.iterdir()] == ["segment.onnx"]
    with pytest.raises(OutputError, match="cannot be written"):
        save(proto, tmp_path / "missing" / "segment.onnx")


def samples(normalised: Model, count: int) -> Samples:
    arrays = {
        item.name: np.random.default_rng(5).standard_normal((count, *item.shape[1:])).astype(np.float32)
        for item in normalised.inputs
    }
    names = tuple(f"random {number}" for number in range(count))
    return Samples(arrays=arrays, names=names, origin="random", synthetic=True, sha256="")


def test_activations_hold_inputs_inner_tensors_and_outputs_for_every_sample() -> None:
    normalised = normal(random_net(4, 2)[0])
    data = samples(normalised, 3)
    found = activations(normalised, data, ["x", "block0", "y", "block0"])
    assert set(found) == {"x", "block0", "y"}
    assert found["block0"].shape == (3, *normalised.graph.tensors["block0"].shape[1:])
    segment = Extraction(normalised).segment(("x",), ("block0", "y"))
    for index in range(3):
        block, output = run(segment, {"x": data.arrays["x"][index : index + 1]})
        np.testing.assert_array_equal(found["block0"][index : index + 1], block)
        np.testing.assert_array_equal(found["y"][index : index + 1], output)


def test_logits_are_what_goes_into_the_final_softmax() -> None:
    assert logits(normal(random_net(0, 1)[0]).graph) == {"y": "scores"}
    nodes = [
        node("Relu", "x", "a"),
        node("LogSoftmax", "a", "b", axis=-1),
        node("Unsqueeze", "b axes", "y"),
        node("Softmax", "x", "s"),
        node("Add", "s a", "z"),
    ]
    proto = model(nodes, {"x": (1, 4)}, ["y", "z"], {"axes": np.array([2])})
    assert logits(normal(proto).graph) == {"y": "a", "z": "z"}


def test_a_model_that_onnxruntime_refuses_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not run"):
        Reference(tmp_path / "nothing.onnx")
    reference = Reference(random_net(0, 1)[0])
    with pytest.raises(ModelError, match="does not run"):
        reference.run({"x": np.zeros((1, 3, 4, 4), np.float32)})


def test_a_weight_nobody_reads_does_not_disturb_the_reference() -> None:
    proto = model([node("Relu", "x", "y")], {"x": (1, 4)}, ["y"], weights(unused=(3000,)))
    found = Reference(proto).run({"x": np.full((1, 4), -1, np.float32)})
    np.testing.assert_array_equal(found["y"], np.zeros((1, 4), np.float32))
