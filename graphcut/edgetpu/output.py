"""Parse the output of ``edgetpu_compiler`` (versions 15 and 16; docs/explanation/edgetpu.md lists the lines)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from graphcut.edgetpu.limits import MAPPED

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = r"([0-9]+(?:\.[0-9]+)?)\s*(B|KiB|MiB|GiB)"
_VERSION = re.compile(r"^Edge TPU Compiler version ([0-9][0-9.]*)\s*$", re.MULTILINE)
_SECTION = re.compile(r"^Input model:", re.MULTILINE)
_STATUS = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)\s+([0-9]+)\s{2,}(\S.*?)\s*$", re.MULTILINE)
_SUCCESS = "Compilation succeeded!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A size as printed, rounded to hundredths of its unit; the true size is within ``half_step`` of it."""

    size_bytes: int
    half_step: float

    def agrees(self, size: int, slack: float = 0.0) -> bool:
        """Whether ``size`` could have been printed as this, within ``slack`` bytes."""
        return abs(size - self.size_bytes) <= self.half_step + 1 + slack


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorStatus:
    """A row of the compiler's table.

    Attributes:
        op: TFLite name of the operator.
        count: how many of them.
        status: "Mapped to Edge TPU", or why they stay on the CPU.
    """

    op: str
    count: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """The compiler's output for one model.

    Attributes:
        version: of the compiler ("16.0.384591198"), "" where it is missing.
        succeeded: "Compilation succeeded!" was printed.
        milliseconds: "Model compiled successfully in".
        output_size, on_chip, on_chip_left, off_chip: None where the line is missing.
        subgraphs, operations, tpu_operations, cpu_operations: None where the line is missing; the last two are printed
            only if something is left on the CPU.
        statuses: the rows of its table, in its order.
    """

    version: str
    succeeded: bool
    milliseconds: int | None
    output_size: Rounded | None
    on_chip: Rounded | None
    on_chip_left: Rounded | None
    off_chip: Rounded | None
    subgraphs: int | None
    operations: int | None
    tpu_operations: int | None
    cpu_operations: int | None
    statuses: tuple[OperatorStatus, ...]

    @property
    def complete(self) -> bool:
        """Whether every line of a successful run is present."""
        needed = (self.output_size, self.on_chip, self.on_chip_left, self.off_chip, self.subgraphs, self.operations)
        return self.succeeded and all(each is not None for each in needed)

    @property
    def left_on_cpu(self) -> int:
        """Number of operators on the CPU, from the count or else from the table."""
        if self.cpu_operations is not None:
            return self.cpu_operations
        return sum(each.count for each in self.statuses if each.status != MAPPED)


def parse(text: str) -> Printed:
    """Parse the compiler's output for one model; missing lines are None."""
    version = _VERSION.search(text)
    sections = [match.start() for match in _SECTION.finditer(text)]
    body = text[sections[0] :] if sections else text
    return Printed(
        version=version.group(1) if version else "",
        succeeded=_SUCCESS in text,
        milliseconds=_number(r"compiled successfully in ([0-9]+) ms", text),
        output_size=_size("Output size", body),
        on_chip=_size("On-chip memory used for caching model parameters", body),
        on_chip_left=_size("On-chip memory remaining for caching model parameters", body),
        off_chip=_size("Off-chip memory used for streaming uncached model parameters", body),
        subgraphs=_number(r"^Number of Edge TPU subgraphs: ([0-9]+)", body),
        operations=_number(r"^Total number of operations: ([0-9]+)", body),
        tpu_operations=_number(r"^Number of operations that will run on Edge TPU: ([0-9]+)", body),
        cpu_operations=_number(r"^Number of operations that will run on CPU: ([0-9]+)", body),
        statuses=_statuses(body),
    )


def statuses(text: str) -> tuple[OperatorStatus, ...]:
    """The table of a ``_edgetpu.log``."""
    return _statuses(text)


def version_of(text: str) -> str:
    """The version in what ``edgetpu_compiler -v`` prints, "" where there is none."""
    found = _VERSION.search(text)
    return found.group(1) if found else ""


def _statuses(text: str) -> tuple[OperatorStatus, ...]:
    table = text.partition("Operator ")[2]
    return tuple(OperatorStatus(op=op, count=int(count), status=status) for op, count, status in _STATUS.findall(table))


def _size(label: str, text: str) -> Rounded | None:
    found = re.search(rf"^{re.escape(label)}: {_SIZE}\s*$", text, re.MULTILINE)
    if found is None:
        return None
    unit = _UNITS[found.group(2)]
    decimals = len(found.group(1).partition(".")[2])
    return Rounded(size_bytes=round(float(found.group(1)) * unit), half_step=unit * 0.5 * 10.0**-decimals)


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found.group(1)[:18]) if found else None


def line_with(text: str, words: Sequence[str]) -> str:
    """The first line that contains one of ``words``, truncated to a readable length; "" if there is none."""
    for line in text.splitlines():
        if any(word.lower() in line.lower() for word in words):
            return " ".join(line.split())[:200]
    return ""
