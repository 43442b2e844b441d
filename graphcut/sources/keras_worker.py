"""The worker's side of :mod:`graphcut.sources.keras`: the only module that imports TensorFlow, Keras and tf2onnx.

Three calls, each taking the fields of a recipe (a dict, with ``target``, the file to write): :func:`build`,
:func:`convert`, :func:`write`. The model stays in this process between them, so a worker serves one export.

The bytes of the export depend on the recipe and the versions alone:

1. All weights are drawn after one ``keras.utils.set_random_seed``.
2. tf2onnx lists initialisers in the order of a set, and where several hold the same values keeps the name of any one
   of them. So initialisers are named after the first node that reads them and listed in the order of reading.
3. tf2onnx numbers the nodes it adds ("Squeeze__470") as it comes upon them in sets. So they are numbered again, in
   the order of the nodes.
4. The file is written with protobuf's deterministic serialisation; tf2onnx puts neither date nor path into it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphcut.errors import ModelError, OutputError, UsageError

INPUT = "input"
_ROLES = {
    ("Conv", 1): "kernel",
    ("Conv", 2): "bias",
    ("MatMul", 1): "kernel",
    ("Gemm", 1): "kernel",
    ("Gemm", 2): "bias",
}
# The number that tf2onnx puts behind a name, once or several times.
_NUMBER = re.compile(r"(__\d+)+(?=$|:)")
# protobuf refuses to serialise a message of 2 GiB or more.
_LARGEST_FILE = 2**31 - 1

_made: dict[str, Any] = {}


def build(recipe: Mapping[str, Any]) -> None:
    """Build the Keras model, float32, with its weights.

    Raises:
        UsageError: keras.applications has no such model.
        ModelError: the weights do not fit, or the input shape is not possible.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras

    keras.utils.set_random_seed(recipe["seed"])
    application = getattr(keras.applications, recipe["application"], None)
    if not callable(application):
        known = sorted(name for name in dir(keras.applications) if name[0].isupper())
        raise UsageError(
            f"recipe {recipe['name']}: keras.applications has no {recipe['application']!r}",
            f"one of {', '.join(known)}",
        )
    try:
        _made["model"] = application(weights=recipe["weights"], input_shape=tuple(recipe["input_shape"]))
    except (ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"recipe {recipe['name']}: Keras cannot build {recipe['application']}: {reason}") from error


def convert(recipe: Mapping[str, Any]) -> None:
    """Convert the model to ONNX with a batch of 1, NHWC input, inference mode."""
    import tensorflow as tf
    import tf2onnx.convert

    model = _made.pop("model")
    signature = [tf.TensorSpec((1, *recipe["input_shape"]), tf.float32, name=INPUT)]
    output = model.output_names[0]

    def whole(pixels: Any) -> dict[str, Any]:
        return {output: model(pixels, training=False)}

    function = tf.function(whole, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=recipe["opset"])
    settle_inputs(proto.graph)
    settle_numbers(proto.graph)
    settle_names(proto.graph)
    _made["proto"] = proto


def write(recipe: Mapping[str, Any]) -> None:
    """Write the ONNX file to ``recipe["target"]``.

    Raises:
        ModelError: the model is too large for one file.
        OutputError: the disk is full or the folder not writable.
    """
    proto = _made.pop("proto")
    size = proto.ByteSize()
    if size > _LARGEST_FILE:
        raise ModelError(f"recipe {recipe['name']}: {size / 2**30:.1f} GiB do not go into one ONNX file (2 GiB)")
    target = Path(recipe["target"])
    try:
        target.write_bytes(proto.SerializeToString(deterministic=True))
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror})", "make room there") from error


def settle_inputs(graph: Any) -> None:
    """Leave one input in a GraphProto, :data:`INPUT`.

    tf2onnx keeps an input for every constant of the Keras model that is not a variable (the mean and variance of a
    Normalization layer) after it has put its value into the graph.

    Raises:
        ModelError: another input is read by a node, so it has no value.
    """
    read = {name for node in graph.node for name in node.input} - {value.name for value in graph.initializer}
    values = list(graph.input)
    missing = sorted(value.name for value in values if value.name != INPUT and value.name in read)
    if missing:
        raise ModelError(f"the export has inputs besides the picture: {', '.join(missing)}")
    del graph.input[:]
    graph.input.extend(value for value in values if value.name == INPUT)


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
