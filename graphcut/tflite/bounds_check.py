"""Read a flatbuffer with every step checked, for files that may be damaged or hostile.

Generated flatbuffer code trusts its file: an offset that points outside raises one of a dozen exceptions, and a length
    of four thousand million starts a loop of that length. Here

1. every offset, table and vector is checked to lie inside the bytes before it is used;
2. a vector cannot be longer than the file, and a file cannot have more than ``MOST_TABLES`` tables;
3. every violation raises :class:`DamagedError`, which names the item and its position.

Field numbers are those of the schema, from 0 (the position in the vtable).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_TABLES = 1_000_000
"""The most tables to visit in one file; the largest zoo model has about ten thousand."""


class DamagedError(ValueError):
    """The bytes contradict the schema; one line that says where."""


@dataclass(slots=True)
class Walk:
    """The bytes of one flatbuffer, and how many more tables may be visited.

    Args:
        data: the flatbuffer; its first four bytes are the offset of its root table.
    """

    data: bytes | memoryview
    tables: int = field(default=MOST_TABLES)

    def root(self) -> Table:
        """The root table.

        Raises:
            DamagedError: it is outside the bytes.
        """
        return self.table(self.number("I", 0), "root")

    def number(self, form: str, position: int) -> int | float:
        """A little-endian number of ``struct`` form ``form`` at a position."""
        if position < 0 or position + struct.calcsize(form) > len(self.data):
            raise DamagedError(f"a number at byte {position} is outside the file of {len(self.data)} bytes")
        value: int | float = struct.unpack_from(f"<{form}", self.data, position)[0]
        return value

    def offset(self, position: int) -> int:
        """Where the unsigned 32-bit offset at a position points."""
        return position + int(self.number("I", position))

    def table(self, position: int | float, what: str) -> Table:
        """The table at a position, with its vtable checked.

        Raises:
            DamagedError: the table or its vtable is outside the file, or their lengths contradict each other.
        """
        self.tables -= 1
        if self.tables < 0:
            raise DamagedError(f"it has more than {MOST_TABLES} tables, or cyclic offsets")
        place = int(position)
        vtable = place - int(self.number("i", place))
        length, size = int(self.number("H", vtable)), int(self.number("H", vtable + 2))
        if length < 4 or length % 2 or vtable + length > len(self.data):
            raise DamagedError(f"the vtable of {what} at byte {vtable} has an impossible length of {length}")
        if size < 4 or place + size > len(self.data):
            raise DamagedError(f"{what} at byte {place} does not fit in the file of {len(self.data)} bytes")
        return Table(self, place, vtable, (length - 4) // 2, size, what)

    def span(self, position: int, width: int, what: str) -> tuple[int, int]:
        """Start and number of elements of the vector at a position, whose elements have ``width`` bytes."""
        count = int(self.number("I", position))
        if position + 4 + count * width > len(self.data):
            raise DamagedError(f"{what} at byte {position} declares {count} elements, more than the file contains")
        return position + 4, count


@dataclass(frozen=True, slots=True)
class Table:
    """One table; fields by number."""

    walk: Walk
    position: int
    vtable: int
    fields: int
    size: int
    what: str

    def place(self, number: int, width: int) -> int | None:
        """The position of a field of ``width`` bytes; None where the table omits it."""
        if number >= self.fields:
            return None
        offset = int(self.walk.number("H", self.vtable + 4 + 2 * number))
        if offset == 0:
            return None
        if offset < 4 or offset + width > self.size:
            raise DamagedError(f"field {number} of {self.what} at byte {self.position} is outside its table")
        return self.position + offset

    def number(self, number: int, form: str = "i", default: int = 0) -> int:
        """An integer field."""
        place = self.place(number, struct.calcsize(form))
        return default if place is None else int(self.walk.number(form, place))

    def follow(self, number: int) -> int | None:
        """The target of an offset field; None where it is omitted."""
        place = self.place(number, 4)
        return None if place is None else self.walk.offset(place)

    def table(self, number: int, what: str) -> Table | None:
        """A field that is a table."""
        place = self.follow(number)
        return None if place is None else self.walk.table(place, what)

    def bytes(self, number: int) -> memoryview:
        """A field that is a byte vector or string; empty where it is omitted. Nothing is copied."""
        place = self.follow(number)
        if place is None:
            return memoryview(b"")
        start, count = self.walk.span(place, 1, f"field {number} of {self.what}")
        return memoryview(self.walk.data)[start : start + count]

    def text(self, number: int) -> str:
        """A field that is a string; bytes that are not UTF-8 become replacement characters."""
        return bytes(self.bytes(number)).decode(errors="replace")

    def numbers(self, number: int, form: str = "i") -> tuple[int, ...]:
        """A field that is a vector of integers."""
        place = self.follow(number)
        if place is None:
            return ()
        start, count = self.walk.span(place, struct.calcsize(form), f"field {number} of {self.what}")
        return struct.unpack_from(f"<{count}{form}", self.walk.data, start)

    def tables(self, number: int, what: str) -> Iterator[Table]:
        """A field that is a vector of tables."""
        place = self.follow(number)
        if place is None:
            return
        start, count = self.walk.span(place, 4, f"{what} of {self.what}")
        for position in range(start, start + 4 * count, 4):
            yield self.walk.table(self.walk.offset(position), what)

    def blobs(self, number: int, what: str) -> Iterator[memoryview]:
        """A field that is a vector of byte strings."""
        place = self.follow(number)
        if place is None:
            return
        start, count = self.walk.span(place, 4, f"{what} of {self.what}")
        for position in range(start, start + 4 * count, 4):
            begin, length = self.walk.span(self.walk.offset(position), 1, what)
            yield memoryview(self.walk.data)[begin : begin + length]
