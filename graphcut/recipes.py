"""Recipes: short declarative files that describe a model and its preprocessing.

1. A recipe is a TOML file in ``models/``; its name is the file's name without ``.toml``. A path to such a file
   outside ``models/`` is a recipe as well.
2. It contains no code. Unknown fields and wrong types are errors, so that a misspelt field does not silently become a
   default.
3. A recipe without ``weights`` describes an untrained model: its weights are drawn from ``seed``, so that everybody
   gets the same ones. Its accuracy has no meaning.
4. A recipe names its source; the adapter in :mod:`graphcut.sources` of that name makes the ONNX file. What the
   adapter needs to be installed is the extra of the same name.

Fields (see ``models/resnet101.toml``)::

    source = "keras"                # required
    application = "ResNet101"       # required: the function of keras.applications
    input_shape = [224, 224, 3]     # required: height, width, channels
    weights = "resnet.weights.h5"   # optional: a file, relative to the recipe
    seed = 0                        # optional, 0
    opset = 17                      # optional, 17
    [preprocessing]                 # optional: records.Preprocessing, (pixel - mean) / std
    colour = "bgr"                  # optional, "rgb"
    mean = [103.939, 116.779, 123.68]
    std = [1.0]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

from graphcut.errors import UsageError
from graphcut.records import Preprocessing
from graphcut.regular_file import opened

SUFFIX = ".toml"
_MOST_BYTES = 2**20
LARGEST = 1e30
"""Of a number in a recipe."""
SOURCES = ("keras",)
# tf2onnx 1.17 writes opsets up to 18; below 13, ops carry as attributes what the later passes expect as inputs.
OPSETS = range(13, 19)

_FIELDS = ("application", "input_shape", "opset", "preprocessing", "seed", "source", "weights")
_PREPROCESSING_FIELDS = ("colour", "mean", "std")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which model to make, and how its input is prepared.

    Attributes:
        name: the recipe file's name without its ending.
        source: the adapter that makes the model, also the extra to install ("keras").
        application: name of the function in ``keras.applications`` ("ResNet101").
        input_shape: height, width, channels (NHWC without the batch, as Keras has it).
        weights: file of trained weights; None for weights drawn from ``seed``.
        seed: of the weights, 0 .. 2**32 - 1.
        opset: ONNX operator set of the export.
        preprocessing: from pixels to the model's input.
    """

    name: str
    source: Literal["keras"]
    application: str
    input_shape: tuple[int, int, int]
    weights: Path | None
    seed: int
    opset: int
    preprocessing: Preprocessing

    @property
    def untrained(self) -> bool:
        """The weights are drawn from a seed, so there is no data the model was made for."""
        return self.weights is None


def folder() -> Path:
    """Return the folder with the recipes: inside an installed package, ``models/`` in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_models"
    return installed if installed.is_dir() else package.parent / "models"


def names() -> tuple[str, ...]:
    """Return the names of all recipes, sorted."""
    return tuple(sorted(path.stem for path in folder().glob(f"*{SUFFIX}")))


def find(name: str) -> Recipe:
    """Return the recipe of that name, or in that ``.toml`` file.

    Raises:
        UsageError: there is none (lists close matches and all names), or its file is wrong.
    """
    path = Path(name) if name.endswith(SUFFIX) else folder() / f"{name}{SUFFIX}"
    if name.endswith(SUFFIX) and not path.is_file():
        raise UsageError(f"the recipe file {name} does not exist", f"pass a path, or one of {', '.join(names())}")
    if not name.endswith(SUFFIX) and name not in names():
        close = get_close_matches(name.lower(), names(), n=3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UsageError(
            f"unknown recipe {name!r}",
            f"{hint}the recipes are {', '.join(names())}; a model file has its ending (.onnx, .keras, .tflite, .pt2)",
        )
    return read(path)


def read(path: Path) -> Recipe:
    """Read and check one recipe file.

    Raises:
        UsageError: not readable, not TOML, a field that is missing, unknown or wrong; names file and field.
    """
    try:
        with opened(path) as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UsageError(f"{path}: larger than {_MOST_BYTES >> 10} KiB, the limit of a recipe")
        fields = tomllib.loads(content.decode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError, OverflowError) as error:  # of numbers without end, and lists in lists
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path}: not a TOML file ({reason})") from error
    _refuse_unknown(path, fields, _FIELDS)
    source = _text(path, fields, "source")
    if source not in SOURCES:
        raise UsageError(f"{path}: unknown source {source!r}", f"one of {', '.join(SOURCES)}")
    application = _text(path, fields, "application")
    if not application.isidentifier():
        raise UsageError(f"{path}: application {application!r} is not a name", 'such as "ResNet101"')
    return Recipe(
        name=path.stem,
        source=cast(Literal["keras"], source),
        application=application,
        input_shape=_input_shape(path, fields),
        weights=_weights(path, fields),
        seed=_whole_number(path, fields, "seed", 0, range(2**32)),
        opset=_whole_number(path, fields, "opset", 17, OPSETS),
        preprocessing=_preprocessing(path, fields.get("preprocessing", {})),
    )


def _refuse_unknown(path: Path, fields: Mapping[str, Any], known: tuple[str, ...], prefix: str = "") -> None:
    for field in sorted(fields):
        if field not in known:
            close = get_close_matches(field, known, n=1)
            hint = f"did you mean {prefix}{close[0]}? " if close else ""
            raise UsageError(f"{path}: unknown field {prefix}{field}", f"{hint}the fields are {', '.join(known)}")


def _text(path: Path, fields: Mapping[str, Any], field: str) -> str:
    value = fields.get(field)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{path}: {field} is {_shown(value)}", "it must be a string in quotes")
    return value


def _whole_number(path: Path, fields: Mapping[str, Any], field: str, default: int, allowed: range) -> int:
    value = fields.get(field, default)
    if type(value) is not int or value not in allowed:
        raise UsageError(
            f"{path}: {field} is {_shown(value)}", f"it must be an integer from {allowed[0]} to {allowed[-1]}"
        )
    return value


def _input_shape(path: Path, fields: Mapping[str, Any]) -> tuple[int, int, int]:
    value = fields.get("input_shape")
    if not isinstance(value, list) or len(value) != 3 or any(type(size) is not int or size < 1 for size in value):
        raise UsageError(
            f"{path}: input_shape is {_shown(value)}", "it must be [height, width, channels], such as [224, 224, 3]"
        )
    height, width, channels = value
    return height, width, channels


def _weights(path: Path, fields: Mapping[str, Any]) -> Path | None:
    if "weights" not in fields:
        return None
    try:
        # Absolute, so that no library takes it for one of its own words, such as "imagenet", and downloads something.
        weights = (path.parent / Path(_text(path, fields, "weights")).expanduser()).resolve()
        found = weights.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{path}: weights is not a path", "set it to a file, relative to the recipe") from error
    if not found:
        raise UsageError(
            f"{path}: the weights {weights} do not exist", "set a file, relative to the recipe, or omit the field"
        )
    return weights


def _preprocessing(path: Path, fields: Any) -> Preprocessing:
    if not isinstance(fields, dict):
        raise UsageError(f"{path}: preprocessing is {_shown(fields)}", "it must be a table, [preprocessing]")
    _refuse_unknown(path, fields, _PREPROCESSING_FIELDS, "preprocessing.")
    colour = fields.get("colour", "rgb")
    if colour not in ("rgb", "bgr"):
        raise UsageError(f"{path}: preprocessing.colour is {_shown(colour)}", 'it must be "rgb" or "bgr"')
    mean = _numbers(path, fields, "mean", 0.0)
    std = _numbers(path, fields, "std", 1.0)
    if min(std) <= 0:
        raise UsageError(f"{path}: preprocessing.std contains {min(std)}", "every value must be positive")
    return Preprocessing(mean=mean, std=std, colour=colour)


def _numbers(path: Path, fields: Mapping[str, Any], field: str, default: float) -> tuple[float, ...]:
    value = fields.get(field, [default])
    numbers = value if isinstance(value, list) else []
    if len(numbers) not in (1, 3) or not all(_is_small(x) for x in numbers):
        raise UsageError(
            f"{path}: preprocessing.{field} is {_shown(value)}", "it must be one number or three, such as [127.5]"
        )
    return tuple(float(number) for number in numbers)


def _is_small(value: object) -> bool:
    """A number that float32 holds."""
    return type(value) in (int, float) and -LARGEST <= cast(float, value) <= LARGEST


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    words = repr(value)
    return words if len(words) <= 80 else f"{words[:80]}..."
