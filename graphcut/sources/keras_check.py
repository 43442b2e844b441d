"""Check a Keras file before Keras reads it: its format, and that reading it runs no code from the file.

1. A ``.keras`` file is a zip archive with ``config.json``; a ``.h5`` file keeps the same in the attribute
   ``model_config``. Both list layers as ``{"class_name": ..., "config": {"name": ...}}``, nested at will.
2. A layer that contains Python code (Lambda), a pickle or the path of another model is refused. So is any object that
   is not part of Keras: its code is not in the file, and graphcut does not look for it elsewhere.
3. Only layers that compute are allowed, by name (:mod:`graphcut.sources.keras_layers`). Lookup layers read a
   vocabulary, which may be any local file or a network address.
4. All data must be in the file itself (:mod:`graphcut.sources.hdf5_check`), also in the weights of a ``.keras``
   archive.
5. Nothing is imported or executed here; TensorFlow does not have to be installed.
"""

from __future__ import annotations

import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from graphcut.errors import ModelError
from graphcut.sources import hdf5_check
from graphcut.sources.hdf5_check import AGAIN
from graphcut.sources.keras_layers import LAYERS, VOCABULARIES

CODE = {
    "Lambda": "Python code",
    "TorchModuleWrapper": "a Python pickle",
    "TFSMLayer": "the path of another model",
    "FlaxLayer": "Python code",
    "JaxLayer": "Python code",
}
"""Layer class -> what it contains."""

_OWN = ("keras", "tf_keras", "keras_hub", "keras_cv", "keras_nlp")
_PARTS_OF_KERAS = ("keras", "tf_keras", "builtins")
_MOST_BYTES = 2**28
_MOST_ENTRIES = 10_000
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
"""Exceptions of zipfile for an archive that is damaged or uses an unknown compression."""
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError)
"""Exceptions of h5py for a damaged file."""
# Functions that TFOpLambda of Keras 2 may call: operators without side effects.
_PURE = ("__operators__.", "math.", "nn.", "image.resize", "compat.v1.nn.", "compat.v1.transpose", "compat.v1.pad")
# fmt: off
_PURE_WORDS = frozenset({
    "cast", "clip_by_value", "concat", "convert_to_tensor", "expand_dims", "identity", "pad", "reshape", "reverse",
    "shape", "slice", "split", "squeeze", "stack", "stop_gradient", "strided_slice", "tile", "transpose", "unstack",
})
# fmt: on


def check(argument: Mapping[str, Any]) -> None:
    """All checks of this module for the file ``path``, called ``subject`` in errors, as one call for a worker."""
    subject = str(argument["subject"])
    path = Path(argument["path"])
    config = read_config(path, subject)
    refuse_code(config, subject)
    refuse_other_layers(config, subject)
    if zipfile.is_zipfile(path):
        _refuse_outside_storage(path, subject)


def _refuse_outside_storage(path: Path, subject: str) -> None:
    """Refuse an archive whose weights are stored elsewhere, or are larger than any model (statement 4)."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > hdf5_check.MOST_BYTES or len(archive.infolist()) > _MOST_ENTRIES:
                raise ModelError(
                    f"{subject} unpacks to {size / 2**30:.1f} GiB in {len(archive.infolist())} files", AGAIN
                )
            for entry in archive.infolist():
                if entry.filename.endswith((".h5", ".hdf5")):
                    hdf5_check.check(io.BytesIO(archive.read(entry)), f"{subject}, {entry.filename}")
    except _ZIP_ERRORS as error:
        raise ModelError(f"{subject} is not a .keras file, or it is truncated", AGAIN) from error
    except _HDF5_ERRORS as error:
        raise ModelError(f"{subject} is truncated or damaged (HDF5: {_words(error)})", AGAIN) from error


def read_config(path: Path, subject: str) -> dict[str, Any]:
    """The architecture of a Keras file.

    Args:
        path: a ``.keras`` or ``.h5`` file.
        subject: what to call it in errors.

    Raises:
        ModelError: not such a file, truncated, or without an architecture.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
        text = _from_archive(path, subject) if magic == b"PK\3\4" else _from_hdf5(path, subject, magic)
        config = json.loads(text)
    except _ZIP_ERRORS as error:
        raise ModelError(f"{subject} is not a .keras file, or it is truncated", AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{subject} contains no model: its architecture is not JSON", AGAIN) from error
    except OSError as error:
        raise ModelError(f"{subject} cannot be read ({error.strerror or 'not a Keras file, or truncated'})") from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise ModelError(f"{subject} contains no model: its architecture is not a layer", AGAIN)
    return config


def _from_archive(path: Path, subject: str) -> str:
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise ModelError(f"{subject} is a zip archive without config.json, not a Keras model", AGAIN)
        if archive.getinfo("config.json").file_size > _MOST_BYTES:
            raise ModelError(f"{subject}: its config.json is larger than {_MOST_BYTES >> 20} MiB", AGAIN)
        return archive.read("config.json").decode()


def _from_hdf5(path: Path, subject: str, magic: bytes) -> str:
    if magic != b"\x89HDF":
        empty = " (it is empty)" if not magic else ""
        raise ModelError(f"{subject} is neither a .keras nor an HDF5 file{empty}", AGAIN)
    try:
        hdf5_check.check(path, subject)  # before any lookup in the file, which would follow links
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            weights_only = "layer_names" in file.attrs or "layers" in file or "_layer_checkpoint_dependencies" in file
    except _HDF5_ERRORS as error:
        raise ModelError(f"{subject} is truncated or damaged (HDF5: {_words(error)})", AGAIN) from error
    if text is None:
        what = (
            "contains weights only, not the architecture" if weights_only else "is an HDF5 file, but not a Keras model"
        )
        raise ModelError(f"{subject} {what}", "save the whole model with model.save()")
    return text.decode() if isinstance(text, bytes) else str(text)


def refuse_code(config: dict[str, Any], subject: str) -> None:
    """Refuse layers that contain code, and objects that are not part of Keras (statement 2).

    Raises:
        ModelError: there is one; names the layer.
    """
    for layer, entry in _objects(config, ""):
        name, kind = layer or "the model", str(entry["class_name"])
        if kind in CODE:
            raise ModelError(
                f"{subject}: layer {name!r} ({kind}) contains {CODE[kind]}, which graphcut does not run",
                "replace it with other layers or keras.ops, and save the model again",
            )
        if kind == "__lambda__":
            raise ModelError(
                f"{subject}: layer {name!r} contains a Python lambda, which graphcut does not run",
                "replace it with a layer, and save the model again",
            )
        if kind in ("TFOpLambda", "SlicingOpLambda"):
            _refuse_impure(entry, name, subject)
        module, registered = entry.get("module"), entry.get("registered_name")
        foreign_module = isinstance(module, str) and module.split(".")[0] not in _PARTS_OF_KERAS
        # keras.utils has functions that fetch files; the objects of a model are classes.
        foreign_module |= isinstance(module, str) and module != "builtins" and not kind[:1].isupper()
        unknown = "module" in entry and module is None and not kind.startswith("__")
        named = isinstance(registered, str) and ">" in registered and registered.split(">")[0] not in _OWN
        if foreign_module or unknown or named or (module == "builtins" and not _is_plain_builtin(entry)):
            what = registered if isinstance(registered, str) and registered else f"{module}.{kind}"
            raise _custom(subject, name, what)


def refuse_other_layers(config: dict[str, Any], subject: str) -> None:
    """Refuse layers that are not known to only compute (statement 3).

    Raises:
        ModelError: there is one; names the layer.
    """
    for layer, entry in _objects(config, ""):
        kind, name = str(entry["class_name"]), layer or "the model"
        if kind in VOCABULARIES:
            raise ModelError(
                f"{subject}: layer {name!r} ({kind}) looks up words in a vocabulary, which graphcut does not support",
                "do this step outside the model: remove the layer, and save the model again",
            )
        module = entry.get("module")
        if isinstance(module, str) and "layers" in module.split(".") and kind not in LAYERS:
            raise _custom(subject, name, kind)
    for entry in _layers(config):
        kind, name = str(entry["class_name"]), str(entry["config"].get("name", "?"))
        if kind not in LAYERS and not _is_operation(entry):
            raise _custom(subject, name, kind)


def _is_operation(entry: dict[str, Any]) -> bool:
    """A function of keras.ops as a layer: Keras writes the module of its class."""
    words = str(entry.get("module") or "").split(".")
    return words[0] in _PARTS_OF_KERAS and "ops" in words


def refuse_unknown(config: dict[str, Any], layers: Container[str], functions: Container[str], subject: str) -> None:
    """Refuse layers and functions that Keras does not have, where the file gives only their names.

    Args:
        config: see :func:`read_config`.
        layers: the names of all layer and model classes.
        functions: the names of all activations.
        subject: what to call the file in errors.

    Raises:
        ModelError: there is one; names the layer.
    """
    for entry in _layers(config):
        kind, name = str(entry["class_name"]), str(entry["config"].get("name", "?"))
        if kind not in layers and "module" not in entry:
            raise _custom(subject, name, kind)
    for name, entry in _objects(config, ""):
        if entry["class_name"] == "function" and entry.get("config") not in functions:
            raise _custom(subject, name, str(entry.get("config")))


def _custom(subject: str, layer: str, what: str) -> ModelError:
    return ModelError(
        f"{subject}: layer {layer!r} needs {what!r}, which is not part of Keras and whose code is not in the file",
        "load the model in Python, where that code is available, and save it with model.export(FOLDER)",
    )


def _is_plain_builtin(entry: dict[str, Any]) -> bool:
    """A function of Keras is written as ``{"module": "builtins", "class_name": "function", "config": "relu"}``."""
    return entry["class_name"] in ("function", "dict", "list", "tuple", "slice", "ellipsis", "int", "float", "str")


def _refuse_impure(entry: dict[str, Any], name: str, subject: str) -> None:
    config = entry.get("config")
    called = str(config.get("function", "__operators__.getitem")) if isinstance(config, dict) else "?"
    if called not in _PURE_WORDS and not called.startswith(_PURE):
        raise ModelError(
            f"{subject}: layer {name!r} calls tf.{called}, which graphcut does not run",
            "replace it with layers, and save the model again",
        )


def _objects(value: Any, layer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every serialised object, with the name of the layer it stands in."""
    waiting = [(layer, value)]
    while waiting:
        inside, part = waiting.pop()
        if isinstance(part, list):
            waiting += [(inside, each) for each in reversed(part)]
        if not isinstance(part, dict):
            continue
        config = part.get("config")
        if isinstance(part.get("class_name"), str):
            if isinstance(config, dict) and isinstance(config.get("name"), str):
                inside = config["name"]
            yield inside, part
        waiting += [(inside, each) for each in reversed(list(part.values()))]


def _layers(value: Any) -> Iterator[dict[str, Any]]:
    """Every layer: an object in a list called "layers", or in a wrapper's "layer"."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        if not isinstance(part, dict):
            continue
        inner = part.get("layers")
        candidates = [*(inner if isinstance(inner, list) else ()), part.get("layer")]
        for each in candidates:
            if (
                isinstance(each, dict)
                and isinstance(each.get("class_name"), str)
                and isinstance(each.get("config"), dict)
            ):
                yield each
        waiting += part.values()


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
