"""Make the graph that analysis and planning need from a normalised model, in linear time."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from graphcut.errors import ModelError, setting
from graphcut.graph import protobuf
from graphcut.graph.net import Net
from graphcut.records import Graph, Tensor


def graph_of(net: Net, layers: Mapping[str, str]) -> Graph:
    """The graph of a net whose shapes are all known; ``layers`` names every activation."""
    made = [name for node in net.nodes for name in node.outputs if name]
    return Graph(
        nodes=tuple(net.nodes),
        inputs=tuple(net.inputs),
        outputs=tuple(net.outputs),
        tensors={name: net.tensors[name] for name in (*net.inputs, *made)},
        weights={
            name: Tensor(name=name, shape=tuple(array.shape), dtype=str(array.dtype))
            for name, array in net.weights.items()
        },
        layers=dict(layers),
    )


def topology(proto: ModelProto, layers: Mapping[str, str] | None = None) -> Graph:
    """The graph of a model, without the weights' values.

    Args:
        proto: nodes in topological order, static shapes for every activation (its ``value_info`` included).
        layers: tensor -> layer name for every activation; each is its own layer name where None.

    Raises:
        ModelError: an activation has no static shape.
    """
    graph = proto.graph
    weights = {
        tensor.name: Tensor(name=tensor.name, shape=tuple(tensor.dims), dtype=protobuf.dtype_name(tensor.data_type))
        for tensor in graph.initializer
    }
    declared: dict[str, Tensor] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = protobuf.static_shape(value)
        if shape is not None and value.name not in weights:
            dtype = protobuf.dtype_name(value.type.tensor_type.elem_type)
            declared[value.name] = Tensor(name=value.name, shape=shape, dtype=dtype)
    nodes = tuple(protobuf.node_record(node) for node in graph.node)
    inputs = tuple(value.name for value in graph.input if value.name not in weights)
    activations = [*inputs, *(name for node in nodes for name in node.outputs if name)]
    for name in activations:
        if name not in declared:
            raise ModelError(
                f"activation {name!r} has no static shape",
                f"set the shapes of the inputs ({setting('input_shapes', 'name:1x3x224x224')})",
            )
    return Graph(
        nodes=nodes,
        inputs=inputs,
        outputs=tuple(value.name for value in graph.output),
        tensors={name: declared[name] for name in activations},
        weights=weights,
        layers=dict(layers) if layers is not None else {name: name for name in activations},
    )
