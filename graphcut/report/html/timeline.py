"""The first inputs in the pipeline, estimated: a trace of the simulation with a device for every segment."""

from __future__ import annotations

from collections.abc import Sequence

from graphcut.deploy.part_costs import place_on, tpus
from graphcut.deploy.simulation import FEW_INPUTS, Load, Occupied, simulate
from graphcut.edgetpu.computing import passes, work
from graphcut.edgetpu.packing import Packed
from graphcut.prediction.device_profiles import DEVICES, DeviceProfile
from graphcut.prediction.latency import LINKS, Link, PartCost
from graphcut.report.html.report_facts import Span, Timeline
from graphcut.units import MIB

INPUTS = 10
"""Inputs that are shown."""


def link_of(device: DeviceProfile) -> Link:
    """Return the link that a device's profile describes; devices of a user's own profile share theirs."""
    name = device.name.removeprefix("coral-")
    if DEVICES.get(device.name) == device and name in LINKS:
        return LINKS[name]
    return Link(
        name=device.name,
        invoke_ms=device.invoke_ms,
        compute_ms_per_gmac=device.compute_ms_per_gmac,
        stream_ms_per_mib=device.stream_ms_per_mib,
        to_device_mib_s=device.to_device_mib_s,
        to_host_mib_s=device.to_host_mib_s,
        shared=True,
        what=f"the profile {device.name}",
    )


def compute_ms(device: DeviceProfile, work: int) -> float:
    """Return the estimated milliseconds of computing; ``work`` counts multiplications of full tiles."""
    return device.compute_ms_per_gmac * work / 1e9


def operator_ms(device: DeviceProfile, packed: Packed, *, streams: bool) -> float:
    """Return the estimated milliseconds that a device spends on one operator: computing, and sending its parameters."""
    sent = packed.parameter_bytes * passes(packed.layer) if streams else 0.0
    return compute_ms(device, work(packed.layer)) + device.stream_ms_per_mib * sent / MIB


def estimated(parts: Sequence[PartCost], link: Link) -> Timeline:
    """Simulate a pipeline with a device for each part, its parameters loaded before the first input.

    Args:
        parts: costs in order.
        link: of all devices.
    """
    seen: list[Occupied] = []
    placement = place_on(parts, tpus(len(parts), link), link)
    found = simulate(parts, placement, link, Load(inputs=max(FEW_INPUTS, 2 * INPUTS)), warm=True, trace=seen.append)
    spans = tuple(
        Span(row=each.station, item=each.item, kind=each.doing, start_ms=each.start_ms, stop_ms=each.stop_ms)
        for each in seen
        if each.item < INPUTS and each.doing != "loading" and each.stop_ms > each.start_ms
    )
    devices = "one Edge TPU" if len(parts) == 1 else f"{len(parts)} Edge TPUs"
    shared = ", which share the bus" if link.shared and len(parts) > 1 else ""
    return Timeline(
        stamp="ESTIMATED",
        what=f"{devices}{shared}, {link.what}, parameters loaded beforehand",
        rows=tuple(part.label for part in parts),
        spans=spans,
        interval_ms=1000 / found.throughput_per_s,
        latency_ms=found.latency_ms[1],
    )
