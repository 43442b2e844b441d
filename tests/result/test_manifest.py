"""What is written about a split: complete, the same every time, read back as the same records."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphcut import codec, record_types
from graphcut.errors import UsageError, VerificationError
from graphcut.planning.compare import TradeOff
from graphcut.planning.plan_options import PlanOptions, PlanRequest
from graphcut.records import Preprocessing
from graphcut.report import note, tables
from graphcut.result import layout, manifest
from graphcut.result.manifest_schema import LoadEntry, OptionsEntry
from tests.support import made_split
from tests.support.made_split import Made
from tools import manifest_tables


def write_split(folder: Path, k: int = 3, **options: Any) -> Made:
    folder.mkdir(parents=True, exist_ok=True)
    made = made_split.make(folder, k, **options)
    layout.lay_out(folder, made.segments, made.tails)
    layout.write_samples(folder, made.samples)
    document = manifest.build(
        folder,
        source=made.source,
        inputs=made.inputs,
        nhwc_outputs=(f"t{k}:0",),
        load=LoadEntry(notes=("batch fixed to 1",), passes=made.passes),
        plan=made.plan,
        cost=made.cost,
        segments=made.segments,
        tails=made.tails,
        samples=made.samples,
        verification=made.verification,
        options=OptionsEntry(
            request=PlanRequest(plan=PlanOptions(budget_bytes=7 * 2**20)),
            preprocessing=Preprocessing(mean=(1.0,), std=(2.0,), colour="bgr"),
        ),
        trade_off=TradeOff(),
    )
    (folder / "meta.json").write_text(json.dumps(document, allow_nan=False))
    note.write(folder)
    return made


@pytest.mark.parametrize("k", [1, 2, 4])
def test_records_come_back(tmp_path: Path, k: int) -> None:
    made = write_split(tmp_path, k)
    read = manifest.read(tmp_path)
    assert read.source == made.source
    assert read.inputs == made.inputs
    assert read.nhwc_outputs == (f"t{k}:0",)
    assert read.segments == tuple(replace(part, seconds=0.0) for part in made.segments)
    assert read.plan == replace(made.plan, segments=tuple(part.segment for part in made.segments))
    placed = [layout.tail_tflite(tmp_path, tail.first, tail.last) for tail in made.tails]
    assert read.tails == tuple(replace(t, tflite_path=path) for t, path in zip(made.tails, placed, strict=True))
    assert read.verification == made.verification
    assert read.preprocessing is not None
    assert read.preprocessing.colour == "bgr"
    samples = manifest.read_samples(read)
    assert samples.names == made.samples.names
    assert samples.sha256 == made.samples.sha256
    assert samples.arrays["t0:0"].tobytes() == made.samples.arrays["t0:0"].tobytes()
    manifest.check_files(read)


def test_same_split_same_bytes_and_no_paths(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_split(tmp_path / name)
    for name in ("meta.json", "note.txt", "samples.npz"):
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert str(tmp_path).encode() not in content
    document = json.loads((tmp_path / "a" / "meta.json").read_text())
    assert not any(value.startswith("/") for value in strings(document))


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for key, each in value.items() for found in [key, *strings(each)]]
    if isinstance(value, list):
        return [found for each in value for found in strings(each)]
    return [value] if isinstance(value, str) else []


def test_keys_that_scripts_rely_on(tmp_path: Path) -> None:
    made = write_split(tmp_path)
    document = json.loads((tmp_path / "meta.json").read_text())
    assert document["schema_version"] == 1
    assert document["cuts"] == ["block1_out", "block2_out"]
    verification = document["verification"]
    assert {"passed", "exact", "samples", "synthetic_calibration", "sqnr_db", "top1_agreement"} <= set(verification)
    assert verification["sqnr_db"]["logits"] == 25.25
    shown = codec.to_json(made.plan)
    assert {"k", "lower_bound", "cuts", "segments"} <= set(shown)
    for index, segment in enumerate(shown["segments"], start=1):
        assert segment["index"] == index
        assert segment["inputs"] == [f"block{index - 1}_out"]
        assert segment["outputs"] == [f"block{index}_out"]
        assert segment["tflite_bytes"] > segment["weight_bytes"] > 0
    assert document["segments"][0]["predicted_tflite_bytes"] == document["segments"][0]["tflite_bytes"] + 1
    assert document["seams"][0] == {
        "layer": "block1_out",
        "tensor": "t1:0",
        "shape": [1, 4, 4, 8],
        "dtype": "int8",
        "scale": 0.1 / 3,
        "zero_point": -7,
        "int8_bytes": 128,
    }


def test_every_key_is_documented(tmp_path: Path) -> None:
    write_split(tmp_path)
    document = json.loads((tmp_path / "meta.json").read_text())
    text = manifest_tables.PAGE.read_text()
    documented = set(re.findall(r"`([a-z0-9_]+)`", text))
    assert keys_of(document) - documented == set()
    assert text == manifest_tables.page_text(text), "run python -m tools.manifest_tables"
    assert manifest_tables.SCHEMA.read_text() == manifest_tables.schema_text(), "run python -m tools.manifest_tables"


def keys_of(value: Any, inside: str = "") -> set[str]:
    """Keys of the schema: not the names of layers, files, tools and options that serve as keys."""
    if isinstance(value, list):
        return {found for each in value for found in keys_of(each, inside)}
    if not isinstance(value, dict):
        return set()
    free = inside in {"sqnr_db", "worst_sample", "files", "tools"}
    own = set() if free else set(value)
    return own | {found for key, each in value.items() for found in keys_of(each, key)}


def test_segments_that_disagree_about_a_seam_are_refused(tmp_path: Path) -> None:
    made = made_split.make(tmp_path, 2)
    other = replace(made.segments[1], inputs=(replace(made.segments[1].inputs[0], zero_point=3),))
    with pytest.raises(ValueError, match="block1_out of segment 2 differs"):
        manifest._edges([made.segments[0], other])


def test_changed_and_missing_files_are_named(tmp_path: Path) -> None:
    write_split(tmp_path)
    read = manifest.read(tmp_path)
    victim = tmp_path / "segments" / "seg2.onnx"
    content = bytearray(victim.read_bytes())
    content[7] ^= 1
    victim.write_bytes(content)
    with pytest.raises(VerificationError, match=r"segments/seg2\.onnx has changed"):
        manifest.check_files(read)
    victim.unlink()
    (tmp_path / "samples.npz").unlink()
    with pytest.raises(VerificationError, match=r"samples\.npz is missing, segments/seg2\.onnx is missing"):
        manifest.check_files(read)
    with pytest.raises(VerificationError, match="no samples to verify with"):
        manifest.read_samples(read)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "has no meta.json: pass the folder that graphcut split wrote"),
        ("{", "cannot be read"),
        ("[]", "is not a manifest of graphcut"),
        ('{"name": "something else"}', "is not a manifest of graphcut"),
        ('{"schema_version": true}', "is not a manifest of graphcut"),
        ('{"schema_version": 2}', r"has schema 2; this version of graphcut reads up to 1: install a newer graphcut"),
        ('{"schema_version": 1}', "is damaged"),
        ('{"schema_version": 1, "inputs": 7, "options": {}}', "is damaged"),
    ],
)
def test_folders_that_are_no_result(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "meta.json").write_text(content)
    with pytest.raises(UsageError, match=told) as caught:
        manifest.read(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="there is no folder"):
        manifest.read(tmp_path / "missing")


def test_decibels_stay_within_json() -> None:
    for value in (float("inf"), float("-inf"), 23.25, 0.0, -3.5):
        written = json.loads(json.dumps(record_types.decibels(value), allow_nan=False))
        assert record_types.from_decibels(written) == value
    with pytest.raises(ValueError, match="not a number"):
        record_types.decibels(float("nan"))


def test_note_says_what_counts(tmp_path: Path) -> None:
    made = write_split(tmp_path, 3, synthetic=True, passed=False)
    text = (tmp_path / "note.txt").read_text()
    assert text.startswith("toy.onnx in 3 int8 segments")
    assert text.count(tables.SYNTHETIC) == 2
    assert "FAILED on 2 samples" in text
    assert "! logits are constant" in text
    assert "segment 1: 2 dead channels cured" in text
    assert "cut at: block1_out, block2_out" in text
    assert made.samples.sha256 in text
    assert max(map(len, text.splitlines())) <= 130


def test_real_data_is_not_called_synthetic(tmp_path: Path) -> None:
    write_split(tmp_path, 2)
    text = (tmp_path / "note.txt").read_text()
    assert "SYNTHETIC" not in text
    assert "PASSED on 2 calibration samples" in text
    assert "top-1 as in float: 1 of 2" in text


def test_table_lines_up() -> None:
    text = str(tables.table(("name", "bytes"), [("a", "1"), ("longer", "12345")], right=("bytes",)))
    assert text.splitlines() == ["name    bytes", "------  -----", "a           1", "longer  12345"]


def test_plan_says_how_near_to_the_least(tmp_path: Path) -> None:
    made = made_split.make(tmp_path, 3)
    assert "K = 3 (greedy), budget 2.0 KiB: the fewest possible with these cuts" in tables.plan_lines(made.plan)
    more = replace(made.plan, minimal_k=2)
    assert "2 would be possible; no plan at all has fewer than 2" in tables.plan_lines(more)
