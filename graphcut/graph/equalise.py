"""Channels of one tensor brought to like ranges, with the inverse in the weights of what reads it.

int8 has one scale for all channels of an activation: one with a hundredth of the range of another keeps two steps of
256. Scaling a channel by s > 0, and what reads it by 1 / s, computes the same. So does moving a channel by a constant
where what reads it only adds up.

1. *Scaled* are channels, tensor by tensor. Those that have to have one scale are tied: what ReLU, LeakyReLU, PReLU,
   pools, pads of zeros, resizes and products with a constant or a gate hand on, what is added, subtracted or compared,
   what a Concat or Reshape moves. Conv, ConvTranspose and Gemm with weights of their own tie nothing: their weights
   take the scales of both sides.
2. Everything else, the model's inputs and its outputs have the scale 1, and so has what is tied to them.
3. A channel's scale is ``(range / largest range of its tensor) ** -POWER``, the geometric mean over the tensors that
   are tied, at most ``LARGEST``. The square root was measured best: the channel's weights after it shrink as it grows,
   and share a scale with those of other channels.
4. *Moved* are channels of tensors that a weighted operator with a bias makes and that only such operators, without
   padding of zeros, and sums, pools and resizes read: by their mean over the samples, so that a large mean that is
   taken away again costs no range.
5. Only weights and biases change, no operator. The result is checked against the model on the samples.

Source: Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV 2019, arXiv
1906.04721, section 4.1, here with observed ranges; channel-wise shifts: Wei et al., "Outlier Suppression+",
arXiv 2304.09145. Linear in the graph's operators and channels, and one float run a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, numpy_helper

from graphcut.graph.model import Model
from graphcut.graph.passes.attributes import integer, integers, text
from graphcut.graph.passes.attributes import number as decimal
from graphcut.graph.reference import Reference
from graphcut.records import Array, Graph, Node, PassReport, Samples

NAME = "equalise-channels"
REASON = "channels of unequal size share one int8 scale, and the small ones lose their bits"
TOLERANCE = 1e-4
"""Largest relative difference that the pass may make in float on a sample; rounding stays below 1e-5."""

POWER = 0.5
LARGEST = 16.0
NEGLIGIBLE = 1e-4
"""A channel whose range is a smaller share of its tensor's is dead: scaling it would only make its weights large."""

_HANDS_ON = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity"}
    | {"Resize", "Dropout"}
)
_JOINS = frozenset({"Add", "Sub", "Max", "Min"})
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
_AFFINE_HANDS_ON = frozenset({"GlobalAveragePool", "Resize", "Identity", "Dropout"})

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Smallest and largest value, and mean, of each channel of a tensor over samples, (C,) float64 each."""

    low: Doubles
    high: Doubles
    mean: Doubles


def equalise(model: Model, samples: Samples) -> Model | None:
    """The model with like channels; None where there is nothing to scale or move, or where that is not exact.

    Args:
        model: normalised; it is not changed.
        samples: the calibration samples.
    """
    weights = {each.name: each for each in model.proto.graph.initializer}
    plan = _Plan(model.graph, weights)
    wanted = plan.wanted()
    if not wanted:
        return None
    seen = _observed(model, samples, wanted)
    shifts = plan.shifts(seen)
    scales = plan.scales(seen, shifts)
    proto, changed = _rewritten(model, plan, scales, shifts)
    if not changed:
        return None
    error = _difference(model, proto, samples)
    if not error <= TOLERANCE:
        return None
    report = PassReport(name=NAME, reason=REASON, matches=changed, relative_error=error)
    return replace(model, proto=proto, passes=(*model.passes, report))


class _Plan:
    """Which channels are tied, and which have to stay."""

    def __init__(self, graph: Graph, weights: Mapping[str, TensorProto]) -> None:
        self.graph = graph
        self._arrays: dict[str, Array] = {}
        self._weights = weights
        self._read: dict[str, int] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._read[name] = self._read.get(name, 0) + 1
        self._start: dict[str, int] = {}
        total = 0
        for name in graph.tensors:
            self._start[name] = total
            total += self.channels(name)
        self._leader = np.arange(total)
        self._fixed: list[npt.NDArray[np.int64]] = []
        self._still: set[str] = set()
        self._sums: list[tuple[str, ...]] = []
        for name in (*graph.inputs, *graph.outputs):
            self._fix(name)
        for node in graph.nodes:
            self._visit(node)
        self._settle()

    def channels(self, name: str) -> int:
        shape = self.graph.tensors[name].shape
        return shape[1] if len(shape) in (2, 4) else 1

    def labels(self, name: str) -> npt.NDArray[np.int64]:
        """The number of each channel's tie."""
        start = self._start[name]
        return self.roots[start : start + self.channels(name)]

    def _own(self, name: str) -> npt.NDArray[np.int64]:
        return np.arange(self._start[name], self._start[name] + self.channels(name))

    def _find(self, index: int) -> int:
        leader = self._leader
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = int(leader[index])
        return index

    def _tie(self, ones: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> None:
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            first, second = sorted((self._find(one), self._find(other)))
            self._leader[second] = first

    def _fix(self, name: str) -> None:
        self._fixed.append(self._own(name))
        self._still.add(name)

    def array(self, name: str) -> Array:
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._weights[name])
        return self._arrays[name]

    def is_weighted(self, node: Node) -> bool:
        """Whether a node's weights, read by it alone, may take the scales of both of its sides."""
        own = [name for name in node.inputs[1:] if name]
        if node.op_type not in _WEIGHTED or node.attributes.get("transA", 0):
            return False
        if any(name not in self.graph.weights or self._read[name] > 1 for name in own):
            return False
        return len(self.graph.tensors[node.inputs[0]].shape) in (2, 4)

    def _visit(self, node: Node) -> None:
        read = [name for name in node.inputs if name in self.graph.tensors]
        kind = node.op_type
        if self.is_weighted(node):
            if not self._takes_shift(node):
                self._still.add(node.inputs[0])
            if len(node.inputs) < 3 or not node.inputs[2]:
                self._still.update((node.inputs[0], node.outputs[0]))
            return
        out = node.outputs[0]
        same = all(self.channels(name) == self.channels(out) for name in read)
        maps = all(len(self.graph.tensors[name].shape) in (2, 4) for name in (*read, out))
        if kind in _HANDS_ON and same and maps and len(node.outputs) == 1 and self._is_plain(node):
            self._tie(self._own(read[0]), self._own(out))
            if kind in _AFFINE_HANDS_ON:
                self._sums.append((read[0], out))
            else:
                self._still.update((read[0], out))
        elif kind == "Pad" and same and maps and self._pads_zeros(node):
            self._tie(self._own(read[0]), self._own(out))
            self._still.update((read[0], out))
        elif kind in _JOINS and len(read) == len(node.inputs) == 2 and same and maps:
            for name in read:
                self._tie(self._own(name), self._own(out))
            if kind == "Add":
                self._sums.append((*read, out))
            else:
                self._still.update((*read, out))
        elif kind == "Mul" and len(read) == 1 and same and maps:
            self._tie(self._own(read[0]), self._own(out))
            self._still.update((read[0], out))
        elif kind == "Mul" and len(read) == 2 and same and maps and self._gate(read) is not None:
            gate = self._gate(read)
            assert gate is not None
            held = read[1 - gate]
            self._tie(self._own(held), self._own(out))
            self._fix(read[gate])
            self._still.update((held, out))
        elif kind == "Concat" and maps and len(read) == len(node.inputs) and node.attributes.get("axis") in (1, -3):
            begin = self._start[out]
            for name in read:
                count = self.channels(name)
                self._tie(self._own(name), np.arange(begin, begin + count))
                begin += count
            self._sums.append((*read, out))
        elif kind in ("Reshape", "Flatten", "Squeeze") and maps and self._repeats(read[0], out):
            times = self.channels(out) // self.channels(read[0])
            self._tie(np.repeat(self._own(read[0]), times), self._own(out))
            self._sums.append((read[0], out))
        else:
            for name in (*read, *(each for each in node.outputs if each)):
                self._fix(name)

    def _is_plain(self, node: Node) -> bool:
        return all(name in self.graph.weights for name in node.inputs[1:] if name) and not (
            node.op_type == "AveragePool" and node.attributes.get("ceil_mode", 0)
        )

    def _pads_zeros(self, node: Node) -> bool:
        pads = node.inputs[1] if len(node.inputs) > 1 else ""
        value = node.inputs[2] if len(node.inputs) > 2 else ""
        if pads not in self.graph.weights or (len(node.inputs) > 3 and node.inputs[3]):
            return False
        amounts = self.array(pads).reshape(2, -1)
        if amounts[:, :2].any():
            return False
        if node.attributes.get("mode", "constant") != "constant" or not value:
            return True
        return value in self.graph.weights and not self.array(value).any()

    def _gate(self, read: Sequence[str]) -> int | None:
        """Which of two factors is one number a channel; None where neither is, or both."""
        sizes = [prod(self.graph.tensors[name].shape[2:]) for name in read]
        return None if sizes[0] == sizes[1] else sizes.index(min(sizes)) if min(sizes) == 1 else None

    def _repeats(self, source: str, out: str) -> bool:
        one, other = self.graph.tensors[source].shape, self.graph.tensors[out].shape
        if one[0] != other[0] or prod(one) != prod(other):
            return False
        return (len(one) == 4 and len(other) == 2) or (one[1] == other[1] and prod(one[2:]) == prod(other[2:]) == 1)

    def _takes_shift(self, node: Node) -> bool:
        """Whether a constant added to all of an operator's input adds a constant to all of its output."""
        if node.op_type == "Gemm":
            return True
        plain = text(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
        return node.op_type == "Conv" and plain and not any(integers(node, "pads", ()))

    def _settle(self) -> None:
        self.roots = np.array([self._find(index) for index in range(len(self._leader))])
        fixed = np.zeros(len(self.roots), bool)
        if self._fixed:
            fixed[self.roots[np.concatenate(self._fixed)]] = True
        self.fixed = fixed
        made = {name for node in self.graph.nodes if not self.is_weighted(node) for name in node.outputs}
        summed = {names[-1] for names in self._sums}
        self._still |= made - summed
        changed = True
        while changed:
            before = len(self._still)
            for names in self._sums:
                if self._still.intersection(names):
                    self._still.update(names)
            changed = len(self._still) > before

    def wanted(self) -> tuple[str, ...]:
        """The tensors with a channel that may be scaled or moved, in order."""
        return tuple(
            name
            for name in self.graph.tensors
            if not self.fixed[self.labels(name)].all() or name not in self._still
            if len(self.graph.tensors[name].shape) in (2, 4)
        )

    def shifts(self, seen: Mapping[str, Seen]) -> dict[str, Doubles]:
        """By tensor what is taken from each channel (statement 4)."""
        found: dict[str, Doubles] = {}
        sums = {names[-1]: names[:-1] for names in self._sums}
        kinds = {node.outputs[0]: node.op_type for node in self.graph.nodes}
        for node in self.graph.nodes:
            out = node.outputs[0]
            if out in self._still or out not in seen:
                continue
            if out not in sums:
                found[out] = seen[out].mean
            elif kinds[out] == "Add":
                found[out] = found[sums[out][0]] + found[sums[out][1]]
            elif kinds[out] == "Concat":
                found[out] = np.concatenate([found[name] for name in sums[out]])
            else:
                held = found[sums[out][0]]
                found[out] = np.repeat(held, self.channels(out) // len(held))
        return found

    def scales(self, seen: Mapping[str, Seen], shifts: Mapping[str, Doubles]) -> Doubles:
        """By tie what its channels are multiplied by (statement 3)."""
        total = np.zeros(len(self.roots))
        count = np.zeros(len(self.roots))
        for name, found in seen.items():
            shift = shifts.get(name, np.zeros(len(found.mean)))
            low, high = np.minimum(found.low - shift, 0), np.maximum(found.high - shift, 0)
            ranges = high - low
            whole = high.max() - low.min()
            if whole <= 0:
                continue
            share = ranges / whole
            alive = share > NEGLIGIBLE
            labels = self.labels(name)
            np.add.at(total, labels[alive], np.log(share[alive]))
            np.add.at(count, labels[alive], 1)
        mean = np.where(count > 0, total / np.maximum(count, 1), 0.0)
        scale: Doubles = np.minimum(np.exp(-POWER * mean), LARGEST)
        scale[self.fixed] = 1.0
        return scale


def _observed(model: Model, samples: Samples, names: Sequence[str]) -> dict[str, Seen]:
    inner = [name for name in names if name not in model.graph.inputs]
    reference = Reference(model.proto, [name for name in inner if name not in model.graph.outputs])
    low: dict[str, Doubles] = {}
    high: dict[str, Doubles] = {}
    mean: dict[str, Doubles] = {}
    for number in range(len(samples)):
        values = reference.run({name: array[number : number + 1] for name, array in samples.arrays.items()}, inner)
        for name, held in values.items():
            flat = held.reshape(*held.shape[:2], -1)
            smallest, largest = (each.astype(np.float64) for each in (flat.min(axis=(0, 2)), flat.max(axis=(0, 2))))
            middle = flat.mean(axis=(0, 2), dtype=np.float64) / len(samples)
            low[name] = np.minimum(low.get(name, smallest), smallest)
            high[name] = np.maximum(high.get(name, largest), largest)
            mean[name] = mean.get(name, 0.0) + middle
    return {name: Seen(low=low[name], high=high[name], mean=mean[name]) for name in inner}


def _rewritten(model: Model, plan: _Plan, scales: Doubles, shifts: Mapping[str, Doubles]) -> tuple[ModelProto, int]:
    """The message with new weights and biases, and how many tensors have other channels."""
    graph = plan.graph
    new: dict[str, Array] = {}
    scaled = {name: scales[plan.labels(name)] for name in graph.tensors}
    for node in graph.nodes:
        if not plan.is_weighted(node):
            continue
        source, out = node.inputs[0], node.outputs[0]
        into, outof = scaled[source], scaled[out]
        moved, left = shifts.get(source), shifts.get(out)
        if moved is None and left is None and (into == 1).all() and (outof == 1).all():
            continue
        weight = plan.array(node.inputs[1]).astype(np.float64)
        added = np.zeros(len(outof))
        if moved is not None:
            added += _sum_over_taps(node, weight, moved)
        if left is not None:
            added -= left
        new[node.inputs[1]] = _scaled(node, weight, 1 / into, outof).astype(np.float32)
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = plan.array(node.inputs[2]).astype(np.float64)
            beta = decimal(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
            new[node.inputs[2]] = (
                ((bias + added / beta) * outof)
                .astype(np.float32)
                .reshape(-1)[: len(outof)]
                .reshape(bias.shape if bias.size == len(outof) else (len(outof),))
            )
    changed = [name for name in graph.tensors if name in shifts or (scaled[name] != 1).any()]
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for initializer in proto.graph.initializer:
        if initializer.name in new:
            initializer.CopyFrom(numpy_helper.from_array(new[initializer.name], initializer.name))
    return proto, len(changed)


def _sum_over_taps(node: Node, weight: Doubles, moved: Doubles) -> Doubles:
    """What an operator's output gains where each channel of its input gains ``moved``."""
    if node.op_type == "Gemm":
        alpha = decimal(node, "alpha", 1.0)
        gained: Doubles = alpha * (weight @ moved if node.attributes.get("transB", 0) else moved @ weight)
        return gained
    groups = integer(node, "group", 1)
    taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    by_group = moved.reshape(groups, -1)
    return np.concatenate(
        [part @ held for part, held in zip(taps.reshape(groups, -1, taps.shape[1]), by_group, strict=True)]
    )


def _scaled(node: Node, weight: Doubles, into: Doubles, outof: Doubles) -> Doubles:
    """Weights with each input channel times ``into`` and each output channel times ``outof``."""
    if node.op_type == "Gemm":
        if node.attributes.get("transB", 0):
            return weight * into[np.newaxis, :] * outof[:, np.newaxis]
        return weight * into[:, np.newaxis] * outof[np.newaxis, :]
    groups = integer(node, "group", 1)
    spare = (1,) * (weight.ndim - 2)
    if node.op_type == "ConvTranspose":  # (C, M / group, ...)
        rows = np.repeat(outof.reshape(groups, -1), len(into) // groups, axis=0)
        return weight * into.reshape(-1, 1, *spare) * rows.reshape(*rows.shape, *spare)
    columns = np.repeat(into.reshape(groups, -1), len(outof) // groups, axis=0)
    return weight * columns.reshape(*columns.shape, *spare) * outof.reshape(-1, 1, *spare)


def _difference(model: Model, proto: ModelProto, samples: Samples) -> float:
    """The largest difference of an output on the first samples, relative to its largest value."""
    exact, other = Reference(model.proto), Reference(proto)
    worst = 0.0
    for number in range(min(len(samples), 2)):
        feed = {name: array[number : number + 1] for name, array in samples.arrays.items()}
        wanted, found = exact.run(feed), other.run(feed)
        for name, values in wanted.items():
            largest = float(np.abs(values).max(initial=0.0))
            difference = float(np.abs(values - found[name]).max(initial=0.0))
            worst = max(worst, difference / largest if largest else difference)
    return worst
