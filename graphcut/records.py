"""The records that pass between stages.

All are frozen, slotted and keyword-only; sequences are tuples. A record is always complete: if a stage did not run, its
record does not exist. Conventions that hold everywhere:

1. A *position* p is a place between nodes: ``nodes[:p]`` come before it. Ranges are half-open.
2. Tensor names are those of the normalised ONNX graph; *layer names* are those that the model's author knows.
3. Shapes of ONNX activations are NCHW (rank 4), batch 1. Shapes of TFLite tensors are NHWC.
4. Sizes are bytes unless the name says otherwise; 1 MiB is 2**20 bytes.
5. Segments are numbered from 1, as in file names (``seg1_int8.tflite``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from graphcut import codec
from graphcut.record_types import DECIBELS, FLAT, OMITTED, AtMost, Between, By, Key, Pattern, derived

Shape = tuple[int, ...]
Count = Annotated[int, Between(0, 2**31)]
Number = Annotated[int, Between(1, 2**31)]
Bytes = Annotated[int, Between(0, 2**53)]
Decibels = Annotated[float, DECIBELS]
Sha256 = Annotated[str, Pattern("^[0-9a-f]{64}$")]
Dimensions = Annotated[tuple[Number, ...], AtMost(8)]
Layout = Literal["NCHW", "NHWC", "other"]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An activation or weight: name, static shape, numpy dtype name ("float32")."""

    name: str
    shape: Shape
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements, which is the number of bytes at int8."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator. ``inputs`` holds activation and weight names in order, "" for an omitted optional one."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Graph:
    """The normalised graph without its weights' values: all that analysis and planning need.

    Attributes:
        nodes: in topological order; the order is deterministic for a given file.
        inputs, outputs: names of the graph's activations inputs and outputs, in the model's order.
        tensors: every activation (graph inputs and node outputs), by name.
        weights: every initialiser, by name.
        layers: tensor name -> layer name as the author knows it ("conv4_block4_out"); every activation has one
            and they are unique.
        uint8: names of inputs and outputs that the files of a split have in uint8; the others are int8.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    layers: Mapping[str, str]
    uint8: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show sizes, not the graph."""
        return f"Graph({len(self.nodes)} operators, inputs={list(self.inputs)}, outputs={list(self.outputs)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a model came from.

    Attributes:
        kind: of the adapter: "onnx", "recipe", "keras", "saved-model", "tflite", "torch-export" or "torch".
        name: as it is shown to people.
        sha256: in hex, of the file or folder that the user gave (of an ONNX file with its external data); of the export
            where there is none, as with recipes and Python targets.
    """

    kind: str
    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """One input of the model as its author declared it.

    Attributes:
        name: the name in the normalised graph.
        shape: in the normalised graph: NCHW where it is an image, batch 1.
        source_layout: the layout the author's file declares: "NHWC" for Keras, "NCHW" for PyTorch,
            "other" where the rank is not 4.
        source_shape: the shape in that layout, batch 1.
    """

    name: str
    shape: Dimensions
    source_layout: Layout
    source_shape: Dimensions


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one rewrite did.

    Attributes:
        name: the pass.
        reason: why it exists.
        matches: how often it matched.
        relative_error: the largest difference it made to the output on a random input, relative to the output's
            largest value; None where it matched nothing.
    """

    name: str
    reason: str
    matches: int
    relative_error: float | None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Preprocessing of pictures: ``(pixel - mean) / std`` per channel, with pixels 0..255.

    Attributes:
        mean, std: in pixel values (0..255), one for all channels or one for each, in the order of ``colour``; every std
            is above 0. The default leaves pixels as they are. A single number counts as one value.
        colour: the order of the channels that the model expects; pictures are read as "rgb".
        layout: the layout of arrays given for calibration (.npy, .npz); None for the one the model's source
            declares (``ModelInput.source_layout``).
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["NCHW", "NHWC"] | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, int | float):
                object.__setattr__(self, name, (float(value),))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Samples:
    """Calibration or test data for the model's own inputs.

    Attributes:
        arrays: input name -> float32 array (N, *shape[1:]) in the normalised graph's layout (NCHW).
        names: what each sample is (file name, "random 3"), N of them.
        origin: where they come from ("folder photos", "data.npz", "random").
        synthetic: True if the data is not real; every result from it says so.
        sha256: of the arrays' bytes with names and shapes, inputs in order.
    """

    arrays: Annotated[Mapping[str, Array], OMITTED]
    names: tuple[str, ...]
    origin: str
    synthetic: bool
    sha256: Sha256

    @property
    @derived("samples")
    def count(self) -> Count:
        """How many there are."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        """Show what they are, not their values."""
        shapes = {name: array.shape for name, array in self.arrays.items()}
        return f"Samples({len(self)} from {self.origin!r}, {shapes}{', synthetic' if self.synthetic else ''})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamTensor:
    """An input or output of an int8 segment: value = ``scale`` * (int8 - ``zero_point``).

    Attributes:
        layer: name that the model's author knows.
        tensor: name in the normalised ONNX graph.
        shape: NHWC.
        dtype: "int8", or what the file holds.
        scale: of the values; both sides of a seam have the same.
        zero_point: the int8 value of 0.
    """

    layer: str
    tensor: str
    shape: Dimensions
    dtype: str
    scale: Annotated[float, Between(0)]
    zero_point: Annotated[int, Between(-128, 256)]


NamedTensor = Annotated[SeamTensor, By("layer")]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConvertedSegment:
    """A segment as int8 TFLite, checked against its ONNX segment.

    Attributes:
        segment: with ``tflite_bytes`` measured.
        tflite_path: the int8 file.
        onnx_path: the float segment that it was made from.
        inputs, outputs: of the int8 file, in the order of ``segment.inputs`` and ``segment.outputs``.
        float_error: largest absolute difference of the float TFLite file's outputs to onnxruntime's, relative to
            the largest absolute value of that output.
        sqnr_db: layer name of each output -> signal-to-quantisation-noise ratio in dB of the int8 file against
            float, fed with the float activations at the segment's own input.
        backend: the converter that made it ("flatbuffer_direct").
        notes: notes for the user (fixed dead channels, operators left in float, ...).
        seconds: wall time of the conversion; 0 where it was read from a folder, for times are not kept.
        on_chip: number of operators that the Edge TPU would run, and of all; None if not checked.
        on_cpu: the others: kind, first output and reason.
    """

    segment: Annotated[Segment, FLAT]
    tflite_path: Annotated[Path, Key("tflite")]
    onnx_path: Annotated[Path, Key("onnx")]
    inputs: tuple[NamedTensor, ...]
    outputs: tuple[NamedTensor, ...]
    float_error: float
    sqnr_db: Mapping[str, Decibels]
    backend: str
    notes: tuple[str, ...]
    seconds: Annotated[float, OMITTED] = 0.0
    on_chip: tuple[Count, Count] | None = None
    on_cpu: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show the segment and how good it is."""
        worst = min(self.sqnr_db.values(), default=0.0)
        return f"ConvertedSegment({self.segment!r}, {self.tflite_path.name}, {worst:.1f} dB)"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Tail:
    """Segments first..last (both counted) joined into one TFLite file; ``first == 1`` is the unsplit model.

    The combination k of the reference layout is seg1 .. seg(k-1) and the tail that begins at segment k.

    Attributes:
        first: number of the first segment; 1 is the unsplit model.
        last: number of the last.
        tflite_bytes: size of the file.
        inputs, outputs: their layer names, as of a segment.
        tflite_path: the file.
    """

    first: Number
    last: Number
    tflite_bytes: Bytes
    inputs: tuple[NamedTensor, ...]
    outputs: tuple[NamedTensor, ...]
    tflite_path: Annotated[Path, Key("tflite")]

    def __repr__(self) -> str:
        """Show which segments it holds."""
        return f"Tail({self.first}..{self.last}, {self.tflite_path.name}, {self.tflite_bytes} bytes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Independent:
    """The difference between the int8 chain and an int8 model converted in one piece (graphcut.conversion.whole_model).

    Attributes:
        exact: the same bytes at the outputs (and before a final softmax) on all samples, with the same scales.
        differing_share: share of these bytes that differ.
        largest_step: the largest difference, in int8 steps.
        sqnr_db: dB of the chain against the independent model at the worst output.
    """

    exact: bool
    differing_share: float
    largest_step: int
    sqnr_db: Decibels


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResult:
    """The result on one sample.

    Attributes:
        name: of the sample.
        sqnr_db: the keys of ``Verification.sqnr_db`` -> dB of the int8 chain against the float whole on this sample.
        float_best, int8_best: class and score of the best classes, best first: probabilities where the model ends with
            a softmax. Empty unless there is one output of shape (1, classes).
    """

    name: str
    sqnr_db: Mapping[str, Decibels]
    float_best: tuple[tuple[int, float], ...] = ()
    int8_best: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorError:
    """How far one operator of the int8 chain is from float (graphcut.measurement.operator_errors).

    Attributes:
        segment: its number.
        layer: name of its output in the TFLite file.
        op: its kind ("CONV_2D").
        part: the part of an output that the figures in dB are of; "" where they are of all of it.
        low, high: range of its output in float.
        scale, zero_point: of its output in int8; None where it stays in float.
        alone_db: dB against float where it reads float's values, rounded to int8.
        sqnr_db: dB against float in the chain: with the noise of all operators before it.
    """

    segment: int
    layer: str
    op: str
    part: str
    low: float
    high: float
    scale: float | None
    zero_point: int | None
    alone_db: Decibels
    sqnr_db: Decibels


Verdict = Literal["PASSED", "WEAK", "FAILED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPart:
    """A part of an output with its own range (graphcut.measurement.output_parts): int8 compared with float.

    Attributes:
        name: for people ("scores (channels 4..83 of output0)").
        output: layer name of the output, or "logits".
        axis: of the channels in the NHWC array (N, ...); None where the part is the whole output.
        channels: half-open runs of channels.
        sqnr_db: dB of int8 against float over the part.
        constant: the value that int8 gives everywhere although float varies; None where it varies.
        low, high: float's range.
    """

    name: str
    output: str
    axis: int | None
    channels: tuple[tuple[int, int], ...]
    sqnr_db: Decibels
    constant: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Verification:
    """The result of verifying a split, and the samples it is based on.

    Attributes:
        passed: the verdict is not "FAILED".
        exact: chain of int8 segments == unsplit int8 model == every prefix + tail, byte for byte, on all samples.
        float_exact: float chain of the ONNX segments == float whole, bit for bit, on all samples.
        samples: number of samples.
        synthetic_calibration: calibration data was synthetic.
        sqnr_db: seam layer names and, for the model's outputs, "logits" (or each output's name where there are
            several) -> dB of the int8 chain against the float whole; outputs are taken before a final softmax.
        top1_agreement: share of samples whose top-1 class is the float model's; None where the output is not a class.
        worst_sample: the same keys -> name of the sample with the lowest SQNR.
        independent: the chain against the whole model converted in one piece; None if not requested.
        runtime: interpreter, version and kernel set that all of it ran in.
        findings: one line per error or meaningless output (a saturated or constant output, ...).
        by_sample: what was found on each sample, in order; empty where the proof was read from an older manifest.
        verdict: "PASSED", "WEAK" or "FAILED" (graphcut.verification.verdict).
        reason: why, in one clause.
        parts: of the outputs, each measured by itself.
        held_out: the samples were not used for calibration.
        calibration_sqnr_db: as ``sqnr_db``, on the calibration samples, where ``held_out``.
        input_ranges: input name -> the smallest and largest value that reached the model.
        min_sqnr_db: the limit below which an output fails.
        worst_operator: the one that loses most by itself of those that the worst output is computed from, where the
            verdict is "WEAK" or "FAILED" for accuracy; None elsewhere.
    """

    passed: bool
    exact: bool
    float_exact: bool
    samples: Count
    synthetic_calibration: bool
    sqnr_db: Mapping[str, Decibels]
    top1_agreement: float | None
    worst_sample: Mapping[str, str]
    independent: Independent | None
    runtime: str
    findings: tuple[str, ...]
    by_sample: tuple[SampleResult, ...] = ()
    verdict: Verdict = "PASSED"
    reason: str = ""
    parts: tuple[OutputPart, ...] = ()
    held_out: bool = False
    calibration_sqnr_db: Mapping[str, Decibels] = field(default_factory=dict)
    input_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    min_sqnr_db: float = 10.0
    worst_operator: OperatorError | None = None

    def __repr__(self) -> str:
        """Show the verdict and the worst place."""
        worst = min(self.sqnr_db.items(), key=lambda entry: entry[1], default=("", 0.0))
        exact = "exact" if self.exact and self.float_exact else "not exact"
        return (
            f"Verification({self.verdict} on {self.samples} samples, {exact}, "
            f"worst {worst[1]:.1f} dB at {worst[0]}{', synthetic data' if self.synthetic_calibration else ''})"
        )

    def _repr_html_(self) -> str:
        """Show a table of the signal-to-noise ratios, in a notebook."""
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{value:.2f}</td></tr>" for name, value in self.sqnr_db.items())
        return f"<p>{escape(repr(self))}</p><table><tr><th>against float at</th><th>dB</th></tr>{rows}</table>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure for each way of computing.

    Attributes:
        name: what it is, with its unit.
        values: way -> value; only ``int8`` (and devices) where it compares with float.
        intervals: way -> lower and upper end of the 95 % bootstrap interval over pictures, where there is one.
        of: what a share is taken of (the boxes that float finds); None for other figures.
    """

    name: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    of: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstPicture:
    """A picture on which int8 is far from float.

    Attributes:
        name: of the picture.
        why: in a few words.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChange:
    """Pictures whose best class is another one in int8.

    Attributes:
        float_class, int8_class: names, or numbers where there are no names.
        pictures: how many.
    """

    float_class: str
    int8_class: str
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How well a split does its task.

    Attributes:
        task: "classification", "detection", "segmentation", "embedding" or "values".
        head: the kind of detector output; "" for other tasks.
        data: what it was measured on.
        pictures: how many.
        labelled: whether the right answers were known; float was the yardstick otherwise.
        seen: how many of them the split was calibrated with: on these int8 does better than on others.
        figures, worst, changes: see there.
    """

    task: str
    head: str
    data: str
    pictures: int
    seen: int
    labelled: bool
    figures: tuple[Figure, ...]
    worst: tuple[WorstPicture, ...] = ()
    changes: tuple[ClassChange, ...] = ()
