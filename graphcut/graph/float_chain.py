"""The float segments run one after the other, as a device would run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from graphcut.graph.reference import AT_ONCE, Reference, arranged_logits, logits
from graphcut.graph.topology import topology
from graphcut.records import Array, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatChain:
    """What a chain of float segments computed.

    Attributes:
        values: tensor name -> float32 values of all samples concatenated along the first axis, NCHW, for every
            segment's outputs and the tensors before final softmaxes.
        logits: output tensor -> values before its final softmax, arranged as the output is
            (:func:`graphcut.graph.reference.arranged_logits`).
    """

    values: Mapping[str, Array]
    logits: Mapping[str, Array]


def float_chain(segments: Sequence[ModelProto | Path], samples: Samples, *, at_once: int = AT_ONCE) -> FloatChain:
    """Run extracted segments as a chain in onnxruntime, with all optimisations off.

    Args:
        segments: in order; each reads the model's inputs and the outputs of the segments before it, by name.
        samples: the model's inputs.
        at_once: samples that run at the same time.

    Raises:
        ModelError: onnxruntime cannot run a segment.
    """
    values: dict[str, Array] = dict(samples.arrays)
    before_softmax: dict[str, Array] = {}
    for given in segments:
        segment = onnx.load(given) if isinstance(given, Path) else given
        graph = topology(segment)
        inner = [name for output, name in logits(graph).items() if name != output]
        reference = Reference(segment, [name for name in dict.fromkeys(inner) if name not in graph.outputs])
        names = [value.name for value in segment.graph.input]
        produced: dict[str, list[Array]] = {name: [] for name in reference.outputs}
        feeds = ({name: values[name][number : number + 1] for name in names} for number in range(len(samples)))
        for made in reference.run_all(feeds, at_once=at_once):
            for name, value in made.items():
                produced[name].append(np.atleast_1d(value))
        values |= {name: np.concatenate(arrays) for name, arrays in produced.items()}
        before_softmax |= arranged_logits(graph, values, len(samples))
    return FloatChain(
        values={name: array for name, array in values.items() if name not in samples.arrays},
        logits=before_softmax,
    )


def inner_values(path: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The values of every activation of an ONNX file for one sample: tensor name -> values, NCHW.

    Raises:
        ModelError: onnxruntime cannot run it.
    """
    model = onnx.load(path)
    outputs = {value.name for value in model.graph.output}
    inner = [name for node in model.graph.node for name in node.output if name and name not in outputs]
    reference = Reference(model, tuple(dict.fromkeys(inner)))
    return reference.run(inputs)
