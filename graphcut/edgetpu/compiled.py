"""Read the contents of a compiled file from the file itself, without compiler, log or device.

1. A compiled ``.tflite`` has one custom operator ``edgetpu-custom-op`` for each Edge TPU subgraph; every other
   operator runs on the CPU.
2. Its custom options are a flatbuffer with identifier ``DWN1``: a package with a multi-executable, which contains
   executables (field numbers: libedgetpu, executable/executable.fbs).
3. A *parameter caching* executable (type 1) contains the parameters that stay on the chip. An *execution only* one
   (type 2) contains those that are streamed at every inference. In a *stand-alone* one (type 0) everything is streamed.
4. Subgraphs with one caching token share the chip's memory; each has its own parameters.
5. An executable lists the transfers of an inference in order (DMA hints, field 7). Those of parameters show where the
   streamed parameters are divided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from graphcut.errors import ModelError
from graphcut.record_types import OMITTED, By, Key, derived
from graphcut.records import Shape
from graphcut.tflite import checked, schema
from graphcut.tflite.bounds_check import DamagedError, Table, Walk
from graphcut.tflite.schema_types import ModelT, OperatorT, TensorT

CUSTOM_OP = "edgetpu-custom-op"
IDENTIFIER = b"DWN1"
STAND_ALONE, PARAMETER_CACHING, EXECUTION_ONLY = 0, 1, 2
MOST_HINTS = 1_000_000
_DESCRIPTOR, _OF_PARAMETERS = 1, 2
"""Kinds of hint (AnyHint) and of what it moves (Description) in the schema."""
MOST_EXECUTABLES = 64
"""The most executables in one package; real ones have one or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of an Edge TPU subgraph.

    Attributes:
        name: the tensor's name.
        shape: (y, x, z) as the chip sees it.
        size_bytes: with padding, as it is sent over the link.
    """

    name: str
    shape: Shape
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A piece of the streamed parameters that is sent at once.

    Attributes:
        offset_bytes: where it begins in the streamed parameters.
        size_bytes: its size.
    """

    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TpuSubgraph:
    """One ``edgetpu-custom-op``.

    Attributes:
        cached_parameter_bytes: loaded onto the chip once.
        streamed_parameter_bytes: sent at every inference.
        instruction_bytes: of all its executables.
        scratch_bytes: host memory the chip spills activations to.
        tile_memory_bytes: activation memory used in a tile ("narrow memory").
        inputs, outputs: what crosses the link.
        min_runtime_version: of libedgetpu.
        compiler: the compiler's own version text; released builds leave it nearly empty ("cl/").
        chip: "beagle" is the Edge TPU of all Coral products.
        caching_token: subgraphs with the same one share the chip; 0 where nothing is cached.
        cached, streamed: the parameters themselves.
        transfers: of parameters that are streamed, in the order in which the runtime sends them.
        transfers_complete: these are all of them.
    """

    cached_parameter_bytes: int
    streamed_parameter_bytes: int
    instruction_bytes: int
    scratch_bytes: int
    tile_memory_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    min_runtime_version: int
    compiler: str
    chip: str
    caching_token: Annotated[int, OMITTED]
    cached: Annotated[bytes, OMITTED]
    streamed: Annotated[bytes, OMITTED]
    transfers: Annotated[tuple[Transfer, ...], OMITTED]
    transfers_complete: Annotated[bool, OMITTED]

    @property
    @derived("caching_token")
    def caching_token_hex(self) -> str:
        """The caching token as 16 hexadecimal digits."""
        return f"{self.caching_token:016x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuOperator:
    """An operator left on the CPU: its kind, and its first output, whose name is that in the uncompiled file."""

    op: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFile:
    """The contents of a compiled file.

    Attributes:
        file_bytes: its size.
        subgraphs: one for each Edge TPU subgraph, in execution order.
        cpu_operators: the operators left on the CPU, in execution order.
        inputs, outputs: names of the file's own inputs and outputs.
    """

    file_bytes: int
    subgraphs: tuple[TpuSubgraph, ...]
    cpu_operators: Annotated[tuple[Annotated[CpuOperator, By("op")], ...], Key("cpu_ops")]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    @derived("kind")
    def kind(self) -> Literal["compiled"]:
        """The kind of file, for programs that read several kinds."""
        return "compiled"

    @property
    def cpu_ops(self) -> Mapping[str, int]:
        """Operator kind -> number of operators left on the CPU, sorted."""
        return dict(sorted(Counter(each.op for each in self.cpu_operators).items()))

    @property
    @derived("tpu_subgraphs")
    def tpu_subgraphs(self) -> int:
        """Number of Edge TPU subgraphs."""
        return len(self.subgraphs)

    @property
    @derived("cached_parameter_bytes")
    def cached_parameter_bytes(self) -> int:
        """Parameter bytes that stay on the chip."""
        return sum(part.cached_parameter_bytes for part in self.subgraphs)

    @property
    @derived("streamed_parameter_bytes")
    def streamed_parameter_bytes(self) -> int:
        """Parameter bytes sent at every inference; the goal of a split is 0."""
        return sum(part.streamed_parameter_bytes for part in self.subgraphs)

    @property
    @derived("instruction_bytes")
    def instruction_bytes(self) -> int:
        """Bytes of instructions."""
        return sum(part.instruction_bytes for part in self.subgraphs)

    @property
    @derived("scratch_bytes")
    def scratch_bytes(self) -> int:
        """Host memory used as scratch."""
        return sum(part.scratch_bytes for part in self.subgraphs)

    @property
    @derived("min_runtime_version")
    def min_runtime_version(self) -> int:
        """The oldest libedgetpu runtime that runs all of it."""
        return max(part.min_runtime_version for part in self.subgraphs)


def read(path: Path) -> CompiledFile:
    """Read the compiled file at ``path``.

    Raises:
        ModelError: no such file, not a compiled file, or damaged.
    """
    return parse(checked.read_bytes(path), str(path))


def parse(data: bytes, subject: str) -> CompiledFile:
    """Read a compiled file from its bytes; ``subject`` names it in errors.

    Raises:
        ModelError: not a compiled file, or damaged.
    """
    model = checked.read(data, subject)
    if not is_compiled(model):
        raise ModelError(
            f"{subject} is not compiled for the Edge TPU (it has no {CUSTOM_OP})",
            "compile it first (graphcut compile), or use graphcut check or graphcut cost on it",
        )
    graph = model.subgraphs[0]
    names = [schema.op_name(model, operator) for operator in graph.operators]
    try:
        subgraphs = tuple(
            _subgraph(operator) for operator, name in zip(graph.operators, names, strict=True) if name == CUSTOM_OP
        )
    except DamagedError as error:
        raise ModelError(f"the Edge TPU part of {subject} is damaged ({error})", "compile it again") from error
    carried = sum(part.cached_parameter_bytes + part.streamed_parameter_bytes for part in subgraphs)
    if carried > len(data):
        raise ModelError(f"{subject} is damaged (it declares {carried} parameter bytes in a file of {len(data)} bytes)")
    return CompiledFile(
        file_bytes=len(data),
        subgraphs=subgraphs,
        cpu_operators=tuple(
            CpuOperator(op=name, name=_name(graph.tensors[int(operator.outputs[0])]) if len(operator.outputs) else name)
            for operator, name in zip(graph.operators, names, strict=True)
            if name != CUSTOM_OP
        ),
        inputs=tuple(_name(graph.tensors[int(i)]) for i in graph.inputs),
        outputs=tuple(_name(graph.tensors[int(i)]) for i in graph.outputs),
    )


def is_compiled(model: ModelT) -> bool:
    """Whether a ``ModelT`` has an Edge TPU subgraph."""
    return any(schema.op_name(model, operator) == CUSTOM_OP for operator in model.subgraphs[0].operators)


def _subgraph(operator: OperatorT) -> TpuSubgraph:
    options = b"" if operator.customOptions is None else bytes(operator.customOptions)
    at = options.find(IDENTIFIER)
    if at < 4:
        raise DamagedError(f"its {len(options)} bytes of options contain no package ({IDENTIFIER.decode()})")
    package = Walk(memoryview(options)[at - 4 :]).root()
    runtime = package.number(0)
    if not 0 <= runtime <= 1000:
        raise DamagedError(f"its minimum runtime version is {runtime}")
    executables = _executables(package)
    shown = next((each for each in executables if each.number(13, "h") != PARAMETER_CACHING), executables[0])
    loading = [each for each in executables if each.number(13, "h") == PARAMETER_CACHING]
    running = [each for each in executables if each.number(13, "h") != PARAMETER_CACHING]
    cached, streamed = ([each.bytes(6) for each in kind] for kind in (loading, running))
    carried = sum(map(len, (*cached, *streamed)))
    if carried > len(options):
        raise DamagedError(f"it declares {carried} parameter bytes in {len(options)}")
    found = [_transfers(each) for each in running]
    return TpuSubgraph(
        cached_parameter_bytes=sum(map(len, cached)),
        streamed_parameter_bytes=sum(map(len, streamed)),
        instruction_bytes=sum(len(chunk.bytes(0)) for each in executables for chunk in each.tables(5, "instructions")),
        scratch_bytes=sum(_size(each, 4, "scratch") for each in executables),
        tile_memory_bytes=max(_size(each, 12, "tile memory") for each in executables),
        inputs=_ports(shown, 8),
        outputs=_ports(shown, 9),
        min_runtime_version=runtime,
        compiler=_clean(package.text(4)),
        chip=_clean(shown.text(10)),
        caching_token=shown.number(14, "Q"),
        cached=b"".join(cached),
        streamed=b"".join(streamed),
        # Offsets count from the beginning of an executable's own parameters; real files have one that runs.
        transfers=found[0][0] if len(found) == 1 else (),
        transfers_complete=len(found) == 1 and found[0][1],
    )


def _transfers(executable: Table) -> tuple[tuple[Transfer, ...], bool]:
    """Statement 5: the transfers of parameters, and whether they are all."""
    hints = executable.table(7, "transfer hints")
    if hints is None:
        return (), False
    size = len(executable.bytes(6))
    found = []
    for number, hint in enumerate(hints.tables(0, "transfer hint")):
        if number == MOST_HINTS:
            raise DamagedError(f"it declares more than {MOST_HINTS} transfer hints")
        if hint.number(0, "B") != _DESCRIPTOR:
            continue
        descriptor = hint.table(1, "transfer")
        meta = None if descriptor is None else descriptor.table(0, "transfer's kind")
        if descriptor is None or meta is None or meta.number(0, "h") != _OF_PARAMETERS:
            continue
        offset, length = descriptor.number(1), descriptor.number(2)
        if offset < 0 or length < 0 or offset + length > size:
            raise DamagedError(
                f"a transfer of bytes {offset} .. {offset + length} is outside the {size} parameter bytes"
            )
        found.append(Transfer(offset_bytes=offset, size_bytes=length))
    return tuple(found), hints.number(1, "B") == 1


def _executables(package: Table) -> list[Table]:
    multi = package.bytes(1)
    if len(multi) < 4:
        raise DamagedError("its package contains no executables")
    found: list[Table] = []
    for blob in Walk(multi).root().blobs(0, "executable"):
        if len(found) == MOST_EXECUTABLES:
            raise DamagedError(f"its package declares more than {MOST_EXECUTABLES} executables")
        executable = Walk(blob).root()
        kind = executable.number(13, "h")
        if kind not in (STAND_ALONE, PARAMETER_CACHING, EXECUTION_ONLY):
            raise DamagedError(f"an executable is of the unknown type {kind}")
        found.append(executable)
    if not found:
        raise DamagedError("its package contains no executables")
    return found


def _ports(executable: Table, number: int) -> tuple[Port, ...]:
    return tuple(
        Port(
            name=_clean(layer.text(0)),
            shape=(layer.number(2), layer.number(3), layer.number(4)),
            size_bytes=_size(layer, 1, "layer"),
        )
        for layer in executable.tables(number, "layer")
    )


def _size(table: Table, number: int, what: str) -> int:
    size = table.number(number)
    if size < 0:
        raise DamagedError(f"the {what} size is {size}")
    return size


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _name(tensor: TensorT) -> str:
    return _clean(schema.tensor_name(tensor))
