"""Mutations that keep a file's structure: one field has another value, one part is there twice or not at all.

A random byte seldom gets past a parser. These change what the parser understood: every field of a protobuf message by
its descriptor, every attribute of a flatbuffer's objects, every value of a JSON or TOML document, members of a zip
archive, objects of an HDF5 file. A share of all files has its bytes changed as well.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

INTEGERS = (0, 1, -1, 2, 3, 7, 255, 2**16, 2**20, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-38, 3e38, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "../../etc/passwd", "/etc/passwd", "\x1b[31mred", "a" * 5000, "Loop", "If", "\u202eabc", "\0", "loop")

Mutator = Callable[[random.Random, bytes], bytes]


def octets(rng: random.Random, content: bytes) -> bytes:
    """Some bytes changed, cut, repeated or inserted."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        place = rng.randrange(len(data))
        match rng.randrange(6):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place] = rng.choice((0, 1, 127, 128, 255))
            case 2:
                del data[place : place + rng.choice((1, 4, 64, len(data)))]
            case 3:
                data[place:place] = data[place : place + rng.choice((1, 8, 256))]
            case 4:
                data[place : place + 8] = rng.choice(INTEGERS).to_bytes(8, "little", signed=True)
            case _:
                data[place : place + 4] = (rng.choice(INTEGERS) & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(data)


def onnx_model(rng: random.Random, content: bytes) -> bytes:
    """Fields of an ONNX model changed."""
    import onnx

    model = onnx.load_from_string(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        message = _some_message(rng, model)
        _change_message(rng, message)
    made = model.SerializeToString()
    if rng.random() < 0.15:
        # Names that are not UTF-8 cannot be written with protobuf, and can be read.
        names = [name.encode() for node in model.graph.node for name in (*node.output, node.op_type) if len(name) > 2]
        if names:
            name = rng.choice(names)
            made = made.replace(name, bytes([rng.randrange(128, 256)]) + name[1:], rng.choice((1, -1)))
    return made if rng.random() < 0.9 else octets(rng, made)


def _some_message(rng: random.Random, message: Any) -> Any:
    """A message inside another one: nodes and attributes more often than weights."""
    while True:
        inner = []
        for field, value in message.ListFields():
            if field.type != FieldDescriptor.TYPE_MESSAGE:
                continue
            inner += list(value) if field.is_repeated else [value]
        if not inner or rng.random() < 0.12:
            return message
        message = rng.choice(inner)


def _change_message(rng: random.Random, message: Any) -> None:
    fields = list(message.DESCRIPTOR.fields) if rng.random() < 0.15 else [field for field, _ in message.ListFields()]
    if not fields:
        fields = list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    if field.is_repeated:
        _change_list(rng, getattr(message, field.name), field)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if rng.random() < 0.5:
            message.ClearField(field.name)
        else:
            getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, _value(rng, field))


def _change_list(rng: random.Random, values: Any, field: FieldDescriptor) -> None:
    scalar = field.type != FieldDescriptor.TYPE_MESSAGE
    action = rng.randrange(5)
    if action == 0 and values:
        del values[rng.randrange(len(values))]
    elif action == 1 and values:
        copied = rng.choice(list(values))
        values.append(copied)
    elif action == 2 and len(values) > 1:
        first, second = rng.sample(range(len(values)), 2)
        kept = list(values)
        kept[first], kept[second] = kept[second], kept[first]
        copies = kept if scalar else [_copied(each) for each in kept]
        del values[:]
        values.extend(copies)
    elif scalar and values:
        values[rng.randrange(len(values))] = _value(rng, field)
    elif scalar:
        values.append(_value(rng, field))
    else:
        values.add()


def _copied(message: Any) -> Any:
    other = type(message)()
    other.CopyFrom(message)
    return other


def _value(rng: random.Random, field: FieldDescriptor) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = rng.choice(TEXTS)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return rng.choice(FLOATS)
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice([value.number for value in field.enum_type.values])
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_INT32:
            return rng.choice([each for each in INTEGERS if -(2**31) <= each < 2**31])
        case FieldDescriptor.CPPTYPE_UINT32:
            return rng.choice([each for each in INTEGERS if 0 <= each < 2**32])
        case FieldDescriptor.CPPTYPE_UINT64:
            return rng.choice([each for each in INTEGERS if each >= 0])
    return rng.choice(INTEGERS)


def tflite_model(rng: random.Random, content: bytes) -> bytes:
    """Fields of a TFLite model's objects changed, packed again where that is possible."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as fb

    model = fb.ModelT.InitFromObj(fb.Model.GetRootAs(content, 0))
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change_object(rng, model)
    builder = flatbuffers.Builder(1024)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except Exception:  # a value that no flatbuffer holds
        return octets(rng, content)
    made = bytes(builder.Output())
    return made if rng.random() < 0.8 else octets(rng, made)


def _change_object(rng: random.Random, value: Any) -> None:
    while True:
        fields = vars(value)
        inner: list[Any] = []
        for each in fields.values():
            inner += [part for part in (each if isinstance(each, list) else [each]) if hasattr(part, "__dict__")]
        if not inner or rng.random() < 0.15:
            break
        value = rng.choice(inner)
    name = rng.choice(list(vars(value)))
    old = getattr(value, name)
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, int):
        new = rng.choice([each for each in INTEGERS if -(2**31) <= each < 2**31])
    elif isinstance(old, float):
        new = rng.choice(FLOATS)
    elif isinstance(old, list) and old:
        new = list(old)
        if rng.random() < 0.5:
            del new[rng.randrange(len(new))]
        else:
            new.append(rng.choice(new))
    elif hasattr(old, "size") and getattr(old, "size", 0):
        new = old.copy()
        if rng.random() < 0.3:
            new = new[: rng.randrange(new.size)]
        else:
            limits = (-(2**31), 2**31) if new.dtype.itemsize >= 4 else (0, 128)
            new.reshape(-1)[rng.randrange(new.size)] = rng.choice([n for n in INTEGERS if limits[0] <= n < limits[1]])
    else:
        new = None
    setattr(value, name, new)


def json_text(rng: random.Random, content: bytes) -> bytes:
    """Values of a JSON document changed."""
    document = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        document = _changed_value(rng, document)
    made = json.dumps(document).encode()
    return made if rng.random() < 0.9 else octets(rng, made)


def _changed_value(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: _changed_value(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], _changed_value(rng, value[place]), *value[place + (rng.random() < 0.8) :]]
    return rng.choice((None, True, -1, 0, 2**70, 1e999, "", "x", "../..", "/etc/passwd", [], {}, [[[]]], *TEXTS))


def toml_text(rng: random.Random, content: bytes) -> bytes:
    """Values of a recipe changed."""
    lines = content.decode().splitlines()
    places = [number for number, line in enumerate(lines) if "=" in line]
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.choice(places)
        name = lines[place].split("=")[0]
        value = rng.choice(
            (
                '"x"',
                "-1",
                "0",
                "1e999",
                "nan",
                "[]",
                '""',
                "9" * 5000,
                "[" * 3000,
                "true",
                '"imagenet"',
                '"/etc/passwd"',
            )
        )
        lines[place] = rng.choice((f"{name}= {value}", lines[place] + "\n" + lines[place], "", f"new{place} = {value}"))
    made = "\n".join(lines).encode()
    return made if rng.random() < 0.8 else octets(rng, made)


def folder(rng: random.Random, content: bytes) -> bytes:
    """One file of a split changed, in a zip archive of its folder; mostly its hash in the manifest as well."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {entry.filename: old.read(entry) for entry in old.infolist()}
    kinds: dict[str, Mutator] = {".json": json_text, ".tflite": tflite_model, ".onnx": onnx_model, ".npz": archive}
    name = rng.choice([each for each in sorted(members) if Path(each).suffix in kinds])
    if rng.random() < 0.3:
        name = "meta.json"
    changed = kinds[Path(name).suffix](rng, members[name])
    same = [each for each in members if members[each] == members[name]] if rng.random() < 0.8 else [name]
    members.update(dict.fromkeys(same, changed))
    if name != "meta.json" and rng.random() < 0.9:
        document = json.loads(members["meta.json"])
        for each in same:
            if each in document["files"]:
                document["files"][each] = {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
        members["meta.json"] = json.dumps(document).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as new:
        for each, data in members.items():
            new.writestr(zipfile.ZipInfo(each), data)
    return target.getvalue()


def archive(rng: random.Random, content: bytes, inside: Mutator = octets) -> bytes:
    """One member of a zip archive changed, renamed or repeated; or the archive's own bytes."""
    if rng.random() < 0.3:
        return octets(rng, content)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        entries = old.infolist()
        chosen = rng.choice(entries)
        for entry in entries:
            data, name = old.read(entry), entry.filename
            if entry is chosen:
                match rng.randrange(5):
                    case 0:
                        continue
                    case 1:
                        name = rng.choice(("../x", "/etc/passwd", "x" * 300, name.upper()))
                    case 2:
                        data = rng.choice((b"", b"\x80\x04.", b"{}", data[: len(data) // 2]))
                    case 3 if name.endswith(".json"):
                        data = json_text(rng, data)
                    case _:
                        data = inside(rng, data)
            packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            new.writestr(zipfile.ZipInfo(name), data, packing)  # without the time of day
    return target.getvalue()
