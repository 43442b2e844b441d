"""The proof of a compiled file: compare its parameters byte for byte with the weights that they were made from.

1. The parameters of a file are two runs of bytes, cached and streamed. In each, layers are stored whole and in
   execution order (graphcut.edgetpu.parameter_image).
2. A layer whose bytes are known must start where the last one ended, in one of the two runs. A difference is named:
   layer, output channel, and whether it is a weight, a scale, a bias or padding.
3. A layer whose layout is not known is *not covered*: it is named, and the search continues with the next known layer.
4. Every byte is accounted for: bytes that belong neither to a layer nor to one that is not covered are a finding.
5. Some compilers store no tables for SOFTMAX, or one block fewer. That is no finding if nothing else is missing.

A file is *proven* where nothing differs, every byte belongs to a layer and no layer is left uncovered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphcut.edgetpu import compiled, layers_of_file
from graphcut.edgetpu.compare_compiled import ZERO_BIASES_UP_TO_RUNTIME
from graphcut.edgetpu.compiled import CompiledFile
from graphcut.edgetpu.layers import Layer
from graphcut.edgetpu.packing import FREE, pack
from graphcut.edgetpu.parameter_image import SCALE, WEIGHT, ZERO_POINT, Bytes, Field, image
from graphcut.errors import ModelError
from graphcut.record_types import derived
from graphcut.tflite.schema_types import ModelT

EQUAL, DIFFERENT, NOT_COVERED = "equal", "different", "not covered"
CACHED, STREAMED = "cached", "streamed"
_CLOSE = 2
"""Units in the last place by which a scale may differ: the compiler's order of two float operations is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenLayer:
    """One layer with parameters.

    Attributes:
        name, op: of the layer.
        status: EQUAL, DIFFERENT or NOT_COVERED.
        place: CACHED or STREAMED; "" where that is not known.
        size_bytes: number of compared bytes; 0 where it is not covered.
        different_bytes: number of bytes that differ.
        finding: the first difference in words; "" if there is none.
    """

    name: str
    op: str
    status: str
    place: str
    size_bytes: int
    different_bytes: int
    finding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteProof:
    """The result of comparing a compiled file with its original, byte for byte.

    Attributes:
        layers: those with parameters, in execution order.
        unclaimed_bytes: bytes of the file's parameters that belong to no covered layer.
    """

    layers: tuple[ProvenLayer, ...]
    unclaimed_bytes: int

    @property
    @derived("uncovered")
    def uncovered(self) -> tuple[str, ...]:
        """Kinds of the layers that are not covered, sorted."""
        return tuple(sorted({each.op for each in self.layers if each.status == NOT_COVERED}))

    @property
    @derived("findings")
    def findings(self) -> tuple[str, ...]:
        """All findings, one sentence each; empty if there are none."""
        found = [f"{each.op} {each.name}: {each.finding}" for each in self.layers if each.status == DIFFERENT]
        if self.unclaimed_bytes and not self.uncovered and not found:
            found.append(f"{self.unclaimed_bytes} bytes of parameters belong to no layer")
        return tuple(found)

    @property
    @derived("proven")
    def proven(self) -> bool:
        """Every byte is accounted for."""
        return not self.findings and not self.uncovered


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A layer with parameters, and its expected bytes; None where its layout is not known."""

    layer: Layer
    fields: tuple[Field, ...] | None


def prove(path: Path, original: Path) -> ByteProof:
    """Compare the parameters of the compiled file at ``path`` with the uncompiled file at ``original``.

    Raises:
        ModelError: a file does not exist, is damaged or is of the wrong kind.
    """
    return prove_read(compiled.read(path), layers_of_file.uncompiled(original), str(original))


def prove_read(found: CompiledFile, model: ModelT, subject: str) -> ByteProof:
    """Compare a compiled file with a ``ModelT``; ``subject`` names the latter in errors.

    Raises:
        ModelError: the model is damaged.
    """
    oldest = found.min_runtime_version <= ZERO_BIASES_UP_TO_RUNTIME
    return compare(found, expected_layers(model, subject, zero_biases=oldest))


def expected_layers(model: ModelT, subject: str, *, zero_biases: bool = False) -> tuple[Expected, ...]:
    """The layers with parameters of a ``ModelT``, in execution order, with their expected bytes in a compiled file.

    Args:
        model: uncompiled.
        subject: what to call it in errors.
        zero_biases: biases that are all zero are stored, as by compilers for runtime 10.

    Raises:
        ModelError: it is damaged.
    """
    packed = pack(layers_of_file.layers(model, subject, zero_biases=zero_biases)).layers
    found = []
    for operator, each in zip(model.subgraphs[0].operators, packed, strict=True):
        if not each.parameter_bytes and (not each.uncovered or each.layer.op in FREE):
            continue
        try:
            found.append(Expected(layer=each.layer, fields=image(model, operator, each.layer)))
        except (ValueError, IndexError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise ModelError(
                f"{subject} is damaged: {each.layer.op} {each.layer.name} contradicts its own shapes or scales",
                "write or download the file again",
            ) from error
    return tuple(found)


def compare(found: CompiledFile, expected: Sequence[Expected]) -> ByteProof:
    """Compare a compiled file with its expected layers; layers that it leaves on the CPU are skipped."""
    left = {each.name for each in found.cpu_operators}
    runs = {
        CACHED: _Run(b"".join(part.cached for part in found.subgraphs)),
        STREAMED: _Run(b"".join(part.streamed for part in found.subgraphs)),
    }
    layers = []
    after_unknown = False
    for each in expected:
        if each.layer.name in left:
            continue
        fields = each.fields
        if fields is not None and each.layer.op == "SOFTMAX":
            fields = _kept_tables(fields, runs)
        if fields is None:
            layers.append(_line(each.layer, NOT_COVERED, "", 0, 0, ""))
            after_unknown = True
            continue
        layers.append(_compared(each.layer, fields, runs, searching=after_unknown))
        after_unknown = after_unknown and layers[-1].status == DIFFERENT
    claimed = sum(each.size_bytes for each in layers)
    there = sum(len(run.data) for run in runs.values())
    return ByteProof(layers=tuple(layers), unclaimed_bytes=max(there - claimed, 0))


@dataclass(slots=True)
class _Run:
    """One run of parameters, and the part of it that is accounted for."""

    data: bytes
    at: int = 0

    def piece(self, size: int) -> Bytes:
        return np.frombuffer(self.data[self.at : self.at + size], np.uint8)


def _kept_tables(fields: tuple[Field, ...], runs: dict[str, _Run]) -> tuple[Field, ...]:
    """The stored tables of a SOFTMAX: all, without the last block, or none (statement 5)."""
    for kept in (fields, fields[:1]):
        size = sum(each.data.size for each in kept)
        if any(not _difference(kept, run.piece(size))[0] for run in runs.values()):
            return kept
    return fields if any(run.at < len(run.data) for run in runs.values()) else ()


def _compared(layer: Layer, fields: Sequence[Field], runs: dict[str, _Run], *, searching: bool) -> ProvenLayer:
    """Find the best match of a layer in the run, and mark its bytes as accounted for."""
    size = sum(each.data.size for each in fields)
    if searching:
        _search(fields, runs)
    tried = []
    for place, run in runs.items():
        wrong, finding = _difference(fields, run.piece(size))
        tried.append((wrong, place, finding))
        if not wrong:
            break
    wrong, place, finding = min(tried, key=lambda each: each[0])
    run = runs[place]
    there = min(size, len(run.data) - run.at)
    run.at += there
    return _line(layer, DIFFERENT if wrong else EQUAL, place, there, wrong, finding)


def _search(fields: Sequence[Field], runs: dict[str, _Run]) -> None:
    """After a layer of unknown size, advance the run to the weights of this one, if they are found."""
    before = 0
    for each in fields:
        if each.kind == WEIGHT or each.data.size >= 64:
            break
        before += each.data.size
    else:
        return
    for run in runs.values():
        found = run.data.find(each.data.tobytes(), run.at + before)
        if found >= 0:
            run.at = found - before
            return


def _difference(fields: Sequence[Field], there: Bytes) -> tuple[int, str]:
    """The number of different bytes, and the first difference in words."""
    size = sum(each.data.size for each in fields)
    wrong, finding, at = size - there.size, "", 0
    if wrong:
        finding = f"{wrong} of its {size} bytes are missing"
    zero_points: set[bytes] = set()
    for each in fields:
        piece = there[at : at + each.data.size]
        at += each.data.size
        if each.kind == ZERO_POINT:
            zero_points |= {bytes(piece[index : index + 4]) for index in range(0, len(piece) - 3, 4)}
            continue
        differs = _bytes_that_differ(each, piece)
        count = int(np.count_nonzero(differs))
        if count and not finding:
            first = int(np.flatnonzero(differs)[0])
            finding = f"a {each.kind} differs, {_where(each, first)}"
        wrong += count
    if len(zero_points - {b"\0\0\0\0"}) > 1:
        wrong, finding = wrong + 1, finding or "zero points of channels differ"
    return wrong, finding


def _bytes_that_differ(field: Field, piece: Bytes) -> Bytes:
    expected = field.data[: piece.size]
    if field.kind == SCALE and piece.size % 4 == 0:
        near = np.abs(expected.view("<i4").astype(np.int64) - np.ascontiguousarray(piece).view("<i4")) <= _CLOSE
        differs = np.repeat(~near, 4)
    else:
        differs = expected != piece
    return np.asarray(differs, np.uint8)


def _where(field: Field, first: int) -> str:
    if field.kind == WEIGHT:
        return f"in output channels {field.channel} .. (byte {first} of the group)"
    return f"of output channel {field.channel + first // 4}"


def _line(layer: Layer, status: str, place: str, size: int, wrong: int, finding: str) -> ProvenLayer:
    return ProvenLayer(
        name=layer.name,
        op=layer.op,
        status=status,
        place=place,
        size_bytes=size,
        different_bytes=wrong,
        finding=finding,
    )
