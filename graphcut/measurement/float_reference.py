"""The results of the whole float model: calibration inputs of segments, and the reference for int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.errors import ModelError
from graphcut.graph.extraction import save
from graphcut.graph.float_chain import float_chain
from graphcut.graph.model import Model
from graphcut.graph.reference import activations, arranged_logits, logits
from graphcut.records import Array, Node, Plan, Samples
from graphcut.tflite.scale_of_input import ONNX_OPERATORS


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatWhole:
    """The results of the whole float model in onnxruntime with all optimisations off.

    Attributes:
        seams: layer name -> (N, ...) NCHW values of every tensor handed between segments.
        outputs: layer name -> (N, ...) values of every model output, in the model's order.
        logits: layer name of an output with a final softmax -> (N, ...) values before it, arranged as the output is.

    Where a tensor's first dimension is not 1, the first axis has N times that length.
        chain_exact: the float chain of the ONNX segments gave the same bits.
    """

    seams: Mapping[str, Array]
    outputs: Mapping[str, Array]
    logits: Mapping[str, Array]
    chain_exact: bool


def float_values(model: Model, chosen: Plan, samples: Samples) -> tuple[dict[str, Array], dict[str, Array]]:
    """The float whole's values at every edge tensor, and output tensor -> values before its final softmax.

    The arrays are those of :func:`graphcut.graph.reference.activations` and
    :func:`graphcut.graph.reference.arranged_logits`.

    Raises:
        ModelError: they contain NaN or infinity.
    """
    before_softmax = [inner for output, inner in logits(model.graph).items() if inner != output]
    sources = [name for found in range_sources(model, chosen).values() for name in found]
    wanted = tuple(dict.fromkeys((*seam_tensors(chosen), *sources, *before_softmax)))
    values = dict(activations(model, samples, wanted))
    for name, held in values.items():
        finite = np.isfinite(held).reshape(len(samples), -1).all(axis=1)
        if not finite.all():
            raise ModelError(
                f"the float model itself gives NaN or infinity at {model.graph.layers[name]} "
                f"(sample {samples.names[int(np.argmin(finite))]})",
                "check the model's weights, or calibrate with typical inputs of the model",
            )
        largest = float(np.abs(held).max(initial=0.0))
        if 0 < largest < VANISHED:
            raise ModelError(
                f"activations of {model.graph.layers[name]} never exceed {largest:.1g}, which int8 cannot tell from 0",
                "check that the weights are trained",
            )
    return values, arranged_logits(model.graph, values, len(samples))


def prove_chain(chosen: Plan, protos: Sequence[Any], samples: Samples, values: Mapping[str, Array], work: Path) -> bool:
    """Save the segments as ``seg1.onnx`` .. and run them as a chain; True where every output has the whole's bits.

    One sample at a time: it runs beside the workers.
    """
    for segment, proto in zip(chosen.segments, protos, strict=True):
        save(proto, work / f"seg{segment.index}.onnx")
    produced = float_chain(protos, samples, at_once=1).values
    return all(np.array_equal(produced[name], values[name], equal_nan=True) for name in produced if name in values)


def whole_of(
    model: Model, chosen: Plan, values: Mapping[str, Array], before_softmax: Mapping[str, Array], exact: bool
) -> FloatWhole:
    """The record of what :func:`float_values` gave; ``exact`` is what :func:`prove_chain` found."""
    layers = model.graph.layers
    ends = {*model.graph.inputs, *model.graph.outputs}
    return FloatWhole(
        seams={layers[name]: values[name] for name in seam_tensors(chosen) if name not in ends},
        outputs={layers[name]: values[name] for name in model.graph.outputs},
        logits={layers[output]: held for output, held in before_softmax.items()},
        chain_exact=exact,
    )


VANISHED = 1e-7
"""No known trained network has feature maps below this; untrained ones shrink to 1e-9 over fifty layers."""


def range_sources(model: Model, plan: Plan) -> dict[str, tuple[str, ...]]:
    """The tensors whose values together decide the scale (statement 2), for every edge and every part of a layer.

    A part of a split layer has the scale of the whole, so that joining the parts copies bytes.
    """
    makers = {output: node for node in model.graph.nodes for output in node.outputs}
    found = {}
    for name in (*seam_tensors(plan), *model.range_sources):
        source = _handed_on(makers, name)
        found[name] = model.range_sources.get(source, (source,))
    return found


def _handed_on(makers: Mapping[str, Node], tensor: str) -> str:
    while tensor in makers and makers[tensor].op_type in ONNX_OPERATORS:
        tensor = makers[tensor].inputs[0]
    return tensor


def seam_tensors(plan: Plan) -> tuple[str, ...]:
    """Every tensor at an edge of a segment, each once, in order."""
    return tuple(dict.fromkeys(name for segment in plan.segments for name in (*segment.inputs, *segment.outputs)))
