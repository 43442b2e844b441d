"""Devices by name, and the Edge TPU delegate, which sometimes fails to load.

1. "cpu" is the interpreter alone. "usb:0" and "pci:1" are one Edge TPU each, "usb" and "pci" the first free one; the
   names are those of ``libedgetpu``.
2. On real machines, loading the delegate fails about one time in five (the stick resets when its firmware is loaded)
   and works a moment later, so it is tried again with increasing waits. A missing library is not tried again.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from graphcut.errors import DependencyError, RunError, UsageError

WAITS_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds to wait before each further try to load the delegate."""

_LIBRARIES = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
LIBRARY = _LIBRARIES.get(sys.platform, "libedgetpu.so.1")
"""The delegate's library; found by the system's loader."""

_NAME = re.compile(r"cpu|(usb|pci)(:[0-9]+)?")


class Device(NamedTuple):
    """A device that runs files: its kind ("cpu", "usb", "pci") and its name as given ("usb:0")."""

    kind: str
    name: str

    @property
    def is_tpu(self) -> bool:
        """Whether it runs compiled files through the delegate."""
        return self.kind != "cpu"

    def __str__(self) -> str:
        """Return the name."""
        return self.name


CPU = Device("cpu", "cpu")


def parse_device(text: str) -> Device:
    """Parse the name of one device.

    Raises:
        UsageError: the name is not a device.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise UsageError(f"{text.strip()!r} is not a device", "use cpu, usb, pci, usb:0, pci:0 ...")
    return Device(name.split(":")[0], name)


MOST_DEVICES = 64


def parse_devices(text: str, kind: str = "usb") -> tuple[Device, ...]:
    """Parse a list such as "usb:0,usb:1,cpu"; "cpu" may occur several times, an Edge TPU once.

    Args:
        text: the list, or a number for so many devices of ``kind``.
        kind: "usb", "pci" or "cpu".

    Raises:
        UsageError: the list is empty, names something else, or lists one Edge TPU twice.
    """
    if text.strip().isdecimal():
        count = int(text) if len(text) < 10 else 0
        if not 1 <= count <= MOST_DEVICES:
            raise UsageError(f"{text.strip()} devices are none that can be run on", f"give 1 to {MOST_DEVICES}")
        return numbered(kind, count)
    if not text.strip():
        raise UsageError("the list of devices is empty", "name at least one, such as cpu or usb:0,usb:1")
    devices = tuple(parse_device(each) for each in text.split(","))
    names = [device.name for device in devices if device.is_tpu]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"device {twice[0]} is listed twice", "list each Edge TPU once")
    return devices


def numbered(kind: str, count: int, first: int = 0) -> tuple[Device, ...]:
    """So many devices of a kind: usb:0, usb:1 ...; the host as often."""
    if kind == "cpu":
        return (CPU,) * count
    return tuple(Device(kind, f"{kind}:{number}") for number in range(first, first + count))


def require_library(library: str) -> None:
    """Check that the delegate's library can be loaded; the interpreters' loaders do not handle a failure well.

    Raises:
        DependencyError: it cannot.
    """
    try:
        ctypes.CDLL(library)
    except OSError as error:
        raise _no_library(library, error) from error


def attach(
    load_delegate: Callable[..., Any],
    device: Device,
    *,
    library: str = LIBRARY,
    waits_s: Sequence[float] = WAITS_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Load the Edge TPU delegate for a device, with further tries if it fails (statement 2).

    Args:
        load_delegate: the interpreter package's function of that name.
        device: an Edge TPU.
        library: the delegate's library.
        waits_s: waits before the second, third ... try.
        sleep: the function that waits; replaced in tests.

    Raises:
        DependencyError: the library cannot be loaded at all.
        RunError: every try failed.
    """
    options = {"device": device.name}
    reason = ""
    for wait_s in (0.0, *waits_s):
        if wait_s:
            sleep(wait_s)
        try:
            return load_delegate(library, options)
        except OSError as error:
            raise _no_library(library, error) from error
        except ValueError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = lines[-1].strip() if lines else "no reason given"
    raise RunError(
        f"device {device} did not respond to {len(waits_s) + 1} tries within {sum(waits_s):g} s ({reason})",
        "connect it, or check whether another program uses it",
    )


def _no_library(library: str, error: OSError) -> DependencyError:
    return DependencyError(
        f"the Edge TPU library {library} cannot be loaded ({error})", "install libedgetpu1-std, or run on cpu"
    )
