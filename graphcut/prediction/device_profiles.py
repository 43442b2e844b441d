"""Devices as plans see them: how they are connected to the host, how fast they compute, and the size limit of files.

1. Built in are the Coral boards, with the constants of graphcut.prediction.latency and their sources.
2. A user's profile is a TOML file; fields that it omits are as in the built-in device that ``like`` names::

        name = "my-board"
        like = "coral-usb"
        stream_ms_per_mib = 2.9      # parameters that are not on chip
        compute_ms_per_gmac = 0.7
        invoke_ms = 0.5              # every call
        handover_ms = 0.15           # every activation handed over, plus for each MiB of it: handover_ms_per_mib = 2.2
        to_device_mib_s = 330.0      # the model's own inputs and outputs to_host_mib_s = 80.0 room = "7MiB"
        # for parameters, whatever the activations; if omitted, it shrinks with them budget = "6.5MiB"            # of
        its files shared_bus = true            # transfers of devices like it wait for each other
        seams_at_rates = false       # what is handed over also moves at the rates of inputs and outputs

3. "cpu" is the host's own processor, the one of a Raspberry Pi 4 with four threads: 42 ms per 10^9 multiplications is
   the middle of GoogLeNet, ResNet18 and ResNet50 (63.0, 74.4 and 190.2 ms; SPARTA, LAAS-CNRS, baselines of the CPU).
   Small networks are faster (SqueezeNet, MobileNetV2), so measured times are better (graphcut.planning.fleet).
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphcut.errors import UsageError
from graphcut.prediction import latency as measured
from graphcut.regular_file import text_of
from graphcut.runtime.devices import MOST_DEVICES
from graphcut.units import MIB, parse_bytes

Floats = npt.NDArray[np.float64]

SUFFIX = ".toml"
_NUMBERS = (
    *("stream_ms_per_mib", "compute_ms_per_gmac", "invoke_ms", "handover_ms", "handover_ms_per_mib"),
    *("to_device_mib_s", "to_host_mib_s"),
)
_SIZES = ("room", "budget")
_SWITCHES = ("shared_bus", "seams_at_rates")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """One kind of device and its link.

    Attributes:
        name: its name for users.
        stream_ms_per_mib: milliseconds per MiB of parameters that are not on chip, at every inference.
        compute_ms_per_gmac: milliseconds for 10**9 multiplications of full tiles (graphcut.edgetpu.computing).
        invoke_ms: overhead of every call.
        handover_ms, handover_ms_per_mib: handing activations from one segment to the next, half of it on each side.
        to_device_mib_s, to_host_mib_s: MiB per second at which the model's own inputs and outputs are transferred.
        room_bytes: for parameters; None where it is predicted from the activations (graphcut.edgetpu.estimate).
        budget_bytes: limit of its files; None for that of the plan.
        kind: how a runtime names it: "usb" and "pci" are Edge TPUs, "cpu" is the host.
        shared_bus: transfers of the devices that share it wait for each other.
        seams_at_rates: what is handed over also moves at the rates of inputs and outputs.
    """

    name: str
    stream_ms_per_mib: float
    compute_ms_per_gmac: float
    invoke_ms: float
    handover_ms: float
    handover_ms_per_mib: float
    to_device_mib_s: float
    to_host_mib_s: float
    room_bytes: int | None = None
    budget_bytes: int | None = None
    kind: Literal["usb", "pci", "cpu"] = "usb"
    shared_bus: bool = False
    seams_at_rates: bool = False

    def latency_ms[N: (float, Floats)](
        self, *, host_in: N, seam_in: N, work: N, off_chip: N, seam_out: N, host_out: N
    ) -> N:
        """Milliseconds of one inference of a segment that has the device and the link to itself.

        Args:
            host_in, host_out: bytes of the model's own inputs and outputs; these and the others are numbers or arrays.
            seam_in, seam_out: bytes handed over before and after it.
            work: multiplications of full tiles.
            off_chip: bytes of parameters that are streamed.
        """
        incoming = 1000 * self._moved(host_in, seam_in) / MIB / self.to_device_mib_s + self._hand_over(seam_in)
        computing = self.invoke_ms + self.compute_ms_per_gmac * work / 1e9
        outgoing = self._hand_over(seam_out) + 1000 * self._moved(host_out, seam_out) / MIB / self.to_host_mib_s
        return incoming + computing + self.stream_ms_per_mib * off_chip / MIB + outgoing

    def bus_ms[N: (float, Floats)](self, *, host_in: N, seam_in: N, off_chip: N, seam_out: N, host_out: N) -> N:
        """Milliseconds of one inference in which the link is in use; arguments as in :meth:`latency_ms`."""
        incoming = 1000 * self._moved(host_in, seam_in) / MIB / self.to_device_mib_s + self._hand_over(seam_in)
        outgoing = self._hand_over(seam_out) + 1000 * self._moved(host_out, seam_out) / MIB / self.to_host_mib_s
        return incoming + self.stream_ms_per_mib * off_chip / MIB + outgoing

    def _moved[N: (float, Floats)](self, own: N, seam: N) -> N:
        """Bytes that move at the rates of the link."""
        return own + seam if self.seams_at_rates else own

    def _hand_over[N: (float, Floats)](self, size: N) -> N:
        """Milliseconds that one side spends on handing over that many bytes; 0 for none."""
        return (self.handover_ms + self.handover_ms_per_mib * size / MIB) / 2 * (size > 0)


def _coral(name: str, link: str) -> DeviceProfile:
    found = measured.link_named(link)
    small, large = measured.handover_ms(1), measured.handover_ms(1 + MIB)
    return DeviceProfile(
        name=name,
        stream_ms_per_mib=found.stream_ms_per_mib,
        compute_ms_per_gmac=found.compute_ms_per_gmac,
        invoke_ms=found.invoke_ms,
        handover_ms=small - (large - small) / MIB,
        handover_ms_per_mib=large - small,
        to_device_mib_s=found.to_device_mib_s,
        to_host_mib_s=found.to_host_mib_s,
        kind="usb" if found.shared else "pci",
        shared_bus=found.shared,
    )


CPU = DeviceProfile(
    name="cpu",
    stream_ms_per_mib=0.0,
    compute_ms_per_gmac=42.0,
    invoke_ms=0.05,
    handover_ms=0.0,
    handover_ms_per_mib=0.0,
    to_device_mib_s=4096.0,
    to_host_mib_s=4096.0,
    room_bytes=2**40,
    kind="cpu",
)
"""The host's processor (statement 3); it hands activations over in its own memory."""

DEVICES = {
    device.name: device
    for device in (
        _coral("coral-usb", "usb"),
        _coral("coral-usb-x86", "usb-x86"),
        _coral("coral-pcie", "pcie"),
        _coral("coral-dev-board", "dev-board"),
        CPU,
    )
}
"""Built-in devices by name: USB on a Raspberry Pi 4, USB on x86, PCIe, the Coral Dev Board; the host."""
DEFAULT = DEVICES["coral-usb"]

_COUNTED = re.compile(r"(?P<count>[0-9]{1,9})(x(?P<kind>.+))?")


def find(name: str) -> DeviceProfile:
    """The device with that name, or of the profile at that path; ``:SIZE`` gives it its own budget.

    Raises:
        UsageError: there is none, or the profile is wrong.
    """
    kind, colon, size = name.partition(":")
    if kind in DEVICES:
        found = DEVICES[kind]
    elif kind.endswith(SUFFIX):
        found = read(Path(kind))
    else:
        raise UsageError(
            f"there is no device {kind!r}", f"choose from {', '.join(DEVICES)}, or pass a profile, a {SUFFIX} file"
        )
    return replace(found, budget_bytes=parse_bytes(size)) if colon else found


def fleet_of(named: Sequence[str], device: DeviceProfile) -> tuple[DeviceProfile, ...]:
    """The devices that "3" (so many of ``device``) or "2xcoral-usb", "1xcpu" mean; none where it is a chain.

    Raises:
        UsageError: some have a number and others do not, or there are too many.
    """
    counted = [_COUNTED.fullmatch(name) for name in named]
    if not any(counted):
        return ()
    found: list[DeviceProfile] = []
    for name, match in zip(named, counted, strict=True):
        if match is None:
            raise UsageError(f"{name} has no number, and others have", f"write 1x{name}")
        count, kind = int(match["count"]), match["kind"]
        if not 1 <= count <= MOST_DEVICES:
            raise UsageError(f"{count} devices are no number to plan for", f"give 1 to {MOST_DEVICES}")
        found += [device if kind is None else find(kind)] * count
    return tuple(found)


def read(path: Path) -> DeviceProfile:
    """The device that a profile describes.

    Raises:
        UsageError: the file does not exist or is not TOML, a field is unknown or missing, or a number is out of range.
    """
    try:
        given = tomllib.loads(text_of(path))
    except OSError as error:
        raise UsageError(f"the device profile {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the device profile {path} is not a TOML file ({error})") from error
    known = ("name", "like", *_NUMBERS, *_SIZES, *_SWITCHES)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(f"{path}: unknown field {unknown[0]}", f"the fields are {', '.join(known)}")
    like = given.get("like")
    if like is not None and like not in DEVICES:
        raise UsageError(f"{path}: like is {like!r}", f"it must be one of {', '.join(DEVICES)}")
    missing = [name for name in _NUMBERS if name not in given]
    if like is None and missing:
        raise UsageError(f"{path}: {missing[0]} is missing", f'add it, or like = "{DEFAULT.name}"')
    values = {each.name: getattr(DEVICES[like], each.name) for each in fields(DeviceProfile)} if like else {}
    values |= {"name": str(given.get("name", path.stem))}
    values |= {name: _number(path, given, name) for name in _NUMBERS if name in given}
    values |= {f"{name}_bytes": _size(path, given, name) for name in _SIZES if name in given}
    for name in _SWITCHES:
        if name in given:
            if not isinstance(given[name], bool):
                raise UsageError(f"{path}: {name} is {given[name]!r}", "it must be true or false")
            values[name] = given[name]
    return DeviceProfile(**values)


def _number(path: Path, given: Mapping[str, Any], name: str) -> float:
    value = given[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    rate = name.endswith("_mib_s")
    if not is_number or value < 0 or (rate and value == 0):
        raise UsageError(f"{path}: {name} is {value!r}", f"it must be a number {'above' if rate else 'not below'} zero")
    return float(value)


def _size(path: Path, given: Mapping[str, Any], name: str) -> int:
    value = given[name]
    try:
        return parse_bytes(str(value))
    except UsageError as error:
        raise UsageError(f"{path}: {name} is wrong: {error.message}", error.way_out) from error
