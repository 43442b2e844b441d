"""The size of a TFLite file, table by table, as :func:`graphcut.tflite.schema.write` lays it out.

1. A file contains: operator codes; tensors, each with shape, name, scales and zero points; operators with options;
   names; buffers, their data aligned to 16; one signature. Tables are those of graphcut.tflite.table_bytes.
2. The code of the first operator has index 0, the default, so operators of that kind are 4 bytes shorter.
3. So the bytes of a run of operators are sums over the run, except for: which codes and layouts occur, the alignment of
   zero points after a layout written for the first time, the first two buffers, and the tensors at its edges.
   :class:`Ledger` keeps sums and first occurrences, and answers exactly for any run.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graphcut.tflite.table_bytes import (
    Activation,
    Code,
    Constant,
    Layout,
    Operator,
    TensorBytes,
    code_layout,
    entry_of,
    layout,
    operator_layout,
    string,
    up4,
    vector,
)

Numbers = npt.NDArray[np.int64]

_SIGNATURE_KEY = len("serving_default")
_DESCRIPTION = len("graphcut seg1_int8")
_GRAPH_NAME = len("convert1")


class EdgeTensor(NamedTuple):
    """An input or output of a run: length of its name there, its rank, its index in the ledger.

    ``tensor`` is None where the run does not produce it.
    """

    name: int
    rank: int
    tensor: int | None = None


_EMPTY, _ONE_FIELD, _TWO_FIELDS = layout(()), layout(((0, 4),)), layout(((0, 4), (1, 4)))
_GRAPH = layout(tuple((number, 4) for number in range(5)))
_SIGNATURE = layout(((0, 4), (1, 4), (2, 4)))
_MODEL = layout(((0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (7, 4)))
_FRAME = frozenset({_EMPTY, _ONE_FIELD, _TWO_FIELDS, _GRAPH, _SIGNATURE, _MODEL})
"""Layouts of the empty buffer, of the others, of names at edges, of graph, signature and model."""


class _Form(NamedTuple):
    """The size of a kind of operator in a file, for a code that is not the first; equal operators share one."""

    code: Code
    size: int
    options: Layout | None
    entries: tuple[TensorBytes, ...]
    names: tuple[int, ...]
    data: tuple[int, ...]


def _form(operator: Operator) -> _Form:
    options = None if operator.options is None else layout(operator.options)
    size = vector(operator.reads) + vector(operator.makes) + operator.vectors
    size += 0 if options is None else options.table_bytes
    return _Form(
        code=operator.code,
        size=size + operator_layout(options is None, False).table_bytes,
        options=options,
        entries=tuple(map(entry_of, operator.tensors)),
        names=tuple(tensor.name for tensor in operator.tensors),
        data=tuple(tensor.data for tensor in operator.tensors if isinstance(tensor, Constant)),
    )


def _forms(operators: Sequence[Operator]) -> tuple[list[_Form], list[int]]:
    """The kinds of operators in the order of their first use, and the kind of each operator.

    Operators that are the same object (as made by graphcut.prediction.tflite_operators) are compared once.
    """
    identities = list(map(id, operators))
    kinds: dict[Operator, int] = {}
    kind_of = {
        identity: kinds.setdefault(operator, len(kinds))
        for identity, operator in dict(zip(identities, operators, strict=True)).items()
    }
    return list(map(_form, kinds)), [kind_of[identity] for identity in identities]


def _numbered(forms: Sequence[tuple[TensorBytes, ...]]) -> tuple[list[TensorBytes], list[list[int]]]:
    """The entries that differ in the order of their first use, and those of each form by number."""
    known: dict[TensorBytes, int] = {}
    numbers = [[known.setdefault(entry, len(known)) for entry in form] for form in forms]
    return list(known), numbers


class Ledger:
    """The bytes of any run of nodes: one pass over the graph, then microseconds per query.

    Args:
        nodes: the operators of each node, in the order of the graph.

    Attributes:
        content: ``content[p]`` is what ``nodes[:p]`` add to a file with all nodes; len(nodes) + 1 entries.
    """

    def __init__(self, nodes: Sequence[Sequence[Operator]]) -> None:
        operators = list(chain.from_iterable(nodes))
        forms, kinds = _forms(operators)
        entries, of_form = _numbered([form.entries for form in forms])
        held = np.fromiter(chain.from_iterable([of_form[kind] for kind in kinds]), np.int64)
        self._codes = [operator.code for operator in operators]
        self._data = list(chain.from_iterable([forms[kind].data for kind in kinds]))
        self._names = list(chain.from_iterable([forms[kind].names for kind in kinds]))
        self._entries = [entries[number] for number in held.tolist()]
        of_operators = np.array(kinds, np.int64)
        self._by_code = _places([form.code for form in forms], of_operators)
        self._by_options = _places([form.options for form in forms], of_operators)
        self._by_quantization = _places([entry.quantization for entry in entries], held)
        self._by_table = _places([entry.table for entry in entries], held)
        self._bare = {form.code for form in forms if form.options is None}
        before = _numbers([entry.before for entry in entries])[held]
        after = _numbers([entry.after for entry in entries])[held]
        aligned = np.array([entry.aligned for entry in entries], bool)[held]
        pads = _alignment(before, after, aligned)
        self._pads: list[int] = pads.tolist()
        self._next_aligned: list[int] = _following(aligned).tolist()
        buffers = _buffers(_numbers(self._data))
        operator_sums, buffer_sums = _sums(_numbers([form.size for form in forms])[of_operators]), _sums(buffers)
        tensor_sums, pad_sums = _sums(before + after), _sums(pads)
        # How many operators, tensors and data come before each node.
        o = _sums(_numbers(list(map(len, nodes))))
        t = _sums(_numbers([len(form.entries) for form in forms])[of_operators])[o]
        d = _sums(_numbers([len(form.data) for form in forms])[of_operators])[o]
        content = operator_sums[o] + tensor_sums[t] + pad_sums[t] + buffer_sums[d] + 4 * (o + t + d)
        self.content: tuple[int, ...] = tuple(content.tolist())
        self._starts = list(zip(o.tolist(), t.tolist(), d.tolist(), strict=True))
        self._operator_sums: list[int] = operator_sums.tolist()
        self._buffer_sums: list[int] = buffer_sums.tolist()
        self._tensor_sums: list[int] = tensor_sums.tolist()
        self._pad_sums: list[int] = pad_sums.tolist()

    def tensors(self, node: int) -> range:
        """The indices of the tensors that the operators of a node add."""
        return range(self._starts[node][1], self._starts[node + 1][1])

    def overhead(self, inputs: Sequence[EdgeTensor], outputs: Sequence[EdgeTensor]) -> int:
        """The most that the file of any run has beyond its content, with these inputs and outputs."""
        layouts = {*_FRAME, *self._by_options, *self._by_quantization, *self._by_table}
        layouts |= {each.moved() for each in self._by_table}
        layouts |= {code_layout(code, lead) for code in self._by_code for lead in (0, 2)}
        layouts |= {operator_layout(code in self._bare, first) for code in self._by_code for first in (True, False)}
        layouts |= {operator_layout(False, first).moved() for first in (True, False)}
        entering = [entry_of(Activation(edge.name, edge.rank)) for edge in inputs]
        layouts.update(each for entry in entering for each in entry.layouts())
        size = vector(len(self._by_code)) + sum(code_layout(code).table_bytes for code in self._by_code)
        size += sum(each.size for each in layouts)
        size += sum(entry.before + entry.after + 4 + 4 for entry in entering)
        size += sum(max(self._longer(edge), 0) for edge in outputs)
        size += _before_buffers(inputs, outputs) + _EMPTY.table_bytes + _after_buffers(inputs, outputs)
        # Zero points may move at each new layout; the first two buffers and the end are aligned by themselves.
        return size + 4 * (len(self._by_quantization) + len(self._by_table) + 1) + 3 * 16

    def file_bytes(self, start: int, stop: int, inputs: Sequence[EdgeTensor], outputs: Sequence[EdgeTensor]) -> int:
        """Bytes of the file of nodes[start:stop]; exact where the operators are those that the converter writes.

        Args:
            start, stop: the run.
            inputs, outputs: its edges, in order.
        """
        first, first_tensor, first_data = self._starts[start]
        end, end_tensor, end_data = self._starts[stop]
        codes = self._codes_in(first, end)
        seen: set[Layout] = set()
        size = vector(len(codes)) + _code_tables(seen, codes)
        size = self._with_tensors(size, seen, (first_tensor, end_tensor), inputs, outputs)
        size += 4 * (len(inputs) + end_tensor - first_tensor + end - first)
        size += self._operator_section(seen, first, end)
        size += _before_buffers(inputs, outputs) + _new(seen, (_GRAPH,))
        size = self._with_buffers(size, seen, (first_data, end_data))
        size += _after_buffers(inputs, outputs) + _saved(seen, inputs or outputs)
        size += _new(seen, (_ONE_FIELD, _TWO_FIELDS, _SIGNATURE, _MODEL))
        return size + -size % (16 if end_data > first_data else 8)

    def _longer(self, edge: EdgeTensor) -> int:
        """How much longer the name of a tensor is at an edge than inside."""
        return 0 if edge.tensor is None else string(edge.name) - string(self._names[edge.tensor])

    def _with_tensors(
        self,
        size: int,
        seen: set[Layout],
        run: tuple[int, int],
        inputs: Sequence[EdgeTensor],
        outputs: Sequence[EdgeTensor],
    ) -> int:
        """The size after the tensors: those at the edges one by one, those of the run by sums."""
        for edge in inputs:
            entry = entry_of(Activation(edge.name, edge.rank))
            size += entry.before
            size += -size % 8 + entry.after + _new(seen, entry.layouts())
        first, end = run
        # Differences from the sums before the zero points of a tensor, by the index of the tensor.
        moved: dict[int, int] = {}
        for edge in outputs:
            if edge.tensor is not None:
                moved[edge.tensor] = moved.get(edge.tensor, 0) + self._longer(edge)
        for index, each in self._new_layouts(seen, first, end):
            moved[index + 1] = moved.get(index + 1, 0) + _new(seen, (each,))
        shifts: dict[int, int] = {}
        for index, difference in moved.items():
            at = self._next_aligned[index]
            shifts[at] = shifts.get(at, 0) + difference
        lead = self._next_aligned[first]
        if lead < end:
            start = size + self._tensor_sums[lead] - self._tensor_sums[first] + self._entries[lead].before
            size += -(start + shifts.pop(lead, 0)) % 8 + self._pad_sums[end] - self._pad_sums[lead + 1]
            size += sum((self._pads[at] - d) % 8 - self._pads[at] for at, d in shifts.items() if at < end)
        return size + sum(moved.values()) + self._tensor_sums[end] - self._tensor_sums[first]

    def _new_layouts(self, seen: set[Layout], first: int, end: int) -> list[tuple[int, Layout]]:
        """Layouts that a run of tensors brings, each with the first tensor that has it."""
        found: list[tuple[int, Layout]] = []
        behind_odd: set[int] = set()
        for each, indices in self._by_quantization.items():
            index = _first(indices, first, end)
            if index is not None and each not in seen:
                found.append((index, each))
                if each.odd:
                    behind_odd.add(index)
                    found.append((index, self._entries[index].table.moved()))
        for each, indices in self._by_table.items():
            index = _first(indices, first, end)
            while index in behind_odd:
                index = _first(indices, index + 1, end)
            if index is not None and each not in seen:
                found.append((index, each))
        return found

    def _codes_in(self, first: int, end: int) -> list[Code]:
        """The codes of a run, in the order of their first use."""
        used = [(found, code) for code, found in self._by_code.items() if _count(found, first, end)]
        return [code for _, code in sorted((found[bisect_left(found, first)], code) for found, code in used)]

    def _operator_section(self, seen: set[Layout], first: int, end: int) -> int:
        """Bytes of the operators and of their layouts."""
        size = self._operator_sums[end] - self._operator_sums[first]
        if first == end:
            return size
        first_code = self._codes[first]
        size -= 4 * _count(self._by_code[first_code], first, end)
        moved: Counter[Code] = Counter()
        for each, found in self._by_options.items():
            place = bisect_left(found, first)
            if each in seen or place == len(found) or found[place] >= end:
                continue
            size += _new(seen, (each,))
            if each.odd:
                code = self._codes[found[place]]
                moved[code] += 1
                size += _new(seen, (operator_layout(False, code == first_code).moved(),))
        for code in self._codes_in(first, end):
            if _count(self._by_code[code], first, end) > moved[code]:
                size += _new(seen, (operator_layout(code in self._bare, code == first_code),))
        return size

    def _with_buffers(self, size: int, seen: set[Layout], run: tuple[int, int]) -> int:
        """The size after the buffers: the first two one by one, the rest by sums."""
        size += _EMPTY.table_bytes + _new(seen, (_EMPTY,))
        first, end = run
        for data in self._data[first : min(first + 2, end)]:
            size += -(size + data) % 16 + data + 4 + _ONE_FIELD.table_bytes
            size += _new(seen, (_ONE_FIELD,)) and 6  # not aligned to 4: the next buffer's data is
        size = up4(size)
        if end > first + 2:
            size += self._buffer_sums[end] - self._buffer_sums[first + 2]
        return size + vector(1 + end - first)


@cache
def edge_bytes(edge: EdgeTensor) -> int:
    """Bytes that a tensor adds as an input of a run: its tables and its entry in the signature."""
    entry = entry_of(Activation(edge.name, edge.rank))
    return entry.before + entry.after + string(edge.name) + _TWO_FIELDS.table_bytes


@cache
def loose_bytes(operator: Operator) -> int:
    """Bytes of an operator whose kind and layout the file does not have yet, within about 30 bytes."""
    tensors = [entry_of(tensor) for tensor in operator.tensors]
    size = vector(operator.reads) + vector(operator.makes) + operator_layout(True, False).table_bytes + 4
    size += code_layout(operator.code).table_bytes + 4 + operator_layout(True, False).size
    return size + sum(entry.before + entry.after + 4 for entry in tensors)


def _buffers(data: Numbers) -> Numbers:
    """Bytes of each buffer after another one, whose end is 12 bytes beyond a multiple of 16."""
    return data + 12 + -(data + 12) % 16


def _before_buffers(inputs: Sequence[EdgeTensor], outputs: Sequence[EdgeTensor]) -> int:
    """Bytes between operators and buffers, and the lengths of the vectors of tensors and operators."""
    ends = vector(len(inputs)) + vector(len(outputs))
    return 2 * vector(0) + ends + string(_GRAPH_NAME) + _GRAPH.table_bytes + vector(1) + string(_DESCRIPTION)


def _after_buffers(inputs: Sequence[EdgeTensor], outputs: Sequence[EdgeTensor]) -> int:
    """Bytes after the buffers: signature, model, the file's head."""
    size = vector(len(inputs)) + vector(len(outputs)) + string(_SIGNATURE_KEY) + _SIGNATURE.table_bytes + vector(1)
    for position, edge in enumerate((*inputs, *outputs)):
        size += string(edge.name) + (_TWO_FIELDS if position else _ONE_FIELD).table_bytes
    return size + _MODEL.table_bytes + 8


def _saved(seen: set[Layout], edges: Sequence[EdgeTensor]) -> int:
    """Bytes that a name saves right after the odd layout of the first edge, if no buffer has that layout yet."""
    if _ONE_FIELD in seen or len(edges) < 2:
        return 0
    characters = edges[1].name + 1
    return -(2 + characters) % 4 + characters - 2 - up4(characters)


def _numbers(values: Sequence[int]) -> Numbers:
    return np.array(values, np.int64)


def _sums(values: Numbers) -> Numbers:
    """The sums of the first 0, 1, 2, .. values."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _places[K](keys: Sequence[K | None], kinds: Numbers) -> dict[K, list[int]]:
    """Key -> the places, rising, whose kind has it, in the order in which keys are first used; None is no key."""
    number: dict[K, int] = {}
    known = [-1 if key is None else number.setdefault(key, len(number)) for key in keys]
    of_places = _numbers(known)[kinds]
    return {key: np.flatnonzero(of_places == each).tolist() for key, each in number.items()}


def _alignment(before: Numbers, after: Numbers, aligned: npt.NDArray[np.bool_]) -> Numbers:
    """Bytes that align each tensor's zero points after the tensor before it.

    After an aligned tensor the position only depends on that tensor; then it counts what has no zero points.
    """
    nearest = np.zeros(len(before) + 1, np.int64)  # how many tensors there are up to the aligned one before each
    np.maximum.accumulate(np.where(aligned, np.arange(1, len(before) + 1), 0), out=nearest[1:])
    sums, ends = _sums(before + after), np.append(0, after)
    position = sums[:-1] + (ends - sums)[nearest[:-1]]
    return np.where(aligned, -(position + before) % 8, 0)


def _following(aligned: npt.NDArray[np.bool_]) -> Numbers:
    """The first aligned tensor from each on, two places further than there are tensors; their number for none."""
    found = np.full(len(aligned) + 2, len(aligned), np.int64)
    indices = np.where(aligned, np.arange(len(aligned)), len(aligned))
    found[: len(aligned)] = np.minimum.accumulate(indices[::-1])[::-1]
    return found


def _new(seen: set[Layout], layouts: Iterable[Layout]) -> int:
    """Bytes of the layouts that the file does not have yet; they are added."""
    size = 0
    for each in layouts:
        if each not in seen:
            seen.add(each)
            size += each.size
    return size


def _code_tables(seen: set[Layout], codes: Iterable[Code]) -> int:
    """Bytes of the tables of operator codes, with nothing between them, and of their new layouts."""
    size = lead = 0
    for code in codes:
        own = code_layout(code, lead)
        size += own.table_bytes - lead
        lead = 2 if own.odd and own not in seen else 0
        size += _new(seen, (own,))
    return size


def _first(found: list[int], start: int, stop: int) -> int | None:
    """The first of the rising numbers in start .. stop."""
    place = bisect_left(found, start)
    return found[place] if place < len(found) and found[place] < stop else None


def _count(found: list[int], start: int, stop: int) -> int:
    """How many of the rising numbers lie in start .. stop."""
    return bisect_left(found, stop) - bisect_left(found, start)
