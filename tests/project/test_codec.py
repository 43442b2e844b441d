"""Records as JSON and back, with the checks and the schema that follow from their type hints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcut import codec, record_schema
from graphcut.errors import UsageError
from graphcut.record_types import (
    DECIBELS,
    FLAT,
    INSIDE,
    OMITTED,
    OPTIONAL,
    AtMost,
    Between,
    By,
    Digits,
    Key,
    Pattern,
    Without,
    derived,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part.

    Attributes:
        name: what it is called
            on two lines.
        size: bytes, or None (graphcut.records).
    """

    name: str
    size: Annotated[Annotated[int, Between(0, 100)] | None, Key("bytes")] = None

    @property
    @derived("twice")
    def doubled(self) -> int:
        """Two times ``size``."""
        return 2 * (self.size or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tint:
    """A colour."""

    red: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A shape."""

    shape: Literal["circle"]
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Angular:
    """Another shape."""

    shape: Literal["square", "rectangle"]
    sides: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything:
    """A record with every kind of field."""

    own: Annotated[Part, FLAT]
    parts: tuple[Part, ...]
    chosen: tuple[Annotated[Part, By("name")], ...]
    path: Annotated[Path, Key("file")]
    kind: Literal["a", "b"]
    pair: tuple[int, float]
    scores: Mapping[str, Annotated[float, DECIBELS]]
    names: Annotated[tuple[str, ...], AtMost(3)] = ()
    seconds: Annotated[float, Digits(2)] = 0.0
    secret: Annotated[str, OMITTED] = ""
    tint: Annotated[Tint | None, FLAT] = None
    hashed: Annotated[str, Pattern("^[0-9a-f]+$")] = "0"
    beside: Mapping[Annotated[str, INSIDE], int] = field(default_factory=dict)
    bare: Annotated[Part, Without(("twice",))] = field(default_factory=lambda: Part(name="bare"))
    shapes: Mapping[str, Round | Angular] = field(default_factory=dict)
    last: Annotated[Round | Angular | None, OPTIONAL] = None


parts = st.builds(Part, name=st.text(max_size=3), size=st.none() | st.integers(0, 99))
shapes = st.builds(Round, shape=st.just("circle"), radius=st.floats(0, 1)) | st.builds(
    Angular, shape=st.sampled_from(["square", "rectangle"]), sides=st.just((1.0, 2.5))
)
records = st.builds(
    Everything,
    own=parts,
    parts=st.lists(parts, max_size=3).map(tuple),
    chosen=st.just((Part(name="known"),)),
    path=st.just(Path("/folder/inner/x.tflite")),
    kind=st.sampled_from(["a", "b"]),
    pair=st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    scores=st.dictionaries(st.text(max_size=3), st.sampled_from([math.inf, -math.inf, 12.5, -0.125])),
    names=st.lists(st.text(max_size=3), max_size=3).map(tuple),
    seconds=st.sampled_from([0.0, 1.25]),
    tint=st.none() | st.builds(Tint, red=st.integers()),
    bare=parts,
    shapes=st.dictionaries(st.text(max_size=3), shapes, max_size=2),
    last=st.none() | shapes,
)


@given(records)
def test_a_record_comes_back(record: Everything) -> None:
    document = codec.to_json(record, within=Path("/folder"))
    document = json.loads(json.dumps(document, allow_nan=False))
    record_schema.require(Everything, document)
    known = {Part: {"known": Part(name="known")}}
    assert codec.from_json(Everything, document, within=Path("/folder"), known=known) == record
    assert set(document) <= set(record_schema.json_schema(Everything)["properties"])


def whole() -> dict[str, Any]:
    record = Everything(
        own=Part(name="own", size=4),
        parts=(Part(name="one"),),
        chosen=(Part(name="known"),),
        path=Path("/folder/x.tflite"),
        kind="a",
        pair=(1, 2.0),
        scores={"end": math.inf},
        seconds=1.23456,
        secret="hidden",
    )
    return codec.to_json(record, within=Path("/folder"))


def test_marks_say_what_differs() -> None:
    assert whole() == {
        "name": "own",
        "bytes": 4,
        "twice": 8,
        "parts": [{"name": "one", "bytes": None, "twice": 0}],
        "chosen": ["known"],
        "file": "x.tflite",
        "kind": "a",
        "pair": [1, 2.0],
        "scores": {"end": 1000.0},
        "names": [],
        "seconds": 1.23,
        "hashed": "0",
        "beside": {},
        "bare": {"name": "bare", "bytes": None},
        "shapes": {},
    }
    assert codec.to_json(Part(name="x"), without=("twice",)) == {"name": "x", "bytes": None}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("bytes", 100, "bytes"),
        ("bytes", "4", "bytes"),
        ("file", "../x", "stay inside"),
        ("kind", "c", "'a' or 'b'"),
        ("shapes", {"x": {"shape": "star"}}, "shapes.x"),
        ("shapes", {"x": {"shape": "circle"}}, "radius"),
        ("last", {"radius": 1.0}, "last"),
        ("pair", [1], "pair"),
        ("pair", [1, math.nan], "pair"),
        ("names", ["1", "2", "3", "4"], "names"),
        ("hashed", "xyz", "hashed"),
        ("beside", {"/etc": 1}, "stay inside"),
        ("parts", [{"bytes": 1}], "parts.0.name"),
        ("scores", {"end": "loud"}, "scores.end"),
    ],
)
def test_what_is_of_another_form_is_one_line(key: str, value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        record_schema.require(Everything, {**whole(), key: value})
    assert "\n" not in str(caught.value)


def test_unknown_keys_are_let_through_but_in_a_file() -> None:
    record_schema.require(Part, {"name": "x", "twice": 0, "new": 1})
    with pytest.raises(ValueError, match="new"):
        record_schema.require_model(record_schema.model_of(Part, by_name=True), {"name": "x", "new": 1})


def test_a_new_field_is_everywhere_at_once() -> None:
    longer = make_dataclass("Longer", [("colour", str, "red")], bases=(Part,), frozen=True, slots=True, kw_only=True)
    assert codec.to_json(longer(name="x"))["colour"] == "red"
    assert codec.from_json(longer, {"name": "x", "colour": "blue"}) == longer(name="x", colour="blue")
    assert record_schema.json_schema(longer)["properties"]["colour"]["default"] == "red"


def test_docstrings_explain_the_keys() -> None:
    properties = record_schema.json_schema(Part)["properties"]
    assert properties["name"]["description"] == "what it is called on two lines"
    assert properties["bytes"]["description"] == "bytes, or null"
    assert properties["twice"]["description"] == "two times `size`"


def test_a_file_keeps_every_field_under_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    codec.save(path, Part(name="x", size=7))
    assert json.loads(path.read_text())["record"] == {"name": "x", "size": 7}
    assert codec.load(path, Part) == Part(name="x", size=7)
    path.write_text(path.read_text().replace("7", '"7"'))
    with pytest.raises(UsageError, match="size"):
        codec.load(path, Part)


def test_a_type_without_a_form_is_refused() -> None:
    odd = make_dataclass("Odd", [("value", complex)])
    with pytest.raises(TypeError, match=r"no Literal tells Part \| Tint apart"):
        codec.from_json(make_dataclass("Unclear", [("value", Part | Tint)]), {"value": {"red": 1}})
    with pytest.raises(TypeError, match="no form in JSON"):
        codec.to_json(odd(1j))
