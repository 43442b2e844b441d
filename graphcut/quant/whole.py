"""Give each part of a layer the weight scale of the whole layer, where weights have per-tensor scales.

1. A layer that is split by output channels must come out with the bytes of the unsplit one, so its parts need the
   scale of all its weights: their largest absolute value / 127. Per-channel scales are not affected: a channel is in
       one part.
2. The quantiser takes the scale from the weights it sees. So in the float model one weight of the part is set to the
   whole's largest (:func:`plant`), and in the int8 model to what it was (:func:`restore`). All others are rounded by
   the quantiser itself, as it would have done in the whole.

Tensors are known by the name of what the part's operator makes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT


def largest_of(name: str, largest: Mapping[str, float]) -> float:
    """The whole's largest absolute weight for the part that makes a tensor; 0 where it is no part's."""
    return largest.get(name, largest.get(name.removesuffix(edit.MAP_ENDING), 0.0))


def plant(model: ModelT, largest: Mapping[str, float], *, per_channel: bool) -> dict[str, float]:
    """Let parts have their whole's largest weight.

    Args:
        model: the float ``ModelT``, changed in place.
        largest: activation made by a part -> the largest absolute weight of the whole layer.
        per_channel: weights other than those of FULLY_CONNECTED will have one scale per channel.

    Returns:
        What the first weight was, by the name of what the operator makes; for :func:`restore`.
    """
    graph = edit.graph_of(model)
    planted = {}
    for operator in graph.operators:
        if per_channel and schema.op_name(model, operator) != "FULLY_CONNECTED":
            continue
        name = schema.tensor_name(graph.tensors[int(operator.outputs[0])])
        value = largest_of(name, largest)
        weights = schema.constant(model, graph.tensors[int(operator.inputs[1])]) if value else None
        if weights is None or float(np.abs(weights).max(initial=0.0)) >= value:
            continue
        changed = weights.copy()
        planted[name] = float(changed.reshape(-1)[0])
        changed.reshape(-1)[0] = value
        schema.set_constant(model, graph.tensors[int(operator.inputs[1])], changed)
    return planted


def restore(model: ModelT, planted: Mapping[str, float]) -> None:
    """Put the weights that :func:`plant` changed back, quantised.

    Args:
        model: the int8 ``ModelT``, changed in place.
        planted: from :func:`plant`.

    Raises:
        ValueError: an operator is not there any more, or its weights have not one scale (a bug).
    """
    graph = edit.graph_of(model)
    left = dict(planted)
    for operator in graph.operators:
        value = left.pop(schema.tensor_name(graph.tensors[int(operator.outputs[0])]), None)
        if value is None:
            continue
        tensor = graph.tensors[int(operator.inputs[1])]
        weights = schema.constant(model, tensor)
        if weights is None or weights.dtype != np.int8 or len(schema.quantization(tensor).scale) != 1:
            raise ValueError(f"{schema.tensor_name(tensor)} has not one int8 scale")
        changed = weights.copy()
        step = np.float32(value) / np.float32(schema.quantization(tensor).scale[0])
        changed.reshape(-1)[0] = np.clip(np.rint(step), -127, 127).astype(np.int8)
        schema.set_constant(model, tensor, changed)
    if left:
        raise ValueError(f"no operator makes {', '.join(sorted(left))}")
