"""What of a machine serves to run files on Edge TPUs, and what is in the way: one line each, with what to do.

1. USB sticks are 1a6e:089a until the library has loaded their firmware, and 18d1:9302 from then on.
2. PCIe modules are 1ac1:089a; the kernel's modules gasket and apex give each a file /dev/apex_N.
3. Google's library of 2021 calls itself COMPILER=6.3.0 (google-coral/edgetpu issue 660), and crashes with interpreters
   newer than 2.11 (issue 812). Builds of the community (feranick/libedgetpu) are made for a version of the interpreter.
4. Everything is read below a root folder, so that tests have one of their own. Nothing is changed, and no device is
   opened: a crash of the library would be one of the program.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Callable, NamedTuple

from graphcut.errors import GraphcutError
from graphcut.runtime.devices import LIBRARY

ROOT = Path("/")
OLDEST_PYTHON = (3, 9)
NEW_LIBRARY = "https://github.com/feranick/libedgetpu/releases"
_GOOGLE_2021 = re.compile(r"COMPILER=[56]\.")
_LAST_FOR_GOOGLE_2021 = (2, 11)
_INTERPRETERS = ("ai-edge-litert", "tflite-runtime")
_FRESH, _READY = "1a6e:089a", "18d1:9302"
_PCI = ("0x1ac1", "0x089a")
_SLOW_MBIT = 480


class Finding(NamedTuple):
    """One line.

    Attributes:
        what: that was looked at.
        state: "ok"; "missing" (not there, and not always needed); "broken" (in the way of Edge TPUs).
        said: what was found.
        way_out: what to do, "" where nothing is to be done.
    """

    what: str
    state: str
    said: str
    way_out: str = ""


def examine(
    root: Path = ROOT,
    *,
    library: str = LIBRARY,
    compiler: Callable[[], str] | None = None,
    installed: Callable[[str], str] = metadata.version,
) -> tuple[Finding, ...]:
    """Look at a machine.

    Args:
        root: of its files.
        library: the Edge TPU library, as the system's loader knows it.
        compiler: gives the version of edgetpu_compiler, or raises GraphcutError; None only looks for it on PATH.
        installed: gives the version of a package, or raises PackageNotFoundError.

    Returns:
        A finding for everything that was looked at, in order.
    """
    packages = _packages(installed)
    label = _label(library)
    usb, pci = _usb(root), _pci(root)
    found = [_python(), *packages[0], _docker(), _compiler(compiler), *_library(library, label, packages[1])]
    found += [*usb, *pci]
    if not usb and not pci:
        found.append(
            Finding("Edge TPUs", "broken", "none on USB or PCIe", "plug one in; on USB, into a blue (USB 3) port")
        )
    return tuple(found)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("Python", "broken", version, "install Python 3.9 or newer")
    return Finding("Python", "ok", version)


def _packages(installed: Callable[[str], str]) -> tuple[list[Finding], dict[str, str]]:
    versions = {}
    for name in ("numpy", "pillow", *_INTERPRETERS):
        try:
            versions[name] = installed(name)
        except metadata.PackageNotFoundError:
            continue
    found = [
        Finding(name, "ok", versions[name])
        if name in versions
        else Finding(name, "missing" if name == "pillow" else "broken", "not installed", f"pip install {name}")
        for name in ("numpy", "pillow")
    ]
    there = {name: versions[name] for name in _INTERPRETERS if name in versions}
    found += [Finding("interpreter", "ok", f"{name} {version}") for name, version in there.items()]
    if not there:
        found.append(Finding("interpreter", "broken", "not installed", "pip install ai-edge-litert"))
    return found, there


def _docker() -> Finding:
    path = shutil.which("docker")
    if path is None:
        return Finding("docker", "missing", "not on PATH", "only needed for `graphcut compile --compiler docker:IMAGE`")
    return Finding("docker", "ok", path)


def _compiler(ask: Callable[[], str] | None) -> Finding:
    path = shutil.which("edgetpu_compiler")
    if path is None:
        way_out = "only needed to compile; tools/edgetpu-compiler/Dockerfile has it"
        return Finding("edgetpu_compiler", "missing", "not on PATH", way_out)
    if ask is None:
        return Finding("edgetpu_compiler", "ok", path)
    try:
        return Finding("edgetpu_compiler", "ok", ask())
    except GraphcutError as error:
        return Finding("edgetpu_compiler", "broken", error.message, error.way_out)


def _label(library: str) -> str | None:
    """What the library calls itself; "" where it does not say, None where it cannot be loaded."""
    try:
        loaded = ctypes.CDLL(library)
    except OSError:
        return None
    try:
        version = loaded.edgetpu_version
    except AttributeError:
        return ""
    version.restype = ctypes.c_char_p
    return (version() or b"").decode(errors="replace")


def _library(library: str, label: str | None, interpreters: dict[str, str]) -> list[Finding]:
    """The library, and whether it fits each interpreter (statement 3)."""
    if label is None:
        way_out = f"install libedgetpu1-std of {NEW_LIBRARY}"
        return [Finding("libedgetpu", "broken", f"{library} cannot be loaded", way_out)]
    found = [Finding("libedgetpu", "ok", label or f"{library}, which tells no version")]
    if not _GOOGLE_2021.search(label):
        return found
    for name, version in interpreters.items():
        if name == "ai-edge-litert" or _numbers(version) > _LAST_FOR_GOOGLE_2021:
            said = f"Google's library of 2021 crashes with {name} {version}"
            found.append(Finding("libedgetpu", "broken", said, f"install the build for it of {NEW_LIBRARY}"))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _usb(root: Path) -> list[Finding]:
    """Sticks (statement 1), their speed and rights."""
    found = []
    for device in sorted((root / "sys/bus/usb/devices").glob("*")):
        name = f"{_read(device / 'idVendor')}:{_read(device / 'idProduct')}"
        if name not in (_FRESH, _READY):
            continue
        said = "ready" if name == _READY else "without firmware yet, which is loaded at first use"
        what, port = "Edge TPU on USB", device.name
        found.append(Finding(what, "ok", f"{port}: {name}, {said}"))
        speed = _read(device / "speed")
        if speed.isdecimal() and int(speed) <= _SLOW_MBIT:
            found.append(
                Finding(what, "broken", f"{port}: at {speed} Mbit/s, as USB 2", "use a blue (USB 3) port and cable")
            )
        bus, number = _read(device / "busnum"), _read(device / "devnum")
        if bus.isdecimal() and number.isdecimal():
            node = root / "dev/bus/usb" / f"{int(bus):03d}" / f"{int(number):03d}"
            if not os.access(node, os.R_OK | os.W_OK):
                found.append(_no_usb_rights(root, port))
    return found


def _no_usb_rights(root: Path, port: str) -> Finding:
    rules = [path for each in ("etc", "lib", "usr/lib") for path in (root / each / "udev/rules.d").glob("*edgetpu*")]
    if not rules:
        way_out = "install libedgetpu1-std, which brings the udev rule, and plug the stick in again"
    else:
        way_out = "sudo usermod -aG plugdev $USER, log in again, and plug the stick in again"
    return Finding("Edge TPU on USB", "broken", f"{port}: this user may not open it", way_out)


def _pci(root: Path) -> list[Finding]:
    """Modules (statement 2), driver and rights."""
    found = []
    there = [
        device.name
        for device in sorted((root / "sys/bus/pci/devices").glob("*"))
        if (_read(device / "vendor"), _read(device / "device")) == _PCI
    ]
    nodes = sorted((root / "dev").glob("apex_*"))
    what = "Edge TPU on PCIe"
    found += [Finding(what, "ok", f"{name}: {_PCI[0][2:]}:{_PCI[1][2:]}") for name in there]
    modules = {line.split()[0] for line in _read(root / "proc/modules").splitlines() if line.split()}
    if there and not nodes:
        missing = [name for name in ("gasket", "apex") if name not in modules]
        said = f"kernel modules not loaded: {', '.join(missing)}" if missing else "no /dev/apex_*"
        way_out = "sudo modprobe apex; if it is not there: install gasket-dkms, and reboot"
        found.append(Finding(what, "broken", said, way_out))
    for node in nodes:
        if os.access(node, os.R_OK | os.W_OK):
            found.append(Finding(what, "ok", f"/dev/{node.name}"))
        else:
            way_out = "give a group rights by a udev rule, sudo usermod -aG apex $USER, and log in again"
            found.append(Finding(what, "broken", f"/dev/{node.name}: this user may not open it", way_out))
    return found


def as_lines(findings: tuple[Finding, ...]) -> list[str]:
    """One line for each finding."""
    marks = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN "}
    return [
        f"{marks[each.state]}  {each.what}: {each.said}" + (f" -> {each.way_out}" if each.way_out else "")
        for each in findings
    ]
