"""Working with a split that lies in a folder: its float chain as the reference, and single runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphcut.errors import UsageError
from graphcut.graph.chain import float_chain
from graphcut.records import Array, ConvertedSegment, Samples, SeamTensor, Tail
from graphcut.runtime import litert
from graphcut.stages.verify import FloatWhole, Int8, quantised_input


def float_whole(segments: Sequence[ConvertedSegment], outputs: Sequence[SeamTensor], samples: Samples) -> FloatWhole:
    """The float whole as the chain of the folder's ONNX segments, which was proved equal to it when they were cut.

    Args:
        segments: of the folder, in order.
        outputs: the model's outputs, in order.
        samples: the model's inputs.
    """
    chain = float_chain([part.onnx_path for part in segments], samples)
    ends = {tensor.tensor for tensor in outputs}
    seams = {tensor.layer: tensor.tensor for part in segments for tensor in part.outputs if tensor.tensor not in ends}
    layers = {tensor.tensor: tensor.layer for tensor in outputs}
    return FloatWhole(
        seams={layer: chain.values[name] for layer, name in seams.items()},
        outputs={tensor.layer: chain.values[tensor.tensor] for tensor in outputs},
        logits={layers[name]: chain.values[inner] for name, inner in chain.before_softmax.items() if name in layers},
        chain_exact=True,
    )


def run(
    segments: Sequence[ConvertedSegment], tails: Sequence[Tail], samples: Samples, k: int | None, threads: int = 2
) -> tuple[dict[str, Array], ...]:
    """Run every sample through the chain, or through seg1 .. seg(k-1) and the tail.

    Args:
        segments: of the folder, in order.
        tails: of the folder.
        samples: the model's inputs.
        k: None for the chain; 1 for the unsplit model; k for the combination k.
        threads: of each interpreter.

    Returns:
        For each sample: layer name of each model output -> float32 values (NHWC where the rank is 4).

    Raises:
        UsageError: there is no combination k.
    """
    parts: list[ConvertedSegment | Tail] = list(segments)
    if k is not None:
        tail = next((tail for tail in tails if tail.first == k), None)
        if tail is None:
            raise UsageError(f"there is no tail from segment {k}", f"choose 1 to {len(segments)}")
        parts = [*segments[: k - 1], tail]
    runners = [litert.Runner(part.tflite_path.read_bytes(), threads=threads) for part in parts]
    outputs = tails[0].outputs
    results = []
    for number in range(len(samples)):
        values: dict[str, Int8] = {}
        for part, runner in zip(parts, runners, strict=True):
            for tensor in part.inputs:
                if tensor.layer not in values:
                    values[tensor.layer] = quantised_input(tensor, samples, number)
            produced = runner([values[tensor.layer] for tensor in part.inputs])
            values |= {tensor.layer: np.array(array) for tensor, array in zip(part.outputs, produced, strict=True)}
        results.append(_as_float(outputs, values))
    return tuple(results)


def _as_float(outputs: Sequence[SeamTensor], values: Mapping[str, Int8]) -> dict[str, Array]:
    return {t.layer: litert.dequantise(values[t.layer], t.scale, t.zero_point) for t in outputs}
