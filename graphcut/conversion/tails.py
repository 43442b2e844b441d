"""Make both sides of every seam agree, and join segments into tails.

1. The producer of a tensor decides its scale and zero point. A segment that reads it with others gets the producer's,
   and one QUANTIZE operator after its input.
2. The combination k of the reference layout is seg1 .. seg(k-1) and the tail of segments k..K; the tail from 1 is
   the unsplit model. A tail is its segments joined, so it costs no conversion and computes what they compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from graphcut.records import ConvertedSegment, SeamTensor, Tail
from graphcut.tflite.join import join, rescale_input


def align(segments: Sequence[ConvertedSegment]) -> tuple[ConvertedSegment, ...]:
    """The segments with equal scale and zero point on both sides of every seam (statement 1).

    Files are rewritten in place where a side has to change; a note says so.
    """
    known: dict[str, SeamTensor] = {}
    aligned = []
    for converted in segments:
        data: bytes | None = None
        inputs, notes = [], list(converted.notes)
        for tensor in converted.inputs:
            made = known.setdefault(tensor.layer, tensor)
            if (made.scale, made.zero_point) != (tensor.scale, tensor.zero_point):
                data = converted.tflite_path.read_bytes() if data is None else data
                data = rescale_input(data, tensor.layer, made.scale, made.zero_point)
                notes.append(f"input {tensor.layer} is rescaled once to the range that its first operator needs")
            inputs.append(made)
        known.update({tensor.layer: tensor for tensor in converted.outputs})
        if data is not None:
            converted.tflite_path.write_bytes(data)
            segment = replace(converted.segment, tflite_bytes=len(data))
            converted = replace(converted, segment=segment, inputs=tuple(inputs), notes=tuple(notes))
        aligned.append(converted)
    return tuple(aligned)


def tails(segments: Sequence[ConvertedSegment], model_outputs: Sequence[str], folder: Path) -> tuple[Tail, ...]:
    """The unsplit model and the tails that begin at segment 2 .. K.

    Args:
        segments: aligned segments.
        model_outputs: layer names of the model's outputs, in order.
        folder: where ``tail_seg2_to_7_int8.tflite`` and ``unsplit_int8.tflite`` go; a tail of one segment is
            that segment's file.
    """
    last = len(segments)
    made = []
    for first in range(1, last + 1):
        chosen = segments[first - 1 :]
        outputs = {tensor.layer: tensor for part in chosen for tensor in part.outputs}
        wanted = [layer for layer in model_outputs if layer in outputs]
        path = chosen[0].tflite_path
        if len(chosen) > 1:
            name = "unsplit" if first == 1 else f"tail_seg{first}_to_{last}"
            path = folder / f"{name}_int8.tflite"
            path.write_bytes(join([part.tflite_path.read_bytes() for part in chosen], wanted, f"graphcut {name}"))
        makers = {tensor.layer for part in chosen for tensor in part.outputs}
        entering: dict[str, SeamTensor] = {}
        for part in chosen:
            for tensor in part.inputs:
                if tensor.layer not in makers:
                    entering.setdefault(tensor.layer, tensor)
        made.append(
            Tail(
                first=first,
                last=last,
                tflite_path=path,
                tflite_bytes=path.stat().st_size,
                inputs=tuple(entering.values()),
                outputs=tuple(outputs[layer] for layer in wanted),
            )
        )
    return tuple(made)
