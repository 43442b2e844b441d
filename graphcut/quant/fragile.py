"""Operators that may need float: divisions by a deviation, and the computation of the deviation.

1. The square root of a variance in int8 is zero more often than not, and dividing by it stops the interpreter.
2. A variance has a range as wide as its square: where it is a thousandth of the largest one (a flat patch of a picture
   under LayerNorm), its int8 is zero although the int8 of what it is the variance of is not. So float begins where the
   values are squared, if it has to be. A length (F.normalize) is the same without the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphcut.quant.ranges import Observed
from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT, OperatorT

DIVIDING = ("DIV", "SQRT", "RSQRT")
FEW_STEPS = 4
_MEANS = frozenset({"MEAN", "SUM"})
_BOUNDS = frozenset({"MAXIMUM", "RELU"})
_BEFORE_ROOT = frozenset({"ADD", *_MEANS, *_BOUNDS, *DIVIDING})
_SQUARES = frozenset({"MUL", "SQUARE", "SQUARED_DIFFERENCE", "POW"})


def choices(model: ModelT) -> tuple[tuple[str, ...], ...]:
    """What may stay in float, from nothing on: each time the activations that its operators make, in order.

    Args:
        model: the float ``ModelT``.
    """
    graph, makers = edit.graph_of(model), edit.producers(model)
    names = {int(op.outputs[0]): schema.op_name(model, op) for op in graph.operators}
    dividing = {index for index, name in names.items() if name in DIVIDING}
    if not dividing:
        return ((),)
    whole = set(dividing)
    waiting = list(dividing)
    while waiting:
        for source, passed in (_behind(int(index), makers, names) for index in makers[waiting.pop()].inputs):
            if source in whole or names.get(source) not in _BEFORE_ROOT:
                continue
            before = {names.get(_behind(int(index), makers, names)[0]) for index in makers[source].inputs}
            if names[source] in {"ADD", *_BOUNDS} and not before & ({"SQRT"} | _MEANS):
                continue  # an ADD brings epsilon to a mean; a bound is that of a root or of a sum
            whole |= {source, *passed}
            waiting.append(source)
            if names[source] in _MEANS:
                squared, passed = _behind(int(makers[source].inputs[0]), makers, names)
                if names.get(squared) in _SQUARES:
                    whole |= {squared, *passed}
    found = [set[int](), dividing, *([whole] if whole != dividing else [])]
    order = [int(op.outputs[0]) for op in graph.operators]
    return tuple(
        tuple(schema.tensor_name(graph.tensors[index]) for index in order if index in chosen) for chosen in found
    )


def _behind(index: int, makers: Mapping[int, OperatorT], names: Mapping[int, str]) -> tuple[int, list[int]]:
    """The tensor that a tensor is a RESHAPE of, and the RESHAPEs passed."""
    passed = []
    while names.get(index) == "RESHAPE":
        passed.append(index)
        index = int(makers[index].inputs[0])
    return index, passed


def dividable(model: ModelT, ranges: Mapping[str, Observed]) -> dict[str, Observed]:
    """The ranges with those of divisors made even around zero, so that int8 0 stands for 0.

    The interpreter refuses to divide by the stored number 0, whatever it stands for (``CheckNonZero`` in TFLite's
    ``div.cc``): with another zero point it stops at some ordinary value. Edges of the file keep their range.
    """
    found = dict(ranges)
    graph = edit.graph_of(model)
    edges = {schema.tensor_name(graph.tensors[int(index)]) for index in (*graph.inputs, *graph.outputs)}
    for name in _divisors(model) - edges:
        if name in found:
            largest = max(abs(found[name].minimum), abs(found[name].maximum))
            found[name] = replace(found[name], minimum=-largest * 128 / 127, maximum=largest)
    return found


def near_zero(model: ModelT, ranges: Mapping[str, Observed]) -> bool:
    """Whether a divisor, or what it is the root of, is within a few int8 steps of zero: some day it will be zero."""
    graph, makers = edit.graph_of(model), edit.producers(model)
    names = [schema.tensor_name(tensor) for tensor in graph.tensors]
    watched = set(_divisors(model))
    for index, operator in makers.items():
        if names[index] in watched and schema.op_name(model, operator) == "SQRT":
            watched.add(names[int(operator.inputs[0])])
    seen = [ranges[name] for name in watched if name in ranges]
    return any(
        max(each.minimum, -each.maximum) < FEW_STEPS / 127 * max(abs(each.minimum), abs(each.maximum)) for each in seen
    )


def _divisors(model: ModelT) -> set[str]:
    graph = edit.graph_of(model)
    dividing = [operator for operator in graph.operators if schema.op_name(model, operator) == "DIV"]
    return {schema.tensor_name(graph.tensors[int(operator.inputs[1])]) for operator in dividing}
