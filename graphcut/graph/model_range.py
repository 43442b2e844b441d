"""A range of a model: it ends at other tensors than the file's outputs, or begins at other ones than its inputs.

1. Names are those that ``inspect`` shows: layers, or tensors of the ONNX file.
2. Outputs that the file itself has are taken before anything looks at what comes after them, so that a head that cannot
   be split (a loop, a selection of boxes) can be left off. What stays is then the model: rewrites, checks and proofs
   see nothing else. Outputs that only rewrites made are taken from the normalised graph.
3. Inputs are taken from the normalised graph: their shape is known there, and images are NCHW. They are all the
   inputs that the range has.
4. Every output must be computed from the inputs given, and from nothing else; every input must be read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnx import ModelProto

from graphcut.errors import ModelError, UsageError, setting
from graphcut.graph import names, protobuf
from graphcut.graph.branches import captured
from graphcut.graph.net import Net, topological
from graphcut.graph.topology import graph_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRange:
    """Where a model begins and ends: names of layers or tensors; none for the file's own inputs or outputs."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is given."""
        return bool(self.inputs or self.outputs)


WHOLE = ModelRange()


def end_at(proto: ModelProto, chosen: ModelRange) -> ModelRange:
    """Let a message as it was read end at the outputs of a range, if it has all of them (statement 2).

    Nodes, weights and inputs that these do not depend on go. Linear in the message.

    Returns:
        What of the range is left to be taken; all of it where an output is no tensor or layer of the message.

    Raises:
        UsageError: an input of the range is a tensor of the message that no output is computed from.
    """
    outputs = chosen.outputs
    if not outputs:
        return chosen
    makers = {name: node for node in proto.graph.node for name in node.output if name}
    found = _in_message(proto, makers, outputs)
    if found is None:
        return chosen
    declared = {value.name: value for value in (*proto.graph.output, *proto.graph.value_info)}
    needed: set[str] = set()
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in makers:
            waiting += [each for each in (*makers[name].input, *captured(makers[name])) if each]
    _require_read(name for name in chosen.inputs if name in makers and name not in needed)
    ends = [declared.get(name) or protobuf.untyped(name) for name in found]
    ends = [type(each).FromString(each.SerializeToString()) for each in ends]
    del proto.graph.output[:]
    proto.graph.output.extend(ends)
    _drop(proto.graph.node, lambda node: needed.isdisjoint(node.output))
    for held in (proto.graph.initializer, proto.graph.input):
        _drop(held, lambda each: each.name not in needed)
    return ModelRange(inputs=chosen.inputs)


def _drop(held: Any, unwanted: Callable[[Any], bool]) -> None:
    """Take messages out of a repeated field without copying those that stay; their order stays."""
    count = sum(map(unwanted, held))
    if count:
        held.sort(key=unwanted)
        del held[-count:]


def take(net: Net, chosen: ModelRange, modules: Mapping[str, str]) -> None:
    """Let a normalised net begin and end where a range says (statements 3 and 4).

    Args:
        net: is changed; shapes of all tensors are known.
        chosen: the range; its outputs may be empty where :func:`end_at` has taken them.
        modules: see :func:`graphcut.graph.names.layer_names`.

    Raises:
        UsageError: a name is unknown, an output needs an input that is left out, or an input is not read.
    """
    graph = graph_of(net, names.layer_names(net.nodes, tuple(net.inputs), net.outputs, modules))
    inputs = tuple(dict.fromkeys(names.resolve(graph, name) for name in chosen.inputs))
    outputs = tuple(dict.fromkeys(names.resolve(graph, name) for name in chosen.outputs))
    if outputs:
        net.outputs = list(outputs)
    if inputs:
        _require_computable(net, inputs, graph.layers)
        for name in inputs:
            _begin_at(net, name)
        net.inputs = {name: net.tensors[name] for name in inputs}
        net.nhwc_inputs &= set(inputs)
    net.nhwc_outputs &= set(net.outputs)
    net.sweep()
    unread = [name for name in net.inputs if not net.readers(name)]
    if inputs:
        _require_read(graph.layers[name] for name in unread)
    for name in unread:  # only read by what was left off
        del net.inputs[name]


def _in_message(proto: ModelProto, made: Collection[str], outputs: Sequence[str]) -> list[str] | None:
    """The tensors of a message that are meant, each once; None where one is not there."""
    found = {name: name for name in outputs if name in made}
    if len(found) < len(set(outputs)):
        try:
            nodes = topological([protobuf.node_record(node) for node in proto.graph.node])
        except ModelError:
            return None
        weights = {tensor.name for tensor in proto.graph.initializer}
        inputs = tuple(value.name for value in proto.graph.input if value.name not in weights)
        ends = tuple(value.name for value in proto.graph.output)
        layers = names.layer_names(nodes, inputs, ends)
        by_layer = {layer: tensor for tensor, layer in layers.items() if tensor in made}
        found |= {name: by_layer[name] for name in outputs if name in by_layer and name not in found}
    if len(found) < len(set(outputs)):
        return None
    return list(dict.fromkeys(found[name] for name in outputs))


def _require_read(unread: Iterable[str]) -> None:
    for name in unread:
        raise UsageError(
            f"no output is computed from the input {name!r}",
            f"leave it out of {setting('inputs')}, or choose other outputs with {setting('outputs')}",
        )


def _require_computable(net: Net, inputs: Collection[str], layers: Mapping[str, str]) -> None:
    """Raise UsageError where an output depends on an input of the model that is not given."""
    for output in net.outputs:
        seen: set[str] = set()
        waiting = [output]
        while waiting:
            name = waiting.pop()
            if name in seen or name in inputs:
                continue
            seen.add(name)
            maker = net.producer(name)
            if maker is not None:
                waiting += [each for each in maker.inputs if each]
            elif name in net.inputs:
                raise UsageError(
                    f"{layers[output]!r} is not computed from {setting('inputs')} alone: it also needs {name!r}",
                    f"add {name} to {setting('inputs')}, or choose other outputs with {setting('outputs')}",
                )


def _begin_at(net: Net, name: str) -> None:
    """Let nothing make a tensor any more; what its maker makes beside it stays."""
    maker = net.producer(name)
    if maker is None:
        return
    unused = net.fresh(name)
    net.tensors[unused] = replace(net.tensors[name], name=unused)
    outputs = tuple(unused if output == name else output for output in maker.outputs)
    net.replace([maker], [replace(maker, outputs=outputs)])
