"""Costs of the parts of a split on Edge TPUs, estimated from their files, never measured.

Parameters on chip and streamed come from the compiled file where there is one (exact), otherwise from the packing
formula and the room next to the activations (:mod:`graphcut.edgetpu.estimate`). Computing comes from
multiply-accumulates, unless the caller has measured it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graphcut.edgetpu import compiled, file_cost
from graphcut.errors import UsageError
from graphcut.prediction.latency import Link, PartCost, compute_ms, reload_ms, steady_ms
from graphcut.runtime.chain import Chain
from graphcut.runtime.devices import CPU, Device, parse_device, parse_devices
from graphcut.runtime.interpreter import Part
from graphcut.runtime.isolated import IsolatedOpener
from graphcut.runtime.job_folder import Job, read_job
from graphcut.runtime.placement import Placement, Station, place, planned
from graphcut.runtime.wiring import Flow, bytes_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Costs of parts, in order, and where they come from.

    Attributes:
        parts: one for each.
        notes: which figures are estimates, in words.
    """

    parts: tuple[PartCost, ...]
    notes: tuple[str, ...]


def part_costs(parts: Sequence[Part], flow: Flow, link: Link, compute_given_ms: Sequence[float] = ()) -> Estimates:
    """Costs of parts on Edge TPUs.

    Args:
        parts: in order.
        flow: how they are connected.
        link: of the Edge TPUs.
        compute_given_ms: measured computing times, one for each part; empty to estimate them.

    Raises:
        UsageError: another number of times than of parts.
        ModelError: a file is damaged.
    """
    if compute_given_ms and len(compute_given_ms) != len(parts):
        raise UsageError(f"{len(compute_given_ms)} times for {len(parts)} parts", "pass one for each part")
    makers = {edge.name for ends in flow.parts for edge in ends.outputs}
    results = {edge.name for edge in flow.outputs}
    estimates, exact = [], 0
    for number, (part, ends) in enumerate(zip(parts, flow.parts, strict=True)):
        file = file_cost.of_file(part.path)
        if part.compiled is not None:
            made = compiled.read(part.compiled)
            on_chip, off_chip = made.cached_parameter_bytes, made.streamed_parameter_bytes
            exact += 1
        else:
            off_chip = file.caching.sent_bytes
            on_chip = file.parameter_bytes - file.caching.off_chip_bytes
        estimates.append(
            PartCost(
                label=part.label,
                compute_ms=compute_given_ms[number] if compute_given_ms else compute_ms(file.work, link),
                on_chip_bytes=on_chip,
                off_chip_bytes=off_chip,
                host_in_bytes=sum(bytes_of(edge) for edge in ends.inputs if edge.name not in makers),
                host_out_bytes=sum(bytes_of(edge) for edge in ends.outputs if edge.name in results),
                seam_in_bytes=sum(bytes_of(edge) for edge in ends.inputs if edge.name in makers),
                seam_out_bytes=sum(bytes_of(edge) for edge in ends.outputs if edge.name not in results),
            )
        )
    notes = ["computing times are given" if compute_given_ms else "computing times are estimated from operations"]
    if exact < len(parts):
        what = "what streams" if exact == 0 else f"what {len(parts) - exact} of {len(parts)} parts stream"
        notes.append(f"{what} is predicted from the uncompiled files")
    return Estimates(parts=tuple(estimates), notes=tuple(notes))


def of_folder(
    folder: Path, link: Link, *, tail: int | None = None, unsplit: bool = False, compute_given_ms: Sequence[float] = ()
) -> Estimates:
    """Estimate the parts of a split's folder or a bundle.

    Args:
        folder: of the split or bundle.
        link: how the devices are connected.
        tail, unsplit: which way of running; the chain without.
        compute_given_ms: measured computing times, one for each part.
    """
    job = read_job(folder, tail=tail, unsplit=unsplit)
    with Chain(job.parts, IsolatedOpener(), inputs=job.inputs, outputs=job.outputs) as chain:
        return part_costs(job.parts, chain.flow, link, compute_given_ms)


def link_of(job: Job) -> str:
    """Name the link that a job was planned for."""
    return {"pci": "pcie"}.get(job.kind, "usb")


def placement_of(
    job: Job, parts: Sequence[PartCost], devices: int | str | None, link: Link, batch: int = 1
) -> Placement:
    """Place parts on the devices that a user names; as planned where none are named. The rest is on the CPU.

    Raises:
        UsageError: a device is no Edge TPU.
    """
    if devices is None and job.deployment is not None:
        return planned(job.deployment, len(parts))
    if not job.rest_on_cpu:
        return place_on(parts, edge_tpus(devices, len(parts), link), link, batch)
    count = len(parts) - 1
    made = place_on(parts[:-1], edge_tpus(devices, count, link), link, batch)
    return Placement((*made.stations, Station(count, count + 1, (CPU,))), made.notes)


def edge_tpus(devices: int | str | None, parts: int, link: Link) -> tuple[Device, ...]:
    """Return the Edge TPUs for a number or a list of names; None means one per part.

    Raises:
        UsageError: one is not an Edge TPU.
    """
    if devices is None or isinstance(devices, int) or devices.strip().isdigit():
        return tpus(int(devices or parts), link)
    chosen = parse_devices(devices)
    if any(not device.is_tpu for device in chosen):
        raise UsageError("a CPU's times are measured, not simulated", "use graphcut bench, or name Edge TPUs")
    return chosen


def tpus(count: int, link: Link) -> tuple[Device, ...]:
    """Return a number of Edge TPUs on a link."""
    kind = "pci" if link.name == "pcie" else "usb"
    return tuple(parse_device(f"{kind}:{number}") for number in range(count))


def place_on(parts: Sequence[PartCost], devices: Sequence[Device], link: Link, batch: int = 1) -> Placement:
    """Place parts by their estimated costs."""
    return place(
        [part.label for part in parts],
        devices,
        [steady_ms(part, link) for part in parts],
        reload_ms=[reload_ms(part, link) for part in parts],
        batch=batch,
    )
