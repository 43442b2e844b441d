"""Write normalisations over the map or over groups of channels as operators on maps.

1. mean = mean(x); centred = x - mean; variance = mean(centred^2); gain = scale / sqrt(variance + epsilon);
   result = centred * gain + bias. Mean, variance and gain are vectors [1, C, 1, 1], so the division is on a small
   tensor.
2. A mean over a group of channels is the mean over the map (MEAN over H and W), then a 1x1 convolution from C channels
   to G; from G back to C another one, which brings the scale of each channel with it. In int8 their weights are exact.
3. PyTorch writes GroupNorm as InstanceNormalization over [N, G, L] between two Reshapes, with Mul and Add after it.

onnx2tf spells InstanceNormalization out too, over [1, G, L]: that costs two transposes, and XNNPACK's int8 MEAN over a
long last axis is wrong (:mod:`graphcut.graph.passes.means`), so that a variance came out as its largest value for every
input or as 0, by which the interpreter refuses to divide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import input_at, integer, number
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.convolution import Double, factors_of
from graphcut.graph.passes.steps import Steps
from graphcut.records import Node, Shape

RANK = 4
AFFINE = ("Mul", "Add", "Sub", "Div")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Norm:
    """A normalisation as it was found.

    Attributes:
        nodes: all of its nodes, the normalisation itself first.
        source: what it reads, [1, C, H, W].
        target: what it makes, of the same shape.
        groups: of channels that share mean and variance.
        epsilon: beside the variance.
        scale, bias: per channel.
    """

    nodes: tuple[Node, ...]
    source: str
    target: str
    groups: int
    epsilon: float
    scale: Double
    bias: Double


def norms(net: Net) -> int:
    """InstanceNormalization of maps, and GroupNorm however it is written, become means, products and 1x1 Convs."""
    matches = 0
    for node in net.walk("InstanceNormalization", "GroupNormalization"):
        found = _over_map(net, node) if node.op_type == "InstanceNormalization" else _grouped(net, node)
        found = found or _between_reshapes(net, node)
        if found is not None:
            _spell(net, _with_affine(net, found))
            matches += 1
    return matches


def _vectors(net: Net, node: Node, count: int) -> tuple[Double, Double] | None:
    """Scale and bias of a normalisation, each repeated to ``count`` channels; None where they are not constant."""
    values = [net.constant(input_at(node, index)) for index in (1, 2)]
    found = []
    for value in values:
        if value is None or value.ndim != 1 or not value.size or count % value.size:
            return None
        found.append(np.repeat(value.astype(np.float64), count // value.size))
    return found[0], found[1]


def _shape_of_map(net: Net, name: str) -> Shape | None:
    shape = net.shape(name)
    good = shape is not None and len(shape) == RANK and shape[0] == 1 and net.dtype(name) == "float32"
    return shape if good else None


def _over_map(net: Net, node: Node) -> _Norm | None:
    """InstanceNormalization of a map."""
    shape = _shape_of_map(net, node.inputs[0])
    vectors = None if shape is None else _vectors(net, node, shape[1])
    if shape is None or vectors is None:
        return None
    return _norm((node,), node.inputs[0], node.outputs[0], shape[1], vectors)


def _grouped(net: Net, node: Node) -> _Norm | None:
    """GroupNormalization."""
    shape = _shape_of_map(net, node.inputs[0])
    groups = integer(node, "num_groups", 0)
    vectors = None if shape is None else _vectors(net, node, shape[1])
    if shape is None or vectors is None or groups < 1 or shape[1] % groups:
        return None
    return _norm((node,), node.inputs[0], node.outputs[0], groups, vectors)


def _between_reshapes(net: Net, node: Node) -> _Norm | None:
    """InstanceNormalization of [1, G, L] between two Reshapes (statement 3)."""
    before, after = net.producer(node.inputs[0]), net.only_reader(node.outputs[0])
    lines = net.shape(node.inputs[0])
    if before is None or after is None or before.op_type != "Reshape" or after.op_type != "Reshape" or lines is None:
        return None
    shape = _shape_of_map(net, before.inputs[0])
    if shape is None or net.shape(after.outputs[0]) != shape or len(lines) != RANK - 1 or lines[0] != 1:
        return None
    vectors = _vectors(net, node, shape[1])
    if vectors is None or shape[1] % lines[1]:
        return None
    return _norm((node, after), before.inputs[0], after.outputs[0], lines[1], vectors)


def _norm(nodes: tuple[Node, ...], source: str, target: str, groups: int, vectors: tuple[Double, Double]) -> _Norm:
    epsilon = number(nodes[0], "epsilon", 1e-5)
    return _Norm(
        nodes=nodes, source=source, target=target, groups=groups, epsilon=epsilon, scale=vectors[0], bias=vectors[1]
    )


def _with_affine(net: Net, found: _Norm) -> _Norm:
    """The same with the arithmetic of one constant per channel after it taken in."""
    nodes, target, scale, bias = list(found.nodes), found.target, found.scale, found.bias
    while (reader := net.only_reader(target)) is not None and reader.op_type in AFFINE:
        factors = factors_of(net, reader, len(scale))
        if factors is None:
            break
        scale, bias = scale * factors[0], bias * factors[0] + factors[1]
        nodes.append(reader)
        target = reader.outputs[0]
    return replace(found, nodes=tuple(nodes), target=target, scale=scale, bias=bias)


def _spell(net: Net, found: _Norm) -> None:
    """Put the steps of statement 1 in the place of a normalisation."""
    shape = net.shape(found.source)
    assert shape is not None
    channels, groups = shape[1], found.groups
    vector, group = (1, channels, 1, 1), (1, groups, 1, 1)
    steps = Steps(net, found.nodes[0], found.target)
    inside, spread = (channels, channels // groups), np.repeat(np.eye(groups), channels // groups, axis=0)

    def gathered(name: str) -> str:
        """The means of groups from those of channels."""
        if groups == channels:
            return name
        weights = steps.constant("gather", spread.T / inside[1], (groups, channels, 1, 1))
        return steps.add("Conv", (name, weights), group, kernel_shape=(1, 1))

    def handed_out(name: str, factor: Double | None) -> str:
        """From groups to channels, times a factor per channel."""
        if groups < channels:
            each = np.ones(channels) if factor is None else factor
            weights = steps.constant("spread", spread * each[:, np.newaxis], (channels, groups, 1, 1))
            return steps.add("Conv", (name, weights), vector, kernel_shape=(1, 1))
        if factor is None or (factor == 1).all():
            return name
        return steps.add("Mul", (name, steps.constant("scale", factor, vector)), vector)

    mean = handed_out(gathered(steps.mean(found.source, (2, 3), vector)), None)
    centred = steps.add("Sub", (found.source, mean), shape)
    square = steps.add("Mul", (centred, centred), shape)
    variance = gathered(steps.mean(square, (2, 3), vector))
    shifted = steps.add("Add", (variance, steps.constant("epsilon", found.epsilon, ())), group)
    deviation = steps.add("Sqrt", (shifted,), group)
    gain = handed_out(steps.add("Div", (steps.constant("one", 1.0, ()), deviation), group), found.scale)
    result = steps.add("Mul", (centred, gain), shape)
    if found.bias.any():
        steps.add("Add", (result, steps.constant("bias", found.bias, vector)), shape)
    net.replace(found.nodes, steps.made())


NORMS = Pass(
    name="norms",
    reason="InstanceNormalization and GroupNorm over lines need transposes, and XNNPACK's int8 mean over a long "
    "line is wrong; over maps they are means, 1x1 convolutions and products",
    apply=norms,
)
