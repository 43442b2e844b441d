"""Clean up names and make inputs and outputs float in an ONNX graph converted from a TFLite file.

1. A TFLite tensor is named after all operators that were fused into it, "net/relu/Relu;net/bn/...;net/conv/Conv2D",
   the last of them first. That one becomes the name. The converter makes equal names distinct by a meaningless number
   at the end ("net/head/MatMul2").
2. Inputs and outputs have the names of the file's signature where it has one ("image"), not those of the graph's
   entry points ("serving_default_image:0").
3. The graph is float: where the file has integer inputs or outputs, the conversions are dropped, and the inputs and
   outputs are the real numbers that the integers represent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graphcut.sources.canonicalise import rename

FLOAT = 1
INTEGERS = (2, 3, 5)
"""TensorProto.FLOAT; UINT8, INT8 and INT16, which quantised tensors have."""

_ENTRY = re.compile(r"^(?:serving_default|serve)_(?=.)|(?::\d+)+$")
_EXIT = re.compile(r"^(?:StatefulPartitionedCall|PartitionedCall)(?:_\d+)?(?=[:/;]|\d*$)")
# An operator's name with a number appended by the converter; "Relu6" and "FusedBatchNormV3" are whole names.
_SUFFIX = re.compile(r"(?<=/)(?!Relu6$)(?P<op>convolution|depthwise|Relu6|[A-Z][A-Za-z]*(?:V\d|\dD|[a-z]))\d+$")
_MARKS = re.compile(r"(?P<marks>(?:_dequant|_relu|__\d+|:\d+)*)$")


def settle(graph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Make the inputs and outputs of a GraphProto float and all names readable (statements 1 to 3).

    Args:
        graph: converted from a TFLite file by tf2onnx.
        inputs, outputs: tensor name in the file -> name in its signature; empty where it has none.
    """
    _float_inputs(graph)
    _float_outputs(graph)
    taken: set[str] = set()
    names: dict[str, str] = {}
    for values, signature in ((graph.input, inputs), (graph.output, outputs)):
        for value in values:
            names[value.name] = _distinct(signature.get(value.name) or entry_name(value.name), taken)
    for node in graph.node:
        for output in node.output:
            if output and output not in names:
                names[output] = _distinct(readable(output), taken)
        node.name = readable(node.name)
    rename(graph, names)


def readable(name: str) -> str:
    """The last operator of a fused tensor's name (statement 1); a suffix of tf2onnx is kept."""
    name = name.replace("_prequant", "")
    marks = _MARKS.search(name)
    found = marks["marks"] if marks is not None else ""
    first = name.removesuffix(found).split(";", maxsplit=1)[0] if found else name.split(";", maxsplit=1)[0]
    first = _EXIT.sub("", first).strip("/") or first
    return _SUFFIX.sub(lambda match: match["op"], first) + found


def entry_name(name: str) -> str:
    """The name of an input or output without what TensorFlow's entry points add (statement 2)."""
    return _ENTRY.sub("", name) or name


def _float_inputs(graph: Any) -> None:
    """Replace an integer input that is only converted to floats by those floats (statement 3)."""
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    gone: list[Any] = []
    for value in graph.input:
        chain = _chain(value.name, readers) if value.type.tensor_type.elem_type in INTEGERS else []
        if chain:
            _read_instead(graph, chain[-1].output[0], value.name)
            value.type.tensor_type.elem_type = FLOAT
            gone += chain
    _remove(graph, gone)


def _chain(name: str, readers: Mapping[str, list[Any]]) -> list[Any]:
    """The operators that convert an integer tensor to floats, if it has no other readers."""
    chain: list[Any] = []
    for wanted in (("DequantizeLinear", "Cast"), ("Sub", "Mul"), ("Mul",)):
        following = readers.get(name, [])
        if len(following) != 1 or following[0].op_type not in wanted:
            break
        chain.append(following[0])
        name = following[0].output[0]
        if chain[-1].op_type in ("DequantizeLinear", "Mul"):
            return chain
    return []


def _float_outputs(graph: Any) -> None:
    """Drop the remaining quantisations, those before integer outputs (statement 3)."""
    outputs = {value.name: value for value in graph.output}
    gone = [
        node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear") and _runs(node, graph)
    ]
    for node in gone:
        inner, outer = node.input[0], node.output[0]
        if outer in outputs:
            node.op_type, kept = "Identity", node.input[0]
            del node.input[:], node.attribute[:]
            node.input.append(kept)
        else:
            _read_instead(graph, outer, inner)
    _remove(graph, [node for node in gone if node.op_type != "Identity"])
    if gone:
        for value in outputs.values():
            if value.type.tensor_type.elem_type in INTEGERS:
                value.type.tensor_type.elem_type = FLOAT
        del graph.value_info[:]


def _runs(node: Any, graph: Any) -> bool:
    """A quantisation of an activation, not of a weight."""
    return node.input[0] not in {value.name for value in graph.initializer}


def _read_instead(graph: Any, name: str, other: str) -> None:
    for node in graph.node:
        for slot, read in enumerate(node.input):
            if read == name:
                node.input[slot] = other


def _remove(graph: Any, gone: list[Any]) -> None:
    kept = [node for node in graph.node if not any(node is each for each in gone)]
    del graph.node[:]
    graph.node.extend(kept)


def _distinct(name: str, taken: set[str]) -> str:
    number, wanted = 1, name
    while wanted in taken:
        number += 1
        wanted = f"{name}_{number}"
    taken.add(wanted)
    return wanted
