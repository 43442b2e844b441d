"""Split a layer by output channels into parts that are computed one after the other.

1. *Splittable* is a node whose only activation is its first input and whose weights are constants with an axis of
   output channels: Conv and ConvTranspose in one group, Gemm without transA, MatMul with a matrix on its right.
2. Part i computes some output channels: the same node with these channels' weights and biases. A Relu or Clip that is
   the only reader of the layer becomes part of the parts, because converters fuse it.
3. The parts are joined in order: joined(1) is the first part, joined(i) = Concat(joined(i - 1), part i), and the last
   one has the name of the layer's output. Between two parts only the layer's input and the parts joined so far are
   alive.
4. The result is the same: in float each channel is the same sum of products, up to the rounding of another blocking. In
   int8 every part and every joined tensor has the range of the whole output (``range_sources``), so a Concat copies
   bytes; weights have one scale per output channel, or that of the whole layer (``largest_weights``).
5. Not covered: grouped convolutions, whose parts would read different input channels. ConvTranspose is split, but the
   converter writes its bias as an ADD after it, with a range of its own: chain and joined model are equal as always,
       but may differ from the unsplit layer by one int8 step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from onnx import ModelProto, numpy_helper

from graphcut.errors import ModelError, setting
from graphcut.graph import protobuf
from graphcut.graph.model import Model
from graphcut.graph.reference import Reference
from graphcut.records import Graph, Node, PassReport, Shape, Tensor

NAME = "split-layers"
REASON = "a layer whose weights exceed the budget is computed in parts, by output channels"
TOLERANCE = 1e-4
"""Largest relative difference that the split may cause in float: the same sums in another blocking stay below 1e-5."""
SEED = 3

_ACTIVATIONS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Where a part's weights come from: ``start`` to ``stop`` on one axis of another weight."""

    weight: str
    axis: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitLayers:
    """A graph with split layers, and how it was made.

    Attributes:
        graph: with the parts in place of the layers.
        slices: new weight -> the location of its values.
        range_sources: activation of a part -> the activations whose values together give its range (statement 4).
        channels: output of a part's own node -> its first and last output channel, half open.
        owners: output of every node that replaces part of a layer -> the output of that layer.
        weights: output of a layer -> the weight that was split.
    """

    graph: Graph
    slices: Mapping[str, Slice]
    range_sources: Mapping[str, tuple[str, ...]]
    channels: Mapping[str, tuple[int, int]]
    owners: Mapping[str, str]
    weights: Mapping[str, str]


def output_channels(graph: Graph, node: Node) -> int:
    """Number of output channels of a splittable node, 0 for any other (statement 1)."""
    constants = [graph.weights[name] for name in node.inputs[1:] if name in graph.weights]
    if len(node.inputs) < 2 or len(node.outputs) != 1 or node.inputs[0] in graph.weights:
        return 0
    if len(constants) != len([name for name in node.inputs[1:] if name]):
        return 0
    axis = _weight_axis(node, constants[0].shape)
    if axis is None:
        return 0
    channels = constants[0].shape[axis]
    for bias in constants[1:]:
        if bias.elements not in (1, channels) or (bias.elements > 1 and bias.shape[-1] != channels):
            return 0
    return channels


def _weight_axis(node: Node, shape: Shape) -> int | None:
    """The axis of output channels in the weights of a node; None where the node cannot be split."""
    attributes = node.attributes
    if node.op_type in ("Conv", "ConvTranspose") and len(shape) >= 3 and attributes.get("group", 1) == 1:
        return 0 if node.op_type == "Conv" else 1
    if node.op_type == "Gemm" and len(shape) == 2 and not attributes.get("transA", 0):
        return 0 if attributes.get("transB", 0) else 1
    return 1 if node.op_type == "MatMul" and len(shape) == 2 else None


def split_layers(graph: Graph, bounds: Mapping[str, Sequence[int]]) -> SplitLayers:
    """Split layers of a graph; records only, linear in the graph and the parts.

    Args:
        graph: normalised.
        bounds: output of a splittable node -> the channels at which its parts meet, rising, above 0 and below the
            number of channels.

    Raises:
        ValueError: a layer is not splittable, or its bounds are not as they should be (a bug).
    """
    return _Splitter(graph).split(bounds)


class _Splitter:
    """Builds the parts of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors = dict(graph.tensors)
        self.weights = dict(graph.weights)
        self.layers = dict(graph.layers)
        self.slices: dict[str, Slice] = {}
        self.range_sources: dict[str, tuple[str, ...]] = {}
        self.channels: dict[str, tuple[int, int]] = {}
        self.owners: dict[str, str] = {}
        self.taken = {*graph.tensors, *graph.weights, *graph.layers.values()}
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def split(self, bounds: Mapping[str, Sequence[int]]) -> SplitLayers:
        makers = {node.outputs[0]: node for node in self.graph.nodes if node.outputs}
        instead: dict[str, list[Node]] = {}
        dropped: set[str] = set()
        for output, cuts in bounds.items():
            layer = makers[output]
            activation = self._activation(layer)
            parts = self._parts(layer, activation, cuts)
            self.owners |= {node.outputs[0]: output for node in parts}
            instead[(activation or layer).outputs[0]] = parts
            if activation is not None:
                dropped.add(output)
        nodes: list[Node] = []
        for node in self.graph.nodes:
            name = node.outputs[0] if node.outputs else ""
            if name in instead:
                nodes += instead[name]
            elif name not in dropped:
                nodes.append(node)
        read = {name for node in nodes for name in node.inputs}
        made = {name for node in nodes for name in node.outputs}
        kept = {*made, *self.graph.inputs}
        graph = replace(
            self.graph,
            nodes=tuple(nodes),
            tensors={name: tensor for name, tensor in self.tensors.items() if name in kept},
            weights={name: tensor for name, tensor in self.weights.items() if name in read},
            layers={name: layer for name, layer in self.layers.items() if name in kept},
        )
        return SplitLayers(
            graph=graph,
            slices=self.slices,
            range_sources=self.range_sources,
            channels=self.channels,
            owners=self.owners,
            weights={output: makers[output].inputs[1] for output in bounds},
        )

    def _activation(self, layer: Node) -> Node | None:
        """The Relu or Clip that goes into the parts (statement 2)."""
        output = layer.outputs[0]
        readers = self.readers.get(output, [])
        if len(readers) != 1 or output in self.graph.outputs or readers[0].op_type not in _ACTIVATIONS:
            return None
        rest = [name for name in readers[0].inputs[1:] if name]
        return readers[0] if readers[0].inputs[0] == output and self.graph.weights.keys() >= set(rest) else None

    def _parts(self, layer: Node, activation: Node | None, cuts: Sequence[int]) -> list[Node]:
        channels = output_channels(self.graph, layer)
        edges = [0, *cuts, channels]
        if not channels or any(start >= stop for start, stop in pairwise(edges)):
            raise ValueError(f"{layer.name} with {channels} output channels cannot be split at {list(cuts)}")
        whole = (activation or layer).outputs[0]
        own = layer.outputs[0]
        axis = 1 if layer.op_type != "MatMul" else len(self.tensors[own].shape) - 1
        nodes: list[Node] = []
        joined, before = "", []
        for number, (start, stop) in enumerate(pairwise(edges), start=1):
            tag = f"part{number}"
            inputs = (layer.inputs[0], *(self._slice(layer, name, tag, start, stop) for name in layer.inputs[1:]))
            part = self._tensor(own, tag, axis, stop - start, () if activation else (whole,))
            nodes.append(replace(layer, name=f"{layer.name}/{tag}", inputs=inputs, outputs=(part,)))
            self.channels[part] = start, stop
            before.append(part)
            if activation is not None:
                done = self._tensor(whole, tag, axis, stop - start, (whole,))
                rest = activation.inputs[1:]
                nodes.append(
                    replace(activation, name=f"{activation.name}/{tag}", inputs=(part, *rest), outputs=(done,))
                )
                part = done
            if number == 1:
                joined = part
                continue
            last = stop == channels
            target = whole if last else self._tensor(whole, f"to{number}", axis, stop, (whole,))
            nodes.append(
                Node(
                    name=f"{layer.name}/join{number}",
                    op_type="Concat",
                    inputs=(joined, part),
                    outputs=(target,),
                    attributes={"axis": axis},
                )
            )
            joined = target
        if activation is not None:
            self.range_sources |= dict.fromkeys(before, tuple(before))
        return nodes

    def _tensor(self, like: str, tag: str, axis: int, size: int, sources: tuple[str, ...]) -> str:
        """Add an activation named after another one, of another size on one axis."""
        old = self.tensors[like]
        name = self._fresh(f"{like}/{tag}")
        shape = (*old.shape[:axis], size, *old.shape[axis + 1 :])
        self.tensors[name] = Tensor(name=name, shape=shape, dtype=old.dtype)
        self.layers[name] = self._fresh(f"{self.layers[like]}/{tag}", shared=name)
        if sources:
            self.range_sources[name] = sources
        return name

    def _slice(self, layer: Node, weight: str, tag: str, start: int, stop: int) -> str:
        """Add the channels ``start`` to ``stop`` of a weight or bias; one for all channels stays as it is."""
        if not weight or self.graph.weights[weight].elements == 1:
            return weight
        old = self.graph.weights[weight]
        axis = _weight_axis(layer, old.shape) if weight == layer.inputs[1] else len(old.shape) - 1
        assert axis is not None, "output_channels has seen to it"
        name = self._fresh(f"{weight}/{layer.name}/{tag}")
        shape = (*old.shape[:axis], stop - start, *old.shape[axis + 1 :])
        self.weights[name] = Tensor(name=name, shape=shape, dtype=old.dtype)
        self.slices[name] = Slice(weight=weight, axis=axis, start=start, stop=stop)
        return name

    def _fresh(self, base: str, shared: str = "") -> str:
        """A name that nothing has yet, or that only ``shared`` has: a tensor may be called like its layer."""
        name, number = base, 1
        while name in self.taken and name != shared:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name


def split_model(model: Model, bounds: Mapping[str, Sequence[int]]) -> Model:
    """Split layers of a model, and check in float on a seeded random input that the result is the same.

    Args:
        model: normalised; it is not changed.
        bounds: as for :func:`split_layers`.

    Returns:
        The model with parts, its pass report and ``range_sources``; nodes in the order of ``split_layers``.

    Raises:
        ModelError: the result is different.
    """
    split = split_layers(model.graph, bounds)
    proto = _proto(model.proto, model.graph, split)
    error = _difference(model, proto)
    if not error <= TOLERANCE:
        raise ModelError(
            f"split into parts, {', '.join(model.graph.layers[name] for name in bounds)} computes a different result "
            f"(relative difference {error:.1e})",
            f"do not split layers: {setting('layer_split', False)}",
        )
    report = PassReport(name=NAME, reason=REASON, matches=len(bounds), relative_error=error)
    return replace(
        model,
        proto=proto,
        graph=split.graph,
        passes=(*model.passes, report),
        range_sources={**model.range_sources, **split.range_sources},
        largest_weights={**model.largest_weights, **_largest_weights(model.proto, split)},
    )


def _largest_weights(whole: ModelProto, split: SplitLayers) -> dict[str, float]:
    """For the outputs of the parts, the largest absolute weight of the whole layer."""
    wanted = set(split.weights.values())
    arrays = {each.name: numpy_helper.to_array(each) for each in whole.graph.initializer if each.name in wanted}
    largest = {output: float(np.abs(arrays[weight]).max()) for output, weight in split.weights.items()}
    parts = [node for node in split.graph.nodes if node.op_type != "Concat" and node.outputs[0] in split.owners]
    return {node.outputs[0]: largest[split.owners[node.outputs[0]]] for node in parts}


def _proto(old: ModelProto, graph: Graph, split: SplitLayers) -> ModelProto:
    """The message of a split graph; unchanged nodes keep their messages."""
    new = ModelProto(ir_version=old.ir_version, producer_name=old.producer_name, opset_import=old.opset_import)
    new.graph.name = old.graph.name
    new.graph.input.extend(old.graph.input)
    new.graph.output.extend(old.graph.output)
    known = {node.name: node for node in old.graph.node}
    kept = {node.name: node for node in graph.nodes}
    for node in split.graph.nodes:
        same = kept.get(node.name) is node
        new.graph.node.append(known[node.name] if same else protobuf.node_proto(node))
    arrays = {}
    wanted = {piece.weight for piece in split.slices.values()}
    for initializer in old.graph.initializer:
        if initializer.name in wanted:
            arrays[initializer.name] = numpy_helper.to_array(initializer)
        if initializer.name in split.graph.weights:
            new.graph.initializer.append(initializer)
    for name, piece in split.slices.items():
        index = (slice(None),) * piece.axis + (slice(piece.start, piece.stop),)
        part = np.ascontiguousarray(arrays[piece.weight][index])
        new.graph.initializer.append(numpy_helper.from_array(part, name))
    ends = {*split.graph.inputs, *split.graph.outputs}
    new.graph.value_info.extend(
        protobuf.value_info(tensor) for name, tensor in split.graph.tensors.items() if name not in ends
    )
    return new


def _difference(model: Model, split: ModelProto) -> float:
    """Largest difference of any output on a random input, relative to that output's largest value."""
    generator = np.random.default_rng(SEED)
    inputs = {each.name: generator.standard_normal(each.shape, dtype=np.float32) for each in model.inputs}
    wanted = Reference(model.proto).run(inputs)
    found = Reference(split).run(inputs)
    worst = 0.0
    for name, values in wanted.items():
        largest = float(np.abs(values).max(initial=0.0))
        difference = float(np.abs(values - found[name]).max(initial=0.0))
        worst = max(worst, difference / largest if largest else difference)
    return worst
