"""The proof of a compiled file: real pairs to the last byte, altered ones found, and layouts by a plain second way."""

import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from graphcut.edgetpu import compiled, layers_of_file
from graphcut.edgetpu.byte_proof import (
    CACHED,
    DIFFERENT,
    EQUAL,
    NOT_COVERED,
    STREAMED,
    ByteProof,
    compare,
    expected_layers,
    prove,
    prove_read,
)
from graphcut.edgetpu.compiled import CompiledFile
from graphcut.tflite import checked
from tests.support.compiled_files import compiled_file, executable, package
from tests.support.made_tflite import Made
from tests.support.places import SHARED

PAIRS = SHARED / "edgetpu" / "pairs"
needs_real_files = pytest.mark.skipif(not PAIRS.is_dir(), reason="no real compiled files beside the repository")
COVERED = [
    "deeplabv3_mnv2_dm05_pascal_quant",
    "mobilenet_v1_0.25_128_quant",
    "mobilenet_v1_0.5_160_quant",
    "mobilenet_v1_1.0_224_quant_embedding_extractor",
]
LSTM = "keras_lstm_mnist_ptq"


@cache
def pair(name: str) -> tuple[CompiledFile, Any]:
    return compiled.read(PAIRS / f"{name}_edgetpu.tflite"), layers_of_file.uncompiled(PAIRS / f"{name}.tflite")


def with_cached(found: CompiledFile, data: bytes) -> CompiledFile:
    (part,) = found.subgraphs
    return replace(found, subgraphs=(replace(part, cached=data, cached_parameter_bytes=len(data)),))


@needs_real_files
@pytest.mark.parametrize("name", COVERED)
def test_every_byte_of_a_real_pair_is_accounted_for(name: str) -> None:
    proof = prove(PAIRS / f"{name}_edgetpu.tflite", PAIRS / f"{name}.tflite")
    assert proof.proven
    assert proof.findings == proof.uncovered == ()
    assert sum(each.size_bytes for each in proof.layers) == pair(name)[0].cached_parameter_bytes
    assert {each.place for each in proof.layers} == {CACHED}


@needs_real_files
def test_what_is_not_covered_is_named_and_the_rest_compared() -> None:
    proof = prove_read(*pair(LSTM), LSTM)
    assert not proof.proven
    assert proof.findings == ()
    assert proof.uncovered == ("UNIDIRECTIONAL_SEQUENCE_LSTM",)
    assert [(each.op, each.status) for each in proof.layers] == [
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", NOT_COVERED),
        ("FULLY_CONNECTED", EQUAL),
        ("SOFTMAX", EQUAL),
    ]
    assert proof.unclaimed_bytes == 44544 - 9024 - 576


@needs_real_files
@pytest.mark.parametrize("kind", ["altered", "swapped", "missing", "doubled"])
def test_of_a_thousand_mutations_every_one_is_found(kind: str) -> None:
    """250 of each kind. Bytes that happen to be equal are no mutation and are drawn again."""
    name = "mobilenet_v1_0.25_128_quant"
    found, model = pair(name)
    expected = expected_layers(model, name)
    data, draw = found.subgraphs[0].cached, random.Random(kind)
    for number in range(250):
        changed = data
        while changed == data:
            changed = mutated(kind, data, draw)
        proof = compare(with_cached(found, changed), expected)
        assert proof.findings, (kind, number)
        assert not proof.proven


def mutated(kind: str, data: bytes, draw: random.Random) -> bytes:
    """Data with one byte altered, two swapped, or up to 200 missing or doubled."""
    at, other = sorted((draw.randrange(len(data)), draw.randrange(len(data))))
    count = draw.randrange(1, 200)
    if kind == "altered":
        return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
    if kind == "missing":
        return data[:at] + data[at + count :]
    if kind == "doubled":
        return data[:at] + data[at : at + count] + data[at:]
    changed = bytearray(data)
    changed[at], changed[other] = changed[other], changed[at]
    return bytes(changed)


@needs_real_files
def test_layers_of_one_shape_that_changed_places_are_found() -> None:
    name = "mobilenet_v1_1.0_224_quant_embedding_extractor"
    found, model = pair(name)
    proof = prove_read(found, model, name)
    spans, at = {}, 0
    for number, each in enumerate(proof.layers):
        spans[number] = (at, at + each.size_bytes)
        at += each.size_bytes
    same = [number for number, each in enumerate(proof.layers) if each.size_bytes == 264192]
    (a, b), (c, d) = spans[same[0]], spans[same[1]]
    data = found.subgraphs[0].cached
    mixed = data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]
    wrong = prove_read(with_cached(found, mixed), model, name)
    assert [number for number, each in enumerate(wrong.layers) if each.status == DIFFERENT] == same[:2]


@needs_real_files
def test_another_models_weights_are_found() -> None:
    found, _ = pair("mobilenet_v1_0.25_128_quant")
    _, other = pair("mobilenet_v1_0.5_160_quant")
    assert prove_read(found, other, "other").findings


def made_conv(channels: int, kernel: int, *, depthwise: bool = False) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """An int8 convolution with a scale for each channel: its model, weights, scales and biases."""
    draw = np.random.default_rng(channels)
    made, fed = Made(), 6
    out_channels = fed if depthwise else channels
    shape = (1, kernel, kernel, fed) if depthwise else (channels, kernel, kernel, fed)
    weights = draw.integers(-127, 128, shape, dtype=np.int8)
    scales = draw.uniform(0.01, 0.02, out_channels).astype(np.float32)
    biases = draw.integers(-1000, 1000, out_channels, dtype=np.int32)
    source, out = made.tensor((1, 8, 8, fed), scale=0.5), made.tensor((1, 8, 8, out_channels), scale=0.25)
    axis = 3 if depthwise else 0
    given = [
        source,
        made.tensor(shape, scale=scales.tolist(), data=weights, axis=axis),
        made.tensor((out_channels,), dtype=np.int32, data=biases),
    ]
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    made.op(kind, given, [out], strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    return checked.read(made.done([source], [out]), "made"), weights, scales, biases


def plainly(weights: np.ndarray, scales: np.ndarray, biases: np.ndarray, *, depthwise: bool = False) -> bytes:
    """The layout in plain loops, int8, zero point 0."""
    out = bytearray()
    channels = weights.shape[3] if depthwise else weights.shape[0]
    step = 4 if depthwise else 64
    padded = (
        -(-channels // 4) * 4
        if depthwise
        else -(-channels // (64 if channels > 64 else 16)) * (64 if channels > 64 else 16)
    )
    for first in range(0, padded, step):
        group = range(first, min(first + step, padded))
        for channel in group:
            out += np.float32(scales[channel] * np.float32(2.0) if channel < channels else 0).tobytes()
        for channel in group:
            out += np.int32(biases[channel] if channel < channels else 0).tobytes()
        for channel in group:
            out += np.int32(128 if channel < channels else 0).tobytes()
        kernel = weights.shape[1]
        for y in range(kernel):
            for x in range(kernel):
                for column in range(0, 4 if depthwise else weights.shape[3], 4):
                    for channel in group:
                        for place in range(column, column + 4):
                            value = 0x80
                            if depthwise and channel < channels and place == channel % 4:
                                value = int(weights[0, y, x, channel]) & 0xFF ^ 0x80
                            if not depthwise and channel < channels and place < weights.shape[3]:
                                value = int(weights[channel, y, x, place]) & 0xFF ^ 0x80
                            out.append(0 if channel >= -(-channels // 4) * 4 else value)
    return bytes(out) + bytes(-len(out) % 64)


def proof_of(model: Any, cached: bytes, streamed: bytes = b"") -> ByteProof:
    data = package([executable(kind=2, parameters=streamed), executable(kind=1, parameters=cached)])
    return prove_read(compiled.parse(compiled_file(packages=[data]), "made"), model, "made")


@pytest.mark.parametrize(
    ("channels", "kernel", "depthwise"), [(10, 1, False), (70, 3, False), (64, 1, False), (6, 3, True)]
)
def test_layouts_of_int8_layers_with_a_scale_for_each_channel(channels: int, kernel: int, depthwise: bool) -> None:
    model, *values = made_conv(channels, kernel, depthwise=depthwise)
    right = plainly(*values, depthwise=depthwise)
    proof = proof_of(model, right)
    assert proof.findings == ()
    assert proof.proven
    for offset in (0, 4 * (4 if depthwise else min(channels, 64)), len(right) // 2):
        wrong = bytearray(right)
        wrong[offset + 2] ^= 0x11
        assert proof_of(model, bytes(wrong)).findings != ()


def test_a_streamed_layer_is_found_among_the_streamed_parameters() -> None:
    model, *values = made_conv(64, 1)
    proof = proof_of(model, b"", plainly(*values))
    assert [(each.status, each.place) for each in proof.layers] == [(EQUAL, STREAMED)]
    assert proof.proven


def test_bytes_that_belong_to_no_layer_are_a_finding() -> None:
    model, *values = made_conv(64, 1)
    proof = proof_of(model, plainly(*values) + bytes(64))
    assert proof.findings == ("64 bytes of parameters belong to no layer",)


def test_a_layer_that_is_not_there_is_a_finding() -> None:
    model, *_ = made_conv(64, 1)
    (line,) = proof_of(model, b"").findings
    assert "bytes are missing" in line
