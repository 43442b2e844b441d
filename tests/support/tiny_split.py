"""Small int8 segments written with the TFLite schema itself, laid out as a split's output folder; for runtime tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as fb

from graphcut.tflite import edit, schema
from graphcut.tflite.join import join

SCALE, ZERO = 0.05, -3


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operator: ADD of two tensors, or a 3x3 CONV_2D with seeded weights."""

    kind: str
    reads: tuple[str, ...]
    makes: str


def segment(
    ops: Sequence[Op],
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    shape: tuple[int, ...] = (1, 8, 8, 4),
    scale: float = SCALE,
    seed: int = 0,
) -> bytes:
    """The bytes of an int8 file; every activation has the same shape, scale and zero point."""
    model, graph = fb.ModelT(), fb.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [fb.BufferT()]
    model.operatorCodes, graph.tensors, graph.operators, graph.name = [], [], [], b"main"
    index: dict[str, int] = {}

    def tensor(name: str, dims: Sequence[int], kind: int, scales: Sequence[float], zeros: Sequence[int]) -> int:
        made = fb.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), np.array(dims, np.int32), kind, 0
        made.quantization = fb.QuantizationParametersT()
        made.quantization.scale = np.array(scales, np.float32)
        made.quantization.zeroPoint = np.array(zeros, np.int64)
        graph.tensors.append(made)
        index[name] = len(graph.tensors) - 1
        return index[name]

    def activation(name: str) -> int:
        return index[name] if name in index else tensor(name, shape, fb.TensorType.INT8, [scale], [ZERO])

    def operator(kind: str, reads: Sequence[int], makes: int) -> object:
        code = fb.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(fb.BuiltinOperator, kind)
        code.version = {"ADD": 2, "CONV_2D": 3}[kind]
        model.operatorCodes.append(code)
        made = fb.OperatorT()
        made.opcodeIndex = len(model.operatorCodes) - 1
        made.inputs, made.outputs = np.array(reads, np.int32), np.array([makes], np.int32)
        graph.operators.append(made)
        return made

    for name in inputs:
        activation(name)
    for op in ops:
        reads = [activation(name) for name in op.reads]
        if op.kind == "ADD":
            made = operator("ADD", reads, activation(op.makes))
            made.builtinOptionsType, made.builtinOptions = fb.BuiltinOptions.AddOptions, fb.AddOptionsT()
            continue
        channels = shape[-1]
        rng = np.random.default_rng([seed, *op.makes.encode()])
        weights = tensor(f"{op.makes}/w", (channels, 3, 3, channels), fb.TensorType.INT8, [0.01], [0])
        schema.set_constant(model, graph.tensors[weights], rng.integers(-90, 90, (channels, 3, 3, channels), np.int8))
        bias = tensor(f"{op.makes}/b", (channels,), fb.TensorType.INT32, [0.01 * scale], [0])
        schema.set_constant(model, graph.tensors[bias], rng.integers(-900, 900, channels, np.int32))
        made = operator("CONV_2D", [*reads, weights, bias], activation(op.makes))
        options = fb.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = fb.Padding.SAME, 1, 1
        options.dilationHFactor = options.dilationWFactor = 1
        made.builtinOptionsType, made.builtinOptions = fb.BuiltinOptions.Conv2DOptions, options
    edit.set_interface(model, [index[name] for name in inputs], [index[name] for name in outputs])
    edit.compact(model)
    return schema.write(model)


def conv(reads: str, makes: str) -> Op:
    return Op(kind="CONV_2D", reads=(reads,), makes=makes)


def add(first: str, second: str, makes: str) -> Op:
    return Op(kind="ADD", reads=(first, second), makes=makes)


def straight(k: int = 3, *, shape: tuple[int, ...] = (1, 8, 8, 4), convs: int = 2) -> list[bytes]:
    """K segments in a row: image -> s1 -> s2 .. -> s{k}."""
    parts = []
    for index in range(1, k + 1):
        names = [f"s{index - 1}" if index > 1 else "image"]
        names += [f"s{index}_{inner}" for inner in range(1, convs)] + [f"s{index}"]
        ops = [conv(before, after) for before, after in pairwise(names)]
        parts.append(segment(ops, [names[0]], [names[-1]], shape=shape))
    return parts


def branched() -> list[bytes]:
    """Two inputs, a tensor that skips two segments, and two outputs, one of them made early."""
    return [
        segment([conv("left", "a"), conv("left", "skip")], ["left"], ["a", "skip"]),
        segment([add("a", "right", "b"), conv("b", "early")], ["a", "right"], ["b", "early"]),
        segment([conv("b", "c")], ["b"], ["c"]),
        segment([add("c", "skip", "d"), conv("d", "late")], ["c", "skip"], ["late"]),
    ]


def write_split(
    folder: Path, parts: Sequence[bytes], outputs: Sequence[str], inputs: Sequence[str] = (), *, meta: bool = True
) -> Path:
    """Write the folder that a split leaves: chain, every prefix + tail, unsplit, ``meta.json``."""
    last = len(parts)

    def put(place: str, data: bytes) -> None:
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    for index, data in enumerate(parts, start=1):
        put(f"full_split/tflite/seg{index}_int8.tflite", data)
        for k in range(index + 1, last + 1):
            put(f"pairs_k{k}/tflite/seg{index}_int8.tflite", data)
    for first in range(1, last + 1):
        rest = parts[first - 1 :]
        own = {
            schema.tensor_name(model.subgraphs[0].tensors[int(i)])
            for model in map(schema.read, rest)
            for i in model.subgraphs[0].outputs
        }
        data = join(rest, [name for name in outputs if name in own], "tiny")
        place = "unsplit/unsplit" if first == 1 else f"pairs_k{first}/tflite/tail_seg{first}_to_{last}"
        put(f"{place}_int8.tflite", data)
    if meta:
        document = {
            "schema_version": 1,
            "graphcut_version": "0",
            "source": {"kind": "onnx", "name": "tiny", "sha256": ""},
            "options": {"preprocessing": {"mean": [127.5], "std": [127.5], "colour": "rgb", "layout": None}},
            "calibration": {"synthetic": True},
            "inputs": [{"name": name, "int8": {"layer": name}} for name in inputs or ("image",)],
            "outputs": [{"layer": name} for name in outputs],
            "verification": {"runtime": "somewhere"},
        }
        (folder / "meta.json").write_text(json.dumps(document))
    return folder


def images(count: int, shape: tuple[int, ...] = (1, 8, 8, 4), seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(-128, 128, (count, *shape), dtype=np.int8))
