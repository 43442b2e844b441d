"""Sessions of onnxruntime, always with every optimisation off.

onnxruntime 1.26's default optimisation fuses Pad(0) + MaxPool into MaxPool(pads), which is wrong for negative inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime
from onnx import ModelProto, TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as state

from graphcut.graph.protobuf import NumpyArray

ORT_ERRORS: tuple[type[Exception], ...] = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)
"""What onnxruntime raises for a model or an input it cannot handle; they share no base class of their own."""


def session(
    model: bytes | Path, *, threads: int, external: Mapping[str, NumpyArray] | None = None
) -> onnxruntime.InferenceSession:
    """A session on the CPU, optimisations off.

    Args:
        model: serialised model, or its file.
        threads: within an operator; the last bits of the result depend on their number.
        external: values of the initialisers that the model declares as external data; used in place, not copied, so
            they must stay unchanged while the session lives.

    Raises:
        ORT_ERRORS: the model is not valid or holds an operator onnxruntime does not know.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if external:
        names = list(external)
        options.add_external_initializers(
            names, [onnxruntime.OrtValue.ortvalue_from_numpy(external[name]) for name in names]
        )
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


def external_values(model: ModelProto, weights: Mapping[str, NumpyArray]) -> dict[str, NumpyArray]:
    """The values of the weights that a model declares as external data.

    Those nobody reads are left out: onnxruntime drops them before it looks for their values.
    """
    read = {name for node in model.graph.node for name in node.input}
    return {
        tensor.name: weights[tensor.name]
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL and tensor.name in read
    }
