"""Bundles: the code in them runs alone, on Python 3.9 and up, and computes what the split computes."""

from __future__ import annotations

import ast
import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphcut.cli import bundle_main, main
from graphcut.deploy.bundling import DEVICE_MODULES, RUNNER, bundle, coral_trouble
from graphcut.errors import UsageError
from graphcut.runtime.chain import Chain
from graphcut.runtime.interpreter import Edge
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from graphcut.runtime.wiring import Ends, connect
from tests.support.places import ROOT
from tests.support.tiny_split import branched, images, straight, write_split

PACKAGE = ROOT / "graphcut"
ON_DEVICE = sorted((*DEVICE_MODULES, RUNNER))
ALLOWED = {"numpy", "PIL"}
PICTURE = (1, 16, 24, 3)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("split"), straight(3, shape=PICTURE), ["s3"])


@pytest.fixture(scope="module")
def made(split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "out"
    bundle(split, folder)
    return folder


def run(folder: Path, *words: str | Path, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run the bundle's program as its user would, from somewhere else and without this checkout on the path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(python), str(folder / "run.py"), *map(str, words)],
        cwd=folder.parent,
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- the code ---


@pytest.mark.parametrize("module", ON_DEVICE)
def test_device_code_has_the_grammar_of_python_3_9(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"), feature_version=(3, 9))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = {ast.unparse(call.func): {word.arg for word in call.keywords} for call in calls}
    assert "strict" not in named.get("zip", set()), "zip(strict=) came with 3.10"
    assert not {"slots", "kw_only"} & named.get("dataclass", set()), "dataclass options came with 3.10"
    assert "from __future__ import annotations" in ast.unparse(tree)


def _first(node: ast.AST) -> str:
    return node.names[0].name if isinstance(node, ast.Import | ast.ImportFrom) else ""


@pytest.mark.parametrize("module", ON_DEVICE)
def test_device_code_imports_numpy_pillow_and_itself(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            if top == "graphcut":
                inside = "/".join(name.split(".")[1:])
                assert {f"{inside}.py", f"{inside}/{_first(node)}.py"} & set(DEVICE_MODULES), f"{module} needs {name}"
            else:
                assert top in ALLOWED or top in sys.stdlib_module_names, f"{module} imports {name}"


# --- what is written ---


def test_a_bundle_holds_parts_code_and_words(made: Path) -> None:
    files = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert {f"parts/seg{n}_int8.tflite" for n in (1, 2, 3)} | {"run.py", "README.md", "meta.json", "check.npz"} <= files
    assert {f"graphcut/{name}" for name in DEVICE_MODULES} <= files
    document = json.loads((made / "meta.json").read_text())
    assert [part["label"] for part in document["parts"]] == ["segment 1", "segment 2", "segment 3"]
    assert document["inputs"][0]["int8"]["shape"] == list(PICTURE)
    readme = (made / "README.md").read_text()
    assert "SYNTHETIC" in readme
    assert "python run.py *.jpg --devices cpu,cpu,cpu " in readme
    assert "usb:" not in readme, "an Edge TPU does not run files that are not compiled"
    assert "not compiled for the Edge TPU" in readme


def test_the_same_split_gives_the_same_bytes(split: Path, made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    bundle(split, again)
    for path in sorted(made.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (again / path.relative_to(made)).read_bytes() == path.read_bytes(), path


def test_the_verb_refuses_replaces_and_says_what_it_wrote(
    split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    assert main(["bundle", str(split), "-o", str(out), "--tail", "2", "--labels", str(labels), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["way"] == "prefix + tail k=2"
    assert [part["label"] for part in document["parts"]] == ["segment 1", "tail 2..3"]
    assert (out / "labels.txt").read_text() == "a\nb\n"
    assert main(["bundle", str(split), "-o", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["bundle", str(split), "-o", str(out), "--force", "--unsplit"]) == 0
    assert read_job(out).way == "unsplit"
    assert main(["bundle", str(out), "-o", str(tmp_path / "more"), "--tail", "2"]) == 2
    assert "runs one way" in capsys.readouterr().err
    assert main(["bundle", str(split), "-o", str(tmp_path / "b"), "--labels", str(tmp_path / "none")]) == 2


def test_pixels_can_be_said_when_bundling(split: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["bundle", str(split), "-o", str(out), "--mean", "1,2,3", "--colour", "bgr"]) == 0
    assert read_job(out).preprocessing == {"mean": [1.0, 2.0, 3.0], "std": [127.5], "colour": "bgr", "layout": None}


def test_compiled_files_go_along(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "split", straight(2), ["s2"])
    compiled = folder / "full_split" / "tpu" / "seg2_int8_edgetpu.tflite"
    compiled.parent.mkdir()
    compiled.write_bytes(b"compiled")
    written = bundle(folder, tmp_path / "out")
    assert [size for _, _, size in written.parts] == [None, 8]
    assert read_job(tmp_path / "out").parts[1].compiled == tmp_path / "out" / "parts" / compiled.name
    assert "--devices cpu,cpu " in (tmp_path / "out" / "README.md").read_text(), "one part is not compiled"
    compiled.with_name("seg1_int8_edgetpu.tflite").write_bytes(b"compiled")
    bundle(folder, tmp_path / "both")
    readme = (tmp_path / "both" / "README.md").read_text()
    assert "--devices usb:0,usb:1 " in readme
    assert "not compiled" not in readme


def compiled_split(folder: Path, parts: list[object], outputs: list[str]) -> Path:
    """A split whose compiled files are there; nobody opens them."""
    folder = write_split(folder, parts, outputs)
    (folder / "full_split" / "tpu").mkdir()
    for path in (folder / "full_split" / "tflite").iterdir():
        (folder / "full_split" / "tpu" / f"{path.stem}_edgetpu.tflite").write_bytes(b"compiled")
    return folder


def test_names_that_coral_s_runners_expect(tmp_path: Path) -> None:
    folder = compiled_split(tmp_path / "split", straight(3), ["s3"])
    written = bundle(folder, tmp_path / "out", layout="coral")
    assert written.coral_trouble == ()
    (name,) = {path.name.partition("_segment_")[0] for path in (tmp_path / "out" / "parts").iterdir()}
    wanted = {f"{name}_segment_{at}_of_3{end}.tflite" for at in range(3) for end in ("", "_edgetpu")}
    assert {path.name for path in (tmp_path / "out" / "parts").iterdir()} == wanted
    job = read_job(tmp_path / "out")
    assert [part.compiled.name for part in job.parts if part.compiled] == [
        f"{name}_segment_{at}_of_3_edgetpu.tflite" for at in range(3)
    ]
    done = run(tmp_path / "out", "--check")
    assert done.returncode == 0, done.stderr


def test_what_coral_s_runners_cannot_do_is_said() -> None:
    def ends(label: str, reads: list[str], makes: list[str]) -> Ends:
        both = ([Edge(name, (1, 4), "int8", 0.5, 0) for name in names] for names in (reads, makes))
        return Ends(label, *map(tuple, both))

    passing_by = connect([ends("1", ["x"], ["a", "b"]), ends("2", ["a"], ["c"]), ends("3", ["b", "c"], ["y"])])
    assert coral_trouble(passing_by) == ()
    early = connect([ends("1", ["x"], ["a", "early"]), ends("2", ["a", "late"], ["y"])], (), ("early", "y"))
    assert coral_trouble(early) == (
        "late is an input of the model, and 1 does not read it",
        "early is an output of the model, and 2 does not make it",
    )


def test_the_layout_coral_is_for_compiled_files(split: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="segment 1 is not compiled"):
        bundle(split, tmp_path / "out", layout="coral")


def test_the_service_s_files_name_what_is_there(made: Path) -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.read_string((made / "segments.service").read_text())
    program, script, *words = unit["Service"]["ExecStart"].split()
    assert program.endswith("/venv/bin/python")
    assert (made / Path(script).name).is_file()
    bundle_main._parser().parse_args(words)
    lines = (made / "Dockerfile").read_text().splitlines()
    (command,) = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    bundle_main._parser().parse_args(command)
    assert any(line.startswith("FROM python:3.") for line in lines)


# --- running it ---


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_a_watched_folder_is_served_until_it_is_told_to_stop(made: Path, tmp_path: Path, devices: str) -> None:
    coming = tmp_path / "in"
    coming.mkdir()
    words = ["--watch", str(coming), "--json", "--devices", devices]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with subprocess.Popen(
        [sys.executable, str(made / "run.py"), *words],
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdout is not None
        assert service.stderr is not None
        try:
            (coming / "broken.npy").write_bytes(b"no array")
            for number, array in enumerate(images(3, PICTURE)):
                np.save(coming / f"{number}.npy", array)
                line = json.loads(service.stdout.readline())
                assert line["input"] == str(coming / f"{number}.npy")
                assert line["outputs"]
        finally:
            service.terminate()
        assert "left out: " in service.stderr.read()


def test_a_folder_to_watch_must_be_there(made: Path, tmp_path: Path) -> None:
    assert run(made, "--watch", tmp_path / "nowhere").returncode == 2
    assert run(made, "--watch", tmp_path, "picture.png").returncode == 2


def picture(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_program_computes_what_the_split_computes(split: Path, made: Path, tmp_path: Path) -> None:
    arrays = images(3, PICTURE)
    paths = []
    for number, array in enumerate(arrays):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], array)
    job = read_job(split)
    with Chain(job.parts, LiteRtOpener(), outputs=job.outputs) as chain:
        wanted = [chain.run(array)[0].tobytes() for array in arrays]
    for words in ([], ["--devices", "cpu,cpu"], ["--processes"]):
        done = run(made, *paths, "-o", tmp_path / "out.npz", *words)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "out.npz") as archive:
            assert [archive[f"{n}/s3"].tobytes() for n in (1, 2, 3)] == wanted
        assert "SYNTHETIC" in done.stderr


def test_the_program_reads_pictures_as_calibration_did(made: Path, tmp_path: Path) -> None:
    from graphcut.records import ModelInput, Preprocessing
    from graphcut.samples import load_samples

    path = picture(tmp_path / "picture.png")
    target = ModelInput(name="image", shape=(1, 3, 16, 24), source_layout="NHWC", source_shape=PICTURE)
    samples = load_samples(path, (target,), Preprocessing(mean=(127.5,), std=(127.5,)))
    np.save(tmp_path / "array.npy", samples.arrays["image"].transpose(0, 2, 3, 1))
    done = run(made, path, tmp_path / "array.npy", "--json")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["outputs"] == second["outputs"]


def test_the_program_checks_itself(made: Path, tmp_path: Path) -> None:
    done = run(made, "--check")
    assert done.returncode == 0, done.stderr
    assert "the same bytes as ai-edge-litert" in done.stdout
    damaged = tmp_path / "damaged"
    shutil.copytree(made, damaged)
    with (damaged / "parts" / "seg2_int8.tflite").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"?")
    done = run(damaged, "--check")
    assert done.returncode == 7
    assert "seg2_int8.tflite is not the file that was bundled" in done.stderr


def test_a_check_that_proves_nothing_or_differs_fails(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(made, folder)
    with np.load(made / "check.npz") as archive:
        kept = {name: archive[name] for name in archive.files}
    far = {name: np.roll(array, 7) if name == "s2" else array for name, array in kept.items()}
    np.savez(folder / "check.npz", **far)
    assert bundle_main.main(["--check"], folder) == 7
    assert "TOO FAR APART" in capsys.readouterr().out
    flat = {name: np.zeros_like(array) if name.startswith("s") else array for name, array in kept.items()}
    np.savez(folder / "check.npz", **flat)
    assert bundle_main.main(["--check"], folder) == 7
    assert "proves nothing" in capsys.readouterr().out
    (folder / "check.npz").write_bytes(b"nothing")
    assert bundle_main.main(["--check"], folder) == 2


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "split", branched(), ["early", "late"], ["left", "right"])
    bundle(folder, tmp_path / "out")
    left, right = images(2)
    np.savez(tmp_path / "pair.npz", left=left, right=right)
    done = run(tmp_path / "out", tmp_path / "pair.npz", "--json", "-o", tmp_path / "result.npz")
    assert done.returncode == 0, done.stderr
    assert [each["name"] for each in json.loads(done.stdout)["outputs"]] == ["early", "late"]
    np.save(tmp_path / "one.npy", left)
    done = run(tmp_path / "out", tmp_path / "one.npy")
    assert done.returncode == 10
    assert "1 inputs were given" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "no input"),
        (["none.jpg"], 2, "there is no file"),
        (["broken.png"], 2, "cannot be read as a picture"),
        (["broken.npy"], 2, "cannot be read as arrays"),
        (["picture.png", "--devices", "gpu"], 2, "not a device"),
        (["picture.png", "--devices", "usb:0"], 10, "is not compiled, but usb:0 is an Edge TPU"),
        (["picture.png", "--runtime", "tflite-runtime"], 9, "tflite-runtime is not installed"),
        (["picture.png", "--labels", "none.txt"], 2, "cannot be read as labels"),
        (["picture.png", "--output", "none/out.npz"], 2, "cannot write"),
        (["--nonsense"], 2, "see --help"),
    ],
)
def test_what_the_program_refuses_is_one_line(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: Sequence[str],
    code: int,
    said: str,
) -> None:
    picture(tmp_path / "picture.png")
    for name in ("broken.png", "broken.npy"):
        (tmp_path / name).write_bytes(b"no such thing")
    monkeypatch.chdir(tmp_path)
    assert bundle_main.main(words, made) == code
    assert said in capsys.readouterr().err.splitlines()[-1]


# --- clean environments ---


def interpreter(version: str) -> str | None:
    """A Python of that version that really runs (a version manager's shim may not)."""
    roots = [Path(root) / "versions" for root in (os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv") if root]
    found = [
        shutil.which(f"python{version}"),
        *(each for root in roots for each in root.glob(f"{version}.*/bin/python")),
    ]
    for candidate in filter(None, found):
        if subprocess.run([str(candidate), "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
            return str(candidate)
    return None


@pytest.mark.network
@pytest.mark.parametrize(
    ("version", "packages", "same"),
    [
        ("3.11", ["tflite-runtime==2.14.0", "numpy<2", "pillow"], False),
        ("3.9", ["tflite-runtime==2.14.0", "numpy<2", "pillow"], False),
        ("3.12", ["ai-edge-litert==2.1.2", "numpy", "pillow"], True),
    ],
)
def test_a_bundle_runs_in_a_clean_environment(
    made: Path, tmp_path: Path, version: str, packages: list[str], same: bool
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    home = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", str(home)], check=True)
    installed = subprocess.run(
        [str(home / "bin" / "pip"), "install", "-q", *packages], capture_output=True, text=True, timeout=300
    )
    if installed.returncode:
        pytest.skip(f"cannot install {' '.join(packages)}: {installed.stderr.strip().splitlines()[-1]}")
    inside = home / "bin" / "python"
    listed = subprocess.run([str(home / "bin" / "pip"), "list"], capture_output=True, text=True, check=True).stdout
    assert "graphcut" not in listed
    done = run(made, "--check", python=inside)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("the same bytes as" in done.stdout) or not same
    assert packages[0].replace("==", " ") in done.stderr, "the interpreter is shown"
    words = [picture(tmp_path / "a.png", 1), picture(tmp_path / "b.jpg", 2), "--json"]
    results = [run(made, *words, *more, python=inside) for more in ([], ["--devices", "cpu,cpu"], ["--processes"])]
    assert [each.returncode for each in results] == [0, 0, 0], results[1].stderr
    assert results[0].stdout == results[1].stdout == results[2].stdout
    assert len(results[0].stdout.splitlines()) == 2
