"""meta.json is not trusted: types, paths and shapes are checked before anything in it is used."""

from __future__ import annotations

import copy
import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from graphcut.errors import UsageError, VerificationError
from graphcut.result import manifest, manifest_schema
from tests.result.test_manifest import write_split


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    write_split(folder)
    return folder


def changed(document: Any, path: str, value: Any) -> Any:
    """A copy of a document with another value at a dotted path; ``...`` takes the key away."""
    document = copy.deepcopy(document)
    *parents, last = [int(word) if word.isdecimal() else word for word in path.split("/")]
    holder = document
    for word in parents:
        holder = holder[word]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("segments", {}),
        ("segments", []),
        ("segments/0/index", "1"),
        ("segments/0/index", 2),
        ("segments/0/tflite", "/etc/passwd"),
        ("segments/0/onnx", "../../secret.onnx"),
        ("segments/0/tflite", "full_split/../../x"),
        ("segments/0/notes", "text"),
        ("inputs/0/shape", [1, -3, 4, 4]),
        ("inputs/0/shape", [2**40]),
        ("inputs/0/int8", None),
        ("inputs/0/int8/tensor", "/etc/passwd"),
        ("outputs/0/scale", float("nan")),
        ("files", []),
        ("files", {"../x": {"bytes": 1, "sha256": "0" * 64}}),
        ("files", {"x": {"bytes": -1, "sha256": "0" * 64}}),
        ("files", {"x": {"bytes": 1, "sha256": "zz"}}),
        ("plan", 3),
        ("plan/candidates", "none"),
        ("verification/sqnr_db", [1]),
        ("calibration/names", 4),
        ("options", None),
        ("source", "here"),
        ("edgetpu", {"compiler": "x", "compiler_version": "1", "clean": True, "parts": {"a": {"status": "lost"}}}),
        ("tails", ...),
    ],
)
def test_a_damaged_manifest_is_one_line(made: Path, tmp_path: Path, path: str, value: Any) -> None:
    document = json.loads((made / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(changed(document, path, value)))
    with pytest.raises(UsageError, match="meta\\.json is damaged") as caught:
        manifest.read(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_document_of_a_split_has_the_published_form(made: Path) -> None:
    manifest_schema.require_valid(json.loads((made / "meta.json").read_text()))
    published = manifest_schema.json_schema()
    assert published["required"] == [
        each.name
        for each in fields(manifest_schema.ManifestDocument)
        if each.default is MISSING and each.default_factory is MISSING
    ]


def test_the_published_form_explains_every_key(made: Path) -> None:
    published = manifest_schema.json_schema()
    objects = {"ManifestDocument": published, **published["$defs"]}
    bare = [
        f"{name}.{key}"
        for name, each in objects.items()
        for key, said in each["properties"].items()
        if not said.get("description")
    ]
    assert bare == []
    document = json.loads((made / "meta.json").read_text())
    for name, each in (
        ("Plan", document["plan"]),
        ("Candidate", document["plan"]["candidates"][0]),
        ("SegmentEntry", document["segments"][0]),
        ("Verification", document["verification"]),
        ("OutputEntry", document["outputs"][0]),
        ("DataEntry", document["calibration"]),
    ):
        assert set(each) == set(objects[name]["properties"]), name


def test_what_0_1_0_wrote_is_read(made: Path, tmp_path: Path) -> None:
    document = json.loads((made / "meta.json").read_text())
    for path in ("verification/verdict", "plan/candidates/0/tensors", "plan/candidates/0/layers", "plan/places"):
        document = changed(document, path, ...)
    (tmp_path / "meta.json").write_text(json.dumps(document))
    old, new = manifest.read(tmp_path), manifest.read(made)
    assert (old.verification, old.plan) == (new.verification, new.plan)


def test_a_link_out_of_the_folder_is_not_followed(made: Path, tmp_path: Path) -> None:
    opened = manifest.read(made)
    name = next(iter(opened.document["files"]))
    kept = (made / name).read_bytes()
    (tmp_path / "elsewhere").write_bytes(kept)
    (made / name).unlink()
    (made / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerificationError, match="a link to a path outside the folder"):
        manifest.check_files(opened)
