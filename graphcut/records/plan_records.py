"""Where a graph can be cut, and where a plan cuts it: candidates, segments, stages on devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Annotated

from graphcut import codec
from graphcut.record_types import OMITTED, Key, derived
from graphcut.records.field_types import Bytes, Count, Dimensions, Number, Shape
from graphcut.records.graph_records import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A place at which the graph can be cut, and what is handed over there: one tensor, or several.

    Attributes:
        tensor, layer: ONNX name and layer name; of several tensors joined by "+". ``layer`` names the cut and is
            unique in an analysis: where the same tensors are alive at several positions, the later ones are called
            ``layer@last``, ``last`` being the layer made last before the cut.
        position: number of operators before the cut.
        shape, dtype: of the activation (NCHW), of several of the one made last.
        int8_bytes: bytes handed over at int8, of all tensors.
        merged: branches meet in its producer (an Add, Concat, ... of two activations); of the one made last.
        downsampled: the maps (H x W) of all tensors are smaller than the model input's.
        pre_activation: a tensor's only consumer is an activation that fuses into its producer (Relu, Clip to 6):
            a cut here would prevent the fusion, so plans prefer the place after the activation.
        weight_bytes_before: bytes of weights (one byte an element) of nodes[:position].
        weight_bytes_between: bytes of weights since the previous candidate (or the input).
        tensors, layers: ONNX names and layer names of all that is handed over, in the order in which they are made.
    """

    tensor: str
    layer: str
    position: Count
    shape: Dimensions
    dtype: str
    int8_bytes: Bytes
    merged: bool
    downsampled: bool
    pre_activation: bool
    weight_bytes_before: Bytes
    weight_bytes_between: Bytes
    tensors: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An input or output of a graph.

    Attributes:
        layer: name that the model's author knows.
        tensor: name in the normalised ONNX graph.
        shape, dtype: there (NCHW).
        int8_bytes: a byte an element.
    """

    layer: str
    tensor: str
    shape: Shape
    dtype: str
    int8_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Analysis:
    """What can be cut: the graph and its candidates by rising position.

    Attributes:
        graph: in the topological order that the positions count.
        candidates: by rising position.
        max_seam_tensors: the most tensors that a candidate was allowed to hand over.
        min_rank: the lowest rank of a tensor that a candidate was allowed to hand over.
        border: where the nodes begin that are left to the CPU, the position of the last candidate; None for none.
        on_cpu: operators that end what the Edge TPU runs, with reasons.
    """

    graph: Annotated[Graph, OMITTED]
    candidates: tuple[Candidate, ...]
    max_seam_tensors: Annotated[int, OMITTED] = 1
    min_rank: Annotated[int, OMITTED] = 4
    border: Annotated[int | None, OMITTED] = None
    on_cpu: Annotated[tuple[str, ...], OMITTED] = ()

    @property
    @derived("inputs")
    def inputs(self) -> tuple[Endpoint, ...]:
        """Inputs of the graph."""
        return self._endpoints(self.graph.inputs)

    @property
    @derived("outputs")
    def outputs(self) -> tuple[Endpoint, ...]:
        """Outputs of the graph."""
        return self._endpoints(self.graph.outputs)

    @property
    @derived("operators")
    def operators(self) -> int:
        """Number of operators."""
        return len(self.graph.nodes)

    @property
    @derived("weight_bytes")
    def weight_bytes(self) -> int:
        """One byte a weight element."""
        return sum(weight.elements for weight in self.graph.weights.values())

    def _endpoints(self, names: tuple[str, ...]) -> tuple[Endpoint, ...]:
        found = [(self.graph.layers[name], self.graph.tensors[name]) for name in names]
        return tuple(
            Endpoint(layer=layer, tensor=each.name, shape=each.shape, dtype=each.dtype, int8_bytes=each.elements)
            for layer, each in found
        )

    def __repr__(self) -> str:
        """Show how many places there are, and the first."""
        first = ", ".join(each.layer for each in self.candidates[:5]) + (", .." if len(self.candidates) > 5 else "")
        return f"Analysis({len(self.candidates)} places to cut: {first})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Segment:
    """A run of nodes between two cuts.

    Attributes:
        index: 1 for the first.
        start, stop: operators of the normalised graph, half open.
        input_layers: layer names of what it reads of earlier segments, then of the graph's inputs, in the order in
            which they are made. What only skips over a segment is no input: seams are joined by name.
        output_layers: layer names of what later segments read of it, then of the graph's outputs made here.
        inputs, outputs: their ONNX names, in the same order.
        weight_bytes: one byte a weight element.
        tflite_bytes: size of the int8 TFLite file; predicted in a plan, measured after conversion.
    """

    index: Number
    start: Count
    stop: Count
    input_layers: Annotated[tuple[str, ...], Key("inputs")]
    output_layers: Annotated[tuple[str, ...], Key("outputs")]
    inputs: Annotated[tuple[str, ...], Key("input_tensors")]
    outputs: Annotated[tuple[str, ...], Key("output_tensors")]
    weight_bytes: Bytes
    tflite_bytes: Bytes

    def __repr__(self) -> str:
        """Show where it begins and ends."""
        ends = f"{', '.join(self.input_layers[:3])} -> {', '.join(self.output_layers[:3])}"
        return f"Segment({self.index}, {ends}, {self.tflite_bytes} bytes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTime:
    """A measured time of one segment on one kind of device.

    Attributes:
        from_cut, to_cut: tensors of the model at the cuts before and after it; empty at the model's ends.
        kind: "usb", "pci" or "cpu".
        micros: median time of one inference, in microseconds.
    """

    from_cut: tuple[str, ...]
    to_cut: tuple[str, ...]
    kind: str
    micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTimes:
    """Measured times of a model's segments, as ``graphcut bench --save-times`` writes them.

    Attributes:
        model: sha256 of the source.
        runtime: the interpreter.
        times: of segments.
    """

    model: str
    runtime: str
    times: tuple[SegmentTime, ...]

    def save(self, path: str | Path) -> None:
        """Write them to a JSON file; an older file is replaced.

        Raises:
            OutputError: it cannot be written.
        """
        codec.save(Path(path), self)

    @classmethod
    def load(cls, path: str | Path) -> SegmentTimes:
        """Read times that :meth:`save` wrote.

        Raises:
            UsageError: the file is missing or holds no times.
        """
        return codec.load(Path(path), cls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Segments that run on the same devices.

    Attributes:
        first, stop: segments[first:stop] of the plan; several share each device.
        device: name of the kind of device.
        kind: how a runtime names it: "usb", "pci" or "cpu".
        copies: devices that take turns.
        micros: of one inference on one of them, predicted or measured.
    """

    first: int
    stop: int
    device: str
    kind: str
    copies: int
    micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Which segments run on which devices, and what comes of it (graphcut.planning.fleet).

    Attributes:
        objective: "throughput" or "latency".
        cuts: layer names.
        stages: in order.
        batch: inputs that a device with several segments takes together.
        interval_us: microseconds between results.
        latency_us: of an input alone; where devices share segments, of a batch.
        bus_us: what the shared bus takes for an input; 0 without one.
        streamed_bytes: of all segments at every inference.
    """

    objective: str
    cuts: tuple[str, ...]
    stages: tuple[Stage, ...]
    batch: int
    interval_us: int
    latency_us: int
    bus_us: int
    streamed_bytes: int

    @property
    def devices(self) -> int:
        """How many are used."""
        return sum(stage.copies for stage in self.stages)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan:
    """Where to cut, and what is known about it before anything is converted.

    Attributes:
        strategy: "greedy", "fewest", "balanced", "throughput", "latency", "traffic", "range" or "given".
        budget_bytes: the limit for every segment; None where only their number was given.
        candidates: the cuts, by rising position; len(candidates) == k - 1.
        segments: k segments.
        minimal_k: the fewest segments any choice of these candidates allows under the budget, by the exact
            dynamic programme; None without a budget.
        lower_bound: no plan at all can have fewer: predicted bytes of the whole / budget, rounded up; None without a
            budget.
        max_seam_tensors: the most tensors that a cut was allowed to hand over.
        min_rank: the lowest rank of a tensor that a cut was allowed to hand over.
        places: how many candidates there were to choose from.
        notes: notes for the user ("layer fc1 is split into 15 parts").
        splits: output of a layer -> the channels at which its parts meet, for layers that are computed in parts.
        order: first output of every node, in the order that positions count, where it is not the file's own.
        certificate: JSON text with which an independent checker verifies these claims (graphcut.planning.certificate);
            "" where the plan was read from elsewhere.
        target: whose rewrites its model was loaded with.
        on_cpu: operators that end what the Edge TPU runs, with reasons, where the last segment is the rest of the model
            for the CPU (``until``); empty where there is no such segment.
        deployment: where it was made for so many devices, how the segments are placed on them.
        alternatives: with a deployment, the best one by throughput and by latency for every number of stages.
    """

    strategy: str
    budget_bytes: Bytes | None
    minimal_k: int | None
    lower_bound: int | None
    max_seam_tensors: int = 1
    min_rank: int = 4
    places: int = 0
    notes: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...]
    segments: tuple[Segment, ...]
    splits: Annotated[Mapping[str, tuple[int, ...]], OMITTED] = field(default_factory=dict)
    order: Annotated[tuple[str, ...], OMITTED] = ()
    certificate: Annotated[str, OMITTED] = ""
    target: Annotated[str, OMITTED] = "any"
    on_cpu: tuple[str, ...] = ()
    deployment: Deployment | None = None
    alternatives: Annotated[tuple[Deployment, ...], OMITTED] = ()

    @property
    def chip_segments(self) -> tuple[Segment, ...]:
        """The segments without one that is there for the CPU."""
        return self.segments[:-1] if self.on_cpu else self.segments

    def save(self, path: str | Path) -> None:
        """Write the plan to a JSON file; an existing file is replaced.

        Raises:
            OutputError: it cannot be written.
        """
        codec.save(Path(path), self)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that :meth:`save` wrote.

        Raises:
            UsageError: the file is missing or is not a plan.
        """
        return codec.load(Path(path), cls)

    def __repr__(self) -> str:
        """Show the cuts and the proof, not the graph."""
        shown = ", ".join(self.cuts[:8]) + (f", .. {self.k - 9} more" if self.k > 9 else "")
        return f"Plan({self.strategy}, k={self.k}, minimal_k={self.minimal_k}, cuts=[{shown}])"

    @property
    @derived("k")
    def k(self) -> Number:
        """Number of segments."""
        return len(self.segments)

    @property
    @derived("cuts")
    def cuts(self) -> tuple[str, ...]:
        """Layer names of the cuts, in order; those of a cut of several tensors are joined by "+"."""
        return tuple(candidate.layer for candidate in self.candidates)

    @property
    @derived("cut_tensors")
    def cut_tensors(self) -> tuple[str, ...]:
        """The same with ONNX names."""
        return tuple(candidate.tensor for candidate in self.candidates)

    @property
    @derived("cut_layers")
    def cut_layers(self) -> tuple[tuple[str, ...], ...]:
        """For each cut the layers whose tensors are handed over."""
        return tuple(candidate.layers for candidate in self.candidates)

    @property
    @derived("cut_int8_bytes")
    def cut_int8_bytes(self) -> tuple[int, ...]:
        """For each cut the bytes that are handed over."""
        return tuple(candidate.int8_bytes for candidate in self.candidates)

    @property
    @derived("seam_tensors")
    def seam_tensors(self) -> int:
        """The most tensors handed over at a cut; 0 without one."""
        return max((len(candidate.tensors) for candidate in self.candidates), default=0)

    @property
    @derived("largest_tflite_bytes")
    def largest_tflite_bytes(self) -> int:
        """Size of the largest segment."""
        return max(each.tflite_bytes for each in self.segments)

    def _repr_html_(self) -> str:
        """Show a table of segments, in a notebook."""
        rows = "".join(
            f"<tr><td>{each.index}</td><td>{escape(', '.join(each.input_layers))}</td>"
            f"<td>{escape(', '.join(each.output_layers))}</td><td>{each.tflite_bytes / 2**20:.3f} MiB</td></tr>"
            for each in self.segments
        )
        head = "<tr><th>segment</th><th>from</th><th>to</th><th>int8 file</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{rows}</table>"
