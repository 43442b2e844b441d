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
import secrets
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

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
