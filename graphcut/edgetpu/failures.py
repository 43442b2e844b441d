"""Classify failures of the compiler by its output and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graphcut.edgetpu.compiled import CompiledFile
from graphcut.edgetpu.output import Printed, line_with
from graphcut.errors import setting
from graphcut.workers.process import Finished

NOT_INSTALLED = (
    "with docker: docker build -t edgetpu-compiler tools/edgetpu-compiler, then "
    f"{setting('compiler', 'docker:edgetpu-compiler')}; on x86-64 Debian the commands in "
    "tools/edgetpu-compiler/Dockerfile install it"
)

_STUB_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileFailure:
    """One file that was not compiled.

    Attributes:
        source: the int8 file.
        kind: "not quantised", "op version", "custom operator", "dynamic shapes", "large activations", "timeout",
            "crash", "stub", "no output", "disk full", "disagreement" or "failed".
        line: the error in one line, the compiler's own where there is one.
        way_out: the remedy.
        log_path: where the whole text is.
        seconds: wall time.
    """

    source: Path
    kind: str
    line: str
    way_out: str
    log_path: Path
    seconds: float

    def __str__(self) -> str:
        line, way_out = self.line.rstrip(". "), self.way_out
        return f"{self.source.name} was not compiled ({self.kind}): {line}. {way_out} (see {self.log_path})"


_CRASHED = f"Choose other cuts ({setting('cuts')}): some graphs crash the compiler"

# Words of the compiler's lines -> kind and remedy; the first match counts. ("timeout" alone is not enough: a successful
# run mentions its timeout timer too.)
_SAID: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("No space left on device", "Disk quota exceeded"), "disk full", "Free some space and compile again"),
    (
        ("Op builtin_code out of range", "Didn't find op for builtin opcode"),
        "op version",
        "It holds an operator newer than the compiler: convert it again, or keep that operator out of the segment",
    ),
    (
        ("Model could not be parsed",),
        "op version",
        "An operator is newer than the compiler: convert the model again, or keep that operator out of the segment",
    ),
    (
        ("unresolved custom op",),
        "custom operator",
        "The compiler supports TFLite's own operators only: cut before this operator and run it on the host",
    ),
    (("Model not quantized",), "not quantised", "Pass the int8 file, not the float one"),
    (("dynamic-sized tensors",), "dynamic shapes", "Fix the input shapes, with batch size 1"),
    (
        ("large activation tensors",),
        "large activations",
        "Use smaller inputs, or cut earlier so that the large maps are in a separate segment",
    ),
    (
        ("timed out", "timeout exceeded", "exceeded the timeout"),
        "timeout",
        f"Allow more time ({setting('compile_seconds')})",
    ),
    (
        ("Internal compiler error", "Segmentation fault", "uncaught exception", "Check failed:", "core dumped"),
        "crash",
        _CRASHED,
    ),
)
_WORDS = ("error", "failed", "invalid", "cannot", "not ")
_IN_EVERY_RUN = ("Edge TPU Compiler version", "Started a compilation timeout timer", "Searching for valid delegate")
"""Beginnings of lines that are not about the failure."""
_BY_HAND = "Run it by hand on this file to see more"
_KILLED = f"It was killed, most likely for lack of memory: compile fewer at a time ({setting('jobs', 1)})"


def classify(finished: Finished, log: str, made_bytes: int | None, *, succeeded: bool) -> tuple[str, str, str]:
    """The kind of a failure, the line about it and the remedy.

    Args:
        finished: the end of the compiler process.
        log: its log, "" where it wrote none.
        made_bytes: size of the output file it left, None where it left none.
        succeeded: it printed that it succeeded.
    """
    text = f"{finished.output}\n{log}"
    for words, kind, way_out in _SAID:
        line = line_with(text, words)
        if line:
            return kind, line, way_out
    if finished.timed_out:
        return (
            "timeout",
            f"it was stopped after {finished.seconds:.0f} s",
            f"Allow more time ({setting('compile_seconds')})",
        )
    if finished.signal:
        killed = finished.signal in ("SIGKILL", "SIGTERM")
        return "crash", f"it was killed by {finished.signal}", _KILLED if killed else _CRASHED
    if succeeded:
        return "failed", f"it reported success but returned exit code {finished.code}", _BY_HAND
    telling = "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith(_IN_EVERY_RUN))
    if made_bytes is not None and made_bytes < _STUB_BYTES:
        line = line_with(telling, _WORDS) or f"it wrote a stub of {made_bytes} bytes"
        return "stub", line, _BY_HAND
    if not telling and finished.code == 0:
        return "no output", "it ended without an error message", _BY_HAND
    reason = ("Compilation failed:", "Invalid model:")
    line = line_with(telling, reason) or line_with(telling, _WORDS) or line_with(telling, [""])
    line = line or "it printed nothing about the file"
    if finished.code:
        line = f"{line} (exit code {finished.code})"
    return "failed", line, "Check the file first (graphcut check)"


def disagreement(printed: Printed, read: CompiledFile) -> tuple[str, tuple[str, ...]]:
    """Compare the compiler's output with its file.

    Returns:
        A contradiction that makes the result invalid ("" if there is none), and differences to be noted.
        Printed sizes are rounded, and may count what the file pads: only whether anything streams must agree.
    """
    if not printed.complete:
        return "it reported success without the usual lines", ()
    if printed.subgraphs != read.tpu_subgraphs:
        return f"it reported {printed.subgraphs} Edge TPU subgraphs, but its file has {read.tpu_subgraphs}", ()
    left = sum(read.cpu_ops.values())
    if printed.left_on_cpu != left:
        return f"it reported {printed.left_on_cpu} operators on the CPU, but its file has {left}", ()
    off, streamed = printed.off_chip, read.streamed_parameter_bytes
    if off is not None and (off.size_bytes == 0) != (streamed == 0) and not off.agrees(streamed):
        return f"it reported {off.size_bytes} bytes off the chip, but its file streams {streamed}", ()
    notes = []
    for label, said, there in (
        ("on-chip", printed.on_chip, read.cached_parameter_bytes),
        ("off-chip", off, streamed),
        ("file", printed.output_size, read.file_bytes),
    ):
        if said is not None and not said.agrees(there):
            notes.append(f"printed {label} bytes {said.size_bytes}, in the file {there}")
    return "", tuple(notes)
