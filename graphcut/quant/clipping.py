"""Narrower ranges, as candidates for a search.

1. *Values without effect.* HARD_SWISH is 0 below -3, RELU below 0, RELU6 outside of 0 .. 6, and the int8 of LOGISTIC
   and TANH does not change beyond a few units. An activation that only such operators read needs no values there: the
   result is the same.
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
    readers: dict[int, list[tuple[str, int]]] = {}
    sources: dict[int, frozenset[int]] = {}
    for operator in graph.operators:
        name = schema.op_name(model, operator)
        for index in {int(each) for each in operator.inputs}:
            readers.setdefault(index, []).append((name, int(operator.outputs[0])))
        sources[int(operator.outputs[0])] = frozenset(int(each) for each in operator.inputs)
    ends = {int(index) for index in graph.outputs}
    found = {}
    for index, reading in readers.items():
        if index < 0 or index in ends:
            continue
        gates = [made for name, made in reading if name == "LOGISTIC"]
        others = [(name, made) for name, made in reading if name != "LOGISTIC"]
        if gates and len(others) == 1 and others[0][0] == "MUL" and sources[others[0][1]] == {index, *gates}:
            found[schema.tensor_name(graph.tensors[index])] = (_SILU_FROM, np.inf)
            continue
        seen = [_SEEN.get(name, _EVERYTHING) for name, _ in reading]
        low, high = min(each[0] for each in seen), max(each[1] for each in seen)
        if (low, high) != _EVERYTHING:
            found[schema.tensor_name(graph.tensors[index])] = (low, high)
    return found


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
