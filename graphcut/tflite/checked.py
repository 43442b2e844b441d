"""Read TFLite files of unknown origin: every offset is checked before generated code uses it.

:func:`graphcut.tflite.schema.read` is for files that graphcut wrote itself. A file from a user may be truncated,
damaged or not a TFLite file at all; here that is a :class:`ModelError` of one line, in bounded time and memory.
"""

from __future__ import annotations

import struct
from pathlib import Path

from graphcut.errors import ModelError
from graphcut.tflite import schema
from graphcut.tflite.bounds_check import DamagedError, Table, Walk
from graphcut.tflite.schema_types import ModelT

MOST_BYTES = 2**31 - 1
"""The reach of the offsets of a flatbuffer."""

# Field number -> what it is: a number's struct form, "text", "bytes", "numbers:<width>", "table:<kind>",
# "tables:<kind>". Only fields with offsets, or that generated code reads without checks, are listed.
_KINDS: dict[str, dict[int, str]] = {
    "model": {
        **{0: "I", 1: "tables:operator code", 2: "tables:subgraph", 3: "text", 4: "tables:buffer", 5: "numbers:4"},
        **{6: "tables:metadata", 7: "tables:signature"},
    },
    "operator code": {0: "b", 1: "text", 2: "i", 3: "i"},
    "subgraph": {0: "tables:tensor", 1: "numbers:4", 2: "numbers:4", 3: "tables:operator", 4: "text"},
    "tensor": {
        **{0: "numbers:4", 1: "b", 2: "I", 3: "text", 4: "table:quantisation", 5: "b", 6: "table:sparsity"},
        **{7: "numbers:4", 8: "b", 9: "tables:variant"},
    },
    "quantisation": {
        **{0: "numbers:4", 1: "numbers:4", 2: "numbers:4", 3: "numbers:8", 4: "B", 5: "table:options", 6: "i"},
    },
    "sparsity": {0: "numbers:4", 1: "numbers:4", 2: "tables:dimension"},
    "dimension": {0: "b", 1: "i", 2: "B", 3: "table:options", 4: "B", 5: "table:options"},
    "variant": {0: "numbers:4", 1: "b", 2: "b"},
    "operator": {
        **{0: "I", 1: "numbers:4", 2: "numbers:4", 3: "B", 4: "table:options", 5: "bytes", 6: "b", 7: "bytes"},
        **{8: "numbers:4", 9: "Q", 10: "Q", 11: "B", 12: "table:options", 13: "i"},
    },
    "options": {},
    "buffer": {0: "bytes", 1: "Q", 2: "Q"},
    "metadata": {0: "text", 1: "I"},
    "signature": {0: "tables:name", 1: "tables:name", 2: "text", 4: "I"},
    "name": {0: "text", 1: "I"},
}


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that may be a TFLite file.

    Raises:
        ModelError: the file does not exist, cannot be read, is empty, or is larger than a flatbuffer can be.
    """
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist" if not path.exists() else "is not a file"
            raise ModelError(f"{path} {what}", "pass the path of a .tflite file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ModelError(f"{path} has {size} bytes; the largest TFLite file has {MOST_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or error})") from error
    if not data:
        raise ModelError(f"{path} is empty", "write it again: the program that wrote it did not finish")
    return data


def read(data: bytes, subject: str) -> ModelT:
    """The ``ModelT`` of a TFLite file of unknown origin.

    Args:
        data: the file's bytes.
        subject: what to call it in errors (its path).

    Raises:
        ModelError: not a TFLite file, or truncated or damaged.
    """
    if len(data) < 8 or data[4:8] != schema.IDENTIFIER:
        raise ModelError(f"{subject} is not a TFLite file (its bytes 4 to 7 are not TFL3)", "pass a .tflite file")
    try:
        _verify(Walk(data).root(), "model")
        model = schema.read(data)
        _check_references(model)
    except (DamagedError, struct.error, ValueError, TypeError, IndexError, OverflowError) as error:
        # Options are read by generated code, which raises all of these for a field beyond the end of the file.
        raise ModelError(f"{subject} is damaged ({_one_line(error)})", "write or download it again") from error
    return model


def _verify(table: Table, kind: str) -> None:
    for number, form in _KINDS[kind].items():
        match form.partition(":"):
            case ("text" | "bytes", _, _):
                table.bytes(number)
            case ("numbers", _, width):
                place = table.follow(number)
                if place is not None:
                    table.walk.span(place, int(width), f"field {number} of {kind}")
            case ("table", _, inner):
                found = table.table(number, inner)
                if found is not None:
                    _verify(found, inner)
            case ("tables", _, inner):
                for found in table.tables(number, inner):
                    _verify(found, inner)
            case _:
                table.number(number, form)


def _check_references(model: ModelT) -> None:
    if not model.subgraphs or not model.buffers:
        raise DamagedError("it contains no graph")
    for code in model.operatorCodes or []:
        if max(code.builtinCode, code.deprecatedBuiltinCode) not in schema.OP_NAMES:
            raise DamagedError(f"operator code {max(code.builtinCode, code.deprecatedBuiltinCode)} is unknown")
        bytes(code.customCode or b"").decode()
    for graph in model.subgraphs:
        graph.tensors = graph.tensors or []
        graph.operators = graph.operators or []
        graph.inputs = [] if graph.inputs is None else graph.inputs
        graph.outputs = [] if graph.outputs is None else graph.outputs
        tensors = len(graph.tensors)
        for tensor in graph.tensors:
            schema.tensor_name(tensor)
            if not 0 <= tensor.buffer < len(model.buffers):
                raise DamagedError(f"a tensor refers to buffer {tensor.buffer} of {len(model.buffers)}")
            if tensor.type not in schema.TYPE_NAMES:
                raise DamagedError(f"tensor type {tensor.type} is unknown")
            if tensor.shape is not None and len(tensor.shape) > 8:
                raise DamagedError(f"a tensor has rank {len(tensor.shape)}")
        for operator in graph.operators:
            if not 0 <= operator.opcodeIndex < len(model.operatorCodes or []):
                raise DamagedError(f"an operator refers to operator code {operator.opcodeIndex}, which does not exist")
            operator.inputs = [] if operator.inputs is None else operator.inputs
            operator.outputs = [] if operator.outputs is None else operator.outputs
            if any(not -1 <= int(i) < tensors for i in operator.inputs) or any(
                not 0 <= int(i) < tensors for i in operator.outputs
            ):
                raise DamagedError("an operator refers to a tensor that does not exist")
        if any(not 0 <= int(i) < tensors for i in [*graph.inputs, *graph.outputs]):
            raise DamagedError("the graph's inputs or outputs refer to a tensor that does not exist")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."
