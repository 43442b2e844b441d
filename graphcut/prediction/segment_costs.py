"""The predicted cost of every candidate segment: on disk, on the chip, over the link, and in time.

1. ``tflite_bytes`` is the int8 file (graphcut.prediction.sizes); parameters, compiled file, room and multiplications
   are those of graphcut.edgetpu.
2. ``off_chip_bytes`` is expected to be streamed at every inference: bytes that are never cached, and those of the rest
   that exceed the room. It is additive along a graph, as planning needs it. In fact layers stream whole
   (graphcut.edgetpu.caching); the cost of a file (:func:`file_time`) counts that.
3. ``seam_in_bytes`` and ``seam_out_bytes`` are what a segment reads from earlier segments and what later ones read from
   it, one byte per element. ``seam_bytes`` is the latter: summed over all segments, everything that is handed over.
4. ``latency_ms`` is one inference of a segment that has its device and link to itself::

       inputs + handing over + call + computing + streaming what is off chip + handing over + outputs

   with the constants of the device (graphcut.prediction.device_profiles). The pipeline's interval is that of its
   slowest segment, its latency the sum. Devices on one USB bus also wait for each other, which ``graphcut simulate``
   includes.

All queries take microseconds after one pass over the graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated

from graphcut.edgetpu.caching import Caching, cache, room_beside
from graphcut.edgetpu.estimate import Estimate, Fit
from graphcut.edgetpu.file_cost import FileCost, PredictedCosts
from graphcut.edgetpu.layers_of_graph import Assumed
from graphcut.edgetpu.packing import Packed
from graphcut.prediction.device_profiles import DEFAULT, DeviceProfile
from graphcut.prediction.sizes import Sizes
from graphcut.record_types import FLAT, OMITTED, Digits, Key, derived
from graphcut.records import Graph, Plan, Segment

Milliseconds = Annotated[float, Digits(3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCost:
    """The cost of one segment (see the module docstring).

    Attributes:
        tflite_bytes: size of the int8 file, predicted before anything is converted.
        parameter_bytes: what its weights and biases take on the Edge TPU.
        compiled: the compiled file, with its interval.
        fit: whether nothing streams.
        off_chip_bytes: expected to be streamed at every inference.
        macs: multiplications with a weight.
        work: multiplications that the chip does, including wasted ones (graphcut.edgetpu.computing).
        activation_bytes: inputs and outputs of the largest operator.
        seam_in_bytes, seam_out_bytes: handed over before and after it.
        host_in_bytes, host_out_bytes: the model's inputs that it reads and outputs that it produces.
        latency_ms: milliseconds of one inference on its device.
        device: name of the device.
    """

    tflite_bytes: Annotated[int, Key("predicted_tflite_bytes")]
    parameter_bytes: int
    compiled: Annotated[Estimate, OMITTED]
    fit: Annotated[Fit, Key("fits_on_chip")]
    off_chip_bytes: int
    macs: int
    work: Annotated[int, OMITTED]
    activation_bytes: int
    seam_in_bytes: Annotated[int, OMITTED]
    seam_out_bytes: Annotated[int, OMITTED]
    host_in_bytes: Annotated[int, OMITTED]
    host_out_bytes: Annotated[int, OMITTED]
    latency_ms: Milliseconds
    device: str

    @property
    @derived("compiled_bytes")
    def compiled_bytes(self) -> int:
        """Expected size of the compiled file."""
        return self.compiled.expected_bytes

    @property
    @derived("compiled_interval")
    def compiled_interval(self) -> tuple[int, int]:
        """Low and high end of that: nine of ten published files lie between them."""
        return self.compiled.low_bytes, self.compiled.high_bytes

    @property
    @derived("seam_bytes")
    def seam_bytes(self) -> int:
        """Bytes that it hands over to later segments."""
        return self.seam_out_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCost:
    """The cost of a plan: that of its segments and of the pipeline."""

    segments: Annotated[tuple[SegmentCost, ...], OMITTED]

    @property
    @derived("interval_ms")
    def interval_ms(self) -> Milliseconds:
        """Time of the slowest segment, which is the time between two results of a pipeline."""
        return max(each.latency_ms for each in self.segments)

    @property
    @derived("latency_ms")
    def latency_ms(self) -> Milliseconds:
        """Time of one input through all segments, one after the other."""
        return sum(each.latency_ms for each in self.segments)

    @property
    @derived("off_chip_bytes")
    def off_chip_bytes(self) -> int:
        """Bytes that all segments together stream at every inference."""
        return sum(each.off_chip_bytes for each in self.segments)

    @property
    @derived("seam_bytes")
    def seam_bytes(self) -> int:
        """Bytes handed over at every inference."""
        return sum(each.seam_bytes for each in self.segments)

    @property
    @derived("balance")
    def balance(self) -> Annotated[float, Digits(4)]:
        """The size of the largest int8 file divided by the mean."""
        sizes = [each.tflite_bytes for each in self.segments]
        return max(sizes) * len(sizes) / sum(sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostedLayer:
    """One operator of a file.

    Attributes:
        packed: its size on the chip.
        on_chip: the chip runs it.
        streams: its parameters are sent at every inference.
    """

    packed: Annotated[Packed, FLAT]
    on_chip: bool
    streams: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTime:
    """What an existing file costs, what it is expected to stream and its time, as a model of its own on a device.

    Attributes:
        cost: what does not depend on the device.
        caching: which of its layers stream there.
        latency_ms, device: as of a segment.
        seam_bytes: of its outputs, which it hands over if it is a segment.
    """

    cost: Annotated[FileCost, FLAT]
    caching: Annotated[Caching, OMITTED]
    seam_bytes: int
    latency_ms: Milliseconds
    device: str

    @property
    @derived("on_chip_bytes")
    def on_chip_bytes(self) -> int:
        """What the cached layers occupy on the chip."""
        return self.caching.on_chip_bytes

    @property
    @derived("off_chip_bytes")
    def off_chip_bytes(self) -> int:
        """Parameter bytes of the layers that stream at every inference."""
        return self.caching.off_chip_bytes

    @property
    @derived("streamed_layers")
    def streamed_layers(self) -> tuple[str, ...]:
        """Names of the layers that stream, in execution order."""
        return tuple(each.packed.layer.name for each in self.layers if each.streams)

    @property
    @derived("layers")
    def layers(self) -> tuple[CostedLayer, ...]:
        """Every operator, in execution order."""
        placed = accumulate((on_chip for _, on_chip in self.cost.layers), initial=0)
        streamed = set(self.caching.streamed)
        return tuple(
            CostedLayer(packed=packed, on_chip=on_chip, streams=on_chip and number in streamed)
            for (packed, on_chip), number in zip(self.cost.layers, placed, strict=False)
        )


def file_time(found: FileCost, device: DeviceProfile = DEFAULT) -> FileTime:
    """The expected time of a file whose inputs and outputs are those of the model."""
    caching = found.caching
    if device.room_bytes is not None:
        on_chip = [packed for packed, runs_there in found.layers if runs_there]
        caching = cache(on_chip, input_bytes=found.input_bytes, room_bytes=device.room_bytes)
    latency = device.latency_ms(
        host_in=float(found.input_bytes),
        seam_in=0.0,
        work=float(found.work),
        off_chip=float(caching.sent_bytes),
        seam_out=0.0,
        host_out=float(found.output_bytes),
    )
    return FileTime(cost=found, caching=caching, seam_bytes=found.output_bytes, latency_ms=latency, device=device.name)


class Costs:
    """Costs of any run of nodes.

    Args:
        graph: normalised, in the order of the plan.
        sizes: of its int8 files.
        per_channel: convolutions get one weight scale per output channel.
    """

    def __init__(self, graph: Graph, sizes: Sizes, *, per_channel: bool = True) -> None:
        self.graph = graph
        self.sizes = sizes
        self.predicted = PredictedCosts(graph, Assumed(per_channel=per_channel, per_channel_dense=False))
        self._last_read = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}

    def room_bytes(self, reserved_bytes: int, device: DeviceProfile) -> int:
        """Room for parameters on a device next to activations of that many bytes."""
        return room_beside(reserved_bytes) if device.room_bytes is None else device.room_bytes

    def segment(self, segment: Segment, device: DeviceProfile = DEFAULT) -> SegmentCost:
        """The cost of a segment of a plan on a device; after conversion, with its measured size."""
        return self.run(segment.start, segment.stop, segment.inputs, segment.outputs, device, segment.tflite_bytes)

    def plan(self, plan: Plan, devices: Iterable[DeviceProfile] = (), *, measured: bool = True) -> PlanCost:
        """What a plan costs.

        Args:
            plan: of this graph.
            devices: of its segments, in order; missing ones are the default device.
            measured: take the sizes of files from the plan, which has measured ones after conversion; else predict.
        """
        given = [*devices]
        given += [given[-1] if given else DEFAULT] * (plan.k - len(given))
        found = (
            self.run(each.start, each.stop, each.inputs, each.outputs, device, each.tflite_bytes if measured else None)
            for each, device in zip(plan.segments, given, strict=False)
        )
        return PlanCost(segments=tuple(found))

    def run(
        self,
        start: int,
        stop: int,
        inputs: Iterable[str],
        outputs: Iterable[str],
        device: DeviceProfile,
        tflite_bytes: int | None = None,
    ) -> SegmentCost:
        """The cost of nodes[start:stop], given the tensors at their edges.

        Args:
            start, stop: the run.
            inputs, outputs: names of its tensors as in graphcut.records.Segment.
            device: that runs it.
            tflite_bytes: of its file; None predicts it.
        """
        own, given, final = self.predicted.segment(start, stop), set(self.graph.inputs), set(self.graph.outputs)
        handed = [name for name in outputs if self._read_after(name, stop)]
        seam_in = self._bytes(name for name in inputs if name not in given)
        seam_out = self._bytes(handed)
        host_in = self._bytes(name for name in inputs if name in given)
        host_out = self._bytes(name for name in outputs if name in final)
        room = self.room_bytes(self.predicted.reserved_bytes(start, stop), device)
        off_chip = self.predicted.off_chip_bytes(start, stop, room)
        latency = device.latency_ms(
            host_in=float(host_in),
            seam_in=float(seam_in),
            work=float(own.work),
            off_chip=float(off_chip),
            seam_out=float(seam_out),
            host_out=float(host_out),
        )
        return SegmentCost(
            tflite_bytes=self.sizes.file_bytes(start, stop) if tflite_bytes is None else tflite_bytes,
            parameter_bytes=own.parameter_bytes,
            compiled=own.compiled,
            fit=own.fit,
            off_chip_bytes=off_chip,
            macs=own.macs,
            work=own.work,
            activation_bytes=own.activation_bytes,
            seam_in_bytes=seam_in,
            seam_out_bytes=seam_out,
            host_in_bytes=host_in,
            host_out_bytes=host_out,
            latency_ms=latency,
            device=device.name,
        )

    def _bytes(self, names: Iterable[str]) -> int:
        return sum(self.graph.tensors[name].elements for name in names)

    def _read_after(self, name: str, stop: int) -> bool:
        return self._last_read.get(name, -1) >= stop
