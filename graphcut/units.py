"""Sizes in bytes as people write them: "7MiB", "6.985 MiB", "2MiB..6MiB".

1. KiB, MiB, GiB are powers of 1024; KB (kB), MB, GB are powers of 1000; B or no unit at all is bytes. Capital
   letters do not matter.
2. "7M" is refused: it may mean either.
3. A number below 1024 without a unit is refused: "7" is more often 7 MiB than 7 bytes.
4. A fraction of a byte is dropped after multiplying ("0.1MiB" is 104857); without a unit it is refused.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from graphcut.errors import UsageError

KIB = 2**10
MIB = 2**20
GIB = 2**30

_FACTORS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
}
_SPELLING = {"k": ("KiB", "KB"), "m": ("MiB", "MB"), "g": ("GiB", "GB")}
_AMOUNT = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)")
_LARGEST = 2**50  # a pebibyte: beyond any model, and small enough to print
_WAY_OUT = "write a number and a unit, such as 7MiB, 512KiB or 7000000"


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "7MiB", "6.5 MB", "512 KiB" or "7340032"; at least 1.

    Raises:
        UsageError: not a size, an ambiguous unit, or a size that is zero, negative or beyond 1024 TiB.

    >>> parse_bytes("7MiB")
    7340032
    """
    shown = text.strip()
    matched = _AMOUNT.fullmatch(shown)
    if not matched:
        raise UsageError(f"{_quoted(shown)} is not a size", _WAY_OUT)
    sign, digits, unit = matched.groups()
    lowered = unit.lower()
    if lowered in _SPELLING:
        binary, decimal = _SPELLING[lowered]
        raise UsageError(f"the unit of {_quoted(shown)} is ambiguous", f"write {digits}{binary} or {digits}{decimal}")
    if lowered not in _FACTORS:
        raise UsageError(f"{_quoted(shown)} has an unknown unit {_quoted(unit)}", "use B, KB, KiB, MB, MiB, GB or GiB")
    amount = Decimal(digits)
    if not unit and amount != amount.to_integral_value():
        raise UsageError(f"{_quoted(shown)} is not an integer number of bytes", _WAY_OUT)
    if not unit and not sign and 0 < amount < KIB:
        raise UsageError(
            f"{_quoted(shown)} is less than a KiB, because a number without a unit is in bytes",
            f"did you mean {digits}MiB? Write {digits}B for bytes",
        )
    size = amount * _FACTORS[lowered]
    if sign == "-" or size < 1:
        raise UsageError(f"the size {_quoted(shown)} is not positive", _WAY_OUT)
    if size > _LARGEST:
        raise UsageError(f"the size {_quoted(shown)} is too large", _WAY_OUT)
    return int(size)


def parse_range(text: str) -> tuple[int, int]:
    """Low and high bytes of a range such as "2MiB..6MiB"; low < high.

    Raises:
        UsageError: not two sizes with ".." between them, or the first is not below the second.
    """
    way_out = "write LOW..HIGH, such as 2MiB..6MiB"
    low_text, dots, high_text = (part.strip() for part in text.partition(".."))
    if not (low_text and dots and high_text):
        raise UsageError(f"{_quoted(text.strip())} is not a range", way_out)
    if low_text[-1:].isdigit() and not high_text[-1:].isdigit():
        raise UsageError(f"the low end of {_quoted(text.strip())} has no unit", way_out)
    low, high = parse_bytes(low_text), parse_bytes(high_text)
    if low >= high:
        raise UsageError(f"the low end of {_quoted(text.strip())} is not less than its high end", way_out)
    return low, high


def format_bytes(size: int) -> str:
    """Write a size for people: "6.985 MiB", "12.5 KiB", "812 B".

    >>> format_bytes(7_324_000)
    '6.985 MiB'
    """
    if abs(size) < KIB:
        return f"{size} B"
    if abs(size) < MIB:
        return f"{size / KIB:.1f} KiB"
    if abs(size) < GIB:
        return f"{size / MIB:.3f} MiB"
    return f"{size / GIB:.3f} GiB"


def format_budget(size: int) -> str:
    """Write a size as an option's value, never below ``size``: rounded up to a thousandth of its unit.

    >>> format_budget(7_324_000), format_budget(812)
    ('6.985MiB', '812B')
    """
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            thousandths = -(-size * 1000 // unit)
            return f"{Decimal(thousandths) / 1000}{name}"
    return f"{size}B"


def format_rate(per_second: float) -> str:
    """Write how many results a second brings: "559 results/s".

    >>> format_rate(1000 / 1.79), format_rate(2.345)
    ('559 results/s', '2.35 results/s')
    """
    return f"{format_number(per_second)} results/s"


def format_number(value: float) -> str:
    """Write a number with three significant digits, and all digits before the point.

    >>> format_number(1234.5), format_number(86.44), format_number(2.345)
    ('1234', '86.4', '2.35')
    """
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def _quoted(text: str) -> str:
    """Put the text in quotes, cut short where somebody pasted a page."""
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
