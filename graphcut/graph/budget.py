"""Limits on what one model may take of the machine's time and memory.

1. Each limit is far above what a network for an edge accelerator needs and far below what a machine has. A small file
   that asks for more is refused before anything is computed.
2. What is counted: nodes with local functions inlined, weights, elements of one tensor, bytes alive at the same time
   at the batch of the file, multiplications of one inference.
3. What cannot be counted before it runs (shapes that depend on values) runs in the worker of
   :mod:`graphcut.graph.native`, whose memory and time are limited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from onnx import ModelProto

from graphcut.errors import ModelError
from graphcut.graph.net import Net
from graphcut.graph.protobuf import every_node
from graphcut.records import Node, Shape
from graphcut.units import GIB

MOST_NODES = 20_000
"""After inlining. The largest networks of the ONNX model zoo have 3,000; 20,000 take about 15 s to read."""
MOST_WEIGHTS = 20_000
MOST_RANK = 16
MOST_INPUT_ELEMENTS = 2**24
"""Of one input: 64 MiB of float32, an image of 2364 x 2364 in RGB. Three times as many took 52 s to check."""
MOST_TENSOR_ELEMENTS = 2**28
"""Of one activation: 1 GiB of float32."""
MOST_LIVE_BYTES = 2**32
"""Of all activations that are alive at the same time."""
MOST_MULTIPLICATIONS = 10**12
"""Of one inference at the batch of the file: ResNet101 has 7.8 * 10**9."""


def refuse_many(proto: ModelProto) -> None:
    """Refuse a model with more nodes or weights than the budget allows.

    A call of a local function counts as the nodes that inlining it adds; functions must not be recursive
    (:func:`graphcut.graph.unsupported.refuse_recursive`).

    Raises:
        ModelError: there are too many; names the number and the limit.
    """
    bodies = {(function.domain, function.name): function.node for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    waiting = list(bodies)
    while waiting:
        key = waiting[-1]
        called = [(node.domain, node.op_type) for node in every_node(bodies[key])]
        missing = {each for each in called if each in bodies and each not in sizes}
        if missing:
            waiting += missing
            continue
        sizes[key] = sum(sizes.get(each, 1) for each in called)
        waiting.pop()
    count = sum(sizes.get((node.domain, node.op_type), 1) for node in every_node(proto.graph.node))
    if count > MOST_NODES:
        inlined = " with its local functions inlined" if bodies else ""
        shown = f"{count:,}" if count < 10**12 else "over 10^12"
        raise ModelError(f"the model has {shown} nodes{inlined}; the limit is {MOST_NODES:,}", "split a smaller model")
    weights = len(proto.graph.initializer)
    if weights > MOST_WEIGHTS:
        raise ModelError(f"the model has {weights:,} weights; the limit is {MOST_WEIGHTS:,}", "split a smaller model")


def refuse_huge_inputs(inputs: Mapping[str, Shape]) -> None:
    """Raise ModelError for an input (name -> shape) of more elements than the budget allows."""
    for name, shape in inputs.items():
        if prod(shape) > MOST_INPUT_ELEMENTS or len(shape) > MOST_RANK:
            raise ModelError(
                f"input {name!r} of {_shown(shape)} is too large: the limit is {MOST_INPUT_ELEMENTS:,} elements",
                "export the model with its real shape",
            )


def refuse_heavy(net: Net, batch: int) -> None:
    """Refuse a model whose activations or multiplications exceed the budget; shapes must have been inferred.

    Args:
        net: with batch 1.
        batch: that the file has.

    Raises:
        ModelError: names the node, or the batch.
    """
    for node in net.nodes:
        for name in node.outputs:
            shape = net.shape(name)
            if shape is not None and prod(shape) > MOST_TENSOR_ELEMENTS:
                raise ModelError(
                    f"node {node.name!r} ({node.op_type}) produces {_shown(shape)}; the limit is "
                    f"{MOST_TENSOR_ELEMENTS:,} elements",
                    "export the model with its real shape",
                )
    live = _live_bytes(net) * batch
    if live > MOST_LIVE_BYTES:
        raise ModelError(
            f"one inference needs {live / GIB:.1f} GiB for its activations{_at(batch)}; the limit is "
            f"{MOST_LIVE_BYTES / GIB:.1f} GiB",
            "export the model with batch 1" if batch > 1 else "export the model with a smaller input",
        )
    multiplications = sum(_multiplications(net, node) for node in net.nodes) * batch
    if multiplications > MOST_MULTIPLICATIONS:
        raise ModelError(
            f"one inference needs {multiplications / 10**9:,.0f} billion multiplications{_at(batch)}; the limit is "
            f"{MOST_MULTIPLICATIONS / 10**9:,.0f} billion",
            "export the model with batch 1" if batch > 1 else "export the model with a smaller input",
        )


def _at(batch: int) -> str:
    return f" at the file's batch size of {batch}" if batch > 1 else ""


def _live_bytes(net: Net) -> int:
    """The most bytes of activations alive at one position, with four bytes per element."""
    nodes = net.nodes
    last = {name: position for position, node in enumerate(nodes) for name in node.inputs}
    last |= dict.fromkeys(net.outputs, len(nodes))
    sizes = {name: 4 * prod(tensor.shape) for name, tensor in net.tensors.items()}
    dying: dict[int, list[str]] = {}
    for name, position in last.items():
        dying.setdefault(position, []).append(name)
    live = sum(sizes[name] for name in net.inputs)
    most = live
    for position, node in enumerate(nodes):
        live += sum(sizes.get(name, 0) for name in node.outputs)
        most = max(most, live)
        unread = [name for name in node.outputs if name not in last]
        live -= sum(sizes.get(name, 0) for name in (*dying.get(position, ()), *unread))
    return most


def _multiplications(net: Net, node: Node) -> int:
    """Multiplications of convolutions and matrix products; for any other node, the elements of its largest output."""
    made = max((prod(net.shape(name) or (0,)) for name in node.outputs if name), default=0)
    shapes = [net.shape(name) for name in node.inputs if name]
    if node.op_type == "Conv" and len(shapes) > 1 and shapes[1] is not None:
        return made * prod(shapes[1][1:])
    if node.op_type == "ConvTranspose" and len(shapes) > 1 and shapes[0] is not None and shapes[1] is not None:
        return prod(shapes[0]) * prod(shapes[1][1:])
    if node.op_type in ("MatMul", "Gemm") and shapes and shapes[0]:
        return made * shapes[0][0 if node.attributes.get("transA") else -1]
    if node.op_type in ("MaxPool", "AveragePool", "LpPool"):
        kernel = node.attributes.get("kernel_shape", ())
        return made * prod(kernel) if isinstance(kernel, tuple) else made
    return made


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[:MOST_RANK])) + ("x..." if len(shape) > MOST_RANK else "")
