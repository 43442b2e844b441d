"""Remove TRANSPOSE operators that a converter left around operators that work in any layout.

1. A tensor in NCHW that a TRANSPOSE made from NHWC has a *twin*, the NHWC tensor that it was made from.
2. An operator all of whose activations have twins, and that works element by element (or along axes that can be
   renumbered), reads the twins instead. Its output then has a twin too, and its constants are transposed.
3. A TRANSPOSE back to NHWC of a tensor with a twin is replaced by that twin.
4. onnx2tf sometimes drops the TRANSPOSE that makes ``X`` from ``X_nhwc_bridge`` while operators still read ``X``, so
   that the file does not run. Such tensors are twins too; the numeric check after the conversion decides.
5. onnx2tf sometimes transposes the channel mean of a LayerNorm, which is already NHWC, once more. Its readers then
   fail; without that TRANSPOSE they do not.
6. Where an operator still needs a tensor in NCHW, one TRANSPOSE makes it from its twin; the others are removed.

One pass in the order of the operators, linear. Works on a float model in place, before it is calibrated.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT, OperatorT

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)
_AXIS_IN_NHWC = (0, 3, 1, 2)

_UNARY = ("RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "HARD_SWISH", "ELU", "LEAKY_RELU", "ABS", "EXP", "SQRT")
_UNARY_MORE = ("RSQRT", "NEG", "GELU", "SQUARE", "LOG", "FLOOR")
_BINARY = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW", "PRELU")
_ELEMENTWISE = frozenset((*_UNARY, *_UNARY_MORE, *_BINARY))
_REDUCTIONS = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"})
_PADS = frozenset({"PAD", "PADV2", "MIRROR_PAD"})


class _Pass:
    """One pass over one graph; ``twins`` maps an NCHW tensor to its NHWC tensor."""

    def __init__(self, model: ModelT) -> None:
        self.model = model
        self.graph = edit.graph_of(model)
        self.twins: dict[int, int] = {}
        self.same: dict[int, int] = {}
        self.operators: list[OperatorT] = []
        self.gone = 0
        self.readers = Counter(int(index) for operator in self.graph.operators for index in operator.inputs)

    def run(self) -> int:
        self._adopt_orphans()
        for operator in list(self.graph.operators):
            operator.inputs = np.array([self.same.get(int(i), int(i)) for i in operator.inputs], np.int32)
            if self._undone(operator):
                self.gone += 1
                continue
            if not self._turn(operator):
                self._materialise(operator.inputs)
            self.operators.append(operator)
        self._materialise(self.graph.outputs)
        self.graph.outputs = np.array([self.same.get(int(i), int(i)) for i in self.graph.outputs], np.int32)
        for signature in self.model.signatureDefs or []:
            for entry in signature.outputs:
                entry.tensorIndex = self.same.get(int(entry.tensorIndex), int(entry.tensorIndex))
        self.graph.operators = self.operators
        return self.gone

    def _adopt_orphans(self) -> None:
        """Find the twins of tensors that are read but not produced (statement 4)."""
        made = {int(i) for operator in self.graph.operators for i in operator.outputs} | {
            int(i) for i in self.graph.inputs
        }
        by_name = {schema.tensor_name(self.graph.tensors[index]): index for index in made}
        read = {int(i) for operator in self.graph.operators for i in operator.inputs if i >= 0}
        for index in sorted(read - made):
            twin = by_name.get(f"{schema.tensor_name(self.graph.tensors[index])}_nhwc_bridge")
            if twin is None or self._constant(index) is not None:
                continue
            if tuple(self._shape(index)[axis] for axis in TO_NHWC) == self._shape(twin):
                self.twins[index] = twin

    def _constant(self, index: int) -> npt.NDArray[Any] | None:
        return schema.constant(self.model, self.graph.tensors[index])

    def _shape(self, index: int) -> tuple[int, ...]:
        shape = self.graph.tensors[index].shape
        return () if shape is None else tuple(int(n) for n in shape)

    def _undone(self, operator: OperatorT) -> bool:
        """Whether an operator is removed: a TRANSPOSE to NCHW is recorded, one back to NHWC is undone."""
        order = self._order(operator)
        if order is None:
            return False
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        if order == TO_NCHW and source not in self.twins:
            self.twins[target] = source
        elif order == TO_NHWC and source in self.twins:
            self.same[target] = self.twins[source]
            self._keep_name(target, self.twins[source])
        elif order == TO_NHWC and self._turned_twice(source, target):
            self.same[target] = source
        else:
            return False
        return True

    def _turned_twice(self, source: int, target: int) -> bool:
        """Whether a TRANSPOSE transposes a tensor that is already NHWC (statement 5)."""
        others = [
            self._shape(int(index))
            for operator in self.graph.operators
            if target in {int(i) for i in operator.inputs} and schema.op_name(self.model, operator) in _BINARY
            for index in operator.inputs
            if int(index) != target
        ]
        turned, plain = self._shape(target), self._shape(source)
        return bool(others) and all(not _broadcasts(turned, shape) and _broadcasts(plain, shape) for shape in others)

    def _order(self, operator: OperatorT) -> tuple[int, ...] | None:
        """The permutation of a TRANSPOSE, or of a RESHAPE of a 1x1 map that is one; None for anything else."""
        name = schema.op_name(self.model, operator)
        if name == "TRANSPOSE":
            permutation = self._constant(int(operator.inputs[1]))
            return None if permutation is None else tuple(int(n) for n in permutation)
        if name != "RESHAPE":
            return None
        before, after = self._shape(int(operator.inputs[0])), self._shape(int(operator.outputs[0]))
        if len(before) != 4 or len(after) != 4 or before == after:
            return None
        if before[:3] == (1, 1, 1) and after == (1, before[3], 1, 1):
            return TO_NCHW
        return TO_NHWC if before[2:] == (1, 1) and after == (before[0], 1, 1, before[1]) else None

    def _keep_name(self, dropped: int, kept: int) -> None:
        """Keep the name of a model output that a TRANSPOSE produced."""
        if dropped in {int(i) for i in self.graph.outputs}:
            tensors = self.graph.tensors
            tensors[kept].name, tensors[dropped].name = tensors[dropped].name, tensors[kept].name

    def _materialise(self, indices: Any) -> None:
        """Make the NCHW tensors among these from their twins, each once (statement 6)."""
        for index in {int(i) for i in indices} & self.twins.keys():
            twin = self.twins.pop(index)
            operator = fb.OperatorT()
            operator.opcodeIndex = edit.code_index(self.model, fb.BuiltinOperator.TRANSPOSE)
            operator.inputs = np.array([twin, self._new_constant(np.array(TO_NCHW, np.int32), "to_nchw")], np.int32)
            operator.outputs = np.array([index], np.int32)
            operator.builtinOptionsType = fb.BuiltinOptions.TransposeOptions
            operator.builtinOptions = fb.TransposeOptionsT()
            self.operators.append(operator)
            self.gone -= 1

    def _turn(self, operator: OperatorT) -> bool:
        """Let an operator read twins (statement 2); False where it cannot, with nothing done."""
        activations = [int(i) for i in operator.inputs if i >= 0 and self._constant(int(i)) is None]
        if not activations or any(index not in self.twins for index in activations):
            return False
        name = schema.op_name(self.model, operator)
        turned: Callable[[OperatorT], list[int] | None] | None = None
        if name in _ELEMENTWISE:
            turned = self._turned_elementwise
        elif name == "CONCATENATION":
            turned = self._turned_concatenation
        elif name in _REDUCTIONS:
            return self._turn_reduction(operator)
        elif name in _PADS:
            turned = self._turned_pad
        elif name == "SLICE":
            turned = self._turned_slice
        elif name == "STRIDED_SLICE":
            turned = self._turned_strided_slice
        elif name == "SPLIT":
            turned = self._turned_split
        elif name == "RESHAPE":
            return self._turn_reshape(operator)
        inputs = None if turned is None else turned(operator)
        if inputs is None:
            return False
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([self._twin_of(int(i)) for i in operator.outputs], np.int32)
        return True

    def _turned_elementwise(self, operator: OperatorT) -> list[int] | None:
        inputs = []
        for index in (int(i) for i in operator.inputs):
            values = self._constant(index)
            if values is None:
                inputs.append(self.twins[index])
            elif values.size == 1:
                inputs.append(index)
            elif values.ndim <= 4:
                whole = values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(TO_NHWC)
                inputs.append(self._new_constant(whole, schema.tensor_name(self.graph.tensors[index])))
            else:
                return None
        return inputs

    def _turned_concatenation(self, operator: OperatorT) -> list[int] | None:
        if any(int(index) not in self.twins for index in operator.inputs):
            return None
        operator.builtinOptions.axis = _AXIS_IN_NHWC[int(operator.builtinOptions.axis) % 4]
        return [self.twins[int(index)] for index in operator.inputs]

    def _turned_pad(self, operator: OperatorT) -> list[int] | None:
        amounts = self._constant(int(operator.inputs[1]))
        if amounts is None or amounts.shape != (4, 2):
            return None
        turned = self._new_constant(amounts[list(TO_NHWC)], "paddings")
        return [self.twins[int(operator.inputs[0])], turned, *(int(i) for i in operator.inputs[2:])]

    def _turned_slice(self, operator: OperatorT) -> list[int] | None:
        source, *places = (int(index) for index in operator.inputs)
        values = [self._constant(index) for index in places]
        if any(each is None or each.shape != (4,) for each in values):
            return None
        return [
            self.twins[source],
            *(
                self._renumbered(index, each[list(TO_NHWC)])
                for index, each in zip(places, values, strict=True)
                if each is not None
            ),
        ]

    def _turned_strided_slice(self, operator: OperatorT) -> list[int] | None:
        options = operator.builtinOptions
        if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
            return None
        inputs = self._turned_slice(operator)
        if inputs is not None:
            options.beginMask, options.endMask = (
                sum((mask >> axis & 1) << place for place, axis in enumerate(TO_NHWC))
                for mask in (int(options.beginMask), int(options.endMask))
            )
        return inputs

    def _turned_split(self, operator: OperatorT) -> list[int] | None:
        axis, source = (int(index) for index in operator.inputs)
        values = self._constant(axis)
        if values is None or values.size != 1:
            return None
        turned = np.full_like(values, _AXIS_IN_NHWC[int(values.reshape(-1)[0]) % 4])
        return [self._renumbered(axis, turned), self.twins[source]]

    def _renumbered(self, index: int, values: npt.NDArray[Any]) -> int:
        """A constant with other values of the same shape and type, in its place if nothing else reads it."""
        tensor = self.graph.tensors[index]
        if self.readers[index] > 1:
            tensor = copy.copy(tensor)
            self.graph.tensors.append(tensor)
            index = len(self.graph.tensors) - 1
        schema.set_constant(self.model, tensor, values)
        return index

    def _turn_reduction(self, operator: OperatorT) -> bool:
        axes = self._constant(int(operator.inputs[1]))
        if axes is None:
            return False
        numbers = sorted(int(axis) % 4 for axis in axes.reshape(-1))
        kept = bool(operator.builtinOptions.keepDims)
        if not kept and numbers != [2, 3]:
            return False
        turned = np.array([_AXIS_IN_NHWC[axis] for axis in numbers], np.int32)
        source = self.twins[int(operator.inputs[0])]
        operator.inputs = np.array([source, self._new_constant(turned, "axes")], np.int32)
        if kept:
            operator.outputs = np.array([self._twin_of(int(operator.outputs[0]))], np.int32)
        return True

    def _turn_reshape(self, operator: OperatorT) -> bool:
        """A reshape of a 1x1 map, or to a vector of channels, reads the same numbers in both layouts."""
        source = int(operator.inputs[0])
        if self._shape(source)[2:] != (1, 1):
            return False
        operator.inputs = np.array([self.twins[source], *operator.inputs[1:]], np.int32)
        return True

    def _twin_of(self, index: int) -> int:
        """A new NHWC tensor for an NCHW output, with its name."""
        tensor = self.graph.tensors[index]
        twin = copy.copy(tensor)
        shape = self._shape(index)
        twin.shape = np.array([shape[axis] for axis in TO_NHWC], np.int32)
        twin.shapeSignature = None
        twin.quantization = None
        tensor.name = f"{schema.tensor_name(tensor)}/nchw".encode()
        self.graph.tensors.append(twin)
        self.twins[index] = len(self.graph.tensors) - 1
        return self.twins[index]

    def _new_constant(self, values: npt.NDArray[Any], name: str) -> int:
        tensor = fb.TensorT()
        tensor.name = f"{name}/{len(self.graph.tensors)}".encode()
        tensor.shape = np.array(values.shape, np.int32)
        tensor.type = fb.TensorType.INT32 if values.dtype == np.int32 else fb.TensorType.FLOAT32
        schema.set_constant(self.model, tensor, values)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1


def _broadcasts(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(one[::-1], other[::-1], strict=False))


def drop_transposes(model: ModelT) -> int:
    """Remove the TRANSPOSE operators that are not needed; returns their number."""
    return _Pass(model).run()
