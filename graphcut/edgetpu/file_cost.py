"""Costs of a segment: of an existing file, and of any run of nodes before conversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated

from graphcut.edgetpu import layers_of_file
from graphcut.edgetpu.caching import Caching, cache, never_cached
from graphcut.edgetpu.computing import work
from graphcut.edgetpu.estimate import Estimate, Fit, compiled_bytes, cpu_share, fit, instruction_bytes, output_tables
from graphcut.edgetpu.layers import Layer
from graphcut.edgetpu.layers_of_graph import Assumed, layers_of
from graphcut.edgetpu.operator_check import Check, OpCheck, check_model
from graphcut.edgetpu.packing import Packed, pack, pack_layer
from graphcut.edgetpu.tile_memory import reserved
from graphcut.record_types import OMITTED, By, Key, derived
from graphcut.records import Graph
from graphcut.tflite.schema_types import ModelT


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCost:
    """The cost of one uncompiled TFLite file on the Edge TPU.

    Attributes:
        tflite_bytes: size of the file itself.
        parameter_bytes: of the layers on the chip, by the packing formula; exact where ``uncovered`` is empty.
        caching: which of them are cached and which stream; its indices count the layers on the chip.
        uncovered: operators on the chip that the formula does not cover.
        compiled: the compiled file.
        fit: whether nothing streams.
        macs: multiplications in one inference, on chip and CPU.
        work: multiplications that the chip does, including wasted ones (graphcut.edgetpu.computing).
        activation_bytes: inputs and outputs of the largest operator.
        input_bytes, output_bytes: of the file's own inputs and outputs.
        layers: every operator, and whether the chip runs it.
        check: the reasons.
    """

    tflite_bytes: int
    parameter_bytes: int
    caching: Annotated[Caching, OMITTED]
    uncovered: tuple[str, ...]
    compiled: Annotated[Estimate, OMITTED]
    fit: Annotated[Fit, Key("fits_on_chip")]
    macs: int
    work: Annotated[int, OMITTED]
    activation_bytes: int
    input_bytes: Annotated[int, OMITTED]
    output_bytes: Annotated[int, OMITTED]
    layers: Annotated[tuple[tuple[Packed, bool], ...], OMITTED]
    check: Annotated[Check, OMITTED]

    @property
    @derived("parameter_bytes_exact")
    def is_exact(self) -> bool:
        """The formula covers every operator on the chip."""
        return not self.uncovered

    @property
    @derived("compiled_bytes")
    def compiled_bytes(self) -> int:
        """Expected size of the compiled file."""
        return self.compiled.expected_bytes

    @property
    @derived("compiled_interval")
    def compiled_interval(self) -> tuple[int, int | None]:
        """Low and high end of that; no high end where the size of an operator is unknown."""
        return self.compiled.low_bytes, self.compiled.high_bytes if self.is_exact else None

    @property
    @derived("cpu_ops")
    def on_cpu(self) -> tuple[Annotated[OpCheck, By("op")], ...]:
        """Operators that run on the CPU."""
        return self.check.on_cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """The predicted cost of a run of nodes; see :class:`FileCost`.

    Attributes:
        off_chip_bytes: expected to be streamed at every inference: what is never cached, and what does not fit into the
            room. This sum is additive, as planning needs it; in fact layers stream whole, see
            ``PredictedCosts.caching``.
    """

    parameter_bytes: int
    off_chip_bytes: int
    compiled: Estimate
    fit: Fit
    macs: int
    work: int
    activation_bytes: int


def of_file(path: Path, *, zero_biases: bool = False) -> FileCost:
    """The cost of the TFLite file at ``path``.

    Args:
        path: of an uncompiled file.
        zero_biases: count biases that are all zero, as compilers for runtime 10 store them.

    Raises:
        ModelError: the file does not exist, is damaged, or is already compiled.
    """
    return of_model(layers_of_file.uncompiled(path), path.stat().st_size, str(path), zero_biases=zero_biases)


def of_model(model: ModelT, tflite_bytes: int, subject: str, *, zero_biases: bool = False) -> FileCost:
    """The cost of a ``ModelT``; ``subject`` names it in errors, ``zero_biases`` is as in :func:`of_file`.

    Raises:
        ModelError: it is damaged.
    """
    verdicts = check_model(model, subject)
    packed = pack(layers_of_file.layers(model, subject, zero_biases=zero_biases))
    on_chip = [each for each, verdict in zip(packed.layers, verdicts.ops, strict=True) if verdict.on_tpu]
    parameters = sum(each.parameter_bytes for each in on_chip)
    graph = model.subgraphs[0]
    fed, made = ([graph.tensors[int(index)] for index in ends] for ends in (graph.inputs, graph.outputs))
    input_bytes = sum(map(layers_of_file.bytes_of, fed))
    held = max([input_bytes, *reserved([each.layer for each in on_chip])])
    return FileCost(
        tflite_bytes=tflite_bytes,
        parameter_bytes=parameters,
        caching=cache(on_chip, input_bytes=input_bytes),
        uncovered=tuple(sorted({each.uncovered for each in on_chip if each.uncovered})),
        compiled=compiled_bytes(
            parameters,
            sum(each.layer.weights is not None for each in on_chip),
            sum(instruction_bytes(each.layer) for each in on_chip),
            output_tables(map(layers_of_file.shape_of, made)),
            _kept_for_the_cpu(model, verdicts),
        ),
        fit=fit(*_fixed(on_chip), held),
        macs=sum(each.layer.macs for each in packed.layers),
        work=sum(work(each.layer) for each in on_chip),
        activation_bytes=max((each.layer.activation_bytes for each in packed.layers), default=0),
        input_bytes=input_bytes,
        output_bytes=sum(map(layers_of_file.bytes_of, made)),
        layers=tuple((each, verdict.on_tpu) for each, verdict in zip(packed.layers, verdicts.ops, strict=True)),
        check=verdicts,
    )


def _fixed(layers: Sequence[Packed]) -> tuple[int, int]:
    """Bytes that layers occupy if all that can be cached are, and bytes that always stream."""
    free = [each for each in layers if not never_cached(each)]
    fixed = sum(each.parameter_bytes for each in layers if never_cached(each))
    return sum(each.on_chip_bytes for each in free), fixed


def _kept_for_the_cpu(model: ModelT, verdicts: Check) -> int:
    """Bytes that operators left on the CPU keep in the compiled file."""
    graph = model.subgraphs[0]
    kept = {
        int(graph.tensors[int(index)].buffer)
        for verdict in verdicts.on_cpu
        for index in graph.operators[verdict.index].inputs
        if int(index) >= 0 and layers_of_file.is_constant(model, graph.tensors[int(index)])
    }
    constants = sum(len(model.buffers[index].data) for index in kept)
    return cpu_share(constants, len(verdicts.on_cpu))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Costs as tables, additive ones and those of which the largest counts, for planners that examine all runs at once.

    Attributes:
        parameter_bytes, occupied, streamed, macs, work: of nodes[:p]; len(nodes) + 1 entries, from 0. ``occupied`` is
            the parameter memory on the chip, ``streamed`` the bytes that are never cached.
        reserved: bytes of activations on the chip, by node; for a run, the largest counts.
    """

    parameter_bytes: Sequence[int]
    occupied: Sequence[int]
    streamed: Sequence[int]
    macs: Sequence[int]
    work: Sequence[int]
    reserved: Sequence[int]


class PredictedCosts:
    """Costs of any run of a graph's nodes, before anything is converted.

    One pass over the graph (n nodes, O(n log n) for the largest operator of any run); then each query takes
    microseconds. The sizes are those of the run in its own file, with all of it on the chip.

    Args:
        graph: normalised.
        assumed: assumptions about the weights, which are not read.

    Attributes:
        sums: the same as tables.
    """

    def __init__(self, graph: Graph, assumed: Assumed | None = None) -> None:
        layers = layers_of(graph, assumed)
        packed = [[pack_layer(each) for each in node] for node in layers]
        fixed = [_fixed(node) for node in packed]
        self._packed = packed
        self._weighted = _prefix([sum(each.weights is not None for each in node) for node in layers])
        self._instructions = _prefix([sum(instruction_bytes(each) for each in node) for node in layers])
        self._outputs = [_output_table(node) for node in layers]
        self._largest = _Largest([max((each.activation_bytes for each in node), default=0) for node in layers])
        held = iter(reserved([each for node in layers for each in node]))
        most = [max((next(held) for _ in node), default=0) for node in layers]
        self._reserved = _Largest(most)
        self.sums = Sums(
            parameter_bytes=_prefix([sum(each.parameter_bytes for each in node) for node in packed]),
            occupied=_prefix([occupied for occupied, _ in fixed]),
            streamed=_prefix([streamed for _, streamed in fixed]),
            macs=_prefix([sum(each.macs for each in node) for node in layers]),
            work=_prefix([sum(map(work, node)) for node in layers]),
            reserved=most,
        )

    def parameter_bytes(self, start: int, stop: int) -> int:
        """Parameter bytes of nodes[start:stop]."""
        return self.sums.parameter_bytes[stop] - self.sums.parameter_bytes[start]

    def macs(self, start: int, stop: int) -> int:
        """Multiplications of nodes[start:stop]."""
        return self.sums.macs[stop] - self.sums.macs[start]

    def reserved_bytes(self, start: int, stop: int) -> int:
        """Bytes of the chip that the activations of nodes[start:stop] need."""
        return self._reserved(start, stop)

    def off_chip_bytes(self, start: int, stop: int, room: int) -> int:
        """Bytes of nodes[start:stop] that are expected to stream with that much room; see :class:`RunCost`."""
        sums = self.sums
        occupied = sums.occupied[stop] - sums.occupied[start]
        return sums.streamed[stop] - sums.streamed[start] + max(0, occupied - room)

    def caching(self, start: int, stop: int, *, input_bytes: int = 0) -> Caching:
        """Which layers of nodes[start:stop] stream; takes O(n log n) for n layers."""
        return cache(self.packed(start, stop), input_bytes=input_bytes)

    def packed(self, start: int, stop: int) -> list[Packed]:
        """The layers of nodes[start:stop], in order."""
        return [each for node in self._packed[start:stop] for each in node]

    def activation_bytes(self, start: int, stop: int) -> int:
        """Inputs and outputs of the largest operator of nodes[start:stop]."""
        return self._largest(start, stop)

    def compiled_bytes(self, start: int, stop: int) -> Estimate:
        """Size of the compiled file of nodes[start:stop]."""
        return compiled_bytes(
            self.parameter_bytes(start, stop),
            self._weighted[stop] - self._weighted[start],
            self._instructions[stop] - self._instructions[start],
            self._outputs[stop - 1] if stop > start else 0,
        )

    def segment(self, start: int, stop: int) -> RunCost:
        """All costs of nodes[start:stop]."""
        sums = self.sums
        occupied, streamed = (each[stop] - each[start] for each in (sums.occupied, sums.streamed))
        fitting = fit(occupied, streamed, self._reserved(start, stop))
        return RunCost(
            parameter_bytes=self.parameter_bytes(start, stop),
            off_chip_bytes=self.off_chip_bytes(start, stop, fitting.room_bytes),
            compiled=self.compiled_bytes(start, stop),
            fit=fitting,
            macs=self.macs(start, stop),
            work=sums.work[stop] - sums.work[start],
            activation_bytes=self._largest(start, stop),
        )


class _Largest:
    """The largest of any run of numbers in constant time (a sparse table)."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._tables = [list(numbers)]
        width = 1
        while 2 * width <= len(numbers):
            last = self._tables[-1]
            self._tables.append([max(last[i], last[i + width]) for i in range(len(last) - width)])
            width *= 2

    def __call__(self, start: int, stop: int) -> int:
        if stop <= start:
            return 0
        level = (stop - start).bit_length() - 1
        table = self._tables[level]
        return max(table[start], table[stop - (1 << level)])


def _prefix(numbers: Sequence[int]) -> list[int]:
    return list(accumulate(numbers, initial=0))


def _output_table(node: Sequence[Layer]) -> int:
    return output_tables(node[-1].outputs) if node else 0
