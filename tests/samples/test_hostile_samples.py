"""Calibration files that are damaged, pretend, or attack: one line each, and bounded memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphcut.errors import CalibrationError, UsageError
from graphcut.recipes import read
from graphcut.records import ModelInput, Preprocessing
from graphcut.samples import load_samples

INPUT = ModelInput(name="image", shape=(1, 3, 8, 8), source_layout="NCHW", source_shape=(1, 3, 8, 8))
PIXELS = Preprocessing()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(text: str) -> bytes:
    """An .npy whose header is any text."""
    content = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content


def npz(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


class Boom:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/graphcut-was-here",)


def encrypted() -> bytes:
    content = bytearray(npz({"image.npy": npy(np.zeros((1, 3, 8, 8), np.float32))}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    return bytes(content)


def unknown_method() -> bytes:
    content = bytearray(npz({"image.npy": npy(np.zeros((1, 3, 8, 8), np.float32))}))
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = content.index(signature) + offset
        content[place : place + 2] = struct.pack("<H", 77)
    return bytes(content)


def twice() -> bytes:
    """Two arrays of one name: which of them is read would depend on the reader."""
    values = npy(np.zeros((1, 3, 8, 8), np.float32))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("image.npy", values)
        archive.writestr("image.npy", values)
    return stream.getvalue()


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 8, 8), }"
FILES = {
    "pickle renamed.npy": pickle.dumps(Boom()),
    "pickle inside.npz": npz({"image.npy": pickle.dumps(Boom())}),
    "objects.npy": npy(np.array([{}, []], dtype=object)),
    "objects.npz": npz({"image.npy": npy(np.array([{}], dtype=object))}),
    "no array inside.npz": npz({"image": b"text"}),
    "encrypted.npz": encrypted(),
    "method.npz": unknown_method(),
    "endless.npz": npz({"image.npy": header(GOOD.replace("(1, 3, 8, 8)", f"({2**40}, 3, 8, 8)"))}),
    "bomb.npz": npz({"image.npy": header(GOOD) + bytes(2**20)}, zipfile.ZIP_DEFLATED)[:-40],
    "twice.npz": twice(),
    "tokens.npy": header("{'descr': '''"),
    "nested.npy": header("(" * 100),
    "shape.npy": header(GOOD.replace("(1, 3, 8, 8)", "'x'")),
    "negative.npy": header(GOOD.replace("(1, 3, 8, 8)", "(-1, 3, 8, 8)")),
    "unhashable.npy": header("{[]: 1}"),
    "descr.npy": header(GOOD.replace("'<f4'", "[('a', '<f4')]")),
    "short.npy": npy(np.zeros((4, 3, 8, 8), np.float32))[:-100],
    "empty.npz": npz({}),
    "nothing.npy": b"",
    "version.npy": b"\x93NUMPY\x09\x00" + bytes(60),
}


@pytest.mark.parametrize("name", FILES)
def test_arrays_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    with pytest.raises(CalibrationError) as caught:
        load_samples(path, (INPUT,), None)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert not Path("/tmp/graphcut-was-here").exists()


def test_good_arrays_are_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "b.npz", image=values, other=np.zeros(3))
    for name in ("a.npy", "b.npz"):
        np.testing.assert_array_equal(load_samples(tmp_path / name, (INPUT,), None).arrays["image"], values)


def picture(kind: str, size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (10, 20, 30)).save(stream, kind)
    return stream.getvalue()


def huge_png() -> bytes:
    """A few bytes that declare 40,000 x 40,000 pixels."""
    content = bytearray(picture("PNG"))
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", __import__("zlib").crc32(bytes(content[12:29])))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (huge_png(), "too many pixels"),
        (picture("PNG")[:50], "cannot be read"),
        (picture("JPEG")[:200], "cannot be read"),
        (b"", "not a picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "cannot be read"),
    ],
)
def test_pictures_are_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=said) as caught:
        load_samples(path, (INPUT,), PIXELS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pipe", "pipe.npy", "pipe.npz", "pipe.png"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(CalibrationError, match="is neither a file nor a folder"):
        load_samples(tmp_path / name, (INPUT,), PIXELS)


RECIPE = 'source = "keras"\napplication = "ResNet50"\ninput_shape = [224, 224, 3]\n'


@pytest.mark.parametrize(
    "more",
    [
        "seed = " + "9" * 5000,
        "opset = " + "[" * 3000,
        "[preprocessing]\nmean = [1" + "0" * 400 + "]",
        "[preprocessing]\nstd = [1e999]",
        "[preprocessing]\nstd = [1e300]",
        'weights = "a\\u0000b"',
        'weights = "' + "a" * 5000 + '"',
        'weights = "imagenet"',
        "# " + "x" * 2**21,
    ],
)
def test_recipes_are_refused_in_one_short_line(more: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(RECIPE + more)
    with pytest.raises(UsageError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_weights_are_a_path_whatever_they_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras takes the word "imagenet" for a download; a file of that name is given as an absolute path."""
    (tmp_path / "imagenet").write_bytes(b"")
    (tmp_path / "r.toml").write_text(RECIPE + 'weights = "imagenet"')
    monkeypatch.chdir(tmp_path)
    weights = read(Path("r.toml")).weights
    assert weights is not None
    assert weights.is_absolute()
