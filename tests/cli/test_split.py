"""split, verify, run, view and inspect on a real split of a small net; and a split that is stopped in the middle."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graphcut import cli
from graphcut.report import tables
from tests.cli.test_cli import PREPARED, ROOT, Ended, Graphcut
from tests.support import nets

SEGMENTS = 3


@pytest.fixture
def graphcut(capsys: pytest.CaptureFixture[str]) -> Graphcut:
    return Graphcut(capsys)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, pictures and a split of it."""
    folder = tmp_path_factory.mktemp("home")
    nets.saved(nets.residual(softmax=True), folder)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(3)
    for index in range(6):
        small = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(small).resize((60, 50), Image.Resampling.BICUBIC).save(folder / "photos" / f"{index}.png")
    words = ["split", folder / "model.onnx", "-o", folder / "out", "--segments", SEGMENTS, "-q"]
    assert cli.main([str(word) for word in [*words, "--calibration", folder / "photos", *PREPARED]]) == 0
    return folder


def copy_of(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "out", tmp_path / "copy"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# --- split ---


def test_layout_and_manifest(home: Path) -> None:
    names = set(files_of(home / "out"))
    assert {"meta.json", "note.txt", "samples.npz", "unsplit/unsplit_int8.tflite"} < names
    assert {f"full_split/tflite/seg{i}_int8.tflite" for i in (1, 2, 3)} < names
    assert {"pairs_k2/tflite/tail_seg2_to_3_int8.tflite", "pairs_k3/tflite/tail_seg3_to_3_int8.tflite"} < names
    assert {f"segments/seg{i}.onnx" for i in (1, 2, 3)} < names
    assert not [name for name in names if "work" in name or "partial" in name]
    document = json.loads((home / "out" / "meta.json").read_text())
    assert document["verification"]["passed"] is True
    assert document["verification"]["exact"] is True
    assert document["calibration"]["origin"] == "folder photos"
    assert document["options"]["preprocessing"] == {"mean": [127.5], "std": [127.5], "colour": "rgb", "layout": None}
    assert set(document["files"]) == names - {"meta.json", "note.txt", "report.html"}
    assert str(home) not in json.dumps(document)


def test_same_input_gives_the_same_bytes(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    words = ["split", home / "model.onnx", "-o", tmp_path / "again", "--segments", SEGMENTS, "--jobs", 1, "--json"]
    ended = graphcut(*words, "--calibration", home / "photos", *PREPARED)
    assert ended.code == 0
    assert files_of(tmp_path / "again") == files_of(home / "out")
    made = ended.document
    assert made["k"] == SEGMENTS
    assert made["verification"]["passed"] is True
    assert made["segments"][0]["tflite_bytes"] == (tmp_path / "again/full_split/tflite/seg1_int8.tflite").stat().st_size
    assert {"plan", "convert", "verify", "package"} <= set(made["seconds"])


def test_synthetic_data_is_said_everywhere(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["split", home / "model.onnx", "-o", out, "--segments", 2, "--calibration", "random"]
    ended = graphcut(*words)
    assert ended.code == 0
    assert tables.SYNTHETIC in ended.out
    assert "SYNTHETIC" in ended.err
    assert tables.SYNTHETIC in (out / "note.txt").read_text()
    assert json.loads((out / "meta.json").read_text())["calibration"]["synthetic"] is True
    assert tables.SYNTHETIC in graphcut("verify", out).out
    assert tables.SYNTHETIC in graphcut("inspect", out).out
    assert tables.SYNTHETIC in graphcut("run", out, home / "photos/0.png", *PREPARED).out
    assert graphcut("verify", out, "--json").document["synthetic_calibration"] is True


def test_existing_result_is_refused_and_replaced_with_force(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    out = copy_of(home, tmp_path)
    words = ["split", home / "model.onnx", "-o", out, "--segments", 2, "--calibration", "random", "-q"]
    graphcut.fails(2, "--force", *words)
    assert files_of(out) == files_of(home / "out")
    assert graphcut(*words, "--force").code == 0
    assert json.loads((out / "meta.json").read_text())["plan"]["k"] == 2
    assert names(tmp_path) == ["copy"]


def test_budget_no_file_may_break(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    ended = graphcut(
        *("split", home / "model.onnx", "-o", tmp_path / "out", "--budget", "9KiB", "--calibration", "random", "--json")
    )
    assert ended.code == 0
    sizes = [path.stat().st_size for path in (tmp_path / "out/full_split/tflite").iterdir()]
    assert len(sizes) == ended.document["k"] > 1
    assert max(sizes) <= 9 * 1024


# --- verify ---


def test_verify_proves_it_again(graphcut: Graphcut, home: Path) -> None:
    ended = graphcut("verify", home / "out")
    assert ended.code == 0
    assert "PASSED on 6 calibration samples" in ended.out
    proof = graphcut("verify", home / "out", "--json").document
    kept = json.loads((home / "out" / "meta.json").read_text())["verification"]
    assert {key: proof[key] for key in kept} == kept
    assert set(proof["sqnr_db"]) == {"logits", *json.loads((home / "out/meta.json").read_text())["cuts"]}


def test_verify_with_other_samples(graphcut: Graphcut, home: Path) -> None:
    proof = graphcut("verify", home / "out", "--calibration", home / "photos", "--samples", 2, "--json").document
    assert proof["samples"] == 2
    assert proof["synthetic_samples"] is False
    ended = graphcut("verify", home / "out", "--calibration", "random", "-q")
    assert "SYNTHETIC samples" in ended.out


@pytest.mark.parametrize(
    "words",
    [("--samples", 3), ("--seed", 1), ("--mean", 2), ("--colour", "bgr"), ("--layout", "NHWC"), ("--skip-unreadable",)],
)
def test_verify_refuses_options_that_would_say_nothing(graphcut: Graphcut, home: Path, words: Sequence[Any]) -> None:
    graphcut.fails(2, f"{words[0]} applies to other samples", "verify", home / "out", *words)


def test_verify_refuses_changed_files(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    out = copy_of(home, tmp_path)
    victim = out / "full_split/tflite/seg2_int8.tflite"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0xFF
    victim.write_bytes(content)
    graphcut.fails(7, "full_split/tflite/seg2_int8.tflite has changed", "verify", out)
    victim.unlink()
    graphcut.fails(7, "is missing", "verify", out)


def test_verdict_is_the_exit_code(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    """A tail that computes something else, with a manifest that vouches for it, fails in the numbers."""
    out = copy_of(home, tmp_path)
    document = json.loads((out / "meta.json").read_text())
    tail = next(each for each in document["tails"] if each["first"] == 2)
    content = bytearray((out / tail["tflite"]).read_bytes())
    with (out / "full_split/tflite/seg2_int8.tflite").open("rb") as stream:
        weights = largest_run(stream.read())
    at = bytes(content).find(weights)
    assert at > 0
    content[at : at + len(weights)] = weights[::-1]
    (out / tail["tflite"]).write_bytes(content)
    document["files"][tail["tflite"]]["sha256"] = hashlib.sha256(content).hexdigest()
    (out / "meta.json").write_text(json.dumps(document))
    ended = graphcut("verify", out, "--json", "-q")
    assert ended.code == 7
    assert ended.document["passed"] is False
    assert ended.document["exact"] is False
    assert ended.err.startswith("graphcut: error: ")
    assert "the tail from segment 2 differs" in ended.err


def largest_run(model: bytes) -> bytes:
    """Return 300 bytes from the middle of a segment's weights: its file is little else."""
    middle = len(model) // 2
    return model[middle : middle + 300]


# --- run ---


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_run_gives_the_same_by_every_way(graphcut: Graphcut, home: Path, tmp_path: Path, tail: int) -> None:
    picture = home / "photos/0.png"
    chain = graphcut("run", home / "out", picture, "-o", tmp_path / "chain.npy", "--json").document
    joined = graphcut("run", home / "out", picture, "--tail", tail, "-o", tmp_path / "tail.npy", "--json").document
    assert chain["outputs"] == joined["outputs"]
    assert joined["tail"] == tail
    np.testing.assert_array_equal(np.load(tmp_path / "chain.npy"), np.load(tmp_path / "tail.npy"))
    best = chain["outputs"][0]["top"][0]
    assert np.load(tmp_path / "chain.npy")[0, best["class"]] == best["score"] == chain["outputs"][0]["max"]


def test_run_with_labels_and_arrays(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"animal {index}\n" for index in range(10)))
    pixels = np.asarray(Image.open(home / "photos/0.png").resize((32, 32), Image.Resampling.BICUBIC))
    np.save(tmp_path / "x.npy", pixels)
    by_picture = graphcut("run", home / "out", home / "photos/0.png", "--labels", labels, "--top", 3)
    by_array = graphcut("run", home / "out", tmp_path / "x.npy", "--labels", labels, "--top", 3)
    assert by_picture.out == by_array.out
    assert len(re.findall(r"animal \d$", by_picture.out, re.MULTILINE)) == 3
    labels.write_text("one\ntwo\n")
    graphcut.fails(2, "2 labels, but probabilities has 10", "run", home / "out", tmp_path / "x.npy", "--labels", labels)


def test_run_takes_files_folders_and_patterns(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asarray(Image.open(home / "photos/0.png").resize((32, 32)))[None].repeat(2, axis=0))
    given = [home / "photos", tmp_path / "*.npy", home / "photos/1.png"]
    ended = graphcut("run", home / "out", *given, "-o", tmp_path / "all.npz", "--json")
    assert ended.code == 0, ended.err
    names = [each["input"] for each in ended.document["results"]]
    pictures = [str(home / "photos" / f"{number}.png") for number in range(6)]
    assert names == [*pictures, f"{tmp_path / 'x.npy'}[0]", f"{tmp_path / 'x.npy'}[1]", pictures[1]]
    assert ended.document["results_per_s"] > 0
    alone = graphcut("run", home / "out", pictures[1], "--json").document["outputs"]
    assert ended.document["results"][1]["outputs"] == ended.document["results"][-1]["outputs"] == alone
    assert sorted(np.load(tmp_path / "all.npz").files) == [f"{number}/probabilities" for number in range(1, 10)]
    shown = graphcut("run", home / "out", *given)
    assert re.search(r"^9 inputs, [\d.]+ results/s", shown.out, re.MULTILINE)
    assert "calibrate" not in shown.err
    wrong = ["-o", tmp_path / "all.npy"]
    graphcut.fails(2, "6 outputs cannot be written to", "run", home / "out", home / "photos", *wrong)
    graphcut.fails(2, "2 outputs cannot be written to", "run", home / "out", tmp_path / "x.npy", *wrong)
    graphcut.fails(4, "there is no file", "run", home / "out", tmp_path / "*.jpg")


@pytest.mark.parametrize("words", [("run", "photos/0.png"), ("bundle", "-o", "bundle"), ("simulate",)])
def test_files_that_have_changed_do_not_run(
    graphcut: Graphcut, home: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    out = copy_of(home, tmp_path)
    with (out / "full_split" / "tflite" / "seg2_int8.tflite").open("r+b") as stream:
        stream.seek(-9, os.SEEK_END)
        stream.write(b"?")
    verb, *more = words
    places = [str(home / word) if "/" in word else str(tmp_path / word) if word[0] != "-" else word for word in more]
    graphcut.fails(7, "seg2_int8.tflite", verb, out, *places)


def test_run_mistakes(graphcut: Graphcut, home: Path, tmp_path: Path) -> None:
    out, picture = home / "out", home / "photos/0.png"
    graphcut.fails(4, "there is no file", "run", out, home / "missing.png")
    graphcut.fails(2, "is not one input", "run", out, "random")
    graphcut.fails(2, "no tail that begins at segment 4", "run", out, picture, "--tail", 4)
    graphcut.fails(2, "ends in .npy", "run", out, picture, "-o", tmp_path / "x.npz")
    graphcut.fails(2, "there is no folder", "run", out, picture, "-o", tmp_path / "deep" / "x.npy")
    graphcut.fails(2, "cannot be read as labels", "run", out, picture, "--labels", tmp_path / "labels.txt")
    np.save(tmp_path / "x.npy", np.zeros((32, 32, 4), np.float32))
    graphcut.fails(4, "32x32x4, but the model takes", "run", out, tmp_path / "x.npy")


def test_several_outputs(graphcut: Graphcut, tmp_path: Path) -> None:
    model = nets.saved(nets.two_heads(), tmp_path)
    out = tmp_path / "out"
    assert graphcut("split", model, "-o", out, "--segments", 2, "--calibration", "random", "-q").code == 0
    proof = graphcut("verify", out, "--json").document
    assert {"map", "score"} <= set(proof["sqnr_db"])
    assert proof["top1_agreement"] is None
    np.save(tmp_path / "x.npy", np.zeros((3, 16, 16), np.float32))
    ended = graphcut("run", out, tmp_path / "x.npy", "-o", tmp_path / "y.npz", "--json")
    assert [each["layer"] for each in ended.document["outputs"]] == ["map", "score"]
    with np.load(tmp_path / "y.npz") as written:
        assert {name: written[name].shape for name in written} == {"map": (1, 8, 8, 5), "score": (1, 4)}
    graphcut.fails(2, "2 outputs cannot be written to", "run", out, tmp_path / "x.npy", "-o", tmp_path / "y.npy")


# --- look ---


def test_inspect_a_split(graphcut: Graphcut, home: Path) -> None:
    assert graphcut("inspect", home / "out").out == (home / "out" / "note.txt").read_text()
    document = graphcut("inspect", home / "out", "--json").document
    assert document == json.loads((home / "out" / "meta.json").read_text())


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ([], "unsplit_int8.tflite"),
        (["--segment", "2"], "seg2_int8.tflite"),
        (["--segment", "2", "--onnx"], "seg2.onnx"),
        (["--tail", "2"], "tail_seg2_to_3_int8.tflite"),
    ],
)
def test_view_serves_until_ctrl_c(home: Path, words: list[str], file: str) -> None:
    pytest.importorskip("netron")
    command = [sys.executable, "-m", "graphcut", "view", str(home / "out"), "--no-browser", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        name, _, address = process.stdout.readline().decode().strip().partition(": ")
        assert name == file
        with urllib.request.urlopen(f"{address}/data/{file}", timeout=10) as answer:
            served = answer.read()
        process.send_signal(signal.SIGINT)
        _, printed = process.communicate(timeout=20)
    assert process.returncode == 0
    assert served in files_of(home / "out").values()
    assert printed == b"graphcut: stop with Ctrl-C\n"


def test_view_mistakes(graphcut: Graphcut, home: Path) -> None:
    graphcut.fails(2, "has 3 segments, so there is no segment 4", "view", home / "out", "--segment", 4)
    graphcut.fails(2, "only segments are kept as ONNX", "view", home / "out", "--onnx")
    graphcut.fails(2, "not allowed with argument", "view", home / "out", "--onnx", "--tflite")
    graphcut.fails(2, "is a file", "view", home / "model.onnx", "--segment", 1)


# --- stopped in the middle ---


def start_split(home: Path, out: Path, *more: str, **options: Any) -> "subprocess.Popen[str]":
    words = [home / "model.onnx", "-o", out, "--segments", SEGMENTS, "--calibration", "random", *more]
    command = [sys.executable, "-m", "graphcut", "split", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True, **options
    )


def wait_for_line(process: "subprocess.Popen[str]", start: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(start):
            return
    pytest.fail(f"{start} never came")


def workers_of(pid: int) -> list[str]:
    """Return the command lines of this split's workers; they carry the number of the process they work for."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "graphcut.workers.worker" in words and str(pid) in words:
            found.append(" ".join(words))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds workers in /proc")
@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGINT, 130, "graphcut: interrupted, nothing was written"),
        (signal.SIGTERM, 143, "graphcut: stopped by SIGTERM, nothing was written"),
        (signal.SIGKILL, -9, ""),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_stopped_in_the_middle(home: Path, tmp_path: Path, number: int, code: int, told: str, force: bool) -> None:
    out = tmp_path / "out"
    if force:
        shutil.copytree(home / "out", out)
    process = start_split(home, out, *(["--force"] if force else []))
    with process:
        wait_for_line(process, "convert")
        assert workers_of(process.pid)
        process.send_signal(number)
        printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (code, "")
    assert errors.splitlines()[-1:] == ([told] if told else [])
    deadline = time.monotonic() + 60
    while workers_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_of(process.pid) == []
    left = names(tmp_path)
    if number == signal.SIGKILL:
        assert [name for name in left if not name.startswith(".")] == (["out"] if force else [])
    else:
        assert left == (["out"] if force else [])
    if force:
        assert files_of(out) == files_of(home / "out")


def test_full_disk(home: Path, tmp_path: Path) -> None:
    """No file may pass 20 kB, as if the disk were full: one line, exit code 8, nothing left."""
    process = start_split(
        home, tmp_path / "out", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    )
    with process:
        printed, errors = process.communicate(timeout=60)
    ended = Ended(process.returncode, printed, errors)
    assert (ended.code, ended.out) == (8, "")
    assert [line for line in ended.err.splitlines() if line.startswith("graphcut: error: ")] == [
        ended.err.splitlines()[-1]
    ]
    assert "File too large" in ended.err
    assert names(tmp_path) == []
