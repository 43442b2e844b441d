"""The softmax that makes an output of a TFLite file, and what is compared in its place.

1. A softmax is final where only operators stand behind it that rearrange what it made (RESHAPE, TRANSPOSE, ...). Its
   input says more than its output: in int8 the softmax of many classes may be the same number for every input.
2. TFLite's SOFTMAX works along the last axis, so a converter puts a TRANSPOSE before and behind a softmax along another
   one. What stands behind it is therefore applied to its input as well (:meth:`FinalSoftmax.arranged`): the result lies
   as the output does, whatever layout the softmax itself has.
3. A LOG_SOFTMAX that stays in float reads an int8 tensor through DEQUANTIZE and is read through QUANTIZE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT, OperatorT

SOFTMAXES = ("SOFTMAX", "LOG_SOFTMAX")
_RESHAPING = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalSoftmax:
    """What goes into the softmax that makes an output.

    Attributes:
        inner: name of the tensor that the softmax reads; of the int8 tensor before a DEQUANTIZE.
        steps: what rearranges behind it, in order: ("TRANSPOSE", permutation) or ("RESHAPE", shape).
    """

    inner: str
    steps: tuple[tuple[str, tuple[int, ...]], ...]

    def arranged(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The values of ``inner`` for one sample, arranged as the output is (statement 2)."""
        for kind, numbers in self.steps:
            values = values.transpose(numbers) if kind == "TRANSPOSE" else values.reshape(numbers)
        return np.ascontiguousarray(values)


def final_softmaxes(model: ModelT) -> dict[str, FinalSoftmax]:
    """Output name -> its final softmax, for outputs made by one (statement 1).

    Args:
        model: a ``ModelT`` with one subgraph.
    """
    graph, makers = edit.graph_of(model), edit.producers(model)
    found = {}
    for index in (int(i) for i in graph.outputs):
        steps: list[tuple[str, tuple[int, ...]]] = []
        maker = makers.get(index)
        while maker is not None and (step := _step(model, maker)) is not None:
            steps[:0] = step
            maker = makers.get(int(maker.inputs[0]))
        if maker is None or schema.op_name(model, maker) not in SOFTMAXES:
            continue
        inner = int(maker.inputs[0])
        before = makers.get(inner)
        if before is not None and schema.op_name(model, before) == "DEQUANTIZE":
            inner = int(before.inputs[0])
        name = schema.tensor_name(graph.tensors[index])
        found[name] = FinalSoftmax(inner=schema.tensor_name(graph.tensors[inner]), steps=tuple(steps))
    return found


def _step(model: ModelT, operator: OperatorT) -> list[tuple[str, tuple[int, ...]]] | None:
    """How an operator rearranges, nothing for one that keeps every place; None where it computes."""
    tensors, kind = edit.graph_of(model).tensors, schema.op_name(model, operator)
    if kind == "QUANTIZE":
        return []
    if kind == "TRANSPOSE":
        order = schema.constant(model, tensors[int(operator.inputs[1])])
        return None if order is None else [("TRANSPOSE", tuple(int(axis) for axis in order))]
    if kind in _RESHAPING:
        shape = tensors[int(operator.outputs[0])].shape
        return [("RESHAPE", () if shape is None else tuple(int(size) for size in shape))]
    return None
