"""Records as JSON files, and back: one codec for every record, checked against its type hints.

1. A file holds one JSON object: ``{"format": "graphcut Plan", "version": 1, "record": {..}}``.
2. Reading accepts what the record's type hints accept and nothing else; an error says where the file differs.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcut import files
from graphcut.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION = 1
MOST_BYTES = 256 * 2**20
"""A longer file is no record: a plan of 100,000 nodes has a tenth of that."""


def to_json(record: DataclassInstance) -> dict[str, Any]:
    """Return a record as JSON values: fields by name, tuples as lists."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(record), allow_nan=False))
    return plain


def from_json[R](kind: type[R], value: Any) -> R:
    """Build a record from JSON values.

    Raises:
        ValueError: a field is missing, unknown or of another type; one line that says where.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(each) for each in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error


def save(path: Path, record: DataclassInstance) -> None:
    """Write a record to a file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    document = {"format": _format(type(record)), "version": VERSION, "record": to_json(record)}
    files.rewrite(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def load[R](path: Path, kind: type[R]) -> R:
    """Read a record from a file.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    what = kind.__name__.lower()
    way_out = f"give a file that {kind.__name__}.save wrote"
    try:
        if not path.is_file():
            raise UsageError(f"there is no {what} at {path}", way_out)
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"{path} is too large for a {what}", way_out)
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("format") != _format(kind):
            raise UsageError(f"{path} holds no {what}", way_out)
        if document.get("version") != VERSION:
            raise UsageError(f"{path} has version {document.get('version')!r}, this graphcut reads {VERSION}", way_out)
        return from_json(kind, document.get("record"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as a {what} ({error})", way_out) from error


def _format(kind: type) -> str:
    return f"graphcut {kind.__name__}"
