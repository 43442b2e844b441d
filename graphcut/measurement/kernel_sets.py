"""Run the int8 files under TFLite's built-in kernels, as devices without XNNPACK do.

1. Each segment is run on the values that the chain handed it, so that kernels alone make a difference.
2. A file that the built-in kernels refuse must not be written, because it would run on some machines only.
3. Kernel sets round differently, by a few steps. Where one is more than ``FURTHER_DB`` further from float than the
   other, that is a remark with both figures.
4. The remark names the operator that the sets compute differently, each operator fed with the values of the XNNPACK
   run. Where each agrees by itself (``AGREEING_DB``), single steps of rounding add up, and the remark says that: the
   file is right, and the model magnifies small differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphcut.errors import ConversionError, setting
from graphcut.measurement.float_reference import FloatWhole
from graphcut.measurement.int8_chain import ChainRun, Int8
from graphcut.measurement.metrics import sqnr_db, to_nhwc
from graphcut.records import ConvertedSegment
from graphcut.runtime import isolated, litert
from graphcut.tflite import edit, schema

FURTHER_DB = 6.0
"""Twice the error."""
WORTH_SAYING_DB = 25.0
"""A set that is closer to float than this is good enough whatever the other one reaches."""
AGREEING_DB = 25.0
"""What one kernel set makes of an operator against what the other makes of the same values."""
_SAMPLES = 2


def other_kernels(segments: Sequence[ConvertedSegment], chain: ChainRun, whole: FloatWhole) -> list[str]:
    """Run the segments under the built-in kernels on a few samples; a remark for each output that comes out worse.

    Args:
        segments: of the chain, in order.
        chain: what the chain gave under XNNPACK.
        whole: the float whole on the same samples.

    Raises:
        ConversionError: the built-in kernels refuse a file.
    """
    remarks = []
    wanted = {**whole.seams, **whole.outputs}
    for part in segments:
        subject = f"segment {part.segment.index}"
        try:
            runner = isolated.runner(part.tflite_path, kernels="builtin")
            runs = [runner([values[tensor.layer] for tensor in part.inputs]) for values in chain.edges[:_SAMPLES]]
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConversionError(
                f"{subject} runs under XNNPACK but not under TFLite's built-in kernels ({reason})",
                f"cut around the operator named there ({setting('cuts')})",
            ) from error
        for position, tensor in enumerate(part.outputs):
            if tensor.layer not in wanted:
                continue
            count = len(wanted[tensor.layer]) // len(chain.edges) * len(runs)
            reference = to_nhwc(wanted[tensor.layer])[:count]
            first, second = (
                sqnr_db(reference, litert.dequantise(steps.reshape(reference.shape), tensor.scale, tensor.zero_point))
                for steps in (
                    np.concatenate([np.atleast_1d(values[tensor.layer]) for values in chain.edges[: len(runs)]]),
                    np.concatenate([np.atleast_1d(run[position]) for run in runs]),
                )
            )
            if min(first, second) < min(WORTH_SAYING_DB, max(first, second) - FURTHER_DB):
                read = [chain.edges[0][each.layer] for each in part.inputs]
                remarks.append(
                    f"{subject} computes a different result at {tensor.layer} under the built-in kernels "
                    f"({second:.1f} dB against float) than under XNNPACK ({first:.1f} dB): "
                    f"{explanation(part.tflite_path, read)}"
                )
    return remarks


def explanation(path: Path, read: Sequence[Int8]) -> str:
    """The operator that the kernel sets compute differently, or that there is none (statement 4)."""
    data = path.read_bytes()
    model = schema.read(data)
    graph = edit.graph_of(model)
    runner = litert.Runner(data, keep_all=True)
    runner(list(read))
    worst, named = AGREEING_DB, ""
    for operator in graph.operators:
        made = int(operator.outputs[0])
        kind, one = schema.TYPE_NAMES[graph.tensors[made].type], runner.tensor(made)
        alone, fed = edit.alone(model, operator)
        other = litert.Runner(alone, kernels="builtin")([runner.tensor(index) for index in fed])[0]
        if kind in schema.BYTE_TYPES:
            scale = edit.scale_of(model, made)
            one, other = (litert.dequantise(values, *scale) for values in (one, other))
        agreement = sqnr_db(one, other)
        if agreement < worst:
            name = schema.tensor_name(graph.tensors[made]).removesuffix(edit.MAP_ENDING)
            worst, named = agreement, f"{schema.op_name(model, operator)} {name} differs by itself ({agreement:.1f} dB)"
    return named or "no operator differs by itself, single steps of rounding add up"
