"""compile, check, cost and inspect from the command line, on a real small split and a stand-in compiler."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graphcut import cli
from graphcut.edgetpu import compiled
from graphcut.result import manifest
from tests.cli.test_cli import PREPARED, Graphcut
from tests.support import nets, places
from tests.support.compiled_files import compiled_file, executable, package
from tests.support.made_tflite import Made
from tests.support.stand_in_compiler import GOOD, install

SHARED = places.SHARED / "edgetpu"
needs_real_files = pytest.mark.skipif(not SHARED.is_dir(), reason="no real compiled files beside the repository")
CACHED = 40_000
NAMES = ["seg1_int8.tflite", "seg2_int8.tflite", "seg3_int8.tflite"]
TAILS = ["tail_seg2_to_3_int8.tflite", "tail_seg3_to_3_int8.tflite"]


@pytest.fixture
def graphcut(capsys: pytest.CaptureFixture[str]) -> Graphcut:
    return Graphcut(capsys)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    nets.saved(nets.residual(softmax=True), folder)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(3)
    for index in range(3):
        small = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(small).resize((60, 50), Image.Resampling.BICUBIC).save(folder / "photos" / f"{index}.png")
    words = ["split", folder / "model.onnx", "-o", folder / "out", "--segments", 3, "-q"]
    assert cli.main([str(word) for word in [*words, "--calibration", folder / "photos", *PREPARED]]) in (0, 7)
    return folder / "out"


@pytest.fixture
def out(split: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(split, tmp_path / "out"))


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """Install the stand-in: nothing streams unless told."""

    def make(mode: Any = "ok", streamed: int = 0, on_cpu: Sequence[str] = ()) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "answer.tflite").write_bytes(compiled_file(CACHED, streamed, cpu_ops=list(on_cpu)))
        return install(folder, mode=mode, answer=folder / "answer.tflite", numbers=[CACHED, streamed, 1, len(on_cpu)])

    return make


# --- compile ---


def test_compile_a_split(graphcut: Graphcut, out: Path, program: Any) -> None:
    ended = graphcut("compile", out, "--compiler", program(), "--json")
    assert ended.code == 0, ended.err
    document = ended.document
    assert (document["clean"], document["trouble"]) == (True, "")
    assert document["compiler_version"] == GOOD
    assert list(document["parts"]) == [*NAMES, *TAILS]
    part = document["parts"]["seg2_int8.tflite"]
    assert part["status"] == "compiled"
    assert (part["on_chip_bytes"], part["off_chip_bytes"], part["tpu_subgraphs"]) == (CACHED, 0, 1)
    assert part["on_chip_remaining_bytes"] == round(5.74 * 2**20)
    assert (part["tpu_ops"], part["cpu_ops"]) == (3, [])
    assert part["statuses"] == [{"op": "CONV_2D", "count": 3, "status": "Mapped to Edge TPU"}]
    assert part["seconds"] > 0
    made = {path.name for path in (out / "full_split" / "tpu").iterdir()}
    assert made == {f"seg{n}_int8_edgetpu.{suffix}" for n in (1, 2, 3) for suffix in ("tflite", "log", "out.txt")}
    assert (out / "pairs_k2" / "tpu" / "tail_seg2_to_3_int8_edgetpu.tflite").is_file()
    assert compiled.read(out / "pairs_k3" / "tpu" / "seg2_int8_edgetpu.tflite").cached_parameter_bytes == CACHED
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_the_manifest_and_the_note_know(graphcut: Graphcut, out: Path, program: Any) -> None:
    before = json.loads((out / "meta.json").read_text())
    assert graphcut("compile", out, "--compiler", program()).code == 0
    read = manifest.read(out)
    manifest.check_files(read)
    assert read.document["edgetpu"]["compiler_version"] == GOOD
    assert "full_split/tpu/seg1_int8_edgetpu.tflite" in read.document["files"]
    assert "full_split/tpu/seg1_int8_edgetpu.log" in read.document["files"]
    kept = {key: value for key, value in read.document.items() if key not in ("edgetpu", "files")}
    assert kept == {key: value for key, value in before.items() if key != "files"}
    assert f"compiled for the Edge TPU by edgetpu_compiler {GOOD}" in (out / "note.txt").read_text()
    assert "seg3_int8.tflite" in (out / "note.txt").read_text()


def test_compile_for_people(graphcut: Graphcut, out: Path, program: Any) -> None:
    ended = graphcut("compile", out, "--compiler", program())
    assert "off chip" in ended.out
    assert "3 on the chip, 0 on the CPU" in ended.out


def test_a_segment_that_streams_fails_the_verdict_but_all_is_kept(graphcut: Graphcut, out: Path, program: Any) -> None:
    ended = graphcut("compile", out, "--compiler", program(streamed=300_000), "--json")
    assert ended.code == 11
    assert "seg1_int8.tflite streams 293.0 KiB at every inference (and 2 more)" in ended.err
    assert ended.document["clean"] is False
    assert len(list((out / "full_split" / "tpu").glob("*.tflite"))) == 3
    manifest.check_files(manifest.read(out))


def test_operators_on_the_cpu_fail_the_verdict_but_all_is_kept(graphcut: Graphcut, out: Path, program: Any) -> None:
    ended = graphcut("compile", out, "--compiler", program(on_cpu=["SOFTMAX", "SOFTMAX"]), "--json")
    assert ended.code == 11
    told = "operators of seg1_int8.tflite stay on the CPU (SOFTMAX x2) (and 2 more)"
    assert told in ended.err
    assert (ended.document["clean"], ended.document["trouble"]) == (False, told)
    assert len(list((out / "full_split" / "tpu").glob("*.tflite"))) == 3
    manifest.check_files(manifest.read(out))


def test_a_failure_is_told_and_leaves_no_older_file(graphcut: Graphcut, out: Path, program: Any) -> None:
    assert graphcut("compile", out, "--compiler", program()).code == 0
    modes = {name: "large" if name == NAMES[1] else "ok" for name in (*NAMES, *TAILS)}
    ended = graphcut("compile", out, "--compiler", program(modes), "--json")
    assert ended.code == 11
    assert "seg2_int8.tflite was not compiled (large activations)" in ended.err
    assert ended.err.count("\n") < 12
    assert ended.document["parts"][NAMES[1]]["kind"] == "large activations"
    assert not (out / "full_split" / "tpu" / "seg2_int8_edgetpu.tflite").exists()
    assert (out / "full_split" / "tpu" / "seg2_int8_edgetpu.out.txt").is_file()
    assert (out / "full_split" / "tpu" / "seg1_int8_edgetpu.tflite").is_file()
    manifest.check_files(manifest.read(out))


def test_compile_one_file(graphcut: Graphcut, out: Path, program: Any, tmp_path: Path) -> None:
    file = out / "full_split" / "tflite" / NAMES[0]
    ended = graphcut("compile", file, "--compiler", program(), "-o", tmp_path / "there", "--json")
    assert ended.code == 0
    assert ended.document["file"] == str(tmp_path / "there" / "seg1_int8_edgetpu.tflite")
    assert Path(ended.document["file"]).is_file()
    for answer, said in (
        ({"streamed": 2048}, "seg1_int8_edgetpu.tflite streams 2.0 KiB at every inference"),
        ({"on_cpu": ["TANH"]}, "seg1_int8_edgetpu.tflite stay on the CPU (TANH)"),
    ):
        ended = graphcut("compile", file, "--compiler", program(**answer), "-o", tmp_path / "there")
        assert ended.code == 11
        assert said in ended.err
        assert Path(tmp_path / "there" / "seg1_int8_edgetpu.tflite").is_file()
    graphcut.fails(11, "not compiled (crash)", "compile", file, "--compiler", program("crash"), "-o", tmp_path)


def test_compile_refuses(graphcut: Graphcut, out: Path, program: Any, tmp_path: Path) -> None:
    graphcut.fails(9, "does not exist", "compile", out, "--compiler", tmp_path / "none")
    graphcut.fails(2, "has no meta.json", "compile", tmp_path, "--compiler", program())
    graphcut.fails(2, "--output is for one FILE", "compile", out, "-o", tmp_path, "--compiler", program())
    graphcut.fails(2, "abc", "compile", out, "--compile-timeout", "abc")
    (tmp_path / "x_edgetpu.tflite").write_bytes(compiled_file())
    graphcut.fails(3, "already compiled for the Edge TPU", "compile", tmp_path / "x_edgetpu.tflite")
    assert not (out / "full_split" / "tpu").exists()


def test_without_compiler_the_way_to_get_it_is_told(
    graphcut: Graphcut, out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    graphcut.fails(9, "tools/edgetpu-compiler/Dockerfile", "compile", out)


@pytest.mark.parametrize("name", ["meta.json", "note.txt"])
def test_a_disk_that_fills_at_the_very_end(
    graphcut: Graphcut, out: Path, program: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (out / name).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("graphcut.files.secrets.token_hex", lambda _: "0")
        (out / f".{name}.partial-0").symlink_to("/dev/full")
        graphcut.fails(8, f"{name}: No space left on device: free", "compile", out, "--compiler", program())
    assert (out / name).read_bytes() == before
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert graphcut("compile", out, "--compiler", program()).code == 0
    manifest.check_files(manifest.read(out))


# --- check ---


def test_check_a_split(graphcut: Graphcut, out: Path) -> None:
    ended = graphcut("check", out, "--json")
    assert ended.code == 0, ended.err
    assert ended.document["accepted"] is True
    assert [each["file"] for each in ended.document["files"]] == [f"full_split/tflite/{name}" for name in NAMES]
    assert all(each["cpu_ops"] == [] for each in ended.document["files"])


def test_check_says_what_stays_on_the_cpu(graphcut: Graphcut, tmp_path: Path) -> None:
    made = Made()
    fed = made.tensor((1, 8, 8, 4))
    odd = made.tensor((1, 8, 8, 8))
    made.op("EXP", [made.conv(fed, 8)], [odd])
    path = tmp_path / "odd.tflite"
    path.write_bytes(made.done([fed], [odd]))
    ended = graphcut("check", path)
    assert ended.code == 11
    assert "Operation not supported" in ended.out
    assert "1 operators stay on the CPU" in ended.err
    assert graphcut("check", path, "--json").document["cpu_ops"] == ["EXP"]


def test_check_misses_a_segment(graphcut: Graphcut, out: Path) -> None:
    (out / "full_split" / "tflite" / NAMES[1]).unlink()
    graphcut.fails(2, f"lacks full_split/tflite/{NAMES[1]}", "check", out)


def test_check_refuses(graphcut: Graphcut, tmp_path: Path) -> None:
    graphcut.fails(3, "does not exist", "check", tmp_path / "none.tflite")
    (tmp_path / "bad.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 40)
    graphcut.fails(3, "is damaged", "check", tmp_path / "bad.tflite")
    graphcut.fails(2, "has no meta.json", "check", tmp_path)


# --- cost ---


def test_cost_has_the_keys_scripts_rely_on(graphcut: Graphcut, out: Path) -> None:
    path = out / "full_split" / "tflite" / NAMES[0]
    document = graphcut("cost", path, "--json").document
    assert document["tflite_bytes"] == path.stat().st_size
    assert document["parameter_bytes"] == sum(layer["parameter_bytes"] for layer in document["layers"]) > 0
    low, high = document["compiled_interval"]
    assert low <= document["compiled_bytes"] <= high
    assert document["macs"] == sum(layer["macs"] for layer in document["layers"])
    assert document["activation_bytes"] == max(layer["activation_bytes"] for layer in document["layers"])
    assert 0 <= document["fits_on_chip"]["probability"] <= 1
    assert document["off_chip_bytes"] == 0
    assert document["seam_bytes"] > 0
    assert document["device"] == "coral-usb"
    assert document["latency_ms"] > 0.44
    board = graphcut("cost", path, "--json", "--device", "coral-pcie").document
    assert board["device"] == "coral-pcie"
    assert board["latency_ms"] < document["latency_ms"]
    graphcut.fails(2, "there is no device 'tpu'", "cost", path, "--device", "tpu")
    assert document["parameter_bytes_exact"] is True
    assert "nothing streams" in graphcut("cost", path).out


@needs_real_files
def test_cost_without_an_upper_end_where_an_operator_is_not_covered(graphcut: Graphcut) -> None:
    document = graphcut("cost", SHARED / "pairs" / "keras_lstm_mnist_ptq.tflite", "--json").document
    assert document["uncovered"] == ["UNIDIRECTIONAL_SEQUENCE_LSTM"]
    assert document["parameter_bytes_exact"] is False
    assert document["compiled_interval"][1] is None


# --- inspect ---


def test_inspect_a_compiled_file(graphcut: Graphcut, tmp_path: Path) -> None:
    path = tmp_path / "a_edgetpu.tflite"
    path.write_bytes(compiled_file(5000, 300, cpu_ops=["SOFTMAX", "TANH"]))
    document = graphcut("inspect", path, "--json").document
    assert document["cached_parameter_bytes"] == 5000
    assert document["streamed_parameter_bytes"] == 300
    assert document["instruction_bytes"] == 32
    assert document["tpu_subgraphs"] == 1
    assert document["cpu_ops"] == ["SOFTMAX", "TANH"]
    assert document["subgraphs"][0]["inputs"] == [{"name": "input", "shape": [1, 1, 48], "size_bytes": 48}]
    text = graphcut("inspect", path).out
    assert "300 B at every inference" in text
    assert "SOFTMAX, TANH" in text


@needs_real_files
@pytest.mark.parametrize(
    ("name", "difference"),
    [("mobilenet_v1_0.25_128_quant", 0), ("deeplabv3_mnv2_dm05_pascal_quant", 0), ("keras_lstm_mnist_ptq", 34880)],
)
def test_inspect_against_the_original(graphcut: Graphcut, name: str, difference: int) -> None:
    pair = SHARED / "pairs"
    ended = graphcut("inspect", pair / f"{name}_edgetpu.tflite", "--against", pair / f"{name}.tflite", "--json")
    found = ended.document["against"]
    assert found["difference_bytes"] == difference
    on_cpu = [layer["op"] for layer in found["layers"] if layer["place"] == "cpu"]
    assert on_cpu == ended.document["cpu_ops"]
    text = graphcut("inspect", pair / f"{name}_edgetpu.tflite", "--against", pair / f"{name}.tflite").out
    assert ("equal to the byte" in text) == (difference == 0)


@needs_real_files
def test_a_file_of_another_model_with_the_same_layers_is_refused(graphcut: Graphcut) -> None:
    compiled_one = SHARED / "pairs" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    other = next((each for each in SHARED.rglob("mobilenet_v1_0.5_160_quant.tflite")), None)
    if other is None:
        pytest.skip("no other MobileNetV1 here")
    graphcut.fails(3, "was not compiled from", "inspect", compiled_one, "--against", other)


def test_inspect_names_the_layers_that_stream(graphcut: Graphcut, tmp_path: Path) -> None:
    made = Made()
    fed = made.tensor((1, 16, 16, 4), name="t0")
    outs = [made.conv(fed, 64, 3), 0]
    outs[1] = made.conv(outs[0], 64, 1)
    (tmp_path / "a.tflite").write_bytes(made.done([fed], outs[1:]))
    small, large = 64 * (9 * 4 + 12), 64 * (64 + 12)
    (tmp_path / "a_edgetpu.tflite").write_bytes(compiled_file(small, large))
    words = ["inspect", tmp_path / "a_edgetpu.tflite", "--against", tmp_path / "a.tflite", "--json"]
    found = graphcut(*words).document["against"]
    assert [layer["place"] for layer in found["layers"]] == ["chip", "streamed"]
    assert found["difference_bytes"] == 0
    (tmp_path / "a_edgetpu.tflite").write_bytes(compiled_file(small + large - 64, 64))
    found = graphcut(*words).document["against"]
    assert [layer["place"] for layer in found["layers"]] == ["chip?", "chip?"]


def test_transfers_tell_which_layers_stream(graphcut: Graphcut, tmp_path: Path) -> None:
    """Layers of sizes a, b and a, of which a + b stream: the transfers say which a."""
    made = Made()
    fed = made.tensor((1, 16, 16, 64), name="t0")
    first = made.conv(fed, 64, 1)
    second = made.conv(first, 64, 3)
    path, twin = tmp_path / "a.tflite", tmp_path / "a_edgetpu.tflite"
    path.write_bytes(made.done([fed], [made.conv(second, 64, 1)]))
    a, b = 64 * (64 + 12), 64 * (9 * 64 + 12)
    for transfers, expected in (
        (None, ["chip?", "chip?", "chip?"]),
        ([(0, a), (a, b)], ["streamed", "streamed", "chip"]),
        ([(0, b - 64), (b - 64, 64), (b, a)], ["chip", "streamed", "streamed"]),
    ):
        running = executable(kind=2, parameters=b"\1" * (a + b), transfers=transfers)
        twin.write_bytes(compiled_file(packages=[package([running, executable(kind=1, parameters=b"\2" * a)])]))
        found = graphcut("inspect", twin, "--against", path, "--json").document["against"]
        assert [layer["place"] for layer in found["layers"]] == expected
    running = executable(kind=2, parameters=b"\1" * a, transfers=[(64, a)])
    twin.write_bytes(compiled_file(packages=[package([running])]))
    graphcut.fails(3, f"a transfer of bytes 64 .. {a + 64} is outside the {a} parameter bytes", "inspect", twin)


@needs_real_files
def test_inspect_proves_a_file_byte_for_byte(graphcut: Graphcut, tmp_path: Path) -> None:
    pair = SHARED / "pairs"
    name = "mobilenet_v1_0.25_128_quant"
    twin, original = pair / f"{name}_edgetpu.tflite", pair / f"{name}.tflite"
    found = graphcut("inspect", twin, "--against", original, "--bytes", "--json").document["bytes"]
    assert found["proven"] is True
    assert {layer["status"] for layer in found["layers"]} == {"equal"}
    assert (
        "every byte of the parameters is accounted for"
        in graphcut("inspect", twin, "--against", original, "--bytes").out
    )
    data = twin.read_bytes()
    cached = compiled.read(twin).subgraphs[0].cached
    at = data.index(cached) + 300_000
    wrong = tmp_path / "wrong_edgetpu.tflite"
    wrong.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    ended = graphcut("inspect", wrong, "--against", original, "--bytes")
    assert ended.code == 7
    assert "wrong: CONV_2D" in ended.out
    assert "a weight differs" in ended.out
    graphcut.fails(2, "--bytes needs the file that a compiled one was made from", "inspect", twin, "--bytes")


def test_older_compilers_are_recognised(graphcut: Graphcut, tmp_path: Path) -> None:
    """One for runtime 10 stores zero biases; some keep no table for SOFTMAX."""
    made = Made()
    fed, middle, flat, out = (made.tensor(shape, name=f"t{n}") for n, shape in enumerate(SHAPES))
    weights, bias = made.tensor((64, 1, 1, 4), data=1), made.tensor((64,), dtype=np.int32, data=0)
    made.op("CONV_2D", [fed, weights, bias], [middle], strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    made.op("RESHAPE", [middle, made.tensor((2,), dtype=np.int32, data=[1, 64])], [flat])
    made.op("SOFTMAX", [flat], [out], beta=1.0)
    path, twin = tmp_path / "a.tflite", tmp_path / "a_edgetpu.tflite"
    path.write_bytes(made.done([fed], [out]))
    bare, biases, table = 64 * 4, 64 * 4, 3 * 64 * 16 + 64
    for runtime, there in ((14, bare + table), (14, bare), (10, bare + biases + table), (10, bare + biases)):
        parts = [executable(kind=2), executable(kind=1, parameters=b"\2" * there)]
        twin.write_bytes(compiled_file(packages=[package(parts, runtime=runtime)]))
        found = graphcut("inspect", twin, "--against", path, "--json").document["against"]
        assert (found["formula_bytes"], found["difference_bytes"]) == (there, 0)
        assert sum(layer["parameter_bytes"] for layer in found["layers"]) == there
    twin.write_bytes(compiled_file(bare + biases + table))
    found = graphcut("inspect", twin, "--against", path, "--json").document["against"]
    assert found["difference_bytes"] == biases
    assert graphcut("cost", path, "--json").document["parameter_bytes"] == bare + table
    old = graphcut("cost", path, "--json", "--min-runtime", "10").document
    assert old["parameter_bytes"] == bare + biases + table


SHAPES = ((1, 1, 1, 4), (1, 1, 1, 64), (1, 64), (1, 64))


def test_inspect_refuses(graphcut: Graphcut, tmp_path: Path) -> None:
    made = Made()
    fed = made.tensor((1, 8, 8, 4))
    plain, packed = tmp_path / "a.tflite", tmp_path / "a_edgetpu.tflite"
    plain.write_bytes(made.done([fed], [made.conv(fed, 8)]))
    packed.write_bytes(compiled_file(cpu_ops=["TANH"]))
    graphcut.fails(3, "is not compiled for the Edge TPU", "inspect", plain, "--against", plain)
    graphcut.fails(3, "already compiled for the Edge TPU", "inspect", packed, "--against", packed)
    graphcut.fails(3, "was not compiled from", "inspect", packed, "--against", plain)
    graphcut.fails(2, "--against needs a compiled file", "inspect", tmp_path, "--against", plain)
    cut_short = tmp_path / "b_edgetpu.tflite"
    cut_short.write_bytes(packed.read_bytes()[:-100])
    graphcut.fails(3, "damaged", "inspect", cut_short)


def test_path_is_searched(graphcut: Graphcut, out: Path, program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(program().parent), prepend=os.pathsep)
    assert graphcut("compile", out, "-q").code == 0
