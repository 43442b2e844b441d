"""The cache of exports: one ONNX file for each key, in it whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from graphcut.errors import ModelError, OutputError, UsageError

_CHUNK = 2**20


def default_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/graphcut`` or ``~/.cache/graphcut``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "graphcut"


def exports(cache: Path | None) -> Path:
    """The folder of the exports in a cache; None for :func:`default_cache`."""
    return (default_cache() if cache is None else cache) / "exports"


def key(parts: Mapping[str, object]) -> str:
    """The sha256 (hex) of JSON values, independent of their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The sha256 (hex) of a file's bytes; of a folder: of the names and bytes of all files in it, sorted.

    Raises:
        UsageError: there is no such file or folder.
        ModelError: it cannot be read.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist", "check the path")
    digest = hashlib.sha256()
    try:
        if not path.is_dir():
            _add(digest, path)
            return digest.hexdigest()
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
            _add(digest, file)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from error
    return digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Give a file in a folder beside ``target``; put it in target's place at the end, leave nothing on failure.

    Raises:
        OutputError: the cache cannot be written.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}-")
    with folder as name:
        part = Path(name) / target.name
        yield part
        with writing(target):
            part.replace(target)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an OutputError that names ``target``."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror})", "choose another place or make room there"
        ) from error
