"""Check whether the Edge TPU can run a file, before compiling.

1. Each operator is compared with its limits (:mod:`graphcut.edgetpu.limits`).
2. The compiler makes one Edge TPU subgraph: all operators within their limits that can run before the first one outside
   its limits is needed. The operators after it run on the CPU, even if the chip could run them.
3. A *refusal* makes the compiler reject the whole file. A *fault* compiles but computes wrong results. A *doubt* is
   within the limits, but not known to work with this compiler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from graphcut.edgetpu import layers_of_file
from graphcut.edgetpu.limits import MAPPED, SECOND_SUBGRAPH, Operation, limit, operation
from graphcut.errors import ModelError
from graphcut.record_types import By, derived
from graphcut.tflite import schema
from graphcut.tflite.schema_types import ModelT, TensorT

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCheck:
    """The result for one operator.

    Attributes:
        index: in execution order, from 0.
        op, name: its kind and its first output.
        status: the compiler's status line.
        reason: why it does not run on the chip, "" where it does.
        macs: multiplications on the CPU, if it is not on the chip.
    """

    index: int
    op: str
    name: str
    status: str
    reason: str
    macs: int

    @property
    def on_tpu(self) -> bool:
        """Whether the Edge TPU runs it."""
        return self.status == MAPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result for a file.

    Attributes:
        ops: every operator, in execution order.
        refusals: why the compiler would reject the file; empty if it would not.
        faults: what would compile but compute wrong results.
        doubts: what is not known to work.
        crossing_bytes: activations that cross between chip and CPU inside the model, in one inference.
    """

    ops: tuple[OpCheck, ...]
    refusals: tuple[str, ...]
    faults: tuple[str, ...]
    doubts: tuple[str, ...]
    crossing_bytes: int

    @property
    @derived("accepted")
    def accepted(self) -> bool:
        """Every operator runs on the chip and nothing is wrong; doubts do not count."""
        return not self.refusals and not self.faults and all(op.on_tpu for op in self.ops)

    @property
    @derived("cpu_ops")
    def on_cpu(self) -> tuple[Annotated[OpCheck, By("op")], ...]:
        """Operators that run on the CPU."""
        return tuple(op for op in self.ops if not op.on_tpu)

    @property
    @derived("tpu_ops")
    def tpu_ops(self) -> int:
        """Number of operators that run on the chip."""
        return len(self.ops) - len(self.on_cpu)

    @property
    @derived("macs")
    def macs(self) -> int:
        """Multiplications of all operators in one inference."""
        return sum(op.macs for op in self.ops)

    @property
    @derived("cpu_macs")
    def cpu_macs(self) -> int:
        """Multiplications of the operators that run on the CPU."""
        return sum(op.macs for op in self.on_cpu)

    @property
    def cpu_ops(self) -> dict[str, int]:
        """Operator kind -> number of operators that run on the CPU, sorted."""
        return dict(sorted(Counter(op.op for op in self.on_cpu).items()))


def check(path: Path) -> Check:
    """Check the TFLite file at ``path`` against the Edge TPU's limits.

    Raises:
        ModelError: the file does not exist, is damaged, or is already compiled.
    """
    return check_model(layers_of_file.uncompiled(path), str(path))


def check_model(model: ModelT, subject: str) -> Check:
    """Check a ``ModelT`` against the Edge TPU's limits; ``subject`` names it in errors.

    Raises:
        ModelError: it is damaged.
    """
    graph = model.subgraphs[0]
    layers = layers_of_file.layers(model, subject)
    try:
        operations = [operation(model, operator) for operator in graph.operators]
        limits = [limit(each) for each in operations]
        faults = _faults(model)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ModelError(f"{subject} is damaged (a constant or option contradicts its shape)") from error
    mapped = first_subgraph(model, [each is None for each in limits])
    ops = []
    for index, (each, broken) in enumerate(zip(operations, limits, strict=True)):
        status, reason = broken or (
            (MAPPED, "")
            if index in mapped
            else (SECOND_SUBGRAPH, "it depends on an operator after the first Edge TPU subgraph")
        )
        name = each.outputs[0].name if each.outputs else each.op
        ops.append(OpCheck(index=index, op=each.op, name=name, status=status, reason=reason, macs=layers[index].macs))
    return Check(
        ops=tuple(ops),
        refusals=tuple(_refusals(model, operations, mapped)),
        faults=tuple(faults),
        doubts=tuple(_doubts(model)),
        crossing_bytes=_crossing_bytes(model, mapped),
    )


def first_subgraph(model: ModelT, supported: Sequence[bool]) -> frozenset[int]:
    """Operators of the first run of supported ones (statement 2), by index; linear in the graph.

    Runs alternate: all operators of the first one's kind that need nothing of the other kind, then all of the other
    kind that need nothing but these, and so on. The first run of supported operators is what gets compiled.
    """
    graph = model.subgraphs[0]
    made: set[int] = {int(i) for i in graph.inputs}
    makers = {int(out) for operator in graph.operators for out in operator.outputs}
    waiting = list(range(len(supported)))
    kind = supported[0] if len(supported) else True
    for _ in range(2):
        run, rest = [], []
        for index in waiting:
            operator = graph.operators[index]
            ready = all(int(i) in made or int(i) not in makers for i in operator.inputs if int(i) >= 0)
            if ready and supported[index] == kind:
                made.update(int(out) for out in operator.outputs)
                run.append(index)
            else:
                rest.append(index)
        if kind:
            return frozenset(run)
        kind, waiting = not kind, rest
    return frozenset()


def _refusals(model: ModelT, operations: Sequence[Operation], mapped: frozenset[int]) -> list[str]:
    refused = []
    if len(model.subgraphs) > 1:
        refused.append(f"the file has {len(model.subgraphs)} graphs (control flow); the compiler supports one")
    graph = model.subgraphs[0]
    dynamic = sorted(schema.tensor_name(tensor) for tensor in graph.tensors if schema.is_open(tensor))
    if dynamic and any(schema.is_open(graph.tensors[int(index)]) for index in graph.inputs):
        refused.append(f"{dynamic[0]}{_and_more(dynamic)} has no static shape: fix the input shapes, with batch size 1")
    types = {operand.type for each in operations for operand in each.activations}
    if operations and not types & schema.BYTE_TYPES:
        refused.append("the model is not quantised: every activation is float (Model not quantized)")
    elif operations and not mapped:
        refused.append("no operator can run on the Edge TPU")
    return refused


def _faults(model: ModelT) -> list[str]:
    graph = model.subgraphs[0]
    found = []
    for tensor in graph.tensors:
        if schema.TYPE_NAMES[tensor.type] in schema.BYTE_TYPES:
            found += [f"{schema.tensor_name(tensor)} {what}" for what in _scale_faults(tensor)]
    for index, operator in enumerate(graph.operators):
        op = schema.op_name(model, operator)
        fed = [graph.tensors[int(i)] for i in operator.inputs if int(i) >= 0]
        if op == "BATCH_MATMUL" and any(_scales(tensor).size > 1 for tensor in fed):
            found.append(
                f"operator {index} (BATCH_MATMUL) has per-channel scales, which it ignores: use FULLY_CONNECTED"
            )
        if op in schema.WEIGHTED and len(fed) > 2:
            bias = schema.constant(model, fed[2])
            if bias is not None and bias.dtype == np.int32 and bias.size:
                most = int(np.abs(bias.astype(np.int64)).max())
                if most >= _INT32_MAX:
                    found.append(
                        f"{schema.tensor_name(fed[2])} is saturated at {most}: a weight scale is too small for it"
                    )
    return found


def _doubts(model: ModelT) -> list[str]:
    graph = model.subgraphs[0]
    found = []
    for index, operator in enumerate(graph.operators):
        op = schema.op_name(model, operator)
        fed = [graph.tensors[int(i)] for i in operator.inputs if int(i) >= 0]
        if op == "FULLY_CONNECTED" and len(fed) > 1 and _scales(fed[1]).size > 1:
            found.append(
                f"operator {index} (FULLY_CONNECTED) has per-channel scales: TensorFlow writes this form since 2024, "
                f"but the compiler is from 2021"
            )
        if op == "TRANSPOSE":
            found.append(
                f"operator {index} (TRANSPOSE) is left on the CPU by older compilers, and sometimes by version 16"
            )
    return found


def _scale_faults(tensor: TensorT) -> list[str]:
    scales = _scales(tensor)
    if scales.size == 0:
        return ["is a byte tensor without a scale"]
    if not np.all(np.isfinite(scales)):
        return ["has a scale that is not a number"]
    if np.any(scales <= 0):
        return ["has a scale that is not above zero"]
    shape = layers_of_file.shape_of(tensor)
    axis = int(schema.quantization(tensor).quantizedDimension)
    if scales.size > 1 and (axis >= len(shape) or shape[axis] != scales.size):
        return [f"has {scales.size} scales, which match no axis of its shape"]
    return []


def _scales(tensor: TensorT) -> np.ndarray[Any, np.dtype[Any]]:
    quantization = tensor.quantization
    return np.zeros(0) if quantization is None or quantization.scale is None else np.atleast_1d(quantization.scale)


def _crossing_bytes(model: ModelT, mapped: frozenset[int]) -> int:
    graph = model.subgraphs[0]
    side = {int(out): index in mapped for index, operator in enumerate(graph.operators) for out in operator.outputs}
    crossing = {
        int(fed)
        for index, operator in enumerate(graph.operators)
        for fed in operator.inputs
        if int(fed) in side and side[int(fed)] != (index in mapped)
    }
    return sum(prod(layers_of_file.shape_of(graph.tensors[index])) for index in crossing)


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
