"""Small compiled files, made field by field, for tests that need no real one."""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import schema


def executable(
    *,
    kind: int,
    parameters: bytes = b"",
    instructions: bytes = b"\0" * 16,
    token: int = 7,
    chip: str = "beagle",
    transfers: Sequence[tuple[int, int]] | None = None,
) -> bytes:
    """An executable; ``transfers`` are offsets and sizes of parameters that it lists as its DMA hints."""
    builder = flatbuffers.Builder(256)
    name, chip_text = builder.CreateString("model"), builder.CreateString(chip)
    stream = builder.CreateByteVector(instructions)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, stream, 0)
    chunk = builder.EndObject()
    builder.StartVector(4, 1, 4)
    builder.PrependUOffsetTRelative(chunk)
    chunks = builder.EndVector()
    blob = builder.CreateByteVector(parameters)
    layers = {}
    if kind != 1:
        for slot, (label, size) in {8: ("input", 48), 9: ("output", 16)}.items():
            text = builder.CreateString(label)
            builder.StartObject(5)
            builder.PrependUOffsetTRelativeSlot(0, text, 0)
            for field, value in ((1, size), (2, 1), (3, 1), (4, size)):
                builder.PrependInt32Slot(field, value, 0)
            layer = builder.EndObject()
            builder.StartVector(4, 1, 4)
            builder.PrependUOffsetTRelative(layer)
            layers[slot] = builder.EndVector()
    hints = None if transfers is None else _hints(builder, transfers)
    builder.StartObject(15)
    if hints is not None:
        builder.PrependUOffsetTRelativeSlot(7, hints, 0)
    builder.PrependUOffsetTRelativeSlot(1, name, 0)
    builder.PrependInt32Slot(4, 0, -1)
    builder.PrependUOffsetTRelativeSlot(5, chunks, 0)
    builder.PrependUOffsetTRelativeSlot(6, blob, 0)
    for slot, offset in layers.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    builder.PrependUOffsetTRelativeSlot(10, chip_text, 0)
    builder.PrependInt16Slot(13, kind, -1)
    builder.PrependUint64Slot(14, token, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def _hints(builder: flatbuffers.Builder, transfers: Sequence[tuple[int, int]]) -> int:
    """A table of DMA hints, all of parameters, which says that they are all."""
    made = []
    for offset, size in transfers:
        builder.StartObject(4)
        builder.PrependInt16Slot(0, 2, 0)
        meta = builder.EndObject()
        builder.StartObject(3)
        builder.PrependUOffsetTRelativeSlot(0, meta, 0)
        builder.PrependInt32Slot(1, offset, 0)
        builder.PrependInt32Slot(2, size, 0)
        descriptor = builder.EndObject()
        builder.StartObject(3)
        builder.PrependByteSlot(0, 1, 0)
        builder.PrependUOffsetTRelativeSlot(1, descriptor, 0)
        made.append(builder.EndObject())
    builder.StartVector(4, len(made), 4)
    for each in reversed(made):
        builder.PrependUOffsetTRelative(each)
    vector = builder.EndVector()
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    builder.PrependBoolSlot(1, True, False)
    return builder.EndObject()


def package(executables: Sequence[bytes], *, runtime: int = 14) -> bytes:
    builder = flatbuffers.Builder(256)
    strings = [builder.CreateByteVector(each) for each in executables]
    builder.StartVector(4, len(strings), 4)
    for string in reversed(strings):
        builder.PrependUOffsetTRelative(string)
    vector = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    builder.Finish(builder.EndObject())
    multi = bytes(builder.Output())

    builder = flatbuffers.Builder(256)
    payload, compiler = builder.CreateByteVector(multi), builder.CreateString("cl/")
    builder.StartObject(5)
    builder.PrependInt32Slot(0, runtime, 0)
    builder.PrependUOffsetTRelativeSlot(1, payload, 0)
    builder.PrependUOffsetTRelativeSlot(4, compiler, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"DWN1")
    return bytes(builder.Output())


def compiled_file(
    cached: int = 4096, streamed: int = 0, *, cpu_ops: Sequence[str] = (), packages: Sequence[bytes] | None = None
) -> bytes:
    """A compiled file with that many parameter bytes, followed by operators left on the CPU."""
    if packages is None:
        packages = [
            package([executable(kind=2, parameters=b"\1" * streamed), executable(kind=1, parameters=b"\2" * cached)])
        ]
    model: Any = fb.ModelT()
    model.version, model.description = 3, b"Exported from Subgraph."
    graph: Any = fb.SubGraphT()
    kinds: list[str] = []
    model.operatorCodes, graph.operators, graph.tensors = [], [], []
    for number in range(len(packages) + len(cpu_ops) + 1):
        tensor: Any = fb.TensorT()
        tensor.name, tensor.shape, tensor.type = f"t{number}".encode(), np.array([1, 16], np.int32), 9
        tensor.buffer = 0
        graph.tensors.append(tensor)
    for number, content in enumerate([*packages, *cpu_ops]):
        name = content if isinstance(content, str) else "CUSTOM"
        if name not in kinds:
            kinds.append(name)
            code: Any = fb.OperatorCodeT()
            code.version, code.builtinCode = 1, getattr(fb.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.customCode = b"edgetpu-custom-op" if name == "CUSTOM" else None
            model.operatorCodes.append(code)
        operator: Any = fb.OperatorT()
        operator.opcodeIndex = kinds.index(name)
        operator.inputs, operator.outputs = np.array([number], np.int32), np.array([number + 1], np.int32)
        if not isinstance(content, str):
            operator.customOptions = np.frombuffer(content, np.uint8)
        graph.operators.append(operator)
    graph.inputs = np.array([0], np.int32)
    graph.outputs = np.array([len(graph.tensors) - 1], np.int32)
    model.subgraphs, model.buffers = [graph], [fb.BufferT()]
    return schema.write(model)
