"""The copy of an ONNX segment that goes to the converter.

1. Tensors and nodes get the layer names of the model's author: the converter's names are built from them.
2. Every rank-4 output gets one throw-away consumer, a 1x1 convolution of ones to one channel. Without it, onnx2tf
   writes a rank-4 output in NCHW after a TRANSPOSE, with its activation unfused; with it, the tensor is an ordinary
   NHWC tensor. (After a depthwise convolution there would still be a TRANSPOSE, on which onnx2tf stumbles where several
   outputs share branches.) The TFLite side drops the throw-away operator again
   (:func:`graphcut.tflite.edit.drop_ending`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

_SUFFIX = "/ending"


def simplified(path: Path) -> Path:
    """Simplify the file with onnxsim, write the result next to it, and return that path.

    The result is not trusted: the caller compares the converted file with onnxruntime.
    """
    import onnxsim

    model, _ = onnxsim.simplify(onnx.load(path))
    target = path.with_name(f"{path.stem}_simplified.onnx")
    onnx.save(model, target)
    return target


def with_beginnings(path: Path) -> Path:
    """Write the file with a throw-away 1x1 depthwise convolution of ones after every rank-4 input.

    Where no operator of a segment is a convolution, onnx2tf leaves its inputs in NCHW; with one they are NHWC. The
    TFLite side drops it again (:func:`graphcut.tflite.edit.drop_beginning`).
    """
    model = onnx.load(path)
    graph = model.graph
    first = []
    for value in graph.input:
        shape = [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        if len(shape) != 4:
            continue
        begun = f"{value.name}/beginning"
        ones = numpy_helper.from_array(np.ones((shape[1], 1, 1, 1), np.float32), f"{begun}/ones")
        graph.initializer.append(ones)
        for node in graph.node:
            names = [begun if name == value.name else name for name in node.input]
            del node.input[:]
            node.input.extend(names)
        first.append(
            helper.make_node("Conv", [value.name, ones.name], [begun], name=begun, group=shape[1], kernel_shape=[1, 1])
        )
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    target = path.with_name(f"{path.stem}_begun.onnx")
    onnx.save(model, target)
    return target


def operators(path: Path) -> list[tuple[str, str]]:
    """Type and first output of each operator of an ONNX file, in order."""
    graph = onnx.load(path, load_external_data=False).graph
    return [(node.op_type, node.output[0] if node.output else "") for node in graph.node]


SegmentProto = onnx.ModelProto
"""What stages outside this package call a segment's model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionCopy:
    """What the converter gets, and how to read its names.

    Attributes:
        proto: the model to convert.
        endings: layer name of a rank-4 output -> name of the throw-away output after it.
        readers: node name -> layer name of the activation it reads first: the converter calls that tensor
            ``<node>_input_nhwc``.
    """

    proto: onnx.ModelProto
    endings: Mapping[str, str]
    readers: Mapping[str, str]


def conversion_copy(segment: onnx.ModelProto, layers: Mapping[str, str]) -> ConversionCopy:
    """Copy a segment for the converter; the segment itself is untouched.

    Args:
        segment: an extracted segment with static shapes.
        layers: tensor name -> layer name.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(segment)
    graph = proto.graph
    weights = {weight.name for weight in graph.initializer}
    readers: dict[str, str] = {}
    for node in graph.node:
        first = next((layers.get(name, name) for name in node.input if name and name not in weights), "")
        node.name = layers.get(node.output[0], node.output[0])
        readers[node.name] = first
        for names in (node.input, node.output):
            renamed = [layers.get(name, name) for name in names]
            del names[:]
            names.extend(renamed)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = layers.get(value.name, value.name)
    endings: dict[str, str] = {}
    for value in list(graph.output):
        shape = [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        if len(shape) != 4:
            continue
        name, channels = value.name, shape[1]
        ending = name + _SUFFIX
        ones = numpy_helper.from_array(np.ones((1, channels, 1, 1), np.float32), ending + "/ones")
        graph.initializer.append(ones)
        node = helper.make_node("Conv", [name, ones.name], [ending], name=ending, kernel_shape=[1, 1])
        graph.node.append(node)
        inner = onnx.ValueInfoProto()
        inner.CopyFrom(value)
        graph.value_info.append(inner)
        value.name = ending
        value.type.tensor_type.shape.dim[1].dim_value = 1
        endings[name] = ending
    return ConversionCopy(proto=proto, endings=endings, readers=readers)
