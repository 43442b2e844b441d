"""``If`` nodes whose condition is known are replaced by the branch that is taken.

1. PyTorch writes ``If`` for ``squeeze`` and the like: the condition compares a shape with a number. With static input
   shapes it is a constant, as is a condition that is an initialiser or a Constant node.
2. A condition is evaluated from constants and from the static shapes of activations, never from their values. Branches
   may contain further ``If`` nodes; the loop ends when no known condition is left.
3. A branch reads tensors of the graph around it by name (:func:`captured`). The nodes are sorted with these reads
   before a branch is taken; a name that no node produces is refused.
4. Branches may use the same names. They are renamed where they would clash.

Loops, scans and conditions that depend on the model's input are not supported: they are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, numpy_helper

from graphcut.errors import ModelError
from graphcut.graph import protobuf
from graphcut.graph.net import Net, topological
from graphcut.graph.passes.constants import RANDOM
from graphcut.graph.protobuf import NumpyArray
from graphcut.graph.session import ORT_ERRORS, session
from graphcut.graph.unsupported import CONDITIONAL, refuse_foreign
from graphcut.records import Node, Tensor

LARGEST_ELEMENTS = 2**16
"""A condition is computed from shapes and flags; larger tensors are not evaluated."""
MOST_TAKEN = 10_000
"""``If`` nodes that are resolved before a file is refused: PyTorch exports have a few dozen."""


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node has as attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all graphs inside it, the outer one first."""
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(inner for node in current.node for inner in subgraphs(node))


def captured(node: NodeProto) -> tuple[str, ...]:
    """The names that the graphs inside a node read from the graph around it (statement 3), in order, each once."""
    found: dict[str, None] = {}
    for graph in subgraphs(node):
        found |= dict.fromkeys(_free_names(graph))
    return tuple(found)


def _free_names(graph: GraphProto) -> list[str]:
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    read = [name for node in graph.node for name in (*node.input, *captured(node)) if name]
    return [name for name in (*read, *(value.name for value in graph.output)) if name not in own]


def take_branches(
    proto: ModelProto,
    nodes: Sequence[Node],
    protos: Mapping[str, NodeProto],
    inputs: Sequence[Tensor],
    weights: Mapping[str, NumpyArray],
) -> int:
    """Replace every ``If`` of a model by the branch it takes, in place. See the module docstring.

    Args:
        proto: the model; its nodes are written again, sorted; weights of branches join its initialisers.
        nodes, protos: its nodes as uniquely named records, and their messages by name.
        inputs: its inputs with static shapes.
        weights: the values of its initialisers.

    Returns:
        How many nodes were replaced.

    Raises:
        ModelError: a condition is not known (the error names the node), or the model is not valid ONNX.
    """
    reads = {node.name: captured(protos[node.name]) for node in nodes}
    order = topological([replace(node, inputs=(*node.inputs, *reads[node.name])) for node in nodes])
    made = {*weights, *(tensor.name for tensor in inputs)} | {name for node in nodes for name in node.outputs}
    for node in order:
        for name in reads[node.name]:
            if name not in made:
                raise ModelError(
                    f"a branch of node {node.name!r} (If) reads {name!r}, which no node produces",
                    "the file is not valid ONNX; export it again",
                )
    records = {node.name: node for node in nodes}
    net = Net(
        name=proto.graph.name or "model",
        opset=protobuf.opset_of(proto),
        nodes=[records[node.name] for node in order],
        inputs=inputs,
        outputs=[value.name for value in proto.graph.output],
        weights=weights,
        protos=protos,
    )
    taken = _take(net)
    messages = [protobuf.node_proto(node) for node in net.nodes]
    proto.graph.ClearField("node")
    proto.graph.node.extend(messages)
    proto.graph.ClearField("value_info")
    added = [name for name in net.weights if name not in weights]
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(net.weights[name]), name) for name in added)
    return taken


def _take(net: Net) -> int:
    taken = 0
    while any(net.walk(CONDITIONAL)):
        net.infer(strict=False)  # what is in a branch that is not taken may be unknown here
        found = [(node, value) for node in net.walk(CONDITIONAL) if (value := _condition(net, node)) is not None]
        if not found:
            node = next(net.walk(CONDITIONAL))
            raise ModelError(
                f"node {node.name!r} (If) depends on {node.inputs[0]!r}, which constants and shapes do not determine",
                "export the model without this condition, or with static shapes",
            )
        for node, value in found:
            _inline(net, node, _branch(node, "then_branch" if value else "else_branch"))
        taken += len(found)
        if taken > MOST_TAKEN:
            raise ModelError(
                f"the model contains more than {MOST_TAKEN} If nodes", "export it by tracing, without conditions"
            )
    return taken


def _branch(node: Node, name: str) -> GraphProto:
    attribute = node.attributes.get(name)
    if not isinstance(attribute, AttributeProto) or attribute.type != AttributeProto.GRAPH:
        raise ModelError(f"node {node.name!r} (If) has no {name}", "the file is not valid ONNX; export it again")
    graph = attribute.g
    if len(graph.output) != len(node.outputs) or len(graph.input):
        raise ModelError(
            f"node {node.name!r} (If) and its {name} differ in their inputs or outputs",
            "the file is not valid ONNX; export it again",
        )
    return graph


def _condition(net: Net, node: Node) -> bool | None:
    """The value of an ``If``'s condition; None where it is not known (statement 2)."""
    value = _value(net, node.inputs[0])
    if value is None:
        return None
    if value.size != 1:
        raise ModelError(
            f"the condition of node {node.name!r} (If) has {value.size} values instead of one",
            "the file is not valid ONNX; export it again",
        )
    return bool(value.reshape(-1)[0])


def _value(net: Net, tensor: str) -> NumpyArray | None:
    """The value of a tensor that follows from constants and static shapes; None where it does not."""
    constants: dict[str, NumpyArray] = {}
    nodes: dict[str, Node] = {}
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in constants:
            continue
        known = _known(net, name)
        if known is not None:
            constants[name] = known
            continue
        maker = net.producer(name)
        if maker is None or not _can_run(net, maker):
            return None
        if maker.name not in nodes:
            nodes[maker.name] = maker
            waiting += [each for each in maker.inputs if each]
    if tensor in constants:
        return constants[tensor]
    made = {output for node in nodes.values() for output in node.outputs}
    model = protobuf.build(
        "condition",
        net.opset,
        [protobuf.node_proto(node) for node in sorted(nodes.values(), key=net.place)],
        [],
        [protobuf.untyped(tensor)],
        {name: array for name, array in constants.items() if name not in made},
    )
    try:
        return np.asarray(session(model.SerializeToString(), threads=1).run([tensor], {})[0])
    except ORT_ERRORS:
        return None


def _known(net: Net, name: str) -> NumpyArray | None:
    """The value of a weight, or of a Constant, Shape or Size node, which need not be run."""
    weight = net.constant(name)
    maker = net.producer(name)
    if weight is not None or maker is None:
        return weight
    if maker.op_type == "Constant" and isinstance(maker.attributes.get("value"), np.ndarray):
        return np.asarray(maker.attributes["value"])
    shape = net.shape(maker.inputs[0]) if maker.op_type in ("Shape", "Size") and maker.inputs else None
    if shape is None:
        return None
    if maker.op_type == "Size":
        return np.array(prod(shape), dtype=np.int64)
    start, end = maker.attributes.get("start", 0), maker.attributes.get("end")
    assert isinstance(start, int)
    assert end is None or isinstance(end, int)
    return np.array(shape[start:end], dtype=np.int64)


def _can_run(net: Net, node: Node) -> bool:
    """Whether a node may be evaluated: deterministic, without inner graphs, of bounded size."""
    if node.op_type in RANDOM or any(isinstance(value, AttributeProto) for value in node.attributes.values()):
        return False
    shapes = [net.shape(name) for name in node.outputs if name]
    return all(shape is not None and prod(shape) <= LARGEST_ELEMENTS for shape in shapes)


def _inline(net: Net, node: Node, branch: GraphProto) -> None:
    """Replace an ``If`` by the nodes of a branch."""
    names: dict[str, str] = {}
    for tensor in branch.initializer:
        array = numpy_helper.to_array(tensor)
        names[tensor.name] = net.add_weight(tensor.name, array)
    for message in branch.node:
        names |= {output: net.fresh(output) for output in message.output if output}
    aliases: list[Node] = []
    for value, target in zip(branch.output, node.outputs, strict=True):
        source = names.get(value.name, value.name)
        renamed = any(value.name in message.output for message in branch.node) and source not in node.outputs
        if renamed and target:
            names[value.name] = target
        elif target:
            aliases.append(
                Node(
                    name=net.fresh(f"{node.name}/{target}"),
                    op_type="Identity",
                    inputs=(source,),
                    outputs=(target,),
                    attributes={},
                )
            )
    inner = [_record(net, message, names) for message in branch.node]
    net.replace([node], [*inner, *aliases])


def _record(net: Net, message: NodeProto, names: Mapping[str, str]) -> Node:
    """A node of a branch as a record of the net, with its new names.

    Raises:
        ModelError: it comes from a custom domain.
    """
    refuse_foreign(message)
    renamed = NodeProto()
    renamed.CopyFrom(message)
    renamed.ClearField("domain")
    _rename(renamed, names)
    record = protobuf.node_record(renamed)
    base = message.name or f"{message.op_type}_{message.output[0] if message.output else 'nothing'}"
    return replace(record, name=net.fresh(base))


def _rename(message: NodeProto, names: Mapping[str, str]) -> None:
    """Rename the tensors that a node and its inner graphs read and, for the node itself, those it produces."""
    message.output[:] = [names.get(name, name) for name in message.output]
    _rename_reads(message, names)


def _rename_reads(message: NodeProto, names: Mapping[str, str]) -> None:
    message.input[:] = [names.get(name, name) for name in message.input]
    for graph in subgraphs(message):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {name for node in graph.node for name in node.output}
        outer = {old: new for old, new in names.items() if old not in own}
        for node in graph.node:
            _rename_reads(node, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)
