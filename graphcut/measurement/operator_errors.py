"""How far every operator of the int8 chain is from float: the dB at its output, accumulated from the model's input.

1. Float values come from the ONNX segments as a chain, int8 values from the TFLite segments as a chain, with all inner
   tensors kept. Both run on the same samples, so a figure holds all noise that was made up to that operator.
2. An output of the TFLite file and a tensor of the ONNX segment correspond where they have the same layer name, without
   the ending that the converter adds, and the same shape. Operators of the converter's own (pads, transposes,
   rescaling) have no counterpart and no figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphcut.graph import load
from graphcut.graph.float_chain import inner_values
from graphcut.measurement.int8_chain import quantised_input
from graphcut.measurement.metrics import AnyArray, to_nhwc
from graphcut.progress import Event, Report, silent
from graphcut.records import Array, ConvertedSegment, Samples
from graphcut.runtime import litert
from graphcut.tflite import edit, schema

MOST_SAMPLES = 4
"""Samples that are run where nobody says how many: a figure of an operator moves little with more."""

_ENDING = "_output_nhwc"


def operator_errors(
    segments: Sequence[ConvertedSegment], samples: Samples, *, most: int = MOST_SAMPLES, report: Report = silent
) -> dict[str, float]:
    """Measure the error at every operator's output (statement 1).

    Args:
        segments: in order, with their files.
        samples: the model's inputs (NCHW).
        most: samples to run.
        report: receives progress.

    Returns:
        Name of the output in the TFLite file -> dB over all samples, for operators that have a counterpart.

    Raises:
        ModelError: a float segment cannot be read or run.
    """
    count = min(most, len(samples))
    float_values: list[dict[str, Array]] = [
        {name: array[number : number + 1] for name, array in samples.arrays.items()} for number in range(count)
    ]
    int8_values: list[dict[str, AnyArray]] = [{} for _ in range(count)]
    found: dict[str, float] = {}
    for done, part in enumerate(segments):
        report(Event(stage="operators", done=done, total=len(segments), detail=f"segment {part.segment.index}"))
        run = _Segment(part)
        sums: dict[str, tuple[float, float]] = {}
        for number in range(count):
            for name, (signal, noise) in run(float_values[number], int8_values[number], samples, number).items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = before[0] + signal, before[1] + noise
        found |= {name: _decibels(*each) for name, each in sums.items()}
    return found


class _Segment:
    """One segment in float and in int8, ready to run."""

    def __init__(self, part: ConvertedSegment) -> None:
        self._part = part
        layers = load.load(part.onnx_path).graph.layers
        self._tensors = {layer: tensor for tensor, layer in layers.items()}
        data = part.tflite_path.read_bytes()
        self._model = schema.read(data)
        self._runner = litert.Runner(data, keep_all=True)

    def __call__(
        self, float_values: dict[str, Array], int8_values: dict[str, AnyArray], samples: Samples, number: int
    ) -> dict[str, tuple[float, float]]:
        """Run one sample; energy of signal and of noise by name. Edges are added to both kinds of values."""
        part = self._part
        wanted = inner_values(part.onnx_path, {name: float_values[name] for name in part.segment.inputs})
        for tensor in part.inputs:
            if tensor.layer not in int8_values:
                int8_values[tensor.layer] = quantised_input(tensor, samples, number)
        results = self._runner([int8_values[tensor.layer] for tensor in part.inputs])
        int8_values |= {tensor.layer: result for tensor, result in zip(part.outputs, results, strict=True)}
        float_values |= {name: wanted[name] for name in part.segment.outputs if name in wanted}
        return self._compared(wanted)

    def _compared(self, wanted: Mapping[str, Array]) -> dict[str, tuple[float, float]]:
        graph = edit.graph_of(self._model)
        found = {}
        for operator in graph.operators:
            for index in (int(each) for each in operator.outputs):
                name = schema.tensor_name(graph.tensors[index])
                plain = self._counterpart(name, wanted)
                if plain is None or schema.TYPE_NAMES[graph.tensors[index].type] != "INT8":
                    continue
                got = litert.dequantise(self._runner.tensor(index), *edit.scale_of(self._model, index))
                if got.shape == plain.shape:
                    noise = np.square(got - plain, dtype=np.float64).sum()
                    found[name] = float(np.square(plain, dtype=np.float64).sum()), float(noise)
        return found

    def _counterpart(self, name: str, wanted: Mapping[str, Array]) -> Array | None:
        """The float values of a layer, NHWC (statement 2)."""
        for layer in (name, name.removesuffix(_ENDING)):
            tensor = self._tensors.get(layer, layer)
            if tensor in wanted:
                return np.asarray(to_nhwc(wanted[tensor]), np.float32)
        return None


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")
