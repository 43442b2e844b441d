"""Edge TPU results as text: checks, costs, compiled files and their comparison with the original."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphcut.edgetpu.byte_proof import EQUAL, ByteProof
from graphcut.edgetpu.compare_compiled import Against
from graphcut.edgetpu.compiled import CompiledFile
from graphcut.edgetpu.compiler import CompileResult, CompileSuccess
from graphcut.edgetpu.operator_check import Check
from graphcut.edgetpu.packing import Packed
from graphcut.prediction.segment_costs import FileTime
from graphcut.report.tables import Shown, TextTable, table
from graphcut.result.compiled_entries import Compilation, FailedEntry
from graphcut.units import format_bytes


def compiled_text(read: CompiledFile, name: str) -> Shown:
    """Show the contents of a compiled file."""
    left = ", ".join(f"{op} x{count}" if count > 1 else op for op, count in read.cpu_ops.items())
    streamed = read.streamed_parameter_bytes
    rows = [
        ("file", format_bytes(read.file_bytes)),
        ("Edge TPU subgraphs", str(read.tpu_subgraphs)),
        ("parameters cached on chip", format_bytes(read.cached_parameter_bytes)),
        ("parameters streamed", f"{format_bytes(streamed)}{' at every inference' if streamed else ''}"),
        ("instructions", format_bytes(read.instruction_bytes)),
        ("scratch", format_bytes(read.scratch_bytes)),
        ("operators on the CPU", left or "none"),
        ("runtime version needed", str(read.min_runtime_version)),
        ("chip", ", ".join(sorted({part.chip for part in read.subgraphs}))),
    ]
    lines: list[str | TextTable] = [name, table(("what", "value"), rows)]
    for part in read.subgraphs:
        ports = [("input", port) for port in part.inputs] + [("output", port) for port in part.outputs]
        shown = [(kind, _shape(port.shape), format_bytes(port.size_bytes), port.name) for kind, port in ports]
        lines += ["", table(("edge", "y x z", "bytes", "name"), shown, right=("bytes",))]
    return lines


def against_text(found: Against) -> Shown:
    """Show the layers with their places."""
    rows = [(each.place, each.packed.layer.op, _taken(each.packed), each.packed.layer.name) for each in found.layers]
    there = found.formula_bytes + found.difference_bytes
    verdict = "equal to the byte" if not found.difference_bytes else f"{found.difference_bytes:+d} bytes in the file"
    lines: list[str | TextTable] = [
        table(("place", "operator", "parameters", "layer"), rows, right=("parameters",)),
        "",
        f"parameters by the formula {found.formula_bytes}, in the file {there}: {verdict}",
    ]
    if found.uncovered:
        lines.append(f"not covered by the formula: {', '.join(found.uncovered)}")
    return lines


def proof_text(proof: ByteProof) -> Shown:
    """Show the result of a byte-for-byte comparison."""
    equal = [each for each in proof.layers if each.status == EQUAL]
    size = sum(each.size_bytes for each in equal)
    lines = [f"byte for byte: {size} bytes of {len(equal)} layers are those of the original"]
    lines += [f"  wrong: {line}" for line in proof.findings]
    if proof.uncovered:
        lines.append(f"  not covered: {', '.join(proof.uncovered)} ({proof.unclaimed_bytes} bytes not compared)")
    if proof.proven:
        lines.append("every byte of the parameters is accounted for")
    return lines


def _taken(packed: Packed) -> str:
    return "?" if packed.uncovered and not packed.parameter_bytes else str(packed.parameter_bytes)


def check_text(found: Check, name: str) -> Shown:
    """Show the results of the operator check, with each operator on the CPU."""
    lines: list[str | TextTable] = [f"{name}: {found.tpu_ops} of {len(found.ops)} operators run on the Edge TPU"]
    lines += [f"  refused: {line}" for line in found.refusals]
    lines += [f"  wrong: {line}" for line in found.faults]
    lines += [f"  doubtful: {line}" for line in found.doubts]
    if found.on_cpu:
        rows = [(str(each.index), each.op, each.status, each.reason) for each in found.on_cpu]
        share = 100 * found.cpu_macs / found.macs if found.macs else 0
        crossing = format_bytes(found.crossing_bytes)
        lines += [
            "",
            table(("number", "operator", "status", "why"), rows, right=("number",)),
            "",
            f"the CPU would do {share:.1f} % of the multiplications; {crossing} are transferred between chip and CPU "
            f"inside",
        ]
    return lines


def _said_to_stream(time: FileTime) -> str:
    layers = len(time.streamed_layers)
    if not layers:
        return f"nothing; {format_bytes(time.on_chip_bytes)} are cached"
    counted = f"{layers} layer{'s' if layers > 1 else ''}"
    return f"{format_bytes(time.off_chip_bytes)} of {counted} at every inference"


def cost_text(time: FileTime, name: str) -> Shown:
    """Show the cost of a file, layer by layer."""
    cost = time.cost
    rows = [
        (
            ("streamed" if each.streams else "chip") if each.on_chip else "cpu",
            each.packed.layer.op,
            _taken(each.packed),
            str(each.packed.layer.macs),
            format_bytes(each.packed.layer.activation_bytes),
            each.packed.layer.name,
        )
        for each in time.layers
    ]
    headers = ("place", "operator", "parameters", "macs", "activations", "layer")
    size, fit = cost.compiled, cost.fit
    exact = f"all but {', '.join(cost.uncovered)}" if cost.uncovered else "exact"
    spare = format_bytes(abs(fit.margin_bytes))
    left = f"{spare} {'to spare' if fit.margin_bytes >= 0 else 'short'}"
    return [
        table(headers, rows, right=("parameters", "macs", "activations")),
        "",
        f"{name}: {format_bytes(cost.tflite_bytes)}",
        f"parameters in the file  {format_bytes(cost.parameter_bytes)} ({exact})",
        f"compiled file           {format_bytes(size.expected_bytes)} "
        f"({format_bytes(size.low_bytes)} .. {'?' if cost.uncovered else format_bytes(size.high_bytes)})",
        f"multiplications         {cost.macs}",
        f"largest operator        {format_bytes(cost.activation_bytes)} of inputs and outputs",
        f"streamed                {_said_to_stream(time)}",
        f"nothing streams         probability {fit.probability:.2f}, {left} of {format_bytes(fit.room_bytes)}",
        f"one inference           {time.latency_ms:.2f} ms on {time.device}, estimated",
    ]


def compiled_split_text(made: Compilation) -> Shown:
    """Show what compiling a split came to."""
    rows = []
    for name, part in made.parts.items():
        if isinstance(part, FailedEntry):
            rows.append((name, "not compiled", "", "", "", f"{part.kind}: {part.line}"))
            continue
        left = part.on_chip_remaining_bytes
        rows.append(
            (
                name,
                format_bytes(part.compiled_bytes),
                format_bytes(part.on_chip_bytes),
                "?" if left is None else format_bytes(left),
                format_bytes(part.off_chip_bytes),
                f"{part.tpu_ops} on the chip, {len(part.cpu_ops)} on the CPU",
            )
        )
    headers = ("file", "compiled", "on chip", "left", "off chip", "operators")
    parts = table(headers, rows, right=("compiled", "on chip", "left", "off chip"))
    return [f"compiled for the Edge TPU by {made.compiler}", parts]


def result_text(result: CompileResult, name: str) -> Shown:
    """Show one compiled file, or why there is none."""
    if isinstance(result, CompileSuccess):
        proof = [] if result.proof is None else ["", *proof_text(result.proof)]
        return [*compiled_text(result.compiled, name), *proof, "", f"log: {result.log_path}"]
    return [str(result)]


def _shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def relative(path: Path, folder: Path) -> str:
    """A path as shown to users: relative to ``folder`` where it is inside it."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
