"""Sizes of the tables, vectors and strings of a TFLite file, as :func:`graphcut.tflite.schema.write` lays them out.

1. A flatbuffer is written back to front: a position counts bytes from the end of the file. Before every table, vector
   and string it is a multiple of 4; 8-byte zero points are aligned to 8.
2. A table consists of 4 bytes that point to its *layout* and of the fields that differ from the schema's default, in
   the order in which the writer adds them. A layout (vtable) is written once in a file, right after the first table
   that has it.
3. A table right after a layout of 2 bytes more than a multiple of 4 (an *odd* one) begins there, so it has another
   layout than the same table elsewhere.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

Fields = tuple[tuple[int, int], ...]
"""(field number, bytes) of the fields of a table, in the writer's order."""

Code = tuple[str, int]
"""An operator's TFLite name and version."""


class Layout(NamedTuple):
    """A vtable: the place of each field in its table, and the size of the table."""

    places: tuple[int, ...]
    table_bytes: int

    @property
    def size(self) -> int:
        """Bytes of the layout itself, with the padding that aligns what follows to 4."""
        return up4(2 * len(self.places) + 4)

    @property
    def odd(self) -> bool:
        """Whether what follows has to be aligned; a table counts the padding as its own."""
        return len(self.places) % 2 == 1

    def moved(self) -> Layout:
        """The layout of the same table right after an odd one, if its first field has 4 bytes."""
        return Layout(self.places, self.table_bytes + 2)


class Constant(NamedTuple):
    """A tensor with data: length of its name, rank, bytes of data, number of scales, the axis they are along."""

    name: int
    rank: int
    data: int
    scales: int = 0
    axis: int = 0


class Activation(NamedTuple):
    """A tensor without data: length of its name, rank, 1 scale at int8 and 0 in float."""

    name: int
    rank: int
    scales: int = 1


class Operator(NamedTuple):
    """One operator.

    Attributes:
        code: TFLite name and version.
        reads, makes: number of tensors.
        tensors: those that no operator before it has, in the order of its inputs and then its outputs.
        options: the fields of its options table; None where it has none.
        vectors: bytes of vectors that belong to the options.
    """

    code: Code
    reads: int
    makes: int
    tensors: tuple[Constant | Activation, ...]
    options: Fields | None = ()
    vectors: int = 0


class TensorBytes(NamedTuple):
    """Bytes of a tensor's tables.

    Attributes:
        before: up to its zero points, which are aligned then.
        after: the zero points and all that follows.
        aligned: it has zero points.
        quantization: layout of scales and zero points, None where it has none.
        table: layout of the tensor; both are written after the zero points where they are new.
    """

    before: int
    after: int
    aligned: bool
    quantization: Layout | None
    table: Layout

    def layouts(self) -> tuple[Layout, ...]:
        """Both layouts, in the order in which they are written."""
        return (self.table,) if self.quantization is None else (self.quantization, self.table)


def up4(size: int) -> int:
    """``size`` rounded up to a multiple of 4."""
    return (size + 3) & ~3


def string(length: int) -> int:
    """Bytes of a string: its length, its characters, a zero.

    >>> string(3), string(4)
    (8, 12)
    """
    return 4 + up4(length + 1)


def vector(count: int) -> int:
    """Bytes of a vector of 4-byte values."""
    return 4 + 4 * count


@cache
def layout(fields: Fields, lead: int = 0) -> Layout:
    """The layout of a table with these fields (statements 2 and 3), ``lead`` bytes after a multiple of 4.

    >>> layout(((0, 1), (3, 4)))
    Layout(places=(11, 0, 0, 4), table_bytes=12)
    """
    used = lead
    at: dict[int, int] = {}
    for number, size in fields:
        used += -used % size + size
        at[number] = used
    used = up4(used) + 4
    return Layout(tuple(used - at[n] if n in at else 0 for n in range(max(at, default=-1) + 1)), used - lead)


@cache
def entry_of(tensor: Constant | Activation) -> TensorBytes:
    """The bytes of a tensor's tables."""
    is_constant = isinstance(tensor, Constant)
    fields: list[tuple[int, int]] = [(0, 4)]
    fields += [(1, 1)] if is_constant or tensor.scales else []  # the type of a float activation is the default
    fields += [(2, 4)] if is_constant else []
    fields += [(3, 4), (4, 4)] if tensor.scales else [(3, 4)]
    table = layout(tuple(fields))
    before = vector(tensor.rank) + string(tensor.name)
    after = table.table_bytes
    if not tensor.scales:
        return TensorBytes(before, after, False, None, table)
    axis = isinstance(tensor, Constant) and tensor.axis != 0
    quantization = layout(((2, 4), (3, 4), (6, 4)) if axis else ((2, 4), (3, 4)))
    before += vector(tensor.scales)
    after += 8 * tensor.scales + 4 + quantization.table_bytes
    return TensorBytes(before, after, True, quantization, table)


@cache
def operator_layout(bare: bool, first: bool) -> Layout:
    """The layout of an operator with or without options, and with or without a code that is the first."""
    index: Fields = () if first else ((0, 4),)
    options: Fields = () if bare else ((3, 1), (4, 4))
    return layout((*index, (1, 4), (2, 4), *options))


@cache
def code_layout(code: Code, lead: int = 0) -> Layout:
    """The layout of an operator code, ``lead`` bytes after a multiple of 4."""
    name, version = code
    number: Fields = () if name == "ADD" else ((0, 1),)  # ADD is number 0, the default, in the old field and the new
    fields = (*number, *(((2, 4),) if version > 1 else ()), *(((3, 4),) if number else ()))
    return layout(fields, lead)
