"""How compiling fails, told apart by what the compiler printed and left behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graphcut.edgetpu.compiled import CompiledFile
from graphcut.edgetpu.output import Printed, first_line
from graphcut.errors import setting
from graphcut.workers.process import Finished

NOT_INSTALLED = (
    "on x86-64 Debian: echo 'deb https://packages.cloud.google.com/apt coral-edgetpu-stable main' | sudo tee "
    "/etc/apt/sources.list.d/coral-edgetpu.list && curl https://packages.cloud.google.com/apt/doc/apt-key.gpg | "
    "sudo apt-key add - && sudo apt-get update && sudo apt-get install edgetpu-compiler; "
    f"elsewhere: {setting('compiler', 'docker:IMAGE')}"
)

_STUB_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileFailure:
    """One file that was not compiled.

    Attributes:
        source: the int8 file.
        kind: "not quantised", "op version", "custom operator", "dynamic shapes", "large activations", "timeout",
            "crash", "stub", "no output", "disk full", "disagreement" or "failed".
        line: the line that says so, the compiler's own where there is one.
        way_out: what to do.
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


_CRASHED = f"Cut elsewhere ({setting('cuts')}): some graphs crash the compiler"

# Words of the compiler's lines -> kind and way out; the first that is found counts. ("timeout" alone will not do: a
# good run speaks of its timeout timer too.)
_SAID: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("No space left on device", "Disk quota exceeded"), "disk full", "Free some space and compile again"),
    (
        ("Didn't find op for builtin opcode", "Model could not be parsed"),
        "op version",
        "It holds an operator newer than the compiler: convert it again, or keep that operator out of the segment",
    ),
    (
        ("unresolved custom op",),
        "custom operator",
        "The compiler takes no operators but TFLite's own: cut before it and run it on the host",
    ),
    (("Model not quantized",), "not quantised", "Give the int8 file, not the float one"),
    (("dynamic-sized tensors",), "dynamic shapes", "Fix the input shapes, batch 1"),
    (
        ("large activation tensors",),
        "large activations",
        "Use smaller inputs, or cut earlier so that the large maps stand in a segment of their own",
    ),
    (
        ("timed out", "timeout exceeded", "exceeded the timeout"),
        "timeout",
        f"Give it longer ({setting('compile_seconds')})",
    ),
    (
        ("Internal compiler error", "Segmentation fault", "uncaught exception", "Check failed:", "core dumped"),
        "crash",
        _CRASHED,
    ),
)
_WORDS = ("error", "failed", "invalid", "cannot", "not ")
_IN_EVERY_RUN = ("Edge TPU Compiler version", "Started a compilation timeout timer", "Searching for valid delegate")
"""Beginnings of lines that say nothing about a failure."""
_BY_HAND = "Run it by hand with the file to see more"
_KILLED = f"It was killed, most likely for lack of memory: compile fewer at a time ({setting('jobs', 1)})"


def classify(finished: Finished, log: str, made_bytes: int | None, *, succeeded: bool) -> tuple[str, str, str]:
    """The kind of a failure, the line that says so and the way out.

    Args:
        finished: how the compiler ended.
        log: its log, "" where it wrote none.
        made_bytes: size of the output file it left, None where it left none.
        succeeded: it printed that it succeeded.
    """
    text = f"{finished.output}\n{log}"
    for words, kind, way_out in _SAID:
        line = first_line(text, words)
        if line:
            return kind, line, way_out
    if finished.timed_out:
        return (
            "timeout",
            f"it was stopped after {finished.seconds:.0f} s",
            f"Give it longer ({setting('compile_seconds')})",
        )
    if finished.signal:
        killed = finished.signal in ("SIGKILL", "SIGTERM")
        return "crash", f"it was ended by {finished.signal}", _KILLED if killed else _CRASHED
    if succeeded:
        return "failed", f"it reported success and ended with exit code {finished.code}", _BY_HAND
    telling = "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith(_IN_EVERY_RUN))
    if made_bytes is not None and made_bytes < _STUB_BYTES:
        line = first_line(telling, _WORDS) or f"it left a stub of {made_bytes} bytes"
        return "stub", line, _BY_HAND
    if not telling and finished.code == 0:
        return "no output", "it ended without a word on the file", _BY_HAND
    reason = ("Compilation failed:", "Invalid model:")
    line = first_line(telling, reason) or first_line(telling, _WORDS) or first_line(telling, [""])
    line = line or "it said nothing on the file"
    if finished.code:
        line = f"{line} (exit code {finished.code})"
    return "failed", line, "Check the file first (graphcut check)"


def disagreement(printed: Printed, read: CompiledFile) -> tuple[str, tuple[str, ...]]:
    """What the compiler printed against what its file holds.

    Returns:
        A contradiction that makes one of the two worthless ("" where there is none), and differences to be noted.
        Printed sizes are rounded, and may count what the file pads: only whether anything streams must agree.
    """
    if not printed.complete:
        return "it reported success without the lines that belong to it", ()
    if printed.subgraphs != read.tpu_subgraphs:
        return f"it reported {printed.subgraphs} Edge TPU subgraphs, its file has {read.tpu_subgraphs}", ()
    left = sum(read.cpu_ops.values())
    if printed.left_on_cpu != left:
        return f"it reported {printed.left_on_cpu} operators on the CPU, its file has {left}", ()
    off, streamed = printed.off_chip, read.streamed_parameter_bytes
    if off is not None and (off.size_bytes == 0) != (streamed == 0) and not off.agrees(streamed):
        return f"it reported {off.size_bytes} bytes off the chip, its file streams {streamed}", ()
    notes = []
    for label, said, there in (
        ("on-chip", printed.on_chip, read.cached_parameter_bytes),
        ("off-chip", off, streamed),
        ("file", printed.output_size, read.file_bytes),
    ):
        if said is not None and not said.agrees(there):
            notes.append(f"printed {label} bytes {said.size_bytes}, in the file {there}")
    return "", tuple(notes)
