"""Find the wrong operator: the first tensor at which two runs of the same segment differ.

Used only when a check has failed, so that the error can name the operator, not just the segment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from graphcut.graph.float_chain import inner_values
from graphcut.measurement.metrics import relative_error, sqnr_db, to_nhwc
from graphcut.quant.ranges import Observed
from graphcut.records import Array
from graphcut.runtime import litert
from graphcut.tflite import edit, schema


def float_culprit(onnx_path: Path, inputs: Mapping[str, Array], data: bytes, tolerance: float) -> str:
    """The first operator of a float TFLite segment whose output differs from onnxruntime's.

    Args:
        onnx_path: the ONNX the file was converted from; tensors have the same layer names.
        inputs: layer name -> one sample (NCHW).
        data: the float file.
        tolerance: largest difference relative to the largest value.

    Returns:
        " at CONV_2D (block3_conv1)", or nothing where all tensors that have a counterpart agree.
    """
    wanted = inner_values(onnx_path, inputs)
    model = schema.read(data)
    runner = litert.Runner(data, keep_all=True)
    runner([to_nhwc(values) for values in inputs.values()])
    for operator in edit.graph_of(model).operators:
        for index in operator.outputs:
            name = schema.tensor_name(edit.graph_of(model).tensors[int(index)])
            got = runner.tensor(int(index))
            if name not in wanted or to_nhwc(wanted[name]).shape != got.shape:
                continue
            if not relative_error(to_nhwc(wanted[name]), got) <= tolerance:
                return f" at {schema.op_name(model, operator)} ({name})"
    return ""


def int8_culprit(
    float_data: bytes, int8_data: bytes, feed: Sequence[Array], ranges: Mapping[str, Observed], lowest_db: float
) -> str:
    """The first operator of an int8 segment whose output is noise against the float file's.

    Args:
        float_data, int8_data: the two files; tensors have the same names.
        feed: one sample, NHWC, in the files' order.
        ranges: of the inputs, to quantise them.
        lowest_db: below this an output is noise.

    Returns:
        " from SQRT (norm/sqrt) on", or nothing where none stands out.
    """
    plain, quantised = schema.read(float_data), schema.read(int8_data)
    float_runner, int8_runner = litert.Runner(float_data, keep_all=True), litert.Runner(int8_data, keep_all=True)
    float_runner(list(feed))
    graph = edit.graph_of(quantised)
    names = [schema.tensor_name(graph.tensors[int(index)]) for index in graph.inputs]
    int8_runner([litert.quantise(a, *ranges[name].scale_and_zero_point) for name, a in zip(names, feed, strict=True)])
    indices = {schema.tensor_name(t): i for i, t in enumerate(edit.graph_of(plain).tensors)}
    for operator in graph.operators:
        for index in (int(i) for i in operator.outputs):
            name = schema.tensor_name(graph.tensors[index])
            if name not in indices or schema.TYPE_NAMES[graph.tensors[index].type] != "INT8":
                continue
            wanted = float_runner.tensor(indices[name])
            got = litert.dequantise(int8_runner.tensor(index), *edit.scale_of(quantised, index))
            if np.ptp(wanted) > 0 and not sqnr_db(wanted, got) >= lowest_db:
                return f" from {schema.op_name(quantised, operator)} ({name}) on"
    return ""
