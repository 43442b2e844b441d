"""Run the converter's TensorFlow backend in a separate process.

1. TensorFlow reserves far more address space than it uses and starts one thread per processor, which fails under a
   worker's limit on address space ("pthread_create() failed"). Here its resident memory is limited instead.
2. If that process ends, even by an abort in native code, this is an error of this backend only: the caller can try
   other backends and report the error of the first.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphcut.tflite import from_onnx
from graphcut.workers.pool import DEFAULT_MEMORY, Call, Pool

_FUNCTION = "graphcut.conversion.tensorflow_backend:convert"
_ENVIRONMENT = {"TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "-1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowCall:
    """The arguments of :func:`graphcut.tflite.from_onnx.convert`."""

    onnx_path: Path
    scratch: Path
    subject: str
    keep_shape: tuple[str, ...]


def convert(request: TensorFlowCall) -> bytes:
    """The float32 TFLite file by way of TensorFlow; runs in the process that :func:`convert_apart` starts.

    Raises:
        ConversionError: onnx2tf fails or writes no file.
    """
    return from_onnx.convert(
        request.onnx_path,
        request.scratch,
        request.subject,
        backend=from_onnx.TENSORFLOW,
        keep_shape=request.keep_shape,
    )


def convert_apart(
    onnx_path: Path, scratch: Path, subject: str, *, keep_shape: Sequence[str], memory: int = DEFAULT_MEMORY
) -> bytes:
    """The same, in a separate process (see the module docstring).

    Args:
        onnx_path, scratch, subject, keep_shape: as :func:`graphcut.tflite.from_onnx.convert` takes them; the folder
            of ``scratch`` takes the process's log.
        memory: bytes that the process may have in memory.

    Raises:
        ConversionError: onnx2tf fails, or the process ends, takes too long or needs too much memory.
    """
    request = TensorFlowCall(onnx_path=onnx_path, scratch=scratch, subject=subject, keep_shape=tuple(keep_shape))
    logs = scratch.with_name(f"{scratch.name}-tensorflow")
    logs.mkdir(exist_ok=True)
    with Pool(1, logs, memory=resource.RLIM_INFINITY, resident=memory, environment=_ENVIRONMENT) as pool:
        (data,) = pool.map([Call(function=_FUNCTION, argument=request, subject=subject)])
    assert isinstance(data, bytes)
    return data
