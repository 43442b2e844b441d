"""What a record's JSON must look like (graphcut.codec): checked by pydantic, and published as a JSON Schema.

Types are strict: a number in quotes is not a number. Keys that no record knows are let through, except in a record's
own file.
"""

from __future__ import annotations

import json
from dataclasses import MISSING
from functools import cache, reduce
from operator import or_
from pathlib import PurePosixPath
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

from graphcut.record_types import (
    FLAT,
    INSIDE,
    OPTIONAL,
    AtMost,
    Between,
    By,
    Pattern,
    Without,
    as_markdown,
    discriminated,
    entries,
    first_paragraph,
    flat_kind,
    marked,
    structure,
    unwrapped,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = dict[str, Any]


def require(kind: type, value: Any) -> None:
    """Refuse an object that is not what :func:`to_json` writes of such a record.

    Raises:
        ValueError: one line that says where it differs.
    """
    require_model(model_of(kind), value)


def json_schema(kind: type) -> Json:
    """What :func:`require` checks, as a JSON Schema."""
    return model_of(kind).model_json_schema()


def require_model(model: type[BaseModel], value: Any) -> None:
    """Refuse an object that is not what a model of :func:`model_of` describes.

    Raises:
        ValueError: one line that says where it differs.
    """
    from pydantic import ValidationError

    try:
        model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(each) for each in first["loc"])[:100]
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error


@cache
def model_of(kind: type, by_name: bool = False, without: tuple[str, ...] = ()) -> type[BaseModel]:
    """What pydantic checks for a record."""
    from pydantic import ConfigDict, create_model

    extra: Literal["forbid", "allow"] = "forbid" if by_name else "allow"
    made: type[BaseModel] = create_model(
        kind.__name__,
        __config__=ConfigDict(extra=extra, strict=True, allow_inf_nan=False),
        __doc__=as_markdown(first_paragraph(kind)),
        **_model_fields(kind, by_name, without),
    )
    return made


def _model_fields(kind: type, by_name: bool, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Key -> type and what pydantic is told of it."""
    from pydantic import Field

    found: dict[str, Any] = {}
    for entry in entries(kind, by_name):
        if FLAT in entry.marks:
            kind = flat_kind(entry)
            for key, (hint, about) in _model_fields(kind, by_name, without).items():
                lacking = (hint, Field(default=None, description=about.description))
                found.setdefault(key, (hint, about) if kind is entry.base else lacking)
        elif entry.key not in without:
            missing = None if OPTIONAL in entry.marks else ...
            default = missing if entry.default is MISSING else entry.default
            about = Field(default=default, description=entry.text or None)
            found.setdefault(entry.key, (_checked(entry.base, entry.marks, by_name), about))
    return found


def _checked(base: Any, marks: tuple[Any, ...], by_name: bool) -> Any:
    """The type that pydantic checks for a value of this type."""
    from pydantic import AfterValidator, Field

    shape, inner = structure(base)
    named = next((mark.field for mark in marks if isinstance(mark, By)), None)
    if named is not None:
        return _checked(*unwrapped(get_type_hints(base, include_extras=True)[named]), by_name)
    left_out = next((mark.keys for mark in marks if isinstance(mark, Without)), ())
    parts = [_checked(*marked(each, by_name), by_name) for each in inner]
    made: Any = base
    if shape == "path":
        made = Annotated[str, AfterValidator(_inside)]
    elif shape == "record":
        made = model_of(base, by_name, left_out)
    elif shape == "union":
        made = Annotated[reduce(or_, parts), Field(discriminator=discriminated(inner, by_name)[0])]
    elif shape == "optional":
        made = parts[0] | None
    elif shape == "row":
        made = GenericAlias(tuple, tuple(parts))
    elif shape == "array":
        made = GenericAlias(list, parts[0])
    elif shape == "object":
        key, key_marks = marked(get_args(base)[0], by_name)
        made = GenericAlias(dict, (_checked(key, key_marks, by_name), parts[0]))
    for mark in marks:
        if isinstance(mark, Between):
            made = Annotated[made, Field(ge=mark.low, lt=mark.below)]
        elif isinstance(mark, AtMost):
            made = Annotated[made, Field(min_length=mark.least, max_length=mark.most)]
        elif isinstance(mark, Pattern):
            made = Annotated[made, Field(pattern=mark.regex)]
        elif mark is INSIDE:
            made = Annotated[made, AfterValidator(_inside)]
    return made


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise ValueError("a path must be relative and stay inside the folder")
    return name
