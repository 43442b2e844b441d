"""ONNX to float32 TFLite by onnx2tf; runs in a worker process.

1. ``flatbuffer_direct`` is onnx2tf's own writer: fast, no TensorFlow.
2. ``flatbuffer_direct+beginnings`` reads a graph with throw-away convolutions after the inputs (added by the caller),
   so that a segment without a convolution reads NHWC too.
3. ``flatbuffer_direct+onnxsim`` reads a graph that the caller simplified with onnxsim.
4. ``tf_converter`` goes through TensorFlow (the keras extra): 20 to 40 times slower, but correct where the first is
   not.

Of the first three, onnx2tf would go on to write a float16 file after the float32 one. It is stopped in between: that
was a quarter of the time of a ResNet101 segment.

onnx2tf prints a lot and may call ``exit``: only worker processes import this module.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import onnx2tf
from onnx2tf import tflite_builder

from graphcut.errors import ConversionError

DIRECT, BEGUN, SIMPLIFIED = "flatbuffer_direct", "flatbuffer_direct+beginnings", "flatbuffer_direct+onnxsim"
TENSORFLOW = "tf_converter"


def backends() -> tuple[str, ...]:
    """The installed backends, in the order in which they are tried."""
    return (DIRECT, BEGUN, SIMPLIFIED, *((TENSORFLOW,) if find_spec("tensorflow") is not None else ()))


def convert(
    onnx_path: Path, scratch: Path, subject: str, *, backend: str = DIRECT, keep_shape: Sequence[str] = ()
) -> bytes:
    """The float32 TFLite file of an ONNX file; rank-4 inputs become NHWC.

    Args:
        onnx_path: the file, with layer names for tensors.
        scratch: a folder for temporary files, which is removed; always the same one in a process, because onnx2tf keeps
            what it loads from each folder.
        subject: what is converted, for the error.
        backend: one of :func:`backends`.
        keep_shape: input names whose layout must not change (rank 3 and below).

    Raises:
        ConversionError: onnx2tf fails or writes no file.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with _float32_alone():
            onnx2tf.convert(
                input_onnx_file_path=str(onnx_path),
                output_folder_path=str(scratch),
                not_use_onnxsim=True,
                not_use_opname_auto_generate=True,
                output_signaturedefs=True,
                copy_onnx_input_output_names_to_tflite=backend == TENSORFLOW,
                tflite_backend=TENSORFLOW if backend == TENSORFLOW else DIRECT,
                non_verbose=True,
                keep_shape_absolutely_input_names=list(keep_shape) or None,
            )
    except (MemoryError, OSError):  # a full disk is not the model's fault
        raise
    except (SystemExit, Exception) as error:  # a converter may raise anything: TensorFlow has its own exceptions
        lines = str(error).strip().splitlines()
        reason = lines[0][:300] if lines else type(error).__name__
        raise ConversionError(
            f"{subject} cannot be converted to TFLite by onnx2tf ({reason})",
            "look up the operator that the log names",
        ) from error
    produced = scratch / f"{onnx_path.stem}_float32.tflite"
    if not produced.is_file():
        raise ConversionError(f"{subject}: onnx2tf wrote no float32 TFLite file", "see its log")
    data = produced.read_bytes()
    shutil.rmtree(scratch, ignore_errors=True)
    return data


class _Float32Written(BaseException):
    """What ends a conversion after its float32 file; onnx2tf handles every ``Exception`` by another attempt."""


@contextmanager
def _float32_alone() -> Iterator[None]:
    """Inside, ``flatbuffer_direct`` ends where it would begin with the float16 file."""
    original = tflite_builder.clone_model_ir_with_float16

    def end(*_: object, **__: object) -> None:
        raise _Float32Written

    tflite_builder.clone_model_ir_with_float16 = end
    try:
        yield
    except _Float32Written:
        pass
    finally:
        tflite_builder.clone_model_ir_with_float16 = original
