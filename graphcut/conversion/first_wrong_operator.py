"""Find the wrong operator: the first tensor at which two runs of the same segment differ.

Used only when a check has failed, so that the error can name the operator, not just the segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from graphcut.graph.float_chain import inner_values
from graphcut.measurement.metrics import relative_error, to_nhwc
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
