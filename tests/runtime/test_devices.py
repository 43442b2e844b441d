"""The Edge TPU delegate: tried again while it fails, refused in one line when it stays away."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from graphcut.errors import DependencyError, RunError
from graphcut.runtime import litert
from graphcut.runtime.chain import Chain
from graphcut.runtime.devices import WAITS_S, attach, parse_device
from graphcut.runtime.job_folder import read_job
from graphcut.runtime.litert import LiteRtOpener
from tests.support.places import ROOT
from tests.support.tiny_split import images, straight, write_split

TPU = parse_device("usb:0")


class Loader:
    """A ``load_delegate`` that fails a number of times."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.calls: list[tuple[str, dict[str, str]]] = []

    def __call__(self, library: str, options: dict[str, str]) -> str:
        self.calls.append((library, options))
        if len(self.calls) <= self.left:
            raise ValueError(f"Failed to load delegate from {library}\nresetting")
        return "delegate"


def test_loading_is_tried_again_with_growing_waits() -> None:
    slept: list[float] = []
    loader = Loader(3)
    assert attach(loader, TPU, sleep=slept.append) == "delegate"
    assert slept == list(WAITS_S[:3])
    assert loader.calls[0][1] == {"device": "usb:0"}


def test_a_device_that_stays_away_is_said_with_tries_and_reason() -> None:
    slept: list[float] = []
    with pytest.raises(RunError, match=r"usb:0 did not respond to 3 tries within 3 s \(resetting\)"):
        attach(Loader(99), TPU, waits_s=(1, 2), sleep=slept.append)
    assert slept == [1, 2]


def test_a_library_that_is_not_there_is_not_tried_again() -> None:
    slept: list[float] = []

    def load(library: str, options: dict[str, str]) -> object:
        raise OSError(f"{library} for {options['device']}: cannot open shared object file")

    with pytest.raises(DependencyError, match="install libedgetpu1-std"):
        attach(load, TPU, sleep=slept.append)
    assert slept == []


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for libedgetpu with")
    path = tmp_path_factory.mktemp("edgetpu") / "libfake.so"
    source = ROOT / "tests" / "support" / "fake_edgetpu.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    return path


def compiled_split(folder: Path) -> Path:
    write_split(folder, straight(2), ["s2"])
    for path in sorted((folder / "full_split" / "tflite").iterdir()):
        target = folder / "full_split" / "tpu" / f"{path.stem}_edgetpu.tflite"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def test_a_real_delegate_library_is_loaded_after_two_failures(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "failures"
    state.write_text("2       ")
    monkeypatch.setenv("FAKE_EDGETPU", str(state))
    job = read_job(compiled_split(tmp_path / "split"))
    with Chain(job.parts, LiteRtOpener(), outputs=job.outputs) as chain:
        wanted = chain.run(images(1)[0])[0].tobytes()
    opener = LiteRtOpener(library=str(library), waits_s=(0.0, 0.01, 0.01))
    with Chain(job.parts, opener, devices=[TPU], outputs=job.outputs) as chain:
        assert state.read_text().strip() == "0"
        assert chain.run(images(1)[0])[0].tobytes() == wanted


def test_a_real_delegate_library_that_keeps_failing(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "failures"
    state.write_text("99      ")
    monkeypatch.setenv("FAKE_EDGETPU", str(state))
    part = read_job(compiled_split(tmp_path / "split")).parts[0]
    with pytest.raises(RunError, match=r"2 tries .*Failed to open the device"):
        LiteRtOpener(library=str(library), waits_s=(0.01,))(part, TPU)
    with pytest.raises(RunError, match=r"usb:7 did not .*No device of that name"):
        LiteRtOpener(library=str(library), waits_s=())(part, parse_device("usb:7"))


def test_a_missing_libedgetpu_is_one_line(tmp_path: Path) -> None:
    part = read_job(compiled_split(tmp_path)).parts[0]
    with pytest.raises(DependencyError, match=r"library libnone\.so\.1 cannot be loaded"):
        LiteRtOpener(library="libnone.so.1")(part, TPU)


@pytest.mark.skipif(litert.PACKAGE == "tflite-runtime", reason="tflite-runtime is what is installed")
def test_an_interpreter_that_is_not_installed_is_one_line() -> None:
    with pytest.raises(DependencyError, match="tflite-runtime is not installed: pip install tflite-runtime"):
        LiteRtOpener("tflite-runtime")
