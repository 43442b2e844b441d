"""Compiled files: real ones give their known figures, damaged ones one line."""

import random
import time
from pathlib import Path

import pytest

from graphcut.edgetpu import compiled
from graphcut.errors import GraphcutError, ModelError
from tests.support import places
from tests.support.compiled_files import compiled_file, executable, package

SHARED = places.SHARED / "edgetpu"
needs_real_files = pytest.mark.skipif(not SHARED.is_dir(), reason="no real compiled files beside the repository")

# file name -> cached, streamed, instructions, scratch, operators on the CPU
REAL = {
    "deeplabv3_mnv2_dm05_pascal_quant": (766720, 0, 168688, 0, 8),
    "keras_lstm_mnist_ptq": (43968, 576, 64016, 672, 0),
    "mobilenet_v1_0.25_128_quant": (566912, 0, 182656, 0, 0),
    "mobilenet_v1_0.5_160_quant": (1473280, 0, 218560, 0, 0),
    "mobilenet_v1_1.0_224_quant_embedding_extractor": (3363072, 0, 92272, 0, 0),
    "ssd_mobilenet_v2_coco_quant_postprocess_segment_0_of_2": (2914752, 0, 170480, 0, 0),
    "ssd_mobilenet_v2_coco_quant_postprocess_segment_1_of_2": (3608512, 0, 129296, 0, 3),
    "ssd_mobilenet_v2_coco_quant_postprocess_segment_0_of_3": (2171328, 0, 165520, 0, 0),
    "ssd_mobilenet_v2_coco_quant_postprocess_segment_1_of_3": (1991168, 0, 24800, 0, 0),
    "ssd_mobilenet_v2_coco_quant_postprocess_segment_2_of_3": (2360768, 0, 120352, 0, 3),
}


def found(name: str) -> Path:
    return next(SHARED.rglob(f"{name}_edgetpu.tflite"))


@needs_real_files
@pytest.mark.parametrize("name", sorted(REAL))
def test_real_files_give_their_figures(name: str) -> None:
    read = compiled.read(found(name))
    assert (
        read.cached_parameter_bytes,
        read.streamed_parameter_bytes,
        read.instruction_bytes,
        read.scratch_bytes,
        sum(read.cpu_ops.values()),
    ) == REAL[name]
    assert read.tpu_subgraphs == 1
    assert read.subgraphs[0].chip == "beagle"
    assert read.min_runtime_version == 12


@needs_real_files
def test_ports_of_a_real_file() -> None:
    part = compiled.read(found("mobilenet_v1_0.25_128_quant")).subgraphs[0]
    assert [(port.name, port.shape, port.size_bytes) for port in (*part.inputs, *part.outputs)] == [
        ("input", (128, 128, 3), 49152),
        ("MobilenetV1/Predictions/Reshape_1", (1, 1, 1001), 1008),
    ]


def test_a_made_file() -> None:
    read = compiled.parse(compiled_file(5000, 300, cpu_ops=["SOFTMAX", "SOFTMAX", "TANH"]), "made.tflite")
    assert (read.cached_parameter_bytes, read.streamed_parameter_bytes, read.instruction_bytes) == (5000, 300, 32)
    assert read.cpu_ops == {"SOFTMAX": 2, "TANH": 1}
    assert (read.inputs, read.outputs) == (("t0",), ("t4",))
    assert read.min_runtime_version == 14


def test_stand_alone_parameters_are_streamed_and_subgraphs_add_up() -> None:
    alone = package([executable(kind=0, parameters=b"x" * 640)], runtime=10)
    cached = package([executable(kind=2), executable(kind=1, parameters=b"y" * 128)])
    read = compiled.parse(compiled_file(packages=[alone, cached]), "made.tflite")
    assert read.tpu_subgraphs == 2
    assert (read.streamed_parameter_bytes, read.cached_parameter_bytes) == (640, 128)
    assert read.min_runtime_version == 14


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"TFL3", "not a TFLite file"),
        (b"PK\x03\x04 a zip file of some kind", "not a TFLite file"),
        (b"\x08\x00\x00\x00TFL3", "damaged"),
        (compiled_file(packages=[b"nothing in here"]), "contain no package"),
        (compiled_file(packages=[package([])]), "contains no executables"),
        (compiled_file(packages=[package([executable(kind=9)])]), "unknown type 9"),
        (compiled_file(packages=[package([executable(kind=2)], runtime=-3)]), "runtime version is -3"),
        (compiled_file(packages=[package([executable(kind=1)] * 70)]), "more than 64 executables"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_files_give_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad_edgetpu.tflite"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=said) as caught:
        compiled.read(path)
    assert "\n" not in str(caught.value)
    assert "bad_edgetpu.tflite" in str(caught.value)


def test_not_there_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        compiled.read(tmp_path / "none.tflite")
    with pytest.raises(ModelError, match="is a folder"):
        compiled.read(tmp_path)


def test_an_uncompiled_file_is_named_as_such() -> None:
    with pytest.raises(ModelError, match=r"not compiled for the Edge TPU.*graphcut compile"):
        compiled.parse(compiled_file(packages=[], cpu_ops=["RELU"]), "plain.tflite")


def damage(data: bytes, count: int, seed: int) -> list[bytes]:
    """Cut short, bits flipped, words overwritten with the extremes that offsets and lengths fear."""
    chance = random.Random(seed)
    spots = [chance.randrange(len(data)) for _ in range(count)]
    # Parameters cannot be told from damage; the structure sits at the two ends.
    edges = [
        chance.choice([chance.randrange(min(4096, len(data))), len(data) - 1 - chance.randrange(2048)]) for _ in spots
    ]
    made = []
    for number, (spot, edge) in enumerate(zip(spots, edges, strict=True)):
        copy = bytearray(data)
        match number % 4:
            case 0:
                del copy[spot:]
            case 1:
                copy[edge] ^= 1 << chance.randrange(8)
            case 2:
                for _ in range(8):
                    copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
                copy[edge] ^= 0xFF
            case _:
                word = chance.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\4\0\0\0"]
                )
                copy[edge : edge + 4] = word
        made.append(bytes(copy))
    return made


def one_line(error: GraphcutError) -> bool:
    assert "\n" not in str(error)
    assert len(str(error)) < 400
    return True


def survive(data: bytes, count: int, seed: int) -> int:
    refused = 0
    for bad in damage(data, count, seed):
        start = time.process_time()
        try:
            read = compiled.parse(bad, "bad.tflite")
            assert read.cached_parameter_bytes + read.streamed_parameter_bytes <= len(bad)
        except GraphcutError as error:
            refused += one_line(error)
        assert time.process_time() - start < 5
    return refused


def test_thousands_of_damaged_made_files() -> None:
    assert survive(compiled_file(2000, 500, cpu_ops=["SOFTMAX"]), 6000, seed=1) > 3000


@needs_real_files
@pytest.mark.parametrize("name", ["keras_lstm_mnist_ptq", "deeplabv3_mnv2_dm05_pascal_quant"])
def test_thousands_of_damaged_real_files(name: str) -> None:
    count = 2000 if name.startswith("keras") else 600
    assert survive(found(name).read_bytes(), count, seed=2) > count // 4


@needs_real_files
def test_transfers_of_streamed_parameters_are_read() -> None:
    (part,) = compiled.read(found("keras_lstm_mnist_ptq")).subgraphs
    assert [(each.offset_bytes, each.size_bytes) for each in part.transfers] == [(0, 576)]
    assert not part.transfers_complete
    (part,) = compiled.read(found("mobilenet_v1_0.25_128_quant")).subgraphs
    assert part.transfers == ()
    assert part.transfers_complete
    assert (len(part.cached), len(part.streamed)) == (566912, 0)
