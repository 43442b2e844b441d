"""Models from quantisation-aware training (QDQ): the float model and the ranges that they contain.

1. Such a model rounds activations by a QuantizeLinear and a DequantizeLinear. The pair is removed; its readers read the
   activation itself. The range of its integers, (lowest - zero point) * scale .. (highest - zero point) * scale, is
   kept under the activation's name. Quantised to that range an activation has the scale of the file.
2. Integer inputs and outputs become the real numbers that they represent.
3. Weights after a DequantizeLinear are constants and are folded later, on the grid of the file.
4. A pair whose scale is not one constant number, or whose two halves differ, is refused later. So are operators that
   compute on integers, such as QLinearConv: export such a model in the QDQ format.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from graphcut.graph.protobuf import NumpyArray
from graphcut.graph.wellformed import array_of, shown

Range = tuple[float, float]
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_INTEGERS = frozenset({TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16})


def strip_quantisation(proto: ModelProto) -> dict[str, Range]:
    """Drop the pairs of statement 1 and the integer inputs and outputs of statement 2, in place.

    Returns:
        Activation -> smallest and largest real number that its integers represent.
    """
    graph = proto.graph
    if not any(node.op_type == QUANTIZE or node.op_type == DEQUANTIZE for node in graph.node):
        return {}
    constants = _constants(graph)
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name: value for value in graph.output}
    inputs = {value.name: value for value in graph.input if value.name not in constants}
    ranges: dict[str, Range] = {}
    instead: dict[str, str] = {}
    gone: set[int] = set()
    for node in graph.node:
        if node.op_type == DEQUANTIZE and node.input[0] in inputs:
            found = _range(node, constants)
            value = inputs[node.input[0]]
            alone = len(readers.get(value.name, [])) == 1 and value.type.tensor_type.elem_type in _INTEGERS
            if found is not None and alone:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
                ranges[value.name] = found
                _drop(node, value.name, outputs, instead, gone)
        if node.op_type != QUANTIZE or node.input[0] in constants:
            continue
        found, made = _range(node, constants), node.output[0]
        halves = readers.get(made, [])
        if found is None or any(each.op_type != DEQUANTIZE or _range(each, constants) != found for each in halves):
            continue
        ranges[node.input[0]] = found
        if made in outputs:
            outputs[made].type.tensor_type.elem_type = TensorProto.FLOAT
        for each in halves:
            _drop(each, node.input[0], outputs, instead, gone)
        _drop(node, node.input[0], outputs, instead, gone)
    _apply(graph, instead, gone)
    return {_source(name, instead): found for name, found in ranges.items()}


def _drop(node: NodeProto, source: str, outputs: Mapping[str, object], instead: dict[str, str], gone: set[int]) -> None:
    """Let the readers of a node's output read ``source``; an output of the model is an Identity of it."""
    if node.output[0] in outputs:
        del node.input[1:], node.attribute[:]
        node.input[0], node.op_type = source, "Identity"
        node.ClearField("domain")
    else:
        instead[node.output[0]] = source
        gone.add(id(node))


def _apply(graph: GraphProto, instead: Mapping[str, str], gone: set[int]) -> None:
    kept = []
    for node in graph.node:
        if id(node) in gone:
            continue
        node.input[:] = [_source(name, instead) for name in node.input]
        copy = NodeProto()
        copy.CopyFrom(node)
        kept.append(copy)
    graph.ClearField("node")
    graph.node.extend(kept)
    graph.ClearField("value_info")
    graph.ClearField("quantization_annotation")


def _source(name: str, instead: Mapping[str, str]) -> str:
    seen: set[str] = set()
    while name in instead and name not in seen:
        seen.add(name)
        name = instead[name]
    return name


def _constants(graph: GraphProto) -> dict[str, NumpyArray | None]:
    """Initialisers and Constant nodes by name; the value is read where it can be a scale or zero point."""
    found: dict[str, NumpyArray | None] = {}
    for tensor in graph.initializer:
        small = len(tensor.dims) <= 1
        found[tensor.name] = array_of(tensor, f"weight {shown(tensor.name)}") if small else None
    for node in graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            small = bool(values) and len(values[0].dims) <= 1
            found[node.output[0]] = numpy_helper.to_array(values[0]) if small else None
    return found


def _range(node: NodeProto, constants: Mapping[str, NumpyArray | None]) -> Range | None:
    """The range given by one half of a pair; None where it is not one constant scale (statement 4)."""
    scale = constants.get(node.input[1]) if len(node.input) > 1 else None
    if scale is None or scale.size != 1:
        return None
    point: NumpyArray | None = np.zeros(1, np.uint8)
    if len(node.input) > 2 and node.input[2]:
        point = constants.get(node.input[2])
    if point is None or point.size != 1 or point.dtype not in (np.uint8, np.int8, np.uint16, np.int16):
        return None
    limits = np.iinfo(str(point.dtype))
    step, zero = float(scale.reshape(-1)[0]), int(point.reshape(-1)[0])
    if not (np.isfinite(step) and step > 0):
        return None
    return (limits.min - zero) * step, (limits.max - zero) * step
