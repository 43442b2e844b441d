"""Channel picks (:mod:`graphcut.graph.passes.picks`) as convolutions, in three ways, all of them exact.

1. A tensor of which only picks are read is computed in parts: the convolution before it (and the activation between) is
   split by output channels. That costs nothing.
2. A pick that one ordinary convolution reads becomes part of its weights, with zeros for the other channels, where that
   costs no more than 3.
3. Any other pick is a 1x1 convolution with one 1 per row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphcut.graph.net import Net
from graphcut.graph.passes.attributes import integer
from graphcut.graph.passes.base import Pass
from graphcut.graph.passes.convolution import per_channel
from graphcut.graph.passes.picks import Pick, channels_of, find_picks
from graphcut.graph.passes.rearrange import REARRANGING, without_output
from graphcut.records import Node

ACTIVATIONS = frozenset(
    {"Relu", "Clip", "Sigmoid", "HardSwish", "HardSigmoid", "LeakyRelu", "Tanh", "Elu", "Gelu", "Mish", "Softplus"}
)
ARITHMETIC = frozenset({"Mul", "Add", "Sub", "Div"})
MOST_SOURCES = 4
"""A convolution and its activation: HardSwish written out has four nodes in all."""


def split_convs(net: Net) -> int:
    """Compute tensors of which only picks are read in parts (statement 1); returns the number of picks."""
    by_root: dict[str, list[Pick]] = {}
    for pick in find_picks(net):
        by_root.setdefault(pick.root, []).append(pick)
    matches = 0
    for root, picks in by_root.items():
        sources = _sources(net, root) if _only_picked(net, root, picks) else None
        if sources is None:
            continue
        for pick in picks:
            maker = net.producer(pick.tensor)
            assert maker is not None
            net.replace([maker], [*without_output(net, maker, pick.tensor), *_part(net, sources, pick)])
        matches += len(picks)
    if matches:
        net.sweep()
    return matches


def _only_picked(net: Net, root: str, picks: list[Pick]) -> bool:
    """Whether picks are all that is read of a tensor, and are no more than it has."""
    if root in net.outputs or sum(len(pick.index) for pick in picks) > channels_of(net, root):
        return False
    ends = {pick.tensor for pick in picks}
    waiting = [root]
    while waiting:
        tensor = waiting.pop()
        if tensor in ends:
            continue
        readers = net.readers(tensor)
        if tensor in net.outputs or any(reader.op_type not in REARRANGING for reader in readers):
            return False
        waiting += [output for reader in readers for output in reader.outputs if output]
    return True


def _sources(net: Net, root: str) -> list[Node] | None:
    """The convolution that produces a tensor and the activations between, in order; None for any other producer."""
    found: dict[str, Node] = {}
    waiting = [root]
    while waiting:
        node = net.producer(waiting.pop())
        if node is None or len(found) > MOST_SOURCES or not _fits(net, node, channels_of(net, root)):
            return None
        if node.name in found:
            continue
        found[node.name] = node
        if node.op_type in ACTIVATIONS | ARITHMETIC:
            waiting += [name for name in node.inputs if name and net.constant(name) is None]
        elif not _is_plain_conv(net, node):
            return None
    inner = [node.outputs[0] for node in found.values() if node.outputs[0] != root]
    if any(name in net.outputs or any(item.name not in found for item in net.readers(name)) for name in inner):
        return None
    return sorted(found.values(), key=net.place)


def _is_plain_conv(net: Net, node: Node) -> bool:
    weights = [net.constant(name) for name in node.inputs[1:] if name]
    return node.op_type == "Conv" and integer(node, "group", 1) == 1 and all(item is not None for item in weights)


def _fits(net: Net, node: Node, channels: int) -> bool:
    """Whether a node makes that many channels, with constants that say one number per channel."""
    shape = net.shape(node.outputs[0])
    if shape is None or len(shape) != 4 or shape[1] != channels:
        return False
    if node.op_type not in ARITHMETIC:
        return True
    constants = [name for name in node.inputs if net.constant(name) is not None]
    data = [name for name in node.inputs if net.constant(name) is None]
    if any(net.shape(name) != shape for name in data):
        return False
    return all(per_channel(net, name, channels, 4) is not None for name in constants)


def _part(net: Net, sources: list[Node], pick: Pick) -> list[Node]:
    """Copies of the sources that make just the picked channels."""
    renamed: dict[str, str] = {}
    parts = []
    for node in sources:
        output = node.outputs[0]
        shape = net.shape(output)
        assert shape is not None
        picked = (shape[0], len(pick.index), *shape[2:])
        inputs = tuple(
            renamed[name] if name in renamed else _picked_constant(net, node, position, pick)
            for position, name in enumerate(node.inputs)
        )
        renamed[output] = pick.tensor if output == pick.root else net.add_tensor(output, "part", picked)
        parts.append(replace(node, name=net.fresh(f"{node.name}_part"), inputs=inputs, outputs=(renamed[output],)))
    return parts


def _picked_constant(net: Net, node: Node, position: int, pick: Pick) -> str:
    """An input that the sources do not make: the picked channels of a constant, or what the convolution reads."""
    name = node.inputs[position]
    value = net.constant(name)
    if value is None:
        return name
    if node.op_type == "Conv":
        return net.add_weight(name, value[pick.index])
    if node.op_type in ARITHMETIC and value.size > 1:
        return net.add_weight(name, value.reshape(1, -1, 1, 1)[:, pick.index])
    return name


def picks_to_convs(net: Net) -> int:
    """Make every pick by a convolution (statements 2 and 3); returns the number of picks."""
    matches = 0
    for pick in find_picks(net):
        reader = _absorbing_reader(net, pick)
        maker = net.producer(pick.tensor)
        assert maker is not None
        if reader is not None:
            net.replace([reader], [_absorbed(net, pick, reader)])
        else:
            net.replace([maker], [*without_output(net, maker, pick.tensor), _selector(net, pick, maker)])
        matches += 1
    if matches:
        net.sweep()
    return matches


def _absorbing_reader(net: Net, pick: Pick) -> Node | None:
    """The one convolution that reads a pick and can read its root instead at no greater cost (statement 2)."""
    reader = net.only_reader(pick.tensor)
    if reader is None or reader.op_type != "Conv" or reader.inputs[0] != pick.tensor:
        return None
    weight = net.constant(reader.inputs[1])
    if weight is None or weight.dtype != np.float32 or integer(reader, "group", 1) != 1:
        return None
    channels = channels_of(net, pick.root)
    growth = weight.size // len(pick.index) * (channels - len(pick.index))
    return reader if growth <= channels * len(pick.index) else None


def _absorbed(net: Net, pick: Pick, reader: Node) -> Node:
    """The reader with weights over all channels of the root: zeros for those that are not picked."""
    weight = net.weights[reader.inputs[1]]
    wide = np.zeros((weight.shape[0], channels_of(net, pick.root), *weight.shape[2:]), dtype=np.float32)
    for position, channel in enumerate(pick.index):
        wide[:, channel] += np.asarray(weight[:, position], dtype=np.float32)
    return replace(reader, inputs=(pick.root, net.add_weight(reader.inputs[1], wide), *reader.inputs[2:]))


def _selector(net: Net, pick: Pick, maker: Node) -> Node:
    """The pick as a 1x1 convolution with one 1 per row."""
    rows = np.zeros((len(pick.index), channels_of(net, pick.root), 1, 1), dtype=np.float32)
    rows[np.arange(len(pick.index)), pick.index] = 1.0
    return Node(
        name=net.fresh(f"{maker.name}_select"),
        op_type="Conv",
        inputs=(pick.root, net.add_weight(f"{pick.tensor}_selector", rows)),
        outputs=(pick.tensor,),
        attributes={"kernel_shape": (1, 1)},
    )


SPLIT_CONVS = Pass(
    name="split-convs",
    reason="Split and Slice of a convolution's channels stay in NCHW, with two TRANSPOSE each; two smaller "
    "convolutions cost nothing",
    apply=split_convs,
)
PICKS_TO_CONVS = Pass(
    name="channel-picks",
    reason="Slice, Split and shuffles of channels stay in NCHW, with two TRANSPOSE and a GATHER each",
    apply=picks_to_convs,
)
