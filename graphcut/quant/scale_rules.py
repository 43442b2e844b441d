"""Requirements of int8 operators on scales and zero points, enforced where a quantised file violates them.

1. *Prescribed outputs.* LOGISTIC and SOFTMAX write 1/256 with zero point -128, TANH and L2_NORMALIZATION 1/128 with 0,
   LOG_SOFTMAX 16/256 with 127 (TensorFlow Lite's 8-bit quantisation specification). ai-edge-quantizer 0.5.1 gives them
   the scale of a CONCATENATION or MAXIMUM that reads them: SOFTMAX then runs nowhere, LOGISTIC computes only 0 and 1.
2. *Computed right operands* of BATCH_MATMUL have zero point 0: XNNPACK (ai-edge-litert 2.1.2) ignores any other (one
   operator: 1.2 dB at zero point -128 where the built-in kernels have 37).
3. *Copies.* What an operator only moves, chooses or joins has one scale on both sides.
4. *The interface* is int8: what is computed in float enters through a DEQUANTIZE and leaves through a QUANTIZE. An
   output that others read at their own scale leaves with the scale it was computed at.

Where a requirement is not met, a QUANTIZE is added between the scale that the operator requires and that of its
neighbours. :func:`symmetric` avoids the one of statement 2 where a tensor's own range can be even around zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from graphcut.quant.ranges import Observed
from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT, OperatorT

Scale = tuple[float, int]
"""Scale and zero point."""

PRESCRIBED: Mapping[str, Scale] = {
    "LOGISTIC": (1 / 256, -128),
    "SOFTMAX": (1 / 256, -128),
    "TANH": (1 / 128, 0),
    "L2_NORMALIZATION": (1 / 128, 0),
    "LOG_SOFTMAX": (16 / 256, 127),
}
"""Operators whose output has one scale and zero point whatever their input (statement 1)."""

_MOVES = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE"})
_COPIES = _MOVES | {
    *("PACK", "UNPACK", "GATHER", "PAD", "MIRROR_PAD", "TILE", "REVERSE_V2", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"),
    *("CONCATENATION", "MAXIMUM", "MINIMUM", "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_BILINEAR"),
    "RESIZE_NEAREST_NEIGHBOR",
}
_SAME = 1e-5
"""Scales that differ by less, relatively, are one scale rounded twice."""


def symmetric(model: ModelT, ranges: Mapping[str, Observed]) -> dict[str, Observed]:
    """The ranges with those of computed right operands of BATCH_MATMUL even around zero (statement 2).

    The range is that of the tensor from which the operand is only moved (RESHAPE, TRANSPOSE, SPLIT). It stays as it is
    where that tensor is an input of the file, has a prescribed scale, or is read by something else too: there a
    QUANTIZE before the operator does not affect the others.

    Args:
        model: the float ``ModelT``.
        ranges: activation name -> what was observed.
    """
    found = dict(ranges)
    graph, makers = edit.graph_of(model), edit.producers(model)
    names = [schema.tensor_name(tensor) for tensor in graph.tensors]
    for operator in graph.operators:
        if schema.op_name(model, operator) != "BATCH_MATMUL":
            continue
        moved = _moved_from(model, int(operator.inputs[1]), makers)
        maker = makers.get(moved[-1])
        if maker is None or schema.op_name(model, maker) in PRESCRIBED or not _is_operand_alone(model, moved[-1]):
            continue
        for name in (names[index] for index in moved):
            if name in found:
                largest = max(abs(found[name].minimum), abs(found[name].maximum))
                found[name] = replace(found[name], minimum=-largest * 128 / 127, maximum=largest)
    return found


def _moved_from(model: ModelT, index: int, makers: Mapping[int, OperatorT]) -> list[int]:
    """A tensor and those that it is only moved from, back to the one that is computed."""
    moved = [index]
    while (maker := makers.get(moved[-1])) is not None and schema.op_name(model, maker) in _MOVES:
        moved.append(int(maker.inputs[1 if schema.op_name(model, maker) == "SPLIT" else 0]))
    return moved


def _is_operand_alone(model: ModelT, index: int) -> bool:
    """Whether all that reads a tensor, however moved, are BATCH_MATMUL, at least one of them on the right."""
    graph = edit.graph_of(model)
    if index in {int(i) for i in graph.outputs}:
        return False
    for operator in graph.operators:
        if index not in {int(i) for i in operator.inputs}:
            continue
        kind = schema.op_name(model, operator)
        if kind in _MOVES:
            if not all(_is_operand_alone(model, int(made)) for made in operator.outputs):
                return False
        elif kind != "BATCH_MATMUL":
            return False
    return True


def enforce(model: ModelT, edges: Mapping[str, Scale], ranges: Mapping[str, Observed] = MappingProxyType({})) -> int:
    """Add a QUANTIZE wherever a requirement is not met, in place; returns the number of added operators.

    Args:
        model: the quantised ``ModelT``.
        edges: name of an input or output of the file -> its scale and zero point, for those that are float.
        ranges: activation name -> what was observed, where it is known.
    """
    return _Rules(model, edges, ranges).run()


class _Rules:
    """One pass over the operators in order; what is added stands right beside what needs it."""

    def __init__(self, model: ModelT, edges: Mapping[str, Scale], ranges: Mapping[str, Observed]) -> None:
        self.model, self.ranges = model, ranges
        self.graph = edit.graph_of(model)
        self.edges = edges
        self.operators: list[OperatorT] = []
        self.rescaled: dict[tuple[int, Scale], int] = {}
        self.added = 0

    def run(self) -> int:
        self.graph.inputs = np.array([self._entering(int(index)) for index in self.graph.inputs], np.int32)
        for operator in self.graph.operators:
            kind = schema.op_name(self.model, operator)
            if kind == "BATCH_MATMUL":
                self._even_operand(operator)
            elif kind in _COPIES:
                self._same_scale(operator)
            self.operators.append(operator)
            if kind in PRESCRIBED:
                self._prescribed(operator, PRESCRIBED[kind])
        self.graph.operators = self.operators
        self.graph.outputs = np.array([self._unscaled(int(index)) for index in self.graph.outputs], np.int32)
        self.graph.outputs = np.array([self._leaving(int(index)) for index in self.graph.outputs], np.int32)
        return self.added

    def _entering(self, index: int) -> int:
        """The int8 tensor that stands for an input of the file (statement 4)."""
        if not self._is_float(index):
            return index
        outer = self._at_the_edge(index)
        self._add(outer, index)
        return outer

    def _leaving(self, index: int) -> int:
        """The int8 tensor that stands for an output of the file (statement 4)."""
        if not self._is_float(index):
            return index
        outer = self._at_the_edge(index)
        self._add(index, outer)
        return outer

    def _unscaled(self, index: int) -> int:
        """An output of the file before it was brought to the scale of a neighbour: its own scale says more."""
        maker = edit.producers(self.model).get(index)
        if (
            maker is None
            or schema.op_name(self.model, maker) != "QUANTIZE"
            or self._scale(int(maker.inputs[0])) is None
        ):
            return index
        if not any(index in {int(read) for read in operator.inputs} for operator in self.operators):
            return index
        return int(maker.inputs[0])

    def _at_the_edge(self, index: int) -> int:
        outer = self._twin(index, self.edges[schema.tensor_name(self.graph.tensors[index])])
        self._swap_names(index, outer)
        return outer

    def _even_operand(self, operator: OperatorT) -> None:
        """Let the right operand have zero point 0 (statement 2), with the same step where what was observed allows it.

        Twice the step, which holds all that a softmax can make, halves the numbers: XNNPACK and the built-in kernels
        round the halves differently (attention: 29.8 dB and 20.3).
        """
        index = int(operator.inputs[1])
        scale = self._scale(index)
        if scale is None or scale[1] == 0:
            return
        step, zero_point = scale
        largest = step * max(127 - zero_point, 128 + zero_point)
        seen = self.ranges.get(schema.tensor_name(self.graph.tensors[index]))
        if seen is not None:
            largest = min(largest, max(abs(seen.minimum), abs(seen.maximum)))
        even = (max(step, largest / 127), 0)
        operator.inputs = np.array([operator.inputs[0], self._read_at(index, even), *operator.inputs[2:]], np.int32)

    def _same_scale(self, operator: OperatorT) -> None:
        """Let what is copied have the scale of the copy (statement 3)."""
        wanted = self._scale(int(operator.outputs[0]))
        if wanted is None:
            return
        operator.inputs = np.array([self._same(int(index), wanted) for index in operator.inputs], np.int32)

    def _same(self, index: int, wanted: Scale) -> int:
        scale = self._scale(index)
        return index if scale is None or _equal(scale, wanted) else self._read_at(index, wanted)

    def _prescribed(self, operator: OperatorT, wanted: Scale) -> None:
        """Let an operator write at its own scale (statement 1)."""
        index = int(operator.outputs[0])
        scale = self._scale(index)
        if scale is None or _equal(scale, wanted):
            return
        own = self._twin(index, wanted)
        self._swap_names(index, own)
        self.graph.outputs = np.array([own if int(i) == index else int(i) for i in self.graph.outputs], np.int32)
        operator.outputs = np.array([own], np.int32)
        self._add(own, index)

    def _read_at(self, index: int, wanted: Scale) -> int:
        """A tensor at another scale; made once for all that want it."""
        if (index, wanted) not in self.rescaled:
            made = self.rescaled[index, wanted] = self._twin(index, wanted)
            self._add(index, made)
        return self.rescaled[index, wanted]

    def _twin(self, index: int, scale: Scale) -> int:
        """A new int8 tensor of the same shape, named as the quantiser names what its QUANTIZE makes."""
        return edit.add_int8(self.model, index, f"{schema.tensor_name(self.graph.tensors[index])}_quantized", *scale)

    def _swap_names(self, one: int, other: int) -> None:
        tensors = self.graph.tensors
        tensors[one].name, tensors[other].name = tensors[other].name, tensors[one].name

    def _add(self, source: int, made: int) -> None:
        self.operators.append(edit.conversion(self.model, source, made))
        self.added += 1

    def _is_float(self, index: int) -> bool:
        return schema.TYPE_NAMES[self.graph.tensors[index].type] == "FLOAT32"

    def _scale(self, index: int) -> Scale | None:
        """Scale and zero point of an int8 activation; None for constants and everything else."""
        tensor = self.graph.tensors[index]
        if schema.TYPE_NAMES[tensor.type] != "INT8" or schema.constant(self.model, tensor) is not None:
            return None
        return edit.scale_of(self.model, index)


def _equal(one: Scale, other: Scale) -> bool:
    return one[1] == other[1] and abs(one[0] - other[0]) <= _SAME * other[0]
