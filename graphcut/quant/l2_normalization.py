"""L2_NORMALIZATION in int8, which ai-edge-quantizer 0.5.1 leaves in float between a DEQUANTIZE and a QUANTIZE.

The int8 kernel sums squares in int32 and writes 1/128 with zero point 0 (:mod:`graphcut.quant.scale_rules`); where the
file has another scale, the QUANTIZE stays.
"""

from __future__ import annotations

import numpy as np

from graphcut.quant.scale_rules import PRESCRIBED
from graphcut.tflite import edit, schema
from graphcut.tflite.schema_types import ModelT

_KIND = "L2_NORMALIZATION"


def in_int8(model: ModelT) -> int:
    """Let every L2_NORMALIZATION between int8 tensors work on them, in place; returns their number."""
    graph, makers = edit.graph_of(model), edit.producers(model)
    changed = 0
    for operator in graph.operators:
        if schema.op_name(model, operator) != _KIND:
            continue
        before, made = makers.get(int(operator.inputs[0])), int(operator.outputs[0])
        readers = [each for each in graph.operators if made in {int(index) for index in each.inputs}]
        if before is None or schema.op_name(model, before) != "DEQUANTIZE" or made in {int(i) for i in graph.outputs}:
            continue
        if any(schema.op_name(model, reader) != "QUANTIZE" for reader in readers):
            continue
        operator.inputs = np.array([before.inputs[0]], np.int32)
        inner = edit.add_int8(model, made, f"{schema.tensor_name(graph.tensors[made])}_unit", *PRESCRIBED[_KIND])
        operator.outputs = np.array([inner], np.int32)
        for reader in readers:
            reader.inputs = np.array([inner], np.int32)
        changed += 1
    if changed:
        edit.drop_unread(model)
    return changed
