"""Samples for the model's inputs: from pictures, from arrays, or synthetic on request.

1. *Pictures* (a folder, searched with its sub-folders, or one file) work for a model with one image input. They are
   turned upright according to their EXIF data, converted to RGB (to grey where the model has one channel), resized
   bicubically to the model's H x W without keeping proportions, and prepared: ``(pixel - mean) / std``.
2. *Arrays* come as ``.npy`` (a model with one input) or ``.npz`` (by input name), NCHW or NHWC, with or without a
   batch axis. The layout is read from the shape; where both fit, the one given, else the one of the model's source.
   uint8 arrays are RGB pixels and are prepared like pictures, but not resized; arrays of any other type are used
   unchanged.
3. *Synthetic* samples (the word "random") are smooth seeded noise over the range of pixels, prepared like pictures.
   They are marked, because ranges and accuracy measured on them say little about real data.
4. The preprocessing belongs to the model but is not in an ONNX file: without it, pictures are refused instead of
   guessing a range. Synthetic samples then lie in [-2, 2].
5. More samples than the limit: as many as it allows, evenly spaced over the sorted list. Same input, same samples.

Not supported: 16-bit pictures, pictures for inputs with other than 1 or 3 channels, moving pictures (the first
frame counts), sparse or object arrays.
"""

from __future__ import annotations

import hashlib
import math
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from graphcut import numpy_files
from graphcut.errors import CalibrationError, setting
from graphcut.progress import Event, Report, silent
from graphcut.records import Array, ModelInput, Preprocessing, Samples, Shape

RANDOM = "random"
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
WAYS = "pass a folder of pictures, an .npy or .npz file, or random for synthetic samples"

FEWEST_TO_DIVIDE = 20
KEPT_OUT_EVERY = 5
_DEFAULT_RANDOM = 8
_DEFAULT_LIMIT = 100
# Synthetic samples of a model whose preparation is not known: pixels 0..255 to [-2, 2], about what networks that
# normalise by the statistics of ImageNet are fed with.
_UNKNOWN = Preprocessing(mean=(127.5,), std=(63.75,))
# What Pillow raises for files that are not pictures, are cut off, or pretend to be huge: its decoders raise what the
# bytes happen to run into.
_BAD_PICTURE = (
    *(OSError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, SyntaxError, AttributeError),
    *(RuntimeError, MemoryError, RecursionError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names for SUFFIXES. It goes by the content: others, such as EPS, would start programs."""

LayoutOption = Literal["auto", "NCHW", "NHWC"]


def load_samples(
    spec: str | Path,
    inputs: tuple[ModelInput, ...],
    preprocessing: Preprocessing | None,
    *,
    layout: LayoutOption = "auto",
    limit: int | None = None,
    seed: int = 0,
    skip_unreadable: bool = False,
    report: Report = silent,
) -> Samples:
    """Load the samples that ``spec`` names, as the model gets them.

    Args:
        spec: a folder, a picture, an ``.npy`` or ``.npz`` file, or "random".
        inputs: the model's inputs.
        preprocessing: from pixels to the model's input; None if unknown (statement 4).
        layout: of arrays; "auto" reads it from the shape.
        limit: most samples to take; None for 8 synthetic ones, or 100 of any other kind.
        seed: of synthetic samples.
        skip_unreadable: skip pictures that cannot be read, with a note, instead of refusing them.
        report: receives each picture, and a note for each skipped one.

    Returns:
        Float32 arrays in the normalised graph's layout (NCHW), at least one sample.

    Raises:
        CalibrationError: the data does not exist, is not usable, or has another shape than the model's input.
    """
    if limit is not None and limit < 1:
        raise CalibrationError(f"{limit} samples were requested", "use at least 1")
    if preprocessing is not None:
        _require_possible(preprocessing)
    if spec == RANDOM:
        return _synthetic(inputs, preprocessing or _UNKNOWN, limit or _DEFAULT_RANDOM, seed)
    check_spec(spec, preprocessing)
    path, wanted = Path(spec), limit or _DEFAULT_LIMIT
    if _holds_arrays(path):
        return _from_arrays(path, inputs, preprocessing, layout, wanted, report)
    return _from_pictures(path, inputs, preprocessing or Preprocessing(), wanted, skip_unreadable, report)


def held_out(samples: Samples) -> tuple[Samples, Samples | None]:
    """Exclude every fifth of at least ``FEWEST_TO_DIVIDE`` real samples from calibration.

    Returns:
        The calibration samples, and those for the verdict; None where there are too few samples, or synthetic ones.
    """
    count = len(samples)
    if samples.synthetic or count < FEWEST_TO_DIVIDE:
        return samples, None
    kept = [number for number in range(count) if number % KEPT_OUT_EVERY != KEPT_OUT_EVERY - 1]
    others = [number for number in range(count) if number % KEPT_OUT_EVERY == KEPT_OUT_EVERY - 1]
    return _subset(samples, kept), _subset(samples, others)


def _subset(samples: Samples, numbers: Sequence[int]) -> Samples:
    arrays = {name: np.ascontiguousarray(array[list(numbers)]) for name, array in samples.arrays.items()}
    return make_samples(arrays, [samples.names[number] for number in numbers], samples.origin, samples.synthetic)


def of_several(
    images: npt.NDArray[Any] | Sequence[str | Path],
    inputs: tuple[ModelInput, ...],
    preprocessing: Preprocessing | None,
    *,
    report: Report = silent,
) -> Samples:
    """Make samples of several files, or of an array for a model with one input.

    Args:
        images: paths of pictures or of ``.npy`` files; or an array (N, ...) in the model's own layout or the other
            one, uint8 pixels 0..255 or float32 values as the model takes them.
        inputs, preprocessing, report: see :func:`load_samples`.

    Raises:
        CalibrationError: as :func:`load_samples`.
    """
    if isinstance(images, np.ndarray):
        if len(inputs) != 1:
            raise CalibrationError(f"one array is given for {len(inputs)} inputs", "pass samples by name")
        return _of_arrays([images], "array", inputs, preprocessing, "auto", len(images) if images.ndim else 1, report)
    loaded = [load_samples(each, inputs, preprocessing, report=report) for each in images]
    if not loaded:
        raise CalibrationError("no inputs are given", "pass pictures or arrays")
    arrays = {each.name: np.concatenate([one.arrays[each.name] for one in loaded]) for each in inputs}
    return make_samples(arrays, [name for one in loaded for name in one.names], "several files", synthetic=False)


def check_spec(spec: str | Path, preprocessing: Preprocessing | None) -> None:
    """Refuse early what can be refused without the model: no data, no pictures, no preprocessing (statement 4).

    Raises:
        CalibrationError: as :func:`load_samples`.
    """
    path = Path(spec)
    if spec == RANDOM:
        return
    if not path.exists():
        raise CalibrationError(f"{path} does not exist", WAYS)
    if not path.is_file() and not path.is_dir():
        raise CalibrationError(f"{path} is neither a file nor a folder", WAYS)
    if _holds_arrays(path):
        return
    pictures_in(path)
    if preprocessing is None:
        raise CalibrationError(
            "the preprocessing of pictures for this model is unknown",
            f"set {setting('mean')} and {setting('std')} in pixel values (127.5 and 127.5 for [-1, 1], 0 and 255 for "
            "[0, 1], 0 and 1 for pixels as they are)",
        )


def _require_possible(preprocessing: Preprocessing) -> None:
    for option, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if not all(math.isfinite(value) for value in values) or (option == "std" and min(values, default=1.0) <= 0):
            raise CalibrationError(f"{option} is {values}", "use finite numbers, and a positive std")
    if preprocessing.colour not in ("rgb", "bgr"):
        raise CalibrationError(f"there is no colour order {preprocessing.colour!r}", "use rgb or bgr")


def _holds_arrays(path: Path) -> bool:
    return path.suffix.lower() in {".npy", ".npz"} and path.is_file()


def make_samples(arrays: Mapping[str, Array], names: Sequence[str], origin: str, synthetic: bool) -> Samples:
    """Put arrays (N, *shape[1:]) that are ready for the model into a record, hash included."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return Samples(arrays=arrays, names=tuple(names), origin=origin, synthetic=synthetic, sha256=digest.hexdigest())


def _spaced(count: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` of 0..count-1, evenly spaced (statement 5)."""
    taken = min(count, wanted)
    return [index * count // taken for index in range(taken)]


def _tell_left_out(name: str, count: int, wanted: int, report: Report) -> None:
    if count > wanted:
        detail = f"{name} has {count} samples; {wanted} are used, evenly spaced (use {setting('samples')} for more)"
        report(Event(stage="samples", detail=detail, note=True))


# --- pictures ---


def _from_pictures(
    path: Path,
    inputs: tuple[ModelInput, ...],
    preprocessing: Preprocessing,
    wanted: int,
    skip_unreadable: bool,
    report: Report,
) -> Samples:
    target = _image_input(inputs)
    files = pictures_in(path)
    _tell_left_out(path.name, len(files), wanted, report)
    chosen = [files[index] for index in _spaced(len(files), wanted)]
    arrays, names = [], []
    for done, file in enumerate(chosen, start=1):
        name = file.relative_to(path).as_posix() if file != path else file.name
        try:
            pixels = _read_picture(file, target.shape)
        except _BAD_PICTURE as error:
            what = f"picture {name} cannot be read ({_reason(error)})"
            if not skip_unreadable:
                way_out = (
                    "pass another one"
                    if file == path
                    else f"remove it, or skip such files with {setting('skip_unreadable')}"
                )
                raise CalibrationError(what, way_out) from error
            report(Event(stage="samples", detail=f"{what}: skipped", note=True))
            continue
        arrays.append(_prepare(pixels[np.newaxis], preprocessing))
        names.append(name)
        report(Event(stage="samples", done=done, total=len(chosen), detail=name))
    if not arrays:
        raise CalibrationError(f"none of the {len(chosen)} pictures in {path} can be read", WAYS)
    origin = f"folder {path.resolve().name}" if path.is_dir() else path.name
    return make_samples({target.name: np.concatenate(arrays)}, names, origin, synthetic=False)


def _image_input(inputs: tuple[ModelInput, ...]) -> ModelInput:
    """Return the one input that pictures can feed."""
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise CalibrationError(
            f"pictures need a model with one input; this one has {len(inputs)}", f"pass an .npz file with {names}"
        )
    target = inputs[0]
    if len(target.shape) != 4 or target.shape[1] not in {1, 3}:
        raise CalibrationError(
            f"pictures have 1 or 3 channels, but input {target.name} is {_shown(target.shape)}",
            "pass an .npy file of that shape",
        )
    return target


def pictures_in(path: Path) -> list[Path]:
    """Return the pictures of a folder and its sub-folders, sorted; a file is itself.

    Raises:
        CalibrationError: there is none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        endings = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise CalibrationError(f"no pictures in {path} ({endings})", WAYS)
    return files


def _read_picture(file: Path, shape: Shape) -> npt.NDArray[np.uint8]:
    """Read one picture as (C, H, W) pixels in the size of an input of ``shape`` (1, C, H, W) (statement 1)."""
    _, channels, height, width = shape
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # 89 million pixels, Pillow's limit
        warnings.simplefilter("ignore", UserWarning)  # of what is odd in its metadata
        return _pixels(file, channels, height, width)


def _pixels(file: Path, channels: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        if picture.mode.startswith(("I", "F")):
            raise ValueError("its pixels do not have 8 bits")
        upright = ImageOps.exif_transpose(picture).convert("RGB" if channels == 3 else "L")
    pixels = np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC))
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def _prepare(pixels: npt.NDArray[np.uint8] | Array, preprocessing: Preprocessing) -> Array:
    """Turn RGB or grey pixels (N, C, H, W) into the model's input, in float32."""
    channels = pixels.shape[1]
    ordered = pixels[:, ::-1] if preprocessing.colour == "bgr" and channels == 3 else pixels
    factors = []
    for option, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) not in {1, channels}:
            raise CalibrationError(
                f"{option} has {len(values)} values, but the input has {channels} channels", f"use 1 or {channels}"
            )
        factors.append(np.asarray(values, np.float32).reshape(1, -1, 1, 1))
    mean, std = factors
    return np.ascontiguousarray((ordered.astype(np.float32) - mean) / std)


# --- arrays ---


def _from_arrays(
    path: Path,
    inputs: tuple[ModelInput, ...],
    preprocessing: Preprocessing | None,
    layout: LayoutOption,
    wanted: int,
    report: Report,
) -> Samples:
    return _of_arrays(_read_arrays(path, inputs), path.name, inputs, preprocessing, layout, wanted, report)


def _of_arrays(
    given: Sequence[npt.NDArray[Any]],
    origin: str,
    inputs: tuple[ModelInput, ...],
    preprocessing: Preprocessing | None,
    layout: LayoutOption,
    wanted: int,
    report: Report,
) -> Samples:
    """Make samples of one array for each input, in order."""
    arrays: dict[str, Array] = {}
    counts: dict[str, int] = {}
    for target, raw in zip(inputs, given, strict=True):
        where = f"{origin}, input {target.name}"
        if raw.dtype.kind not in "fiu":
            raise CalibrationError(f"{where}: an array of {raw.dtype} is not numeric", "pass float32 or uint8")
        batch = _in_model_layout(raw, target, layout, preprocessing, where)
        counts[target.name] = len(batch)
        if len(batch) == 0:
            raise CalibrationError(f"{where}: it contains no samples; its shape is {_shown(raw.shape)}", WAYS)
        chosen = batch[_spaced(len(batch), wanted)]
        arrays[target.name] = _as_input(chosen, target, preprocessing, where)
        if raw.dtype.kind == "f" and preprocessing not in {None, Preprocessing()}:
            detail = (
                f"{origin} contains {raw.dtype} numbers, which are used unchanged; mean, std and colour apply to pixels"
            )
            report(Event(stage="samples", detail=detail, note=True))
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise CalibrationError(f"{origin}: the inputs have different numbers of samples ({listed})")
    count = next(iter(counts.values()))
    _tell_left_out(origin, count, wanted, report)
    names = [f"{origin}[{index}]" for index in _spaced(count, wanted)]
    return make_samples(arrays, names, origin, synthetic=False)


def _read_arrays(path: Path, inputs: tuple[ModelInput, ...]) -> list[npt.NDArray[Any]]:
    """Read one array for each input, in order; an ``.npy`` is mapped, so that only the samples taken are read."""
    expected = [each.name for each in inputs]
    try:
        found = numpy_files.names(path)
        if found is not None:
            missing = [name for name in expected if name not in found]
            if missing:
                has = ", ".join(name[:80] for name in found[:20]) or "none"
                raise CalibrationError(
                    f"{path.name} has no array for input {missing[0]}; it has {has}",
                    "name the arrays after the inputs of the model",
                )
            return numpy_files.members(path, expected)
        if len(inputs) == 1:
            return [numpy_files.mapped(path)]
    except numpy_files.BadArraysError as error:
        raise CalibrationError(f"{path} cannot be read: {error}", WAYS) from error
    raise CalibrationError(
        f"{path.name} contains one array, but the model has {len(inputs)} inputs",
        f"pass an .npz file with {', '.join(expected)}",
    )


def _in_model_layout(
    raw: npt.NDArray[Any],
    target: ModelInput,
    layout: LayoutOption,
    preprocessing: Preprocessing | None,
    where: str,
) -> npt.NDArray[Any]:
    """View ``raw`` as (N, *target.shape[1:]), judging layout and batch axis by its shape (statement 2)."""
    forms = _forms(target)
    if layout != "auto":
        forms = {name: shape for name, shape in forms.items() if name in {layout, "grey", "other"}}
    fitting = [name for name, shape in forms.items() if shape in {raw.shape, raw.shape[1:]}]
    if not fitting:
        known = " or ".join(
            f"{_shown(shape)} {name}" if name != "other" else _shown(shape) for name, shape in forms.items()
        )
        raise CalibrationError(
            f"{where}: the array is {_shown(raw.shape)}, but the model takes {known}",
            "a leading batch axis is optional",
        )
    told = preprocessing.layout if preprocessing is not None else None
    preferred = told or target.source_layout
    name = preferred if preferred in fitting else fitting[0]
    batch = raw if raw.ndim > len(forms[name]) else raw[np.newaxis]
    if name == "NHWC":
        return batch.transpose(0, 3, 1, 2)
    return batch.reshape(len(batch), *target.shape[1:])


def _forms(target: ModelInput) -> dict[str, Shape]:
    """Return the shapes that one sample of an input may have, by layout."""
    one = target.shape[1:]
    if len(one) != 3:
        return {"other": one}
    channels, height, width = one
    forms: dict[str, Shape] = {"NCHW": one, "NHWC": (height, width, channels)}
    return forms | {"grey": (height, width)} if channels == 1 else forms


def _as_input(chosen: npt.NDArray[Any], target: ModelInput, preprocessing: Preprocessing | None, where: str) -> Array:
    """Prepare pixels; take other numbers as they are, in float32, if they are finite."""
    if chosen.dtype == np.uint8 and len(target.shape) == 4:
        if preprocessing is None:
            raise CalibrationError(
                f"{where}: it contains uint8 pixels, and the preprocessing for this model is unknown",
                f"set {setting('mean')} and {setting('std')} in pixel values, or pass the model's input as float32",
            )
        return _prepare(chosen, preprocessing)
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(chosen, np.float32)
    if not np.isfinite(values).all():
        bad = int(np.argmax(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
        raise CalibrationError(f"{where}: NaN or infinity in sample {bad}")
    return values


# --- synthetic ---


def _synthetic(inputs: tuple[ModelInput, ...], preprocessing: Preprocessing, count: int, seed: int) -> Samples:
    """Make smooth noise for images, normal noise for everything else (statement 3)."""
    arrays: dict[str, Array] = {}
    for index, target in enumerate(inputs):
        rng = np.random.default_rng([seed, index])
        if len(target.shape) != 4:
            arrays[target.name] = rng.standard_normal((count, *target.shape[1:]), np.float32)
            continue
        pixels = np.stack([noise_picture(rng, target.shape[1:]) for _ in range(count)])
        arrays[target.name] = _prepare(pixels, preprocessing)
    return make_samples(arrays, [f"random {index}" for index in range(count)], f"random, seed {seed}", synthetic=True)


# --- words ---


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _reason(error: BaseException) -> str:
    """Say in a few words why Pillow refused a file; its own words hold the path once more."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning | MemoryError):
        return "too many pixels"
    words = " ".join(str(error).split())
    return words[:200] if words.isprintable() and words else type(error).__name__


def noise_picture(rng: np.random.Generator, shape: Shape) -> Array:
    """Sum noise of falling strength over rising detail, as in photographs; pixels (C, H, W) in 0..255.

    Most of the brightness is shared by the channels, as it is in photographs. Linear in the number of pixels.
    """
    channels, height, width = shape
    total = np.zeros(shape, np.float32)
    cells, strength = 2, 1.0
    while cells <= min(64, max(2, height, width)):
        shared = rng.random((1, cells + 1, cells + 1), np.float32)
        own = rng.random((channels, cells + 1, cells + 1), np.float32)
        total += np.float32(strength) * _enlarged(0.7 * shared + 0.3 * own, height, width)
        cells, strength = 2 * cells, 0.6 * strength
    low, high = float(total.min()), float(total.max())
    return (total - low) * np.float32(255 / max(high - low, 1e-6))


def _enlarged(grid: Array, height: int, width: int) -> Array:
    """Interpolate (C, h, w) linearly to (C, height, width)."""
    for axis, size in ((1, height), (2, width)):
        at = np.linspace(0, grid.shape[axis] - 1, size, dtype=np.float32)
        below = np.minimum(at.astype(np.intp), max(grid.shape[axis] - 2, 0))
        part = (at - below).astype(np.float32).reshape(-1, 1) if axis == 1 else (at - below).astype(np.float32)
        grid = np.take(grid, below, axis) * (1 - part) + np.take(grid, below + 1, axis) * part
    return grid
