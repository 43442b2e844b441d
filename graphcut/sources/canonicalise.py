"""Make the output of a converter depend only on the model and the versions, and write it to a file.

1. tf2onnx lists initialisers in the order of a set, and where several have the same values it keeps the name of any of
   them. So initialisers are named after the first node that reads them and listed in the order of reading.
2. tf2onnx numbers the nodes that it adds ("Squeeze__470") in the order of a set. So they are numbered again, in the
   order of the nodes.
3. The file is written with protobuf's deterministic serialisation; tf2onnx puts neither date nor path into it.

These functions change messages that a converter made; they do not import the converter.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.errors import ModelError, OutputError
from graphcut.graph.load import NOTES

_ROLES = {
    ("Conv", 1): "kernel",
    ("Conv", 2): "bias",
    ("MatMul", 1): "kernel",
    ("Gemm", 1): "kernel",
    ("Gemm", 2): "bias",
}
_FLOAT = 1
"""TensorProto.FLOAT."""
# The number that tf2onnx appends to a name, once or several times.
_NUMBER = re.compile(r"(__\d+)+(?=$|:)")
# protobuf refuses to serialise a message of 2 GiB or more.
_LARGEST_FILE = 2**31 - 1


def write_file(proto: Any, target: Path, subject: str) -> None:
    """Write a ModelProto (statement 3).

    Raises:
        ModelError: the model is too large for one file.
        OutputError: the disk is full or the folder is not writable.
    """
    size = proto.ByteSize()
    if size > _LARGEST_FILE:
        raise ModelError(
            f"{subject}: {size / 2**30:.1f} GiB do not fit in one ONNX file (2 GiB)", "split a part of the model"
        )
    try:
        target.write_bytes(proto.SerializeToString(deterministic=True))
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror})", "free space there") from error


def keep_notes(proto: Any, notes: Sequence[str]) -> None:
    """Store the notes for the user in a ModelProto, so that an export from the cache has them too."""
    if notes:
        proto.metadata_props.add(key=NOTES, value=json.dumps(list(notes)))


def settle_inputs(graph: Any, names: Sequence[str], constants: Mapping[str, Any] | None = None) -> None:
    """Keep only these inputs in a GraphProto, in this order.

    tf2onnx keeps an input for every constant of the Keras model that is not a variable (the mean and variance of a
    Normalization layer) after it has put its value into the graph; where a model has control flow or calls of
    functions (a stateless dropout of ConvNeXt), it does not put it there. Then ``constants``, input name -> float32
    array, has it.

    Raises:
        ModelError: another input is read by a node, and has no value.
    """
    listed = {value.name for value in graph.initializer}
    for value in graph.input:
        array = (constants or {}).get(value.name)
        if array is not None and value.name not in names and value.name not in listed:
            graph.initializer.add(name=value.name, dims=array.shape, data_type=_FLOAT, raw_data=array.tobytes())
    read = {name for node in graph.node for name in node.input} - {value.name for value in graph.initializer}
    values = {value.name: value for value in graph.input}
    missing = sorted(name for name in values if name not in names and name in read)
    if missing:
        raise ModelError(f"the export has inputs besides {', '.join(names)}: {', '.join(missing)}")
    kept = [values[name] for name in names if name in values]
    del graph.input[:]
    graph.input.extend(kept)


def settle_erfc(graph: Any) -> None:
    """Write Erfc, which TensorFlow's GELU uses and ONNX does not have, as 1 - Erf in a GraphProto."""
    found = [node for node in graph.node if node.op_type == "Erfc"]
    if not found:
        return
    one = np.ones((), np.float32)
    graph.initializer.add(name="erfc/one", dims=(), data_type=_FLOAT, raw_data=one.tobytes())
    nodes = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        inner = type(node)(name=f"{node.name}/erf", op_type="Erf", input=node.input, output=[f"{node.name}/erf:0"])
        outer = type(node)(name=node.name, op_type="Sub", input=["erfc/one", inner.output[0]], output=node.output)
        nodes += [inner, outer]
    del graph.node[:]
    graph.node.extend(nodes)


def settle_outputs(graph: Any, names: Sequence[str]) -> None:
    """List the outputs of a GraphProto in this order; tf2onnx sorts them."""
    values = {value.name: value for value in graph.output}
    ordered = [values[name] for name in names if name in values]
    ordered += [value for name, value in values.items() if name not in names]
    del graph.output[:]
    graph.output.extend(ordered)


def rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename tensors of a GraphProto; the caller ensures that the names stay distinct."""
    for node in graph.node:
        for side in (node.input, node.output):
            for slot, name in enumerate(side):
                if name in names:
                    side[slot] = names[name]
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = names.get(value.name, value.name)


def settle_numbers(graph: Any) -> None:
    """Number the nodes that tf2onnx added to a GraphProto again: "x__470" becomes "x__1", the next of x "x__2"."""
    fixed = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    taken = fixed | {name for node in graph.node for name in (node.name, *node.output) if not _NUMBER.search(name)}
    renamed: dict[str, str] = {}
    counts: Counter[str] = Counter()

    def settled(name: str) -> str:
        stem, colon, slot = name.partition(":")
        if name in fixed or not _NUMBER.search(stem):
            return name
        if stem not in renamed:
            base = _NUMBER.sub("", stem)
            counts[base] += 1
            while f"{base}__{counts[base]}" in taken:
                counts[base] += 1
            renamed[stem] = f"{base}__{counts[base]}"
        return f"{renamed[stem]}{colon}{slot}"

    for node in graph.node:
        node.name = settled(node.name)
        for names in (node.input, node.output):
            for slot, name in enumerate(names):
                names[slot] = settled(name)


def settle_names(graph: Any) -> None:
    """Name each initialiser of a GraphProto after the first node that reads it, and list them in that order.

    Initialisers that no node reads are dropped; none of them is a graph output in what tf2onnx writes.
    """
    held = {initialiser.name: initialiser for initialiser in graph.initializer}
    taken = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    renamed: dict[str, str] = {}
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name in held and name not in renamed:
                wanted = f"{node.name}/{_ROLES.get((node.op_type, slot), f'input{slot}')}"
                while wanted in taken:
                    wanted += "_"
                taken.add(wanted)
                renamed[name] = wanted
            if name in renamed:
                node.input[slot] = renamed[name]
    ordered = [held[name] for name in renamed]
    for initialiser in ordered:
        initialiser.name = renamed[initialiser.name]
    del graph.initializer[:]
    graph.initializer.extend(ordered)
