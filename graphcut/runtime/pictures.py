"""Read a model's input from a file on a device: pictures with Pillow, arrays with numpy.

Pictures are read as in calibration: upright, as RGB (or grey), resized bicubically to the input's size, then ``(pixel -
    mean) / std`` per channel; the interpreter quantises the result.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.errors import DependencyError, RunError, UsageError, setting
from graphcut.regular_file import opened
from graphcut.runtime.interpreter import AnyArray, Edge

_DAMAGED = (OSError, ValueError, EOFError, zlib.error)


def read_input(path: Path, edges: Sequence[Edge], preprocessing: Mapping[str, Any] | None) -> list[AnyArray]:
    """The inputs of a model from one file.

    Args:
        path: a picture (models with one input of 1 or 3 channels), an ``.npy`` or an ``.npz`` file with an array for
            each input by its name.
        edges: the model's inputs.
        preprocessing: "mean", "std", "colour" as in the manifest; None if unknown.

    Returns:
        Arrays in order, NHWC: float32 from pictures, unchanged from arrays.

    Raises:
        UsageError: the file does not exist or cannot be read.
        RunError: such a file cannot be an input of the model.
        DependencyError: Pillow is not installed.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "pass a picture, an .npy or an .npz file")
    if path.suffix in (".npy", ".npz"):
        return _read_arrays(path, edges)
    if len(edges) != 1:
        raise RunError(
            f"a picture needs a model with one input; this one has {len(edges)}",
            f"pass an .npz file with {', '.join(edge.name for edge in edges)}",
        )
    return [_read_picture(path, edges[0], preprocessing)]


def _read_arrays(path: Path, edges: Sequence[Edge]) -> list[AnyArray]:
    try:
        with opened(path) as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return [loaded]
            missing = [edge.name for edge in edges if edge.name not in loaded]
            if missing:
                raise RunError(f"{path.name} has no array {', '.join(missing)}", "name the arrays after the inputs")
            return [loaded[edge.name] for edge in edges]
    except (*_DAMAGED, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read as arrays", "pass a numeric .npy or .npz file") from error


def _read_picture(path: Path, edge: Edge, preprocessing: Mapping[str, Any] | None) -> AnyArray:
    if len(edge.shape) != 4 or edge.shape[3] not in (1, 3):
        size = "x".join(map(str, edge.shape))
        raise RunError(f"input {edge.name} is {size}, which is not a picture", "pass an .npy file of that shape")
    if preprocessing is None:
        raise RunError(
            "the preprocessing of pictures for this model is unknown",
            f"bundle again with {setting('mean')} and {setting('std')}, or pass an .npy file",
        )
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DependencyError("pictures need Pillow", "pip install pillow, or pass an .npy file") from error
    _, height, width, channels = edge.shape
    try:
        with opened(path) as stream, Image.open(stream) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB" if channels == 3 else "L")
        pixels = np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC))
    except (*_DAMAGED, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UsageError(f"{path} cannot be read as a picture", "pass another file") from error
    pixels = pixels.reshape(1, height, width, channels)
    if preprocessing.get("colour") == "bgr" and channels == 3:
        pixels = pixels[..., ::-1]
    mean, std = (np.asarray(preprocessing[name], np.float32).reshape(1, 1, 1, -1) for name in ("mean", "std"))
    values: AnyArray = np.ascontiguousarray((pixels.astype(np.float32) - mean) / std, np.float32)
    return values
