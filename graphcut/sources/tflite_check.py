"""Check a TFLite file before it is converted.

Every offset is checked first (:mod:`graphcut.tflite.checked`), so a damaged file is an error of one line, not a crash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphcut.errors import ModelError
from graphcut.records import Shape
from graphcut.sources import tflite_rewrite
from graphcut.tflite import checked, densify, schema

COMPILED = "edgetpu-custom-op"
_CONTROL = frozenset({"CALL_ONCE", "IF", "WHILE"})
_FLOATS = ("FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A TFLite file that can be converted.

    Attributes:
        quantised: some of its tensors are integers that represent real numbers.
        inputs, outputs: tensor name -> name in the file's signature; empty where it has none.
        shapes: name of an input as users know it -> its shape in the file.
        rewritten: the converter needs the file in another form: tensors share a name or have none, or weights are
            sparse.
    """

    quantised: bool
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    shapes: Mapping[str, Shape]
    rewritten: bool


def check(path: Path, subject: str) -> Checked:
    """Check a file.

    Raises:
        ModelError: not a TFLite file, damaged, or with an operator that has no counterpart in ONNX.
    """
    model = checked.read(checked.read_bytes(path), subject)
    for graph in model.subgraphs:
        for operator in graph.operators:
            _refuse_custom(model, graph, operator, subject)
            _refuse_kind(model, graph, operator, subject)
    graph = model.subgraphs[0]
    if not len(graph.inputs) or not len(graph.outputs):
        raise ModelError(f"{subject} has no inputs or no outputs", "convert the model again")
    names = Counter(schema.tensor_name(tensor) for each in model.subgraphs for tensor in each.tensors)
    inputs = _signature(model, "inputs")
    return Checked(
        quantised=any(_is_quantised(tensor) for each in model.subgraphs for tensor in each.tensors),
        inputs=inputs,
        outputs=_signature(model, "outputs"),
        shapes=tflite_rewrite.input_shapes(model, inputs),
        rewritten="" in names or max(names.values()) > 1 or densify.has_sparse(model),
    )


def _refuse_custom(model: Any, graph: Any, operator: Any, subject: str) -> None:
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode is None:
        return
    custom = bytes(code.customCode).decode()
    if custom == COMPILED:
        raise ModelError(f"{subject} is already compiled for the Edge TPU", "pass the file that it was compiled from")
    made = [schema.tensor_name(graph.tensors[int(index)]) for index in operator.outputs]
    raise ModelError(
        f"{subject}: {made[0] if made else '?'!r} is produced by the custom operator {custom!r}, whose code is not in "
        f"the "
        "file",
        "convert the model without it",
    )


def _refuse_kind(model: Any, graph: Any, operator: Any, subject: str) -> None:
    kind = schema.op_name(model, operator)
    recurrent = kind.endswith(("LSTM", "RNN")) or kind == "SVDF"
    if recurrent or kind in _CONTROL:
        what = "is recurrent" if recurrent else "is control flow, which is not supported"
        made = schema.tensor_name(graph.tensors[int(operator.outputs[0])]) if len(operator.outputs) else "?"
        raise ModelError(f"{subject}: {made!r} ({kind}) {what}", "graphcut splits feed-forward networks")


def _is_quantised(tensor: Any) -> bool:
    found = tensor.quantization
    scaled = found is not None and found.scale is not None and len(found.scale) > 0
    return scaled and schema.TYPE_NAMES[tensor.type] not in _FLOATS


def _signature(model: Any, side: str) -> dict[str, str]:
    """Tensor -> name in the first signature of the main graph, where those names are distinct."""
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            tensors = model.subgraphs[0].tensors
            entries = [
                (entry.tensorIndex, bytes(entry.name or b"").decode(errors="replace"))
                for entry in getattr(signature, side) or []
            ]
            return {
                schema.tensor_name(tensors[index]): name for index, name in entries if name and index < len(tensors)
            }
    return {}
