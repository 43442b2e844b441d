"""``edgetpu`` in ``meta.json``: what compiling the files of a split for the Edge TPU came to.

1. Each file has an entry: it was compiled, or it was not (``status``). Sizes are those of the compiled file, not the
   rounded ones that the compiler prints.
2. Times are wall time, so compiling twice does not give the same bytes of ``meta.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from graphcut.edgetpu.byte_proof import ByteProof
from graphcut.edgetpu.compiler import CompileResult
from graphcut.edgetpu.failures import CompileFailure
from graphcut.edgetpu.loop import Round
from graphcut.edgetpu.output import OperatorStatus
from graphcut.errors import spelt
from graphcut.record_types import INSIDE, OPTIONAL, Digits
from graphcut.records import Bytes, Count
from graphcut.settings import as_flag

Seconds = Annotated[float, Digits(3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteProofEntry:
    """The comparison of a compiled file with its source, byte for byte.

    Attributes:
        proven: every byte of the parameters is accounted for.
        findings: what differs, one sentence each.
        uncovered: operators whose layout is not known, so that their bytes were not compared.
        unclaimed_bytes: bytes of parameters that belong to no compared layer.
    """

    proven: bool
    findings: tuple[str, ...]
    uncovered: tuple[str, ...]
    unclaimed_bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledEntry:
    """A file that was compiled.

    Attributes:
        status: it was compiled.
        compiler_version: as it printed it.
        compiled_bytes: size of the compiled file.
        on_chip_bytes: parameters that are cached on the chip.
        on_chip_remaining_bytes: room that is left there, as the compiler printed it; null where it printed none.
        off_chip_bytes: parameters that are streamed at every inference.
        tpu_subgraphs: number of Edge TPU subgraphs.
        tpu_ops: number of operators that run on the chip.
        cpu_ops: operators that stay on the CPU, in the order in which they run.
        statuses: what the compiler printed of its operators.
        notes: remarks that do not affect the verdict.
        bytes: the comparison of its parameters with the int8 file; null where that cannot be read.
        seconds: wall time.
        folders: the ``tpu`` folders that hold it, with the compiler's ``.log`` and ``.out.txt``.
    """

    status: Literal["compiled"]
    compiler_version: str
    compiled_bytes: Bytes
    on_chip_bytes: Bytes
    on_chip_remaining_bytes: Bytes | None
    off_chip_bytes: Bytes
    tpu_subgraphs: Count
    tpu_ops: int
    cpu_ops: tuple[str, ...]
    statuses: tuple[OperatorStatus, ...]
    notes: tuple[str, ...]
    bytes: ByteProofEntry | None = None
    seconds: Seconds
    folders: tuple[Annotated[str, INSIDE], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEntry:
    """A file that was not compiled.

    Attributes:
        status: it was not.
        kind: of failure ("not quantised", "timeout", "crash").
        line: the error in one line, the compiler's own where there is one.
        way_out: what to do about it.
        seconds: wall time.
        folders: the ``tpu`` folders that hold the compiler's ``.log`` and ``.out.txt``.
    """

    status: Literal["failed"]
    kind: str
    line: str
    way_out: str
    seconds: Seconds
    folders: tuple[Annotated[str, INSIDE], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """What compiling a split came to.

    Attributes:
        compiler: its name and version, and its container image if there is one.
        compiler_version: "16.0.384591198".
        clean: every file is compiled, and every segment runs entirely on the chip and streams nothing.
        trouble: why it is not clean, in one line; "" if it is.
        parts: file name -> what became of it: segments in order, then tails.
        rounds: of planning and compiling in turns (``split --compile``); absent where the plan was fixed.
        reason: why the last round is not clean, "" if it is; absent where the plan was fixed.
    """

    compiler: str
    compiler_version: str
    clean: bool
    trouble: str = ""
    parts: Mapping[str, CompiledEntry | FailedEntry]
    rounds: Annotated[tuple[Round, ...] | None, OPTIONAL] = None
    reason: Annotated[str | None, OPTIONAL] = None


def entry_of(result: CompileResult, folders: Sequence[str] = ()) -> CompiledEntry | FailedEntry:
    """Describe what became of one file; ``folders`` hold it, relative to the split."""
    if isinstance(result, CompileFailure):
        return FailedEntry(
            status="failed",
            kind=result.kind,
            line=result.line,
            way_out=spelt(result.way_out, as_flag),
            seconds=result.seconds,
            folders=tuple(folders),
        )
    read, printed = result.compiled, result.printed
    return CompiledEntry(
        status="compiled",
        compiler_version=printed.version,
        compiled_bytes=read.file_bytes,
        on_chip_bytes=read.cached_parameter_bytes,
        on_chip_remaining_bytes=None if printed.on_chip_left is None else printed.on_chip_left.size_bytes,
        off_chip_bytes=read.streamed_parameter_bytes,
        tpu_subgraphs=read.tpu_subgraphs,
        tpu_ops=(printed.operations or 0) - printed.left_on_cpu,
        cpu_ops=tuple(each.op for each in read.cpu_operators),
        statuses=printed.statuses,
        notes=result.notes,
        bytes=None if result.proof is None else _proof_entry(result.proof),
        seconds=result.seconds,
        folders=tuple(folders),
    )


def _proof_entry(proof: ByteProof) -> ByteProofEntry:
    return ByteProofEntry(
        proven=proof.proven,
        findings=proof.findings,
        uncovered=proof.uncovered,
        unclaimed_bytes=proof.unclaimed_bytes,
    )
