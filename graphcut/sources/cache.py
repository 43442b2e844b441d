"""The cache of exports: one ONNX file per key, written atomically."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from graphcut.errors import ModelError, OutputError, UsageError

_CHUNK = 2**20
_STAGING = ".graphcut-export-"
_LOCK = "in-use"


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


def is_whole(path: Path) -> bool:
    """Whether a file of the cache is unchanged, according to the hash stored next to it."""
    try:
        return _hash_of(path).read_text(encoding="ascii") == sha256_of(path)
    except (OSError, ValueError, ModelError, UsageError):
        return False


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``target``; move the file to ``target`` at the end, leave nothing on failure.

    The hash is written first: a file without a hash, or with another one, counts as damaged. Folders that killed
        exports have left are removed; a folder in use is locked.

    Raises:
        OutputError: the cache cannot be written.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=_STAGING)
    with folder as name, (Path(name) / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        part = Path(name) / target.name
        yield part
        with writing(target):
            digest = Path(name) / "sha256"
            digest.write_text(sha256_of(part), encoding="ascii")
            digest.replace(_hash_of(target))
            part.replace(target)


def _hash_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sweep(folder: Path) -> None:
    """Remove staging folders that no process has locked."""
    for left in folder.glob(f"{_STAGING}*/{_LOCK}"):
        with suppress(OSError), left.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an error of the operating system into an OutputError that names ``target``."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror})", "choose another folder, or free space there"
        ) from error
