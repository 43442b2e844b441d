"""Records as JSON, and back: one codec for every record, driven by its type hints.

1. A record becomes an object with a key for every field and for every property that is marked as derived. Tuples
   become arrays, mappings objects, paths relative to a folder. A new field is in every document, and in its schema,
   without a second edit.
2. What differs is declared with the type (graphcut.record_types). What an object must look like, and its JSON Schema,
   follow from the same declarations (graphcut.record_schema).
3. A record in a file of its own (:func:`save`) has all fields under their own names, and unknown keys are refused:
   ``{"format": "graphcut Plan", "version": 1, "record": {..}}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_origin

from graphcut import files
from graphcut.errors import UsageError
from graphcut.record_schema import Json, model_of, require_model
from graphcut.record_types import (
    DECIBELS,
    FLAT,
    OPTIONAL,
    By,
    Digits,
    Without,
    decibels,
    discriminated,
    entries,
    flat_kind,
    from_decibels,
    marked,
    structure,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Known = Mapping[Any, Mapping[str, Any]]
"""Records that others name: type -> value of the naming field -> record."""

VERSION = 1
MOST_BYTES = 256 * 2**20
"""The largest file that is read; a plan of 100,000 nodes has a tenth of that."""


def to_json(record: DataclassInstance, *, within: Path | None = None, without: Collection[str] = ()) -> Json:
    """Return a record as JSON values.

    Args:
        record: a dataclass instance.
        within: the folder to which paths are relative.
        without: keys to leave out.

    Raises:
        TypeError: a field has a type that has no form in JSON.
    """
    return _written(record, within, False, without)


def from_json[R](
    kind: type[R],
    value: Mapping[str, Any],
    *,
    within: Path | None = None,
    known: Known | None = None,
    **given: Any,
) -> R:
    """Build a record from an object that :func:`graphcut.record_schema.require` has checked.

    Args:
        kind: of the record.
        value: the object. Where a key is missing, the field has its default.
        within: the folder to which paths are relative.
        known: type -> value of the naming field -> record, for fields that are written as one of their fields.
        **given: fields that are not in the object.

    Raises:
        KeyError, TypeError, ValueError: the object is of another kind.
    """
    return _read(kind, value, _Context(within, known or {}), given)


@dataclass(frozen=True, slots=True)
class _Context:
    """What reading needs beyond the object."""

    within: Path | None
    known: Known
    by_name: bool = False


def _written(record: Any, within: Path | None, by_name: bool, without: Collection[str] = ()) -> Json:
    document: Json = {}
    kind: Any = type(record)
    for entry in entries(kind, by_name):
        value = getattr(record, entry.name)
        if FLAT in entry.marks:
            document |= {} if value is None else _written(value, within, False, without)
        elif entry.key not in without and not (value is None and OPTIONAL in entry.marks):
            write = _writer(entry.base, entry.marks, by_name)
            document[entry.key] = value if write is None else write(value, within)
    return document


Writer = Callable[[Any, Path | None], Any]


@cache
def _writer(base: Any, marks: tuple[Any, ...], by_name: bool) -> Writer | None:
    """What makes JSON of a value of this type; None where it is JSON as it is."""
    for mark in marks:
        if mark is DECIBELS:
            return lambda value, _: decibels(value)
        if isinstance(mark, Digits):
            return lambda value, _: round(value, mark.places)
        if isinstance(mark, By):
            return lambda value, _: getattr(value, mark.field)
    shape, inner = structure(base)
    if shape == "plain":
        return None
    if shape == "path":
        return lambda value, within: value.relative_to(within).as_posix()
    if shape in ("record", "union"):
        left_out = next((mark.keys for mark in marks if isinstance(mark, Without)), ())
        return lambda value, within: _written(value, within, by_name, left_out)
    parts = [_writer(*marked(each, by_name), by_name) for each in inner]
    if shape == "row":
        return lambda values, within: [
            each if write is None else write(each, within) for write, each in zip(parts, values, strict=True)
        ]
    (part,) = parts
    if shape == "optional":
        return None if part is None else lambda value, within: None if value is None else part(value, within)
    if shape == "array":
        return lambda values, within: [*values] if part is None else [part(each, within) for each in values]
    return lambda values, within: {key: each if part is None else part(each, within) for key, each in values.items()}


def _read[R](kind: type[R], value: Mapping[str, Any], context: _Context, given: Mapping[str, Any]) -> R:
    arguments, described = dict(given), cast(Any, kind)
    for entry in entries(described, context.by_name):
        if entry.is_derived or entry.name in given:
            continue
        if FLAT in entry.marks:
            inner: Any = flat_kind(entry)
            if inner is entry.base or all(each.key in value for each in entries(inner, False)):
                arguments[entry.name] = _read(inner, value, context, {})
        elif entry.key in value or entry.default is MISSING:
            arguments[entry.name] = _reader(entry.base, entry.marks, context.by_name)(value[entry.key], context)
    return kind(**arguments)


Reader = Callable[[Any, _Context], Any]


@cache
def _reader(base: Any, marks: tuple[Any, ...], by_name: bool) -> Reader:
    """What makes a value of this type of JSON."""
    for mark in marks:
        if mark is DECIBELS:
            return lambda value, _: from_decibels(value)
        if isinstance(mark, By):
            return lambda value, context: context.known[base][value]
    shape, inner = structure(base)
    if shape == "plain":
        return (lambda value, _: float(value)) if base is float else (lambda value, _: value)
    if shape == "path":
        return lambda value, context: context.within / value
    if shape == "record":
        return lambda value, context: _read(base, value, context, {})
    if shape == "union":
        key, kinds = discriminated(inner, by_name)
        return lambda value, context: _read(kinds[value[key]], value, context, {})
    parts = [_reader(*marked(each, by_name), by_name) for each in inner]
    if shape == "row":
        return lambda values, context: tuple(read(each, context) for read, each in zip(parts, values, strict=True))
    (part,) = parts
    if shape == "optional":
        return lambda value, context: None if value is None else part(value, context)
    if shape == "array":
        made = get_origin(base)
        return lambda values, context: made(part(each, context) for each in values)
    return lambda values, context: {key: part(each, context) for key, each in values.items()}


def save(path: Path, record: DataclassInstance) -> None:
    """Write a record to a file, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    document = {"format": _format(type(record)), "version": VERSION, "record": _written(record, None, True)}
    files.rewrite(path, files.json_text(document))


def load[R](path: Path, kind: type[R]) -> R:
    """Read a record from a file.

    Raises:
        UsageError: the file does not exist, or contains something else.
    """
    what = kind.__name__.lower()
    way_out = f"pass a file that {kind.__name__}.save wrote"
    try:
        if not path.is_file():
            raise UsageError(f"there is no {what} at {path}", way_out)
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is too large for a {what}", way_out)
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("format") != _format(kind):
            raise UsageError(f"{path} does not contain a {what}", way_out)
        if document.get("version") != VERSION:
            raise UsageError(
                f"{path} has version {document.get('version')!r}; this version of graphcut reads {VERSION}", way_out
            )
        require_model(model_of(cast(Any, kind), by_name=True), document.get("record"))
        return _read(kind, document["record"], _Context(None, {}, by_name=True), {})
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as a {what} ({error})", way_out) from error


def _format(kind: type) -> str:
    return f"graphcut {kind.__name__}"
