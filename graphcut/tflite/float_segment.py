"""Turn the converter's float file into a float segment: drop endings, name tensors, fix the order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphcut.errors import ConversionError, setting
from graphcut.tflite import edit, schema
from graphcut.tflite.drop_transposes import drop_transposes
from graphcut.tflite.final_softmax import FinalSoftmax, final_softmaxes
from graphcut.tflite.scale_of_input import TFLITE_OPERATORS
from graphcut.tflite.schema_types import ModelT
from graphcut.tflite.simplify import (
    fuse_activations,
    fuse_l2_normalization,
    fuse_log_softmax,
    fuse_padding,
    settle_scalars,
    settle_shapes,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatSegment:
    """A float32 TFLite segment.

    Attributes:
        data: the file's bytes.
        activations: name -> tensor index of every activation.
        ranks: name -> rank of every activation.
        final_softmaxes: output layer -> its final softmax, for outputs that have one.
        scale_givers: output layer -> the tensors that it gets its scale from, through operators that keep the scale.
        operators: operator names in order.
    """

    data: bytes
    activations: Mapping[str, int]
    ranks: Mapping[str, int]
    final_softmaxes: Mapping[str, FinalSoftmax]
    scale_givers: Mapping[str, tuple[str, ...]]
    operators: tuple[str, ...]


def finish(
    converted: bytes,
    subject: str,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    endings: Mapping[str, str],
    readers: Mapping[str, str],
) -> FloatSegment:
    """Turn the converter's file into a segment with the interface that the plan specifies.

    Args:
        converted: bytes of the converter's float file.
        subject: what is converted, for errors.
        inputs, outputs: layer names, in the segment's order.
        endings: output layer -> its throw-away output.
        readers: node -> layer it reads first (:class:`graphcut.graph.conversion.ConversionCopy`).

    Raises:
        ConversionError: an input or output is missing, or an ending was merged with another operator.
    """
    model = schema.read(converted)
    graph = edit.graph_of(model)
    by_name = {schema.tensor_name(tensor): index for index, tensor in enumerate(graph.tensors)}
    names: dict[int, str] = {}
    try:
        in_order = [_own(by_name, layer, graph.inputs, len(inputs)) for layer in inputs]
        for index in in_order:
            edit.drop_beginning(model, index)
        out_order = []
        for layer in outputs:
            if layer in endings:
                out_order.append(edit.drop_ending(model, _written(endings[layer])))
            else:
                out_order.append(_own(by_name, layer, graph.outputs, len(outputs)))
    except (KeyError, ValueError) as error:
        raise ConversionError(
            f"{subject}: the converted file has lost an input or output ({error})",
            f"choose other cuts ({setting('cuts')}), and report this with the model",
        ) from error
    for layer, index in zip((*inputs, *outputs), (*in_order, *out_order), strict=True):
        names.setdefault(index, layer)
    names |= _inner_names(by_name, readers, names)
    edit.rename(model, names)
    edit.set_interface(model, in_order, out_order)
    settle_shapes(model)
    drop_transposes(model)
    fuse_padding(model)
    fuse_activations(model)
    fuse_log_softmax(model)
    fuse_l2_normalization(model)
    settle_scalars(model)
    edit.compact(model)
    return _describe(schema.write(model))


def _describe(data: bytes) -> FloatSegment:
    model = schema.read(data)
    graph = edit.graph_of(model)
    activations = {
        schema.tensor_name(tensor): index
        for index, tensor in enumerate(graph.tensors)
        if schema.constant(model, tensor) is None
    }
    return FloatSegment(
        data=data,
        activations=activations,
        ranks={
            name: 0 if graph.tensors[index].shape is None else len(graph.tensors[index].shape)
            for name, index in activations.items()
        },
        final_softmaxes=final_softmaxes(model),
        scale_givers=_scale_givers(model),
        operators=tuple(schema.op_name(model, op) for op in graph.operators),
    )


def _scale_givers(model: ModelT) -> dict[str, tuple[str, ...]]:
    graph, makers = edit.graph_of(model), edit.producers(model)
    found = {}
    for output in (int(index) for index in graph.outputs):
        chain, maker = [], makers.get(output)
        while maker is not None and schema.op_name(model, maker) in TFLITE_OPERATORS:
            source = int(maker.inputs[TFLITE_OPERATORS[schema.op_name(model, maker)]])
            chain.append(schema.tensor_name(graph.tensors[source]))
            maker = makers.get(source)
        if chain:
            found[schema.tensor_name(graph.tensors[output])] = tuple(chain)
    return found


def _written(name: str) -> str:
    """A name as onnx2tf writes it."""
    written = name.replace(":", "__")
    return f"wa{written}" if written.startswith("/") else written


def _own(by_name: Mapping[str, int], layer: str, interface: Sequence[int], count: int) -> int:
    """Index of an input or output: by name, or the only one."""
    index = by_name.get(_written(layer))
    if index is not None and index in {int(i) for i in interface}:
        return index
    if count == 1 and len(interface) == 1:
        return int(interface[0])
    raise KeyError(layer)


def _inner_names(by_name: Mapping[str, int], readers: Mapping[str, str], taken: Mapping[int, str]) -> dict[int, str]:
    """Layer names for the tensors that the converter named after the node that reads them."""
    used = set(taken.values())
    names: dict[int, str] = {}
    for node, layer in readers.items():
        index = by_name.get(f"{_written(node)}_input_nhwc")
        if index is not None and index not in taken and index not in names and layer and layer not in used:
            names[index] = layer
            used.add(layer)
    return names
