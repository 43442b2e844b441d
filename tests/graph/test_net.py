"""The editable graph: order, names, bypassing, sweeping; and that a rewrite that is wrong is left out."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcut.errors import ModelError
from graphcut.graph import protobuf
from graphcut.graph.net import Net, topological
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.catalogue import PASSES
from graphcut.graph.topology import topology
from graphcut.records import Node, Tensor
from tests.support.graph_nets import assert_same, model, node, normal, ops, report_of, weights


def record(name: str, inputs: tuple[str, ...], output: str, op_type: str = "Relu") -> Node:
    return Node(name=name, op_type=op_type, inputs=inputs, outputs=(output,), attributes={})


def net_of(*nodes: Node, outputs: tuple[str, ...]) -> Net:
    tensor = Tensor(name="x", shape=(1, 4, 8, 8), dtype="float32")
    return Net(name="net", opset=17, nodes=nodes, inputs=[tensor], outputs=outputs, weights={})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40))
def test_shuffled_graphs_are_sorted_and_sorted_ones_kept(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    nodes = []
    for number in range(count):
        sources = generator.choice(number + 1, size=min(2, number + 1), replace=False)
        nodes.append(
            record(f"n{number}", tuple("x" if item == 0 else f"t{item}" for item in sources), f"t{number + 1}")
        )
    assert topological(nodes) == nodes
    shuffled = [nodes[index] for index in generator.permutation(count)]
    order = topological(shuffled)
    assert sorted(item.name for item in order) == sorted(item.name for item in nodes)
    made = {"x"}
    for item in order:
        assert made.issuperset(item.inputs)
        made.update(item.outputs)


def test_cycles_are_found_also_of_one_node() -> None:
    with pytest.raises(ModelError, match="cycle"):
        topological([record("a", ("a_out",), "a_out")])
    with pytest.raises(ModelError, match="cycle"):
        topological([record("a", ("b",), "a"), record("b", ("a",), "b"), record("c", ("x",), "c")])


def test_bypassing_keeps_outputs_by_name() -> None:
    net = net_of(
        record("a", ("x",), "t"), record("b", ("t",), "y", "Identity"), record("c", ("t",), "z"), outputs=("y", "z")
    )
    assert net.bypass(net.node("b"), "t")
    assert net.node("a").outputs == ("y",)
    assert net.node("c").inputs == ("y",)
    assert net.outputs == ["y", "z"]


def test_bypassing_is_refused_where_an_output_would_lose_its_name() -> None:
    net = net_of(record("a", ("x",), "y", "Identity"), outputs=("y",))
    assert not net.bypass(net.node("a"), "x")
    net = net_of(record("a", ("x",), "z"), record("b", ("z",), "y", "Identity"), outputs=("y", "z"))
    assert not net.bypass(net.node("b"), "z")


def test_new_nodes_stand_where_the_old_ones_stood() -> None:
    net = net_of(record("a", ("x",), "t"), record("b", ("t",), "u"), record("c", ("u",), "y"), outputs=("y",))
    old = net.node("b")
    net.replace([old], [record("b1", ("t",), "v"), record("b2", ("v",), "u")])
    assert [item.name for item in net.nodes] == ["a", "b1", "b2", "c"]
    copy = net.copy()
    copy.replace([copy.node("b1"), copy.node("b2")], [old])
    assert [item.name for item in copy.nodes] == ["a", "b", "c"]
    assert [item.name for item in net.nodes] == ["a", "b1", "b2", "c"]


def test_fresh_names_are_given_once() -> None:
    net = net_of(record("a", ("x",), "y"), outputs=("y",))
    names = [net.fresh("y"), net.fresh("y"), net.fresh("x"), net.fresh("a"), net.fresh("new")]
    assert len({*names, "x", "y", "a"}) == 8
    assert names[-1] == "new"


def test_sweeping_counts_what_went() -> None:
    net = net_of(record("a", ("x",), "y"), record("b", ("x",), "dead"), record("c", ("dead",), "dead2"), outputs=("y",))
    assert net.sweep() == 2
    assert [item.name for item in net.nodes] == ["a"]
    assert net.sweep() == 0


def spoil(net: Net) -> int:
    """A wrong rewrite: Relu becomes Sigmoid."""
    count = 0
    for item in net.walk("Relu"):
        net.replace([item], [replace(item, op_type="Sigmoid")])
        count += 1
    return count


def break_shapes(net: Net) -> int:
    """A rewrite whose result does not even run: a pool larger than its map."""
    for item in net.walk("Relu"):
        net.replace([item], [replace(item, op_type="MaxPool", attributes={"kernel_shape": (50, 50)})])
    return 1


@pytest.mark.parametrize("wrong", [spoil, break_shapes])
def test_a_wrong_rewrite_is_left_out_named_and_the_others_stay(wrong: object) -> None:
    proto = model(
        [node("Conv", "x w", "c"), node("Mul", "c k", "m"), node("Relu", "m", "y")],
        {"x": (1, 4, 8, 8)},
        ["y"],
        weights(w=(6, 4, 3, 3), k=(1, 6, 1, 1)),
    )
    bad = Pass(name="wrong", reason="to be caught", apply=wrong)  # type: ignore[arg-type]
    normalised = normal(proto, passes=(bad, *PASSES))
    assert ops(normalised) == ["Conv", "Relu"]
    assert report_of(normalised, "wrong").matches == 0
    assert report_of(normalised, "fold-channel-arithmetic").matches == 1
    assert any("wrong" in note for note in normalised.notes)
    assert_same(proto, normalised)


def test_every_pass_has_its_own_name_and_a_reason() -> None:
    assert len({item.name for item in PASSES}) == len(PASSES)
    assert all(item.reason for item in PASSES)


def test_reports_say_what_each_pass_did() -> None:
    proto = model(
        [node("Conv", "x w", "c"), node("Mul", "c k", "y")],
        {"x": (1, 4, 8, 8)},
        ["y"],
        weights(w=(6, 4, 3, 3), k=(6, 1, 1)),
    )
    normalised = normal(proto)
    matched = report_of(normalised, "fold-channel-arithmetic")
    assert matched.matches == 1
    assert matched.relative_error is not None
    assert 0 <= matched.relative_error < 1e-5
    assert report_of(normalised, "matmul-to-gemm").relative_error is None


@pytest.mark.parametrize(
    "value",
    [3, -1.5, "text", (1, 2), (0.5, 1.5), ("a", "b"), np.arange(6, dtype=np.float32).reshape(2, 3)],
)
def test_attributes_survive_the_way_out_and_back(value: object) -> None:
    back = protobuf.attribute_value(protobuf.attribute_proto("name", value))
    if isinstance(value, np.ndarray):
        np.testing.assert_array_equal(back, value)  # type: ignore[arg-type]
    else:
        assert back == value


def test_an_attribute_that_cannot_be_is_an_error() -> None:
    with pytest.raises(TypeError, match="dict"):
        protobuf.attribute_proto("name", {})


def test_topology_of_a_hundred_thousand_nodes_is_quick() -> None:
    count = 100_000
    nodes = [node("Relu", f"t{number}", f"t{number + 1}", f"n{number}") for number in range(count)]
    proto = model(nodes, {"t0": (1, 4, 2, 2)}, [f"t{count}"])
    proto.graph.value_info.extend(
        protobuf.value_info(Tensor(name=f"t{number}", shape=(1, 4, 2, 2), dtype="float32"))
        for number in range(1, count + 1)
    )
    begin = time.process_time()
    graph = topology(proto)
    seconds = time.process_time() - begin
    assert len(graph.nodes) == count
    assert seconds < 10
