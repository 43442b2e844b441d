"""The folder of what earlier runs made and later ones need not make again.

1. One root: ``$XDG_CACHE_HOME/graphcut`` or ``~/.cache/graphcut``. In it, ``exports/`` has ONNX files made of models of
   other kinds (:mod:`graphcut.sources.cache`) and ``results/`` has what the steps of a split made.
2. A result is a file named after its *key*: the sha256 of everything that it depends on, :func:`fingerprint` included.
   It begins with the sha256 of the rest; a file that does not agree with it is removed when it is read, and what was in
   it is made again.
3. A result is written under another name and renamed: it is there whole or not at all, whoever is killed, and several
   processes may use the folder at the same time. The same key always has the same bytes.
4. Above ``MOST_BYTES`` those that were not used for the longest time are removed.
5. Where the folder cannot be read or written, runs take longer, and that is all.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from graphcut.errors import OutputError
from graphcut.versions import tool_versions

MOST_BYTES = 2 * 2**30
_LEFT_AFTER_TRIM = 0.9
_ABANDONED_SECONDS = 3600.0
"""Writing one result takes seconds; what is older was left by a process that died."""
_PARTIAL = ".partial-"


def root(folder: Path | None = None) -> Path:
    """Return the folder of the cache; ``folder`` where one is given (statement 1)."""
    if folder is not None:
        return folder
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "graphcut"


def exports(folder: Path | None = None) -> Path:
    """Return the folder of exports in a cache; None for that of :func:`root`."""
    return root(folder) / "exports"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedKind:
    """What a cache holds of one kind.

    Attributes:
        kind: the folder in the cache that it lies in.
        what: in words.
        files: how many.
        total_bytes: of all of them.
        last_used: seconds since the epoch at which the newest was written or read; None where there is none.
    """

    kind: str
    what: str
    files: int
    total_bytes: int
    last_used: float | None


_KINDS = {
    "exports": ("models exported to ONNX", re.compile(r".+\.onnx(\.sha256)?")),
    "results": ("conversions and other steps of earlier splits", re.compile(r"[0-9a-f]{64}")),
}
"""Sub-folder -> what it is for, and the names of the files there that belong to the cache."""


def contents(folder: Path | None = None) -> tuple[CachedKind, ...]:
    """Say what a cache holds, kind by kind."""
    found = []
    for kind, (what, _) in _KINDS.items():
        states = []
        for path in _files_of(kind, folder):
            with suppress(OSError):  # another process has removed it
                states.append(path.stat())
        last = max((each.st_mtime for each in states), default=None)
        total = sum(each.st_size for each in states)
        found.append(CachedKind(kind=kind, what=what, files=len(states), total_bytes=total, last_used=last))
    return tuple(found)


def clear(folder: Path | None = None) -> None:
    """Remove what a cache holds, and nothing else.

    Raises:
        OutputError: a file cannot be removed.
    """
    for kind in _KINDS:
        for path in _files_of(kind, folder):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"{path} cannot be removed ({error.strerror})", "check its permissions") from error


def _files_of(kind: str, folder: Path | None) -> list[Path]:
    place, (_, names) = root(folder) / kind, _KINDS[kind]
    try:
        return sorted(each for each in place.iterdir() if names.fullmatch(each.name) and each.is_file())
    except OSError:
        return []


class EarlierResults:
    """What steps made, by key (statements 2 to 5).

    Args:
        folder: of the cache; None for that of :func:`root`.
        most_bytes: of all results together.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self.folder = root(folder) / "results"
        self._most_bytes = most_bytes

    def get(self, key: str) -> bytes | None:
        """Return what was put under a key; None where there is nothing, or nothing whole any more."""
        path = self.folder / key
        with suppress(OSError):
            content = path.read_bytes()
            size = hashlib.sha256().digest_size
            if hashlib.sha256(memoryview(content)[size:]).digest() == content[:size]:
                os.utime(path)
                return content[size:]
            path.unlink()
        return None

    def put(self, key: str, content: bytes) -> None:
        """Keep a result, if it is not larger than all may be together."""
        if len(content) > self._most_bytes:
            return
        partial = self.folder / f"{_PARTIAL}{secrets.token_hex(8)}"
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as stream:
                    stream.write(hashlib.sha256(content).digest())
                    stream.write(content)
                partial.replace(self.folder / key)
            finally:
                partial.unlink(missing_ok=True)
            self._trim()

    def _trim(self) -> None:
        """Remove what was not used for the longest time, and what killed processes left."""
        found = []
        for entry in os.scandir(self.folder):
            with suppress(OSError):  # another process has removed it
                status = entry.stat(follow_symlinks=False)
                if not entry.name.startswith(_PARTIAL):
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
                elif time.time() - status.st_mtime > _ABANDONED_SECONDS:
                    Path(entry.path).unlink(missing_ok=True)
        total = sum(size for _, size, _ in found)
        if total <= self._most_bytes:
            return
        for _, size, path in sorted(found):
            if total <= _LEFT_AFTER_TRIM * self._most_bytes:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


@cache
def fingerprint() -> str:
    """Return the sha256 (hex) of what computes: this package's code, the libraries' versions, the processor.

    Kernels of onnxruntime and LiteRT are chosen by what the processor can do, and differ in the last bits.
    """
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256(repr((sorted(tool_versions().items()), platform.machine(), _processor())).encode())
    for path in sorted(package.rglob("*.py")):
        digest.update(f"\0{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    """What the processor can do (Linux; elsewhere its name)."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()
