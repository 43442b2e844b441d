"""Confine a process to given files, without network, by Landlock and seccomp where the kernel has them.

1. *Files*: only Python, its packages, the system's libraries and what a :class:`Confinement` lists can be read; only
   what it lists can be written (Landlock, Linux 5.13: landlock(7)).
2. **Network*: only local sockets (AF_UNIX) can be created (seccomp(2), a filter of a dozen instructions); io_uring,
   which would bypass it, and ptrace are refused too.
3. Both apply to all child processes and cannot be undone. They apply to threads started later: call :func:`confine`
   first.
4. Where the kernel or the machine has neither (another system, an older kernel, another processor), the process runs
   unconfined. Files are checked before they are read in any case. :func:`confine` returns what it did.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# linux/landlock.h: access rights, and in which version of the interface they came.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_TRUNCATE = 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_RIGHTS_OF_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all architectures
_PATH_BENEATH = 1
_ASK_VERSION = 1

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 13  # EACCES
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32 = 0x40000000  # calls of x86-64's other numbering begin here
_NUMBERS = {
    "x86_64": (0xC000003E, {"socket": 41, "io_uring_setup": 425, "ptrace": 101}),
    "aarch64": (0xC00000B7, {"socket": 198, "io_uring_setup": 425, "ptrace": 117}),
}
_AF_UNIX = 1

_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/sbin", "/nix", "/opt"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/alternatives"),
    *("/dev/urandom", "/dev/random", "/sys/devices", "/sys/fs/cgroup"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys", "/proc/filesystems"),
)
_SYSTEM_WRITABLE = ("/dev/null", "/dev/zero", "/dev/shm", "/proc/self")


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a process may access.

    Attributes:
        readable: files and folders that it may read.
        home: a folder that it may write; it is used as the home folder and for temporary files. None for no folder.
    """

    readable: tuple[Path, ...]
    home: Path | None

    def environment(self) -> dict[str, str]:
        """Variables for the process, whatever the user has set."""
        if self.home is None:
            return {}
        home = str(self.home)
        return {"HOME": home, "TMPDIR": home, "KERAS_HOME": home, "XDG_CACHE_HOME": home, "MPLCONFIGDIR": home}

    def text(self) -> str:
        """As an argument of the process."""
        home = None if self.home is None else str(self.home.absolute())
        return json.dumps([[str(path.absolute()) for path in self.readable], home])


def from_text(text: str) -> Confinement:
    """The inverse of :meth:`Confinement.text`."""
    readable, home = json.loads(text)
    return Confinement(readable=tuple(map(Path, readable)), home=None if home is None else Path(home))


NOTHING = Confinement(readable=(), home=None)
"""No file and no folder: for a process that gets what it works on through its socket."""


def confine(given: Confinement) -> tuple[bool, bool]:
    """Confine this process; whether its files and its network are (statement 4)."""
    if sys.platform != "linux":
        return False, False
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    if library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False, False
    python = [Path(place) for place in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if place]
    readable = [*map(Path, _SYSTEM), *python, *given.readable]
    writable = [*map(Path, _SYSTEM_WRITABLE), *([] if given.home is None else [given.home])]
    return _confine_files(library, readable, writable), _confine_network(library)


def _confine_files(library: ctypes.CDLL, readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    version = library.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    rights = _RIGHTS_OF_VERSION[min(version, max(_RIGHTS_OF_VERSION))]
    attributes = struct.pack("=Q", rights)
    ruleset = library.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(library, ruleset, path, _READ & rights)
        for path in writable:
            _allow(library, ruleset, path, rights)
        return bool(library.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(library: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    with suppress(OSError):  # what is not there cannot be opened either
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            allowed = rights if path.is_dir() else rights & _FILE_RIGHTS
            library.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, descriptor), 0)
        finally:
            os.close(descriptor)


def _confine_network(library: ctypes.CDLL) -> bool:
    known = _NUMBERS.get(platform.machine())
    if known is None:
        return False
    architecture, numbers = known
    program = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        (_AT_LEAST, 5, 0, _X32),
        (_EQUAL, 4, 0, numbers["io_uring_setup"]),
        (_EQUAL, 3, 0, numbers["ptrace"]),
        (_EQUAL, 0, 3, numbers["socket"]),
        (_LOAD, 0, 0, 16),  # seccomp_data.args[0], the family
        (_EQUAL, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return _install(library, program)


def _install(library: ctypes.CDLL, program: Sequence[tuple[int, int, int, int]]) -> bool:
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    described = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    return bool(library.prctl(_SET_SECCOMP, _FILTER, described, 0, 0) == 0)
