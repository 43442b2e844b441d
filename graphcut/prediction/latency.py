"""Estimated times of parts on Edge TPUs, from a model fitted to published measurements; nothing is measured here.

1. One part on one input: its inputs are sent over the link, the call takes the link's ``invoke_ms``, the part computes,
   parameters that are not on chip are streamed over the link, and its outputs are sent back. These times add up.
2. Parameters that are on chip are loaded once; where parts share a device, at every switch.
3. An activation handed from one part to the next costs ``handover_ms`` in all, half on each side. The model's own
   inputs and outputs move at the link's rates.
4. USB devices of one host share a bus, so transfers of different devices wait for each other; PCIe devices do not.

Constants, with their sources (docs/how-to/running.md gives their errors on measurements that were not fitted):

- streaming 3.29 ms/MiB USB on a Raspberry Pi 4, 2.32 USB on x86, 2.76 PCIe: SPARTA, LAAS-CNRS, 410 compiled models;
  first inference 0.5 ms on top of loading: the same.
- handing over 0.2 ms at 18 KiB and 2.8 ms at 1152 KiB: the same; a straight line through both.
- host to device 307..340 MiB/s, device to host 35..87 MiB/s over USB: Gao, Choi, Wang, RTSS 2025 WiP; the middles.
- PCIe: 0.09 ms a call, 0.65 ms per 10^9 multiplications of full tiles (graphcut.edgetpu.computing) and 83 MiB/s for
  outputs: fitted to half of the networks of edgetpu_ladders.json (docs/explanation/numbers.md has the other half).
- USB on a Raspberry Pi 4: the call takes 0.35 ms longer, the difference of SPARTA's two lines (1.15 and 0.80 ms).
- USB on x86: 0.9 ms a call and 1.5 ms per 10^9: the line through Google's own figures for MobileNet v1 and Inception
  v1, input transfer taken off. Their standard runtime clocks a USB stick at half of what PCIe has.
- Dev Board: 1.5 ms a call: Google's figures for MobileNet v1 and SqueezeNet, the rest as over PCIe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from graphcut.errors import UsageError
from graphcut.units import KIB, MIB

FIRST_EXTRA_MS = 0.5
_HANDED_OVER = ((18 * KIB, 0.2), (1152 * KIB, 2.8))
_TO_DEVICE = (307 + 340) / 2
_TO_HOST = (35 + 87) / 2
_PCIE_TO_HOST = 83.0


Doing = Literal["transfer", "computing", "streaming", "loading", "waiting"]
"""Activities of a device: move activations, compute, stream parameters, load them once, wait for the bus."""


class Link(NamedTuple):
    """How devices are connected to their host.

    Attributes:
        name: "usb", "usb-x86", "pcie", "dev-board".
        invoke_ms: of every call.
        compute_ms_per_gmac: for 10**9 multiplications of full tiles.
        stream_ms_per_mib: parameters that are not on chip, and loading those that will be.
        to_device_mib_s, to_host_mib_s: rates of the model's inputs and outputs.
        shared: transfers of different devices wait for each other (statement 4).
        what: description for people.
    """

    name: str
    invoke_ms: float
    compute_ms_per_gmac: float
    stream_ms_per_mib: float
    to_device_mib_s: float
    to_host_mib_s: float
    shared: bool
    what: str


LINKS = {
    link.name: link
    for link in (
        Link("usb", 0.44, 0.65, 3.29, _TO_DEVICE, _TO_HOST, True, "USB 3 on a Raspberry Pi 4"),
        Link("usb-x86", 0.9, 1.5, 2.32, _TO_DEVICE, _TO_HOST, True, "USB 3 on x86"),
        Link("pcie", 0.09, 0.65, 2.76, _TO_DEVICE, _PCIE_TO_HOST, False, "PCIe; inputs at the rate of USB"),
        Link("dev-board", 1.5, 0.65, 2.76, _TO_DEVICE, _PCIE_TO_HOST, False, "PCIe on the Coral Dev Board"),
    )
}
"""Links by name."""


class PartCost(NamedTuple):
    """The cost of one part.

    Attributes:
        label: of the part.
        compute_ms: computing alone, everything on chip.
        on_chip_bytes, off_chip_bytes: parameters kept on chip, and streamed at every inference.
        host_in_bytes, host_out_bytes: model inputs that it reads, model outputs that it produces.
        seam_in_bytes, seam_out_bytes: handed over before and after it.
    """

    label: str
    compute_ms: float
    on_chip_bytes: int = 0
    off_chip_bytes: int = 0
    host_in_bytes: int = 0
    host_out_bytes: int = 0
    seam_in_bytes: int = 0
    seam_out_bytes: int = 0


class Stretch(NamedTuple):
    """A period on a device; ``on_bus`` if it also occupies the link; ``doing`` is the activity."""

    ms: float
    on_bus: bool
    doing: Doing = "computing"


def link_named(name: str) -> Link:
    """The link of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in LINKS:
        raise UsageError(f"there is no link {name}", f"use {', '.join(LINKS)}")
    return LINKS[name]


def handover_ms(size: int) -> float:
    """Milliseconds to hand ``size`` bytes from one part to the next (statement 3); 0 for none."""
    if size <= 0:
        return 0.0
    (small, small_ms), (large, large_ms) = _HANDED_OVER
    slope = (large_ms - small_ms) / (large - small)
    return small_ms + slope * (size - small)


def compute_ms(work: int, link: Link) -> float:
    """Estimated milliseconds to compute with everything on chip, without the call; ``work`` counts full tiles."""
    return link.compute_ms_per_gmac * work / 1e9


def reload_ms(part: PartCost, link: Link) -> float:
    """Milliseconds to load a part's parameters that stay on chip (statement 2)."""
    return link.stream_ms_per_mib * part.on_chip_bytes / MIB


def phases(part: PartCost, link: Link) -> tuple[Stretch, ...]:
    """The phases of one inference of a part on its own device, in order (statement 1); empty ones are omitted."""
    incoming = 1000 * part.host_in_bytes / MIB / link.to_device_mib_s + handover_ms(part.seam_in_bytes) / 2
    outgoing = 1000 * part.host_out_bytes / MIB / link.to_host_mib_s + handover_ms(part.seam_out_bytes) / 2
    streamed = link.stream_ms_per_mib * part.off_chip_bytes / MIB
    every = (
        Stretch(incoming, True, "transfer"),
        Stretch(link.invoke_ms + part.compute_ms, False, "computing"),
        Stretch(streamed, True, "streaming"),
        Stretch(outgoing, True, "transfer"),
    )
    return tuple(phase for phase in every if phase.ms > 0)


def steady_ms(part: PartCost, link: Link) -> float:
    """One inference of a part that has its device and the link to itself."""
    return sum(phase.ms for phase in phases(part, link))


def first_ms(parts: Sequence[PartCost], link: Link) -> float:
    """The first inference through all parts, each on its own device, including the loading of parameters."""
    return sum(steady_ms(part, link) + reload_ms(part, link) + FIRST_EXTRA_MS for part in parts)
