"""Compare a compiled file with its original: which layers are on the chip, and their sizes there.

1. An operator left on the CPU keeps the name of its output; all others are on the chip.
2. The size of a layer comes from the packing formula; the file gives the total bytes cached and streamed. Where the
   formula covers every layer, the two are equal.
3. Older compilers are recognised: one for runtime 10, known from the file's runtime version, stores biases that are
   zero; one that stores no SOFTMAX table is known because exactly that table is missing.
4. Layers stream whole. The transfers that the file lists end where layers end: if only one choice of layers fits them,
   these stream. Otherwise the layers are those that the compiler's order leaves out (graphcut.edgetpu.caching), if they
   add up to what is streamed, or else the one run of layers that does.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from graphcut.edgetpu import compiled, layers_of_file
from graphcut.edgetpu.caching import cache
from graphcut.edgetpu.compiled import CompiledFile
from graphcut.edgetpu.packing import Packed, pack
from graphcut.errors import ModelError
from graphcut.record_types import FLAT, OMITTED, derived

ZERO_BIASES_UP_TO_RUNTIME = 10

MOST_DIFFERENCE = 0.1
"""The largest difference for a file whose layers the formula covers; files of other models differ by more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One layer and where it is: "chip", "streamed", "cpu", or "chip?" where it is not known which layers stream."""

    packed: Annotated[Packed, FLAT]
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The layers of the original with their places.

    Attributes:
        compiled: the compiled file.
        layers: every operator of the original.
        formula_bytes: by the formula, of the layers on the chip.
        uncovered: operators on the chip that the formula does not cover.
    """

    compiled: Annotated[CompiledFile, OMITTED]
    layers: tuple[Placed, ...]
    formula_bytes: int
    uncovered: tuple[str, ...]

    @property
    @derived("difference_bytes")
    def difference_bytes(self) -> int:
        """Parameter bytes of the compiled file minus those of the formula; 0 if they agree."""
        there = self.compiled.cached_parameter_bytes + self.compiled.streamed_parameter_bytes
        return there - self.formula_bytes


def read(path: Path, original: Path) -> Against:
    """Compare the compiled file at ``path`` with the uncompiled one at ``original``.

    Raises:
        ModelError: a file does not exist, is damaged or of the wrong kind, or the two do not belong together.
    """
    found = compiled.read(path)
    model = layers_of_file.uncompiled(original)
    oldest = found.min_runtime_version <= ZERO_BIASES_UP_TO_RUNTIME
    layers = pack(layers_of_file.layers(model, str(original), zero_biases=oldest)).layers
    names = [each.layer.name for each in layers]
    left = {each.name for each in found.cpu_operators}
    graph = model.subgraphs[0]
    inputs = {layers_of_file.tensor_name(graph.tensors[int(index)]) for index in graph.inputs}
    strangers = sorted({*left - set(names), *set(found.inputs) - inputs})
    if strangers:
        raise ModelError(
            f"{path} was not compiled from {original} (which has no tensor {strangers[0]})",
            "pass the file it was compiled from",
        )
    on_chip = [index for index, name in enumerate(names) if name not in left]
    there = found.cached_parameter_bytes + found.streamed_parameter_bytes
    tables = [index for index in on_chip if layers[index].layer.op == "SOFTMAX"]
    kept = sum(layers[index].parameter_bytes for index in tables)
    if kept and sum(layers[index].parameter_bytes for index in on_chip) - there == kept:
        layers = tuple(
            replace(each, parameter_bytes=0) if index in tables else each for index, each in enumerate(layers)
        )
    streamed = _streamed([layers[index] for index in on_chip], found)
    places = ["cpu"] * len(layers)
    for number, index in enumerate(on_chip):
        places[index] = "chip?" if streamed is None else "streamed" if number in streamed else "chip"
    held = Against(
        compiled=found,
        layers=tuple(Placed(packed=each, place=place) for each, place in zip(layers, places, strict=True)),
        formula_bytes=sum(layers[index].parameter_bytes for index in on_chip),
        uncovered=tuple(sorted({layers[index].uncovered for index in on_chip if layers[index].uncovered})),
    )
    if not held.uncovered and abs(held.difference_bytes) > MOST_DIFFERENCE * max(there, held.formula_bytes):
        raise ModelError(
            f"{path} was not compiled from {original} (it has {there} bytes of parameters instead of "
            f"{held.formula_bytes})",
            "pass the file it was compiled from",
        )
    return held


def _streamed(on_chip: Sequence[Packed], found: CompiledFile) -> frozenset[int] | None:
    """Indices of the layers that are streamed; None where several sets of them fit (statement 4)."""
    streamed = found.streamed_parameter_bytes
    if streamed == 0:
        return frozenset()
    sizes = [each.parameter_bytes for each in on_chip]
    parts = found.subgraphs
    if len(parts) == 1 and parts[0].transfers_complete:
        ends = {each.offset_bytes + each.size_bytes for each in parts[0].transfers}
        if len(ends) > 1:
            by_transfers = _adding_up(sizes, streamed, ends)
            if by_transfers is not None:
                return by_transfers
    predicted = cache(on_chip)
    if sum(sizes[index] for index in predicted.streamed) == streamed:
        return frozenset(predicted.streamed)
    return _run(sizes, streamed)


def _adding_up(sizes: Sequence[int], streamed: int, ends: Set[int]) -> frozenset[int] | None:
    """The one choice of layers, in order, each of which ends where a transfer ends, that adds up to all that streams.

    Takes O(n * e) for n layers and e ends. None where there is no such choice, or several.
    """
    # Bytes so far -> the layers chosen, None where several choices lead there.
    reached: dict[int, frozenset[int] | None] = {0: frozenset()}
    for index, size in enumerate(sizes):
        if size == 0:
            continue
        for total, chosen in sorted(reached.items(), reverse=True):
            following = total + size
            if following in ends and following <= streamed:
                reached[following] = None if following in reached or chosen is None else chosen | {index}
    return reached.get(streamed)


def _run(sizes: Sequence[int], streamed: int) -> frozenset[int] | None:
    """The one run of layers that adds up to what is streamed; None where there are none or several."""
    found: list[range] = []
    for start, size in enumerate(sizes):
        if size == 0:
            continue
        total = 0
        for stop in range(start, len(sizes)):
            total += sizes[stop]
            if total >= streamed:
                if total == streamed:
                    found.append(range(start, stop + 1))
                break
    return frozenset(found[0]) if len(found) == 1 else None
