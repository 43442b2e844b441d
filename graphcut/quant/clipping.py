"""Narrower ranges, as candidates for a search.

1. *Values without effect.* HARD_SWISH is 0 below -3, RELU below 0, RELU6 outside of 0 .. 6, and the int8 of LOGISTIC
   and TANH does not change beyond a few units. An activation that only such operators read needs no values there: the
   result is the same. Neither does one that is multiplied by a gate made of itself where the gate is 0. Examples are
   x * relu6(x + 3), which is HARD_SWISH in a form that the Edge TPU has, and x * sigmoid(x), which is SiLU.
2. *Rare values.* A few extreme values set the scale of a whole activation, and all others lose bits for them. How many
   are rare enough depends on the model and the activation: the least error of the activation itself is the wrong
   objective, since outliers hold its energy and not its meaning. So a level is a share of values that is left out
   (``graphcut.quant.ranges.CUT_SHARES``), and which one is best is judged at the model's outputs
   (:mod:`graphcut.conversion.range_search`). Percentile calibration: Wu et al., "Integer Quantization for Deep Learning
   Inference", arXiv 2004.09602, section 5.2.
3. Level 0 is the range as it is, level 1 leaves out what the reader does not see, each further one a larger share of
   the values as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphcut.quant.ranges import CUT_SHARES, NOTHING, Observed
from graphcut.tflite import edit, schema
from graphcut.tflite.scales import Group, Scale
from graphcut.tflite.schema_types import ModelT, OperatorT

LEVELS = len(CUT_SHARES) + 2
"""Candidates for every activation."""

Range = tuple[float, float]

_EVERYTHING: Range = (-np.inf, np.inf)
_SEEN: Mapping[str, Range] = {
    "HARD_SWISH": (-3.0, np.inf),
    "RELU": (0.0, np.inf),
    "RELU6": (0.0, 6.0),
    # Half a step of the result from its ends: LOGISTIC has steps of 1/256, TANH of 1/128.
    "LOGISTIC": (-float(np.log(511)), float(np.log(511))),
    "TANH": (-float(np.arctanh(1 - 1 / 256)), float(np.arctanh(1 - 1 / 256))),
}
_SILU_FROM = -8.0
"""x * sigmoid(x) is above -0.003 below it."""


def seen_by_readers(int8: bytes) -> dict[str, Range]:
    """Activation name -> the range that its readers see (statement 1), for inner activations where that is limited.

    Args:
        int8: the file; what leaves it is read by others and not listed.
    """
    model = schema.read(int8)
    graph = edit.graph_of(model)
    readers: dict[int, list[OperatorT]] = {}
    for operator in graph.operators:
        for index in {int(each) for each in operator.inputs}:
            readers.setdefault(index, []).append(operator)
    ends = {int(index) for index in graph.outputs}
    found = {}
    for index, reading in readers.items():
        if index < 0 or index in ends:
            continue
        gated_from = _gated_from(model, index, reading)
        seen = [_SEEN.get(schema.op_name(model, reader), _EVERYTHING) for reader in reading]
        low, high = min(each[0] for each in seen), max(each[1] for each in seen)
        if gated_from is not None:
            low, high = gated_from, np.inf
        if (low, high) != _EVERYTHING:
            found[schema.tensor_name(graph.tensors[index])] = (low, high)
    return found


def _gated_from(model: ModelT, index: int, reading: Sequence[OperatorT]) -> float | None:
    """Below what the product of an activation and gates made of it is 0; None where others read it as well."""
    starts = {int(reader.outputs[0]): _gate_opens(model, index, reader) for reader in reading}
    gates = {made: start for made, start in starts.items() if start is not None}
    others = [reader for reader in reading if starts[int(reader.outputs[0])] is None]
    if not gates or len(others) != 1 or schema.op_name(model, others[0]) != "MUL":
        return None
    return min(gates.values()) if {int(each) for each in others[0].inputs} == {index, *gates} else None


def _gate_opens(model: ModelT, index: int, operator: OperatorT) -> float | None:
    """Where an operator's result begins to be more than 0, if it is LOGISTIC or x + c with a fused RELU6."""
    name = schema.op_name(model, operator)
    if name == "LOGISTIC":
        return _SILU_FROM
    if name != "ADD" or schema.fused_activation(operator) != "RELU6":
        return None
    (other,) = [int(each) for each in operator.inputs if int(each) != index] or [index]
    constant = edit.graph_of(model).tensors[other]
    steps = schema.constant(model, constant)
    if steps is None or steps.size != 1 or schema.TYPE_NAMES[constant.type] not in schema.BYTE_TYPES:
        return None
    scale, zero_point = edit.scale_of(model, other)
    return -scale * (float(steps.reshape(-1)[0]) - zero_point)


def ranges_by_level(
    group: Group, observed: Mapping[str, Sequence[Observed]], seen: Mapping[str, Range]
) -> tuple[Range, ...]:
    """The range of a group of activations at each level; the same one again where a level cuts nothing.

    Args:
        group: activations with one scale.
        observed: activation name -> what was observed, in every file that has it.
        seen: activation name -> what its readers see; all of it where a name is not there.
    """
    scale, zero_point = group.scale
    now = ((-128 - zero_point) * scale, (127 - zero_point) * scale)
    low, high = now
    if all(name in seen for name in group.names):
        low = max(low, min(seen[name][0] for name in group.names))
        high = min(high, max(seen[name][1] for name in group.names))
    found = [now, _usable((low, high), now)]
    counted = [each.cuts for name in group.names for each in observed.get(name, ()) if len(each.cuts)]
    for level in range(len(CUT_SHARES)):
        if counted:
            low = max(found[1][0], min(float(cuts[level, 0]) for cuts in counted))
            high = min(found[1][1], max(float(cuts[level, 1]) for cuts in counted))
        found.append(_usable((low, high), found[-1]))
    return tuple(found)


def _usable(new: Range, old: Range) -> Range:
    """The new range, or the old one where the new one holds nothing."""
    low, high = min(new[0], 0.0), max(new[1], 0.0)
    return (low, high) if high - low > NOTHING else old


def scale_of(found: Range) -> Scale:
    """Scale (a float32) and zero point of a range that holds zero, as the quantiser computes them."""
    low, high = np.float32(found[0]), np.float32(found[1])
    scale = (high - low) / np.float32(255)
    return float(scale), int(-128 - np.rint(low / scale))
