"""The float segments run one after the other, as a device would run them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from graphcut.graph.reference import Reference
from graphcut.records import Array, Samples


def chain_outputs(segments: Sequence[ModelProto], samples: Samples) -> dict[str, Array]:
    """What a chain of extracted segments holds at every segment's outputs.

    Args:
        segments: in order; each is fed by name from the model's inputs and the outputs of those before it.
        samples: the model's inputs.

    Returns:
        Tensor name -> (N, *shape[1:]) float32, NCHW.

    Raises:
        ModelError: onnxruntime cannot run a segment.
    """
    values: dict[str, Array] = dict(samples.arrays)
    for segment in segments:
        reference = Reference(segment)
        names = [value.name for value in segment.graph.input]
        produced: dict[str, list[Array]] = {name: [] for name in reference.outputs}
        for number in range(len(samples)):
            for name, value in reference.run({name: values[name][number : number + 1] for name in names}).items():
                produced[name].append(value)
        values |= {name: np.concatenate(arrays) for name, arrays in produced.items()}
    return {name: array for name, array in values.items() if name not in samples.arrays}
