"""Results of earlier runs in the place of the same work (:mod:`graphcut.cache_folder`).

1. What is reused: what a worker made of a segment, and what a method for accuracy made of a chain. What is said about
   a result is not: a verification always runs.
2. The *key* of a step is a digest of all that its result depends on: contents of files and arrays, records, options,
   and what computes. Times are left out. With the same key the result has the same bytes.
3. A result is records. The files that they name are kept with them, and are written to the folder of this run when the
   result is taken. Of what can be built on reading, only this package's records and arrays are (``pickle`` itself
   would build anything).
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from graphcut.cache_folder import EarlierResults, fingerprint
from graphcut.files import sha256_of

_ARRAYS = frozenset({("numpy", "ndarray"), ("numpy", "dtype"), ("numpy._core.multiarray", "_reconstruct")}) | {
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy._core.multiarray", "scalar"),
}
_TIMES = frozenset({"seconds"})


def key(step: str, *what: Any) -> str:
    """The key of a step (statement 2).

    Args:
        step: its name.
        what: records, arrays, mappings, sequences, numbers, texts; of a path the content of its file.
    """
    digest = hashlib.sha256()
    for each in (fingerprint(), step, *what):
        _add(digest, each)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, value: Any) -> None:
    """Add a value so that no two different ones give the same bytes."""
    digest.update(f"{type(value).__name__}:".encode())
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    elif is_dataclass(value):
        for field in fields(value):
            if field.name not in _TIMES:
                _add(digest, field.name)
                _add(digest, getattr(value, field.name))
    elif isinstance(value, Mapping):
        _add(digest, [part for item in value.items() for part in item])
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        digest.update(f"{len(value)}:".encode())
        for each in value:
            _add(digest, each)
    elif isinstance(value, Path):
        digest.update(sha256_of(value).encode())
    elif value is None or isinstance(value, str | bytes | int | float):
        content = value if isinstance(value, bytes) else repr(value).encode()
        digest.update(f"{len(content)}:".encode() + content)
    else:
        raise TypeError(f"no key is made of {type(value)}")


def keep(results: EarlierResults, key: str, result: Any, known: Sequence[Path] = ()) -> None:
    """Keep a result (statement 3).

    Args:
        results: the cache.
        key: from :func:`key`.
        result: records, tuples, arrays and what is in them.
        known: files that are there when the result is taken, and not kept with it.
    """
    stream = io.BytesIO()
    _Packer(stream, known).dump((result,))
    results.put(key, stream.getvalue())


def take(results: EarlierResults, key: str, folder: Path, known: Sequence[Path] = ()) -> tuple[Any] | None:
    """The result that :func:`keep` kept, as a tuple of one; None where there is none.

    Args:
        results: the cache.
        key: from :func:`key`.
        folder: an existing one for the files.
        known: the same files as when it was kept, in the same order.
    """
    content = results.get(key)
    if content is None:
        return None
    try:
        (result,) = _Unpacker(io.BytesIO(content), folder, known).load()
    except pickle.UnpicklingError:  # not ours
        return None
    return (result,)


class _Packer(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, known: Sequence[Path]) -> None:
        super().__init__(stream, protocol=5)
        self._known = known

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Path):
            return None
        return self._known.index(value) if value in self._known else (value.name, value.read_bytes())


class _Unpacker(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, folder: Path, known: Sequence[Path]) -> None:
        super().__init__(stream)
        self._folder, self._known = folder, known

    def persistent_load(self, identity: Any) -> Path:
        if isinstance(identity, int):
            return self._known[identity]
        name, content = identity
        path = self._folder / Path(name).name
        path.write_bytes(content)
        return path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAYS:
            return super().find_class(module, name)
        if module.startswith("graphcut."):
            found = getattr(import_module(module), name, None)
            if isinstance(found, type) and is_dataclass(found):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no record")
