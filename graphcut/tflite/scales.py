"""Change the scales of activations in an int8 file, in place, for a search over ranges.

1. Activations connected by operators that keep the scale (RESHAPE, MAX_POOL_2D, CONCATENATION, ...) have one scale and
   form a *group*; its scale changes as a whole.
2. A group is *free* if nothing prescribes its scale. Not free are: outputs of LOGISTIC, SOFTMAX, TANH, L2_NORMALIZATION
   and LOG_SOFTMAX; divisors and activations that are a right operand of BATCH_MATMUL, which have zero point 0;
   activations that share their scale with a constant; inputs and outputs of operators that are not known here.
3. The bias of an operator has the scale of its input times that of its weights. With another input scale it is
   rewritten; if it does not fit in 30 bits, the new scale is refused.
4. The file keeps its size, its operators and its weights: scales, zero points and biases are overwritten in place. The
   same scales give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT, OperatorT

BIASED: Mapping[str, tuple[int, int, int]] = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Operator -> positions of input, weights and bias among what it reads."""

_HANDS_ON = frozenset(
    {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "PADV2", "MIRROR_PAD"}
    | {"CONCATENATION", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE", "GATHER", "GATHER_ND", "PACK", "UNPACK", "TILE"}
    | {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "MAXIMUM", "MINIMUM", "BROADCAST_TO", "REVERSE_V2"}
    | {"SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}
)
_RESCALES = frozenset(
    {"ADD", "SUB", "MUL", "DIV", "HARD_SWISH", "MEAN", "SUM", "RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "PRELU"}
    | {"BATCH_MATMUL", "QUANTIZE", "EXP", "SQRT", "RSQRT", "SQUARED_DIFFERENCE", "ABS", "NEG", *BIASED}
)
_PRESCRIBES = frozenset({"LOGISTIC", "SOFTMAX", "TANH", "L2_NORMALIZATION", "LOG_SOFTMAX"})
_ZERO_POINT_0: Mapping[str, int] = {"DIV": 1, "BATCH_MATMUL": 1}
LARGEST_BIAS = 2.0**30
"""Steps of a bias, half of what int32 holds."""

Scale = tuple[float, int]
"""Scale and zero point."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Activations with one scale (statement 1).

    Attributes:
        names: in the order in which they are computed.
        scale: scale and zero point.
        free: whether the scale may change (statement 2).
    """

    names: tuple[str, ...]
    scale: Scale
    free: bool


def groups(int8: bytes) -> tuple[Group, ...]:
    """All int8 activations of a file in groups, in the order of computation. Linear in the number of operators."""
    model = schema.read(int8)
    graph = edit.graph_of(model)
    scales = {
        index: edit.scale_of(model, index)
        for index, tensor in enumerate(graph.tensors)
        if schema.TYPE_NAMES[tensor.type] == "INT8" and len(schema.quantization(tensor).scale) == 1
    }
    constants = {index for index, tensor in enumerate(graph.tensors) if schema.constant(model, tensor) is not None}
    leader = {index: index for index in scales}

    def first(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    fixed: set[int] = set()
    for operator in graph.operators:
        name = schema.op_name(model, operator)
        read = [int(index) for index in operator.inputs if int(index) >= 0]
        made = [int(index) for index in operator.outputs]
        if name in _HANDS_ON:
            tied = [index for index in (*read, *made) if index in scales and scales[index] == scales[made[0]]]
            for index in tied[1:]:
                low, high = sorted((first(tied[0]), first(index)))
                leader[high] = low
        elif name in _PRESCRIBES:
            fixed.update(made)
        elif name not in _RESCALES:
            fixed.update((*read, *made))
        if name in _ZERO_POINT_0:
            fixed.add(read[_ZERO_POINT_0[name]])
        if name in BIASED:
            fixed.update(_shared_bias(model, operator))
    fixed |= constants
    members: dict[int, list[int]] = {}
    made_in_order = [*map(int, graph.inputs), *(int(index) for op in graph.operators for index in op.outputs)]
    for index in (*made_in_order, *sorted(constants)):
        if index in scales:
            members.setdefault(first(index), []).append(index)
    return tuple(
        Group(
            names=tuple(schema.tensor_name(graph.tensors[index]) for index in found if index not in constants),
            scale=scales[found[0]],
            free=not any(index in fixed for index in found),
        )
        for found in members.values()
        if any(index not in constants for index in found)
    )


def _shared_bias(model: ModelT, operator: OperatorT) -> list[int]:
    """The input of an operator whose bias another one reads too: its scale is tied to both inputs."""
    data, _, bias = BIASED[schema.op_name(model, operator)]
    if len(operator.inputs) <= bias or int(operator.inputs[bias]) < 0:
        return []
    graph = edit.graph_of(model)
    buffer = graph.tensors[int(operator.inputs[bias])].buffer
    read = (int(index) for each in graph.operators for index in each.inputs if int(index) >= 0)
    readers = sum(graph.tensors[index].buffer == buffer for index in read)
    return [int(operator.inputs[data])] if readers > 1 else []


class Rescalable:
    """An int8 file whose activations can be given other scales repeatedly.

    Args:
        int8: the file.
    """

    def __init__(self, int8: bytes) -> None:
        self._data = int8
        graph = fb.Model.GetRootAsModel(int8, 0).Subgraphs(0)
        self._indices = {graph.Tensors(index).Name().decode(): index for index in range(graph.TensorsLength())}
        self._biases = _biases(int8)

    def fits(self, name: str, scale: Scale) -> bool:
        """Whether the biases that depend on an activation fit when it has this scale (statement 3)."""
        index = self._indices[name]
        return all(
            np.abs(values / (scale[0] * weight_scales)).max(initial=0.0) <= LARGEST_BIAS
            for source, weight_scales, _, values in self._biases
            if source == index
        )

    def rescaled(self, scales: Mapping[str, Scale]) -> bytes:
        """The file with other scales.

        Args:
            scales: activation name -> scale and zero point; names that are not in the file are ignored.

        Raises:
            ValueError: a bias does not fit (statement 3).
        """
        data = bytearray(self._data)
        model = fb.Model.GetRootAsModel(data, 0)
        graph = model.Subgraphs(0)
        changed = {self._indices[name]: scale for name, scale in scales.items() if name in self._indices}
        for index, (scale, zero_point) in changed.items():
            parameters = graph.Tensors(index).Quantization()
            parameters.ScaleAsNumpy()[0] = scale
            parameters.ZeroPointAsNumpy()[0] = zero_point
        for source, weight_scales, bias, values in self._biases:
            if source not in changed:
                continue
            product = np.float64(np.float32(changed[source][0])) * weight_scales
            steps = np.rint(values / product)
            if np.abs(steps).max(initial=0.0) > LARGEST_BIAS:
                raise ValueError(f"a bias of a reader of {graph.Tensors(source).Name().decode()} does not fit")
            graph.Tensors(bias).Quantization().ScaleAsNumpy()[:] = product
            model.Buffers(graph.Tensors(bias).Buffer()).DataAsNumpy().view(np.int32)[:] = steps.astype(np.int32)
        return bytes(data)


def _biases(int8: bytes) -> list[tuple[int, Floats, int, Floats]]:
    """Index of the input, scales of the weights, index and values of the bias, of every operator that has one."""
    model = schema.read(int8)
    graph = edit.graph_of(model)
    found = []
    for operator in graph.operators:
        places = BIASED.get(schema.op_name(model, operator))
        if places is None or len(operator.inputs) <= places[2] or int(operator.inputs[places[2]]) < 0:
            continue
        source, weights, bias = (int(operator.inputs[place]) for place in places)
        steps = schema.constant(model, graph.tensors[bias])
        if steps is not None and steps.dtype == np.int32:
            scale = np.asarray(schema.quantization(graph.tensors[bias]).scale, np.float64)
            weight_scales = np.asarray(schema.quantization(graph.tensors[weights]).scale, np.float64)
            found.append((source, weight_scales, bias, steps.astype(np.float64) * scale))
    return found
