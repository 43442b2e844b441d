"""``meta.json``: everything about a split, for programs. docs/reference/manifest.md explains every key.

1. The schema has a version. A reader accepts its own version and refuses newer ones. A key may be added without a new
   version; removing a key or changing its meaning needs one.
2. No times, no process numbers, no absolute paths: the same input gives the same bytes.
3. ``files`` lists every relevant file with its size and sha256; :func:`check_files` compares them.
4. Tensors at the edges of segments are listed once, in ``inputs``, ``seams`` and ``outputs``: both sides of a seam
   share scale and zero point, and :func:`build` refuses segments that do not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcut import codec, files, numpy_files, staging
from graphcut.codec import Known
from graphcut.errors import UsageError, VerificationError
from graphcut.planning.compare import TradeOff
from graphcut.planning.plan_options import PlanRequest, SplitOptions
from graphcut.record_schema import Json
from graphcut.records import (
    Array,
    ConvertedSegment,
    ModelInput,
    Plan,
    Preprocessing,
    Samples,
    SeamTensor,
    Source,
    Tail,
    Verification,
)
from graphcut.regular_file import text_of
from graphcut.result import layout, manifest_schema
from graphcut.result.compiled_entries import Compilation
from graphcut.result.manifest_schema import (
    DataEntry,
    FileEntry,
    InputEntry,
    LoadEntry,
    ManifestDocument,
    OptionsEntry,
    OutputEntry,
    SeamEntry,
    SegmentEntry,
)
from graphcut.versions import graphcut_version, tool_versions

if TYPE_CHECKING:
    from graphcut.graph.model import Model
    from graphcut.prediction.segment_costs import PlanCost

SCHEMA_VERSION = 1
FLOAT_SEGMENTS = "onnx-segments"
"""``kind`` of a folder that holds float segments alone (:mod:`graphcut.result.onnx_segments`); a split has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A split as its folder describes it.

    Attributes:
        folder: where it lies; the paths in ``segments`` and ``tails`` are in it.
        graphcut_version, tools: what made it.
        source, inputs: the model.
        nhwc_outputs: tensor names of rank-4 outputs that are NHWC in the author's file.
        options: how it was asked for.
        preprocessing: from pixels to the model's input; None if unknown.
        plan: with measured sizes.
        segments: in order; ``seconds`` is 0.0, for times are not kept (statement 2).
        tails: the unsplit model first.
        verification: what was proved when it was made.
        compilation: what compiling for the Edge TPU came to; None where nobody compiled.
        document: the JSON document itself.
    """

    folder: Path
    graphcut_version: str
    tools: Mapping[str, str]
    source: Source
    inputs: tuple[ModelInput, ...]
    nhwc_outputs: tuple[str, ...]
    options: Mapping[str, Any]
    preprocessing: Preprocessing | None
    plan: Plan
    segments: tuple[ConvertedSegment, ...]
    tails: tuple[Tail, ...]
    verification: Verification
    compilation: Compilation | None
    document: Json


def write(
    folder: Path,
    model: Model,
    plan: Plan,
    cost: PlanCost | None,
    segments: Sequence[ConvertedSegment],
    tails: Sequence[Tail],
    samples: Samples,
    validation: Samples | None,
    verification: Verification,
    options: SplitOptions,
    trade_off: TradeOff,
) -> None:
    """Write ``meta.json`` into a folder that already has everything else.

    Args:
        folder: as :func:`graphcut.result.layout.lay_out` fills it.
        model: that was split.
        plan: with measured sizes.
        cost: what was predicted for its segments; None where nobody asked.
        segments, tails: as they were made; their files lie in the folder.
        samples: for calibration.
        validation: those that were kept out of it, where there are any.
        verification: of the result.
        options: how it was asked for.
        trade_off: other ways to cut.
    """
    if plan.certificate:
        (folder / layout.CERTIFICATE).write_text(f"{plan.certificate}\n", encoding="utf-8")
    document = build(
        folder,
        source=model.source,
        inputs=model.inputs,
        nhwc_outputs=model.nhwc_outputs,
        load=LoadEntry(notes=model.notes, passes=model.passes),
        plan=plan,
        cost=cost,
        segments=segments,
        tails=tails,
        samples=samples,
        validation=validation,
        verification=verification,
        options=OptionsEntry(
            request=requested(model, options),
            effort=options.effort,
            input_type=options.input_type,
            output_type=options.output_type,
            without=options.without,
            preprocessing=options.preprocessing,
            seed=options.seed,
        ),
        trade_off=trade_off,
    )
    (folder / staging.MANIFEST).write_text(files.json_text(document), encoding="utf-8")


def requested(model: Model, options: SplitOptions) -> PlanRequest:
    """How the plan of a split was asked for."""
    return PlanRequest(
        plan=options.plan,
        min_rank=options.min_rank,
        per_channel=options.per_channel,
        inputs=model.range_inputs or None,
        outputs=model.range_outputs or None,
        target=model.target,
    )


def build(
    folder: Path,
    *,
    source: Source,
    inputs: Sequence[ModelInput],
    nhwc_outputs: Sequence[str],
    load: LoadEntry,
    plan: Plan,
    cost: PlanCost | None = None,
    segments: Sequence[ConvertedSegment],
    tails: Sequence[Tail],
    samples: Samples,
    validation: Samples | None = None,
    verification: Verification,
    options: OptionsEntry,
    trade_off: TradeOff,
) -> Json:
    """Build the document; the files are those of ``folder`` as :func:`graphcut.result.layout.lay_out` puts them.

    Raises:
        ValueError: two segments disagree about a tensor at a seam (statement 4).
    """
    edges = _edges(segments)
    made = {tensor.layer for part in segments for tensor in part.outputs}
    read = {tensor.layer for part in segments for tensor in part.inputs}
    final = [tensor.layer for tensor in tails[0].outputs] if tails else sorted(made - read)
    parts, joined = layout.placed(folder, segments, tails)
    costs = cost.segments if cost is not None else (None,) * len(parts)
    document = ManifestDocument(
        schema_version=SCHEMA_VERSION,
        graphcut_version=graphcut_version(),
        tools=tool_versions(),
        source=source,
        load=load,
        options=options,
        calibration=DataEntry(data=samples, file=layout.SAMPLES),
        validation=None if validation is None else DataEntry(data=validation, file=layout.VALIDATION),
        inputs=tuple(
            InputEntry(declared=each, int8=edge)
            for each in inputs
            for edge in edges.values()
            if edge.tensor == each.name and edge.layer not in made
        ),
        outputs=tuple(OutputEntry(edge=edges[layer], nhwc=edges[layer].tensor in nhwc_outputs) for layer in final),
        cuts=plan.cuts,
        plan=plan,
        segments=tuple(SegmentEntry(made=part, cost=each) for part, each in zip(parts, costs, strict=True)),
        seams=tuple(
            SeamEntry(edge=edges[layer], int8_bytes=prod(edges[layer].shape))
            for layer in edges
            if layer in made and layer in read
        ),
        tails=joined,
        trade_off=trade_off,
        verification=verification,
        files=_files(folder),
    )
    return codec.to_json(document, within=folder)


def _edges(segments: Sequence[ConvertedSegment]) -> dict[str, SeamTensor]:
    """Every tensor at an edge of a segment by layer name, in order."""
    edges: dict[str, SeamTensor] = {}
    for part in segments:
        for tensor in (*part.inputs, *part.outputs):
            known = edges.setdefault(tensor.layer, tensor)
            if (known.scale, known.zero_point, known.shape) != (tensor.scale, tensor.zero_point, tensor.shape):
                raise ValueError(
                    f"{tensor.layer} of segment {part.segment.index} differs from the segment before: {tensor}"
                )
    return edges


def _relative(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _files(folder: Path) -> dict[str, FileEntry]:
    """Size and sha256 of every file of the layout by relative path; hard links are read once, several at a time."""
    stats = {path: path.stat() for path in sorted(_listed(folder), key=lambda path: _relative(folder, path))}
    once = {(stat.st_dev, stat.st_ino): path for path, stat in stats.items()}
    with ThreadPoolExecutor() as readers:
        hashes = dict(zip(once, readers.map(files.sha256_of, once.values()), strict=True))
    return {
        _relative(folder, path): FileEntry(bytes=stat.st_size, sha256=hashes[stat.st_dev, stat.st_ino])
        for path, stat in stats.items()
    }


def _listed(folder: Path) -> list[Path]:
    """Return the files of the layout that a hash protects: all but the manifest and the note made from it."""
    folders = [folder / name for name in ("full_split", "independent", "segments", "unsplit")]
    folders += sorted(folder.glob("pairs_k*"))
    inner = [path for each in folders for path in each.rglob("*") if path.is_file()]
    beside = [folder / name for name in (layout.SAMPLES, layout.VALIDATION, layout.CERTIFICATE, layout.JOB)]
    return [*inner, *(path for path in beside if path.is_file())]


def read(folder: str | Path) -> Manifest:
    """Read the manifest of a split.

    Raises:
        UsageError: the folder is not a result of graphcut, or its manifest is damaged or of a newer schema.
    """
    folder = Path(folder)
    document = read_document(folder)
    if "parts" in document:
        raise UsageError(f"{folder} is a bundle", "run it with its own run.py, or pass the folder that was bundled")
    if document.get("kind") == FLOAT_SEGMENTS:
        raise UsageError(f"{folder} holds float segments only", "split the model with `graphcut split`")
    try:
        manifest_schema.require_valid(_upgraded(document))
        return _read(folder, document)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is damaged ({error})"
        raise UsageError(f"{folder / staging.MANIFEST} {what}", "split the model again") from error


def check_files(manifest: Manifest) -> None:
    """Compare every file with its size and hash in the manifest.

    Raises:
        VerificationError: files are missing or differ; names the first ones.
    """
    wrong = []
    for name, entry in manifest.document["files"].items():
        path = manifest.folder / name
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(manifest.folder)):
            wrong.append(f"{name} is a link to a path outside the folder")
        elif not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != entry["bytes"] or files.sha256_of(path) != entry["sha256"]:
            wrong.append(f"{name} has changed")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise VerificationError(
            f"{manifest.folder} has changed since it was verified: {', '.join(wrong[:3])}{more}",
            "split the model again",
        )


def read_certificate(manifest: Manifest) -> Json | None:
    """Read the plan's certificate kept in the folder; None where the split has none.

    Raises:
        VerificationError: the file is missing or damaged.
    """
    if layout.CERTIFICATE not in manifest.document["files"]:
        return None
    path = manifest.folder / layout.CERTIFICATE
    try:
        document = json.loads(text_of(path))
    except (OSError, ValueError) as error:
        raise VerificationError(f"{path} cannot be read ({error})", "split the model again") from error
    return dict(document) if isinstance(document, dict) else {}


def read_samples(manifest: Manifest) -> Samples:
    """Read the calibration samples kept in the folder.

    Raises:
        VerificationError: the file is missing or damaged.
    """
    return _kept_samples(manifest, manifest.document["calibration"], layout.SAMPLES)


def read_validation(manifest: Manifest) -> Samples | None:
    """Read the samples that were excluded from calibration; None if there are none.

    Raises:
        VerificationError: the file is missing or damaged.
    """
    kept = manifest.document.get("validation")
    return None if kept is None else _kept_samples(manifest, kept, layout.VALIDATION)


def _kept_samples(manifest: Manifest, kept: Mapping[str, Any], name: str) -> Samples:
    path = manifest.folder / name
    try:
        wanted = [each.name for each in manifest.inputs]
        arrays: dict[str, Array] = dict(zip(wanted, numpy_files.members(path, wanted), strict=True))
        for each in manifest.inputs:
            found = arrays[each.name]
            if found.shape != (len(kept["names"]), *each.shape[1:]) or found.dtype != np.float32 or not len(found):
                raise numpy_files.BadArraysError(f"{each.name} is {found.dtype} {found.shape}")
    except numpy_files.BadArraysError as error:
        raise VerificationError(
            f"{path} cannot be read, so there are no samples to verify with", "pass samples, or split the model again"
        ) from error
    return Samples(
        arrays=arrays,
        names=tuple(kept["names"]),
        origin=kept["origin"],
        synthetic=kept["synthetic"],
        sha256=kept["sha256"],
    )


def read_document(folder: Path) -> Json:
    """Read ``meta.json`` as it was written, without looking at more than its version.

    Raises:
        UsageError: the folder has no manifest that this version of graphcut reads.
    """
    path = folder / staging.MANIFEST
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}",
            "pass the folder that graphcut split wrote",
        )
    try:
        document = json.loads(text_of(path))
    except FileNotFoundError as error:
        raise UsageError(f"{folder} has no {staging.MANIFEST}", "pass the folder that graphcut split wrote") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error})", "split the model again") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise UsageError(f"{path} is not a manifest of graphcut", "pass the folder that graphcut split wrote")
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema {version}; this version of graphcut reads up to {SCHEMA_VERSION}",
            "install a newer graphcut",
        )
    return dict(document)


def rewrite(folder: Path, document: Json) -> None:
    """Replace ``meta.json`` atomically.

    Raises:
        OutputError: it cannot be written; the old one stays.
    """
    files.rewrite(folder / staging.MANIFEST, files.json_text(document))


def _upgraded(document: Json) -> Json:
    """Add what graphcut 0.1.0 did not write."""
    proof, plan = document.get("verification"), document.get("plan")
    if isinstance(proof, dict) and "passed" in proof:
        proof.setdefault("verdict", "PASSED" if proof["passed"] else "FAILED")
    for each in plan.get("candidates", ()) if isinstance(plan, dict) else ():
        if isinstance(each, dict):
            each.setdefault("tensors", [each.get("tensor")])
            each.setdefault("layers", [each.get("layer")])
    return document


def _read(folder: Path, document: Json) -> Manifest:
    inputs, options = document["inputs"], document["options"]
    for each in inputs:
        if each["int8"]["tensor"] != each["name"]:
            raise ValueError(f"input {each['name']!r} has the int8 values of {each['int8']['tensor']!r}")
    edges = [each["int8"] for each in inputs] + document["seams"] + document["outputs"]
    known: Known = {SeamTensor: {each["layer"]: codec.from_json(SeamTensor, each) for each in edges}}
    segments = tuple(
        codec.from_json(ConvertedSegment, each, within=folder, known=known) for each in document["segments"]
    )
    said, compiled = options.get("preprocessing"), document.get("edgetpu")
    return Manifest(
        folder=folder,
        graphcut_version=document["graphcut_version"],
        tools=document["tools"],
        source=codec.from_json(Source, document["source"]),
        inputs=tuple(codec.from_json(ModelInput, each) for each in inputs),
        nhwc_outputs=tuple(each["tensor"] for each in document["outputs"] if each["nhwc"]),
        options=options,
        preprocessing=None if said is None else codec.from_json(Preprocessing, said),
        plan=codec.from_json(Plan, document["plan"], segments=tuple(part.segment for part in segments)),
        segments=segments,
        tails=tuple(codec.from_json(Tail, each, within=folder, known=known) for each in document["tails"]),
        verification=codec.from_json(Verification, document["verification"]),
        compilation=codec.from_json(Compilation, compiled) if compiled else None,
        document=document,
    )
