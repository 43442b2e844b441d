"""What a record's type hints say about its form in JSON (graphcut.codec): marks, keys, and what explains them.

1. A mark stands with the type: ``Annotated[int, Between(0, 2**31)]``.
2. JSON has no infinity: a dB value that is not finite is written as 1000 (no noise at all) or -1000 (no signal), which
   no measurement in float32 reaches.
3. What explains a key is the docstring of its record (section "Attributes") or property.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, reduce
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

BEYOND_DB = 1000.0


@dataclass(frozen=True, slots=True)
class Key:
    """The value stands under another key than the field's name."""

    name: str


@dataclass(frozen=True, slots=True)
class By:
    """A record is written as the value of one of its fields, and found by that when it is read."""

    field: str


@dataclass(frozen=True, slots=True)
class Without:
    """Keys of a record that are left out here, because they stand elsewhere."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """A number is at least ``low`` and below ``below``; None for no end."""

    low: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True)
class AtMost:
    """An array has at least ``least`` and at most ``most`` entries."""

    most: int | None = None
    least: int = 0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A string matches a regular expression."""

    regex: str


@dataclass(frozen=True, slots=True)
class Digits:
    """A float is written with so many decimal places."""

    places: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark that needs no value."""

    name: str


DECIBELS = Mark("decibels")
"""A float is a ratio in dB (2)."""

FLAT = Mark("flat")
"""The keys of a record stand among those of the one that holds it; where it is None, none of them."""

INSIDE = Mark("inside")
"""A string is a relative path that stays inside the folder."""

OPTIONAL = Mark("optional")
"""The key is absent where the value is None."""

OMITTED = Mark("omitted")
"""The field is not written."""


def derived[F: Callable[..., Any]](key: str) -> Callable[[F], F]:
    """Mark the function of a property: its value is written under ``key``, and not read."""

    def marked(function: F) -> F:
        function.__dict__["json_key"] = key
        return function

    return marked


def decibels(value: float) -> float:
    """Write a dB value within JSON's reach (2), to a thousandth.

    Raises:
        ValueError: it is not a number.
    """
    if math.isnan(value):
        raise ValueError("a ratio in dB is not a number: its signal was not measured")
    return round(max(-BEYOND_DB, min(BEYOND_DB, value)), 3)


def from_decibels(value: float) -> float:
    """Read what :func:`decibels` wrote."""
    return math.copysign(math.inf, value) if abs(value) >= BEYOND_DB else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A field or derived property: its name, its key, its type and marks, what explains it, its default."""

    name: str
    key: str
    base: Any
    marks: tuple[Any, ...]
    text: str
    default: Any
    is_derived: bool = False


@cache
def entries(kind: type, by_name: bool) -> tuple[Entry, ...]:
    """What is written of a record, in order: fields, then derived properties."""
    hints, texts = get_type_hints(kind, include_extras=True), _texts(kind)
    found = []
    for field in fields(kind):
        base, marks = unwrapped(hints[field.name])
        key = next((mark.name for mark in marks if isinstance(mark, Key)), field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if by_name:
            found.append(Entry(name=field.name, key=field.name, base=base, marks=(), text="", default=default))
        elif OMITTED not in marks:
            text = texts.get(field.name, "")
            found.append(Entry(name=field.name, key=key, base=base, marks=marks, text=text, default=default))
    members = {name: each for base in reversed(kind.__mro__) for name, each in vars(base).items()}
    for name, each in members.items():
        derived_key = getattr(each.fget, "json_key", None) if isinstance(each, property) else None
        if derived_key is not None and not by_name:
            base, marks = unwrapped(get_type_hints(each.fget, include_extras=True)["return"])
            text = as_markdown(first_paragraph(each))
            text = text[:1].lower() + text[1:]
            found.append(
                Entry(name=name, key=derived_key, base=base, marks=marks, text=text, default=MISSING, is_derived=True)
            )
    return tuple(found)


def flat_kind(entry: Entry) -> Any:
    """The record whose keys stand among others; where the field may be None, they all may be missing."""
    kind, inner = structure(entry.base)
    return inner[0] if kind == "optional" else entry.base


def unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its marks, and these."""
    if get_origin(hint) is Annotated:
        base, *marks = get_args(hint)
        return base, tuple(marks)
    return hint, ()


Structure = Literal["plain", "path", "record", "union", "optional", "array", "row", "object"]


def structure(base: Any) -> tuple[Structure, tuple[Any, ...]]:
    """How a type stands in JSON, and the types inside.

    Raises:
        TypeError: it has no form in JSON.
    """
    origin, inner = get_origin(base), get_args(base)
    if base in (str, int, float, bool, NoneType, Any) or origin is Literal:
        return "plain", ()
    if base is Path:
        return "path", ()
    if is_dataclass(base):
        return "record", ()
    if origin in (Union, UnionType):
        others = tuple(each for each in inner if each is not NoneType)
        if len(others) < len(inner):
            return "optional", (reduce(or_, others),)
        if all(map(is_dataclass, inner)):
            return "union", inner
    if origin is tuple and inner[1:] != (...,):
        return "row", inner
    if origin in (tuple, list, frozenset):
        return "array", inner[:1]
    if origin is not None and issubclass(origin, Mapping) and unwrapped(inner[0])[0] is str:
        return "object", inner[1:]
    raise TypeError(f"{base} has no form in JSON")


def discriminated(kinds: tuple[Any, ...], by_name: bool) -> tuple[str, Mapping[Any, type]]:
    """The key whose Literal tells the records of a union apart, and its value -> record.

    Raises:
        TypeError: they have no such key in common.
    """
    literals = [
        {each.key: get_args(each.base) for each in entries(kind, by_name) if get_origin(each.base) is Literal}
        for kind in kinds
    ]
    for key in literals[0]:
        if all(key in each for each in literals):
            found = {value: kind for kind, each in zip(kinds, literals, strict=True) for value in each[key]}
            if len(found) == sum(len(each[key]) for each in literals):
                return key, found
    raise TypeError(f"no Literal tells {' | '.join(kind.__name__ for kind in kinds)} apart")


def marked(hint: Any, by_name: bool) -> tuple[Any, tuple[Any, ...]]:
    """A type inside another and its marks, which have no effect where fields have their own names."""
    base, marks = unwrapped(hint)
    return base, () if by_name else marks


_ATTRIBUTE = re.compile(r"    (\w+(?:, \w+)*): ")


def _texts(kind: type) -> dict[str, str]:
    """What the section "Attributes" of a docstring says of every field, as Markdown."""
    section = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        start = _ATTRIBUTE.match(line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, "")
        for name in names:
            found[name] += f" {line[start.end() :] if start else line.strip()}"
    return {name: as_markdown(text) for name, text in found.items()}


def first_paragraph(described: Any) -> str:
    """What a docstring says first."""
    return (inspect.getdoc(described) or "").partition("\n\n")[0]


def as_markdown(text: str) -> str:
    """A docstring's text in one line: single backticks, JSON's null, no modules of this package, no full stop."""
    text = re.sub(r"\s+\(graphcut\.[\w.]+\)", "", text)
    text = re.sub(r"\bNone\b", "null", text)
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")
    return " ".join(text.split()).removesuffix(".")
