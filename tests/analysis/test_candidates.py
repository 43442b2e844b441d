import time
from itertools import pairwise

import pytest
import rustworkx
from hypothesis import given
from hypothesis import strategies as st

from graphcut.analysis.candidates import analyse, find_tensor, why
from graphcut.analysis.liveness import lifetimes
from graphcut.errors import ModelError, UsageError
from graphcut.records import Graph
from tests.support.graphs import MAP, Builder, dags, dense_chain, reordered, residual_chain


def reaches_outputs(graph: Graph, without: str) -> bool:
    """Whether anything still flows from an input (or a node that reads nothing) to an output when a tensor is cut."""
    flowing = set(graph.inputs) - {without}
    for node in graph.nodes:
        read = [name for name in node.inputs if name not in graph.weights]
        if not read or flowing.intersection(read):
            flowing.update(set(node.outputs) - {without})
    return bool(flowing.intersection(graph.outputs))


def fits(graph: Graph, name: str) -> bool:
    tensor = graph.tensors[name]
    inner = name not in graph.inputs and name not in graph.outputs
    return inner and len(tensor.shape) == 4 and tensor.shape[0] == 1 and tensor.dtype == "float32"


def dominators(graph: Graph) -> set[str]:
    """Dominators of the outputs by rustworkx, on a graph whose vertices are nodes and tensors."""
    digraph = rustworkx.PyDiGraph()
    source, sink = digraph.add_nodes_from(["source", "sink"])
    vertex = {name: digraph.add_node(name) for name in graph.tensors}
    for name in graph.inputs:
        digraph.add_edge(source, vertex[name], None)
    for node in graph.nodes:
        here = digraph.add_node(None)
        read = [name for name in node.inputs if name in vertex]
        for name in read:
            digraph.add_edge(vertex[name], here, None)
        if not read:
            digraph.add_edge(source, here, None)
        for name in node.outputs:
            digraph.add_edge(here, vertex[name], None)
    for name in graph.outputs:
        digraph.add_edge(vertex[name], sink, None)
    parent = rustworkx.immediate_dominators(digraph, source)
    found: set[str] = set()
    walk = sink
    while walk != source:
        walk = parent[walk]
        if digraph[walk] in graph.tensors:
            found.add(digraph[walk])
    return found


@given(dags())
def test_candidates_are_what_the_definition_says(graph: Graph) -> None:
    found = {candidate.tensor for candidate in analyse(graph).candidates}
    assert found == {name for name in graph.tensors if fits(graph, name) and not reaches_outputs(graph, name)}


@given(dags(max_nodes=25))
def test_candidates_are_the_dominators_of_the_outputs(graph: Graph) -> None:
    found = {candidate.tensor for candidate in analyse(graph).candidates}
    assert found == {name for name in dominators(graph) if fits(graph, name)}


@given(dags(), st.integers(0, 2**32))
def test_candidates_do_not_depend_on_the_topological_order(graph: Graph, seed: int) -> None:
    assert analyse(graph).candidates == analyse(reordered(graph, seed)).candidates


@given(dags())
def test_a_candidate_stands_behind_exactly_its_ancestors(graph: Graph) -> None:
    for candidate in analyse(graph, min_rank=2).candidates:
        wanted, ancestors = {candidate.tensor}, set()
        for node in reversed(graph.nodes):
            if wanted.intersection(node.outputs):
                ancestors.add(node.name)
                wanted.update(node.inputs)
        assert {node.name for node in graph.nodes[: candidate.position]} == ancestors


@given(dags())
def test_weight_bytes_count_a_shared_weight_once_a_side(graph: Graph) -> None:
    start = 0
    for candidate in analyse(graph).candidates:
        for begin, counted in ((0, candidate.weight_bytes_before), (start, candidate.weight_bytes_between)):
            read = {name for node in graph.nodes[begin : candidate.position] for name in node.inputs}
            assert counted == sum(graph.weights[name].elements for name in read if name in graph.weights)
        start = candidate.position


@given(dags())
def test_frontiers_are_what_crosses_a_position(graph: Graph) -> None:
    life = lifetimes(graph)
    for position in range(len(graph.nodes) + 1):
        frontier = {name for name, first in life.first.items() if first <= position <= life.last[name]}
        made = {*graph.inputs, *(name for node in graph.nodes[:position] for name in node.outputs)}
        wanted = {*graph.outputs, *(name for node in graph.nodes[position:] for name in node.inputs)}
        assert frontier == made & wanted
        assert len(frontier) <= life.counts[position]


@given(dags())
def test_every_tensor_has_its_reason(graph: Graph) -> None:
    found = {candidate.tensor for candidate in analyse(graph).candidates}
    for name in [*graph.tensors, *graph.weights]:
        said = why(graph, name)
        assert (" is a candidate: " in said) == (name in found)
        assert "\n" not in said


@given(dags())
def test_the_path_named_goes_around(graph: Graph) -> None:
    named = {layer: tensor for tensor, layer in graph.layers.items()}
    feeds = {(a, b) for node in graph.nodes for a in node.inputs for b in node.outputs}
    for name in graph.tensors:
        said = why(graph, name)
        if "bypasses it" not in said or ".." in said:
            continue
        path = [named[layer] for layer in said.split("the path ")[1].removesuffix(" bypasses it").split(" -> ")]
        assert name not in path
        assert all(pair in feeds for pair in pairwise(path))


def resnet() -> Graph:
    build = Builder()
    image = build.input("image:0", (1, 3, 24, 24))
    stem = build.conv(image, "stem_conv:0", 100, (1, 8, 24, 24))
    stem = build.node("Relu", [stem], "stem_relu:0", shape=(1, 8, 24, 24))
    pool = build.node("MaxPool", [stem], "pool:0", shape=(1, 8, 12, 12))
    inner = build.conv(pool, "block_conv:0", 200, (1, 8, 12, 12))
    added = build.node("Add", [inner, pool], "block_add:0", shape=(1, 8, 12, 12))
    out = build.node("Relu", [added], "block_out:0", shape=(1, 8, 12, 12))
    gate = build.node("GlobalAveragePool", [out], "gate:0", shape=(1, 8, 1, 1))
    scaled = build.node("Mul", [out, gate], "scaled:0", shape=(1, 8, 12, 12))
    left = build.node("Split", [scaled], "left:0", "right:0", shape=(1, 4, 12, 12))
    joined = build.node("Concat", [left, "right:0"], "joined:0", shape=(1, 8, 12, 12))
    whole = build.node("Cast", [joined], "whole:0", shape=(1, 8, 12, 12), dtype="int32")
    several = build.node("Reshape", [whole], "several:0", shape=(2, 4, 12, 12))
    deep = build.node("Reshape", [several], "deep:0", shape=(1, 2, 4, 12, 12))
    flat = build.node("Flatten", [deep], "flat:0", shape=(1, 1152))
    build.node("Gemm", [flat, build.weight("fc/w", (1152, 10))], "logits:0", shape=(1, 10))
    return build.graph("logits:0")


def test_fields_of_the_candidates() -> None:
    by_layer = {candidate.layer: candidate for candidate in analyse(resnet()).candidates}
    assert list(by_layer) == [
        "stem_conv", "stem_relu", "pool", "block_add", "block_out", "scaled", "joined",
    ]  # fmt: skip
    assert [name for name, each in by_layer.items() if each.pre_activation] == ["stem_conv", "block_add"]
    assert [name for name, each in by_layer.items() if each.merged] == ["block_add", "block_out", "scaled", "joined"]
    assert [name for name, each in by_layer.items() if not each.downsampled] == ["stem_conv", "stem_relu"]
    out = by_layer["block_out"]
    assert (out.tensor, out.position, out.shape, out.dtype) == ("block_out:0", 6, (1, 8, 12, 12), "float32")
    assert (out.int8_bytes, out.weight_bytes_before, out.weight_bytes_between) == (1152, 300, 0)
    assert by_layer["block_add"].weight_bytes_between == 200


def test_lower_ranks_are_candidates_when_asked_for() -> None:
    assert [candidate.layer for candidate in analyse(resnet(), min_rank=2).candidates][-1] == "flat"
    assert "is a candidate" in why(resnet(), "flat", min_rank=2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("image", "image is not a candidate: it is an input of the model"),
        ("logits", "logits is not a candidate: it is an output of the model"),
        ("fc/w", "it is a weight"),
        ("flat", "it has rank 2 (1x1152), and cuts need at least rank 4"),
        ("deep", "it has rank 5 (1x2x4x12x12), and cuts allow at most rank 4"),
        ("several", "its first dimension is 2 (2x4x12x12), not a batch of 1"),
        ("whole", "its type is int32"),
        ("block_conv", "the path pool -> block_add bypasses it"),
        ("gate", "the path block_out -> scaled bypasses it"),
        ("left", "the path scaled -> right -> joined bypasses it"),
        ("block_out", "block_out is a candidate: every path from input to output passes it after 6 of 15 operators"),
        ("block_out:0", "(1x8x12x12, 1.1 KiB at int8)"),
        ("node_block_out:0", "block_out is a candidate"),
        ("block_add", "plans cut after block_out instead, whose Relu is fused into it"),
    ],
)
def test_reasons_are_clear(name: str, says: str) -> None:
    assert says in why(resnet(), name)
    assert says in why(analyse(resnet()), name)


def test_a_late_input_and_an_early_output_are_named() -> None:
    build = Builder()
    first = build.conv(build.input("a"), "x")
    early = build.conv(first, "early")
    last = build.conv(build.node("Add", [first, build.input("b")], "sum"), "y")
    assert "the path b -> sum bypasses it" in why(build.graph(last), "x")
    graph = build.graph(early, build.node("Relu", [last], "end"))
    assert "the path x -> early bypasses it" in why(graph, "sum")
    assert [candidate.layer for candidate in analyse(graph).candidates] == []


def test_an_unread_side_output_is_said_to_be_unread() -> None:
    build = Builder()
    build.node("Dropout", [build.conv(build.input("a"), "x")], "y", "mask")
    build.node("Relu", ["y"], "z")
    assert "no operator reads it" in why(build.graph("z"), "mask")
    assert [candidate.layer for candidate in analyse(build.graph("z")).candidates] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "says"), [("blok_out", "did you mean block_out"), ("block", "block_conv or"), ("xyzzy", "inspect")]
)
def test_unknown_names_come_back_with_close_ones(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        find_tensor(resnet(), name)


def test_a_graph_without_operators_is_refused() -> None:
    build = Builder()
    with pytest.raises(ModelError, match="no operators"):
        analyse(build.graph(build.input("a")))


def test_a_graph_out_of_order_is_a_bug() -> None:
    build = Builder()
    build.input("a")
    build.node("Relu", ["later"], "x")
    with pytest.raises(ValueError, match="later"):
        analyse(build.graph("x"))


def test_a_shape_that_is_not_static_is_no_candidate() -> None:
    build = Builder()
    moving = build.node("Conv", [build.input("a")], "x", shape=(1, 8, 0, 6))
    build.node("Relu", [moving], "y", shape=MAP)
    assert analyse(build.graph("y")).candidates == ()
    assert "1x8x?x6 is not static" in why(build.graph("y"), "x")


@pytest.mark.parametrize("graph", [residual_chain(20_000), dense_chain(5_500)], ids=["residual", "dense"])
def test_a_hundred_thousand_nodes_are_analysed_in_linear_time(graph: Graph) -> None:
    assert len(graph.nodes) > 95_000
    begin = time.process_time()
    candidates = analyse(graph).candidates
    assert time.process_time() - begin < 4  # 0.6 s on a quiet machine
    assert len(candidates) >= 10_000
    begin = time.process_time()
    why(graph, candidates[-1].layer)
    why(graph, graph.nodes[50_001].outputs[0])
    with pytest.raises(UsageError):
        why(graph, "b777_uot")
    assert time.process_time() - begin < 12
