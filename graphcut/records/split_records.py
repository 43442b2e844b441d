"""What a split consists of: samples, int8 segments and the tensors at their edges, tails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from graphcut.record_types import FLAT, OMITTED, Between, By, Key, derived
from graphcut.records.field_types import Array, Bytes, Count, Decibels, Dimensions, Number, Sha256
from graphcut.records.plan_records import Segment


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
