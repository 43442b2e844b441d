"""The final softmax of an output of a TFLite file, and the tensor that is compared instead of it.

1. A softmax is final if only operators that rearrange (RESHAPE, TRANSPOSE, ...) follow it. Comparisons use its input,
   because in int8 the softmax of many classes may be the same number for every input.
2. TFLite's SOFTMAX works along the last axis, so a converter puts a TRANSPOSE before and after a softmax along another
   one. The operators after it are therefore applied to its input as well (:meth:`FinalSoftmax.arranged`): the result
   has the layout of the output, whatever the layout of the softmax.
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
    """The input of the final softmax of an output.

    Attributes:
        inner: name of the tensor that the softmax reads; of the int8 tensor before a DEQUANTIZE.
        steps: the rearranging operators after it, in order: ("TRANSPOSE", permutation) or ("RESHAPE", shape).
    """

    inner: str
    steps: tuple[tuple[str, tuple[int, ...]], ...]

    def arranged(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The values of ``inner`` for one sample, arranged as the output is (statement 2)."""
        for kind, numbers in self.steps:
            values = values.transpose(numbers) if kind == "TRANSPOSE" else values.reshape(numbers)
        return np.ascontiguousarray(values)


def final_softmaxes(model: ModelT) -> dict[str, FinalSoftmax]:
    """Output name -> its final softmax, for outputs that have one (statement 1).

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
    """How an operator rearranges; empty for one that keeps the order; None for one that computes."""
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
